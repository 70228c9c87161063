package proxy_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// A client that resumes knows where it is even if that connection breaks before it has brought an event: official clients forget what
// they had asked for. It is told so in other words each time: the official Go client takes the same for a stream that goes nowhere, and
// gives up.
func TestAStreamThatIsResumedBeginsWithWhereItIs(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	messages := make(chan string, 10)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		answerWith(w, r, messages)
		return true
	})
	a, b := newFleet(t, u.url).nodes()
	token := a.openSession()
	own, call := listen(t, a, token), post(a.url, token, callBody).stream(t)
	k.say(news(1))
	send(messages, progress(1))
	own.wants(news(1))
	call.wants(progress(1))
	seen := map[string]bool{}
	for _, s := range []*stream{own, call} {
		s.drop()
		for _, at := range []*node{b, a, b} {
			again := s.resume(at.replica, token).stream(t)
			e := again.next()
			if !strings.HasPrefix(e.ID, s.last) || len(e.Data) > 0 {
				t.Errorf("after %s the stream begins with %+v", s.last, e)
			}
			if s == own && seen[e.ID] {
				t.Errorf("the stream begins a second time with %s", e.ID)
			}
			seen[e.ID] = true
			again.drop()
		}
	}
	k.say(news(2))
	own.resume(a.replica, token).stream(t).wants(news(2))
	send(messages, result)
	call.resume(b.replica, token).stream(t).wantsRest(result)
}

// What a client has missed comes at once, and the stream goes on: that it has not read all of it yet is no reason to cut it.
func TestAClientThatHasMissedMuchIsNotCut(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	s.drop()
	missed := make([]string, 60)
	for i := range missed {
		missed[i] = fmt.Sprintf(`{"jsonrpc":"2.0","method":"news","params":[%d,%q]}`, i, strings.Repeat("x", 15<<10))
	}
	k.say(missed...)
	f.stored(token, s, 1+len(missed))
	s = s.resume(b.replica, token).stream(t)
	s.wants(missed...)
	k.say(news(2))
	s.wants(news(2))
}

// Who listens is cut off when the store has been away for longer than it may be: the session may have ended. An answer that comes goes on;
// one that is resumed is not there, but not lost either.
func TestListenersAreCutOffWhenTheStoreIsAwayForLonger(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	calls := map[mcp.ID]chan string{"7": make(chan string, 10), "8": make(chan string, 10)}
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		answerWith(w, r, calls[got.msg.ID])
		return true
	})
	f := newFleet(t, u.url, func(c *cluster.Config) {
		c.OutageGrace, c.StoreTimeout = time.Second, 500*time.Millisecond
	})
	a, b := f.nodes()
	token := a.openSession()
	own, broken := listen(t, a, token), post(a.url, token, callBody).stream(t)
	broken.next()
	broken.drop()
	resumed := broken.resume(b.replica, token).stream(t)
	resumed.next()
	coming := post(a.url, token, strings.Replace(callBody, "7", "8", 1)).stream(t)
	coming.next()
	a.gate.shut()
	b.gate.shut()
	own.wantsRest()
	resumed.wantsRest()
	send(calls["8"], progress(1))
	coming.wants(progress(1))
	a.gate.open()
	b.gate.open()
	send(calls["8"], strings.Replace(result, "7", "8", 1))
	coming.wantsRest(strings.Replace(result, "7", "8", 1))
	send(calls["7"], result)
	resumed.resume(b.replica, token).stream(t).wantsRest(result)
}

// After the response nothing follows. Clients that come back for more all the same, as the official TypeScript one does after an
// error, are told not to.
func TestAfterTheResponseThereIsNoMore(t *testing.T) {
	t.Parallel()
	const failed = `{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"no such tool"}}`
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, text := range []string{progress(1), failed} {
			_, _ = w.Write([]byte("data: " + text + "\n\n"))
		}
		return true
	})
	f := newFleet(t, u.url)
	a, b := f.nodes()
	token, other := a.openSession(), a.openSession()
	s := post(a.url, token, callBody).stream(t)
	s.wantsRest(progress(1), failed)
	unknown := post(a.url, other, callBody).stream(t)
	unknown.rest()
	for _, at := range []*node{a, b} {
		for _, who := range []string{token, other} {
			got := s.resume(at.replica, who).send(t)
			if got.status != http.StatusNoContent || got.body != "" {
				t.Errorf("after the response: %d %s", got.status, got.body)
			}
		}
		if got := s.resume(at.replica, strings.Replace(token, ".", ".A", 1)[:len(token)]).send(t); got.status != http.StatusNotFound {
			t.Errorf("with a foreign token: %d", got.status)
		}
	}
}

// What a resumed stream is ended with instead of a response counts as one.
func TestAfterAnAnswerThatIsLostThereIsNoMore(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t)
	s := post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	a.kill()
	s = s.resume(b.replica, token).stream(t)
	wantsMayHaveRun(t, s.rest(), "7")
	if got := s.resume(b.replica, token).send(t); got.status != http.StatusNoContent {
		t.Errorf("after that: %d %s", got.status, got.body)
	}
}

// A client that listens waits for a store that is away for a moment; one that asks for something is told at once.
func TestListeningWaitsForTheStore(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"of a session that the replica knows", "of one that it does not know"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(news(1))
			s.wants(news(1))
			s.drop()
			if name == "of a session that the replica knows" {
				b = a
			}
			b.gate.shut()
			answered := make(chan *stream, 1)
			go func() { answered <- s.resume(b.replica, token).stream(t) }()
			eventually(t, "the store to be missed", func() bool {
				return post(b.url, "", initializeBody).send(t).status == http.StatusServiceUnavailable
			})
			if len(answered) > 0 {
				t.Fatal("the stream was opened without the store")
			}
			b.gate.open()
			k.say(news(2))
			receive(t, "the stream", answered).wants(news(2))
		})
	}
}

// A store that stays away keeps nobody who listens waiting for ever, but for longer than most failovers take.
func TestListeningWaitsForTheStoreForAWhileOnly(t *testing.T) {
	t.Parallel()
	_, a, _, token := listening(t, newTalker(t))
	a.gate.shut()
	begun := time.Now()
	got := get(a.url, token).send(t)
	if got.status != http.StatusServiceUnavailable || got.problem().Error.Data.Reason != "store_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("without a store: %d %v %s", got.status, got.header, got.body)
	}
	if took := time.Since(begun); took < 12*time.Second {
		t.Errorf("it was refused after %s", took)
	}
}

// A client whose reader died with what it could not store goes on with what it has not, whatever its upstream gives to who asks without an
// id, and whether or not the store knows of any event of the upstream session.
func TestAClientGoesOnWhoseReaderDiedBeforeItCouldStore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*talker){
		"with an upstream that has ids":                           withIDs,
		"with one that has ids, and else begins anew":             startsAnewWithIDs,
		"with one that has ids, and else goes on with what comes": startsNowWithIDs,
		"with one that has none":                                  func(*talker) {},
	} {
		for _, tt := range []struct {
			name      string
			isKnown   bool // the death, when the client comes back
			isStored  bool // the first message
			recovered bool // the upstream session, which the replica that the client comes back to has not heard of
		}{
			{"", true, true, false},
			{", before that is known", false, true, false},
			{", when nothing was stored", true, false, false},
			{", when nothing was stored, before that is known", false, false, false},
			{", when nothing was stored of a recovered session", true, false, true},
		} {
			t.Run(name+tt.name, func(t *testing.T) {
				t.Parallel()
				k := newTalker(t, change)
				f, a, b, token := listening(t, k)
				c := f.node()
				wantsAnswer(t, post(b.url, token, pingBody).send(t)) // b has a lease
				s := listen(t, a, token)
				if tt.recovered {
					k.forget()
					wantsAnswer(t, post(a.url, token, pingBody).send(t))
					eventually(t, "the new upstream session to be read", func() bool { now, _, _ := k.readers(); return now == 1 })
				}
				if tt.isStored {
					k.say(news(1))
					s.wants(news(1))
				}
				a.gate.shut()
				if !tt.isStored {
					k.say(news(1))
					s.wants(news(1))
				}
				k.say(newses(2, 4)...)
				s.wants(newses(2, 4)...)
				s.drop()
				back := make(chan *stream, 1)
				resume := func() { back <- s.resume(b.replica, token).stream(t) }
				if tt.isKnown {
					a.kill()
					if k.withIDs {
						k.say(news(5)) // nobody reads
					}
					resume()
				} else {
					go resume()
					eventually(t, "the client to be waited for", func() bool { return f.listeners(token) > 1 })
					a.kill()
				}
				s = receive(t, "the stream", back)
				if !tt.isKnown || !k.withIDs {
					eventually(t, "the upstream to be read again", func() bool { now, _, ever := k.readers(); return now == 1 && ever == 2 })
					k.say(news(5))
				}
				s.wants(news(5))
				s.drop()
				k.say(news(6))
				s = s.resume(c.replica, token).stream(t)
				s.wants(news(6))
				b.kill()
				k.say(news(7))
				s.wants(news(7))
			})
		}
	}
}

// A client whose stream goes on from where its new reader began knows that before there is any event: the next reader may die, too.
func TestAClientKnowsWhereItsNewReaderBegan(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	c := f.node()
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	a.gate.shut()
	k.say(newses(2, 4)...) // which are never stored
	s.wants(newses(2, 4)...)
	s.drop()
	a.kill()
	s = s.resume(b.replica, token).stream(t)
	if e := s.next(); len(e.Data) > 0 {
		t.Fatalf("the stream begins with %+v, want an id without data", e)
	}
	s.drop()
	k.say(newses(5, 6)...)
	eventually(t, "the events to be stored", func() bool { return f.own(token).Last == 3 })
	b.kill()
	k.say(news(7))
	s.resume(c.replica, token).stream(t).wants(newses(5, 7)...)
}

// Nobody can have a replica ask the upstream for an event that it was not sent.
func TestAnIDThatWasNotMadeHereIsUnknown(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	_, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(newses(1, 2)...)
	s.wants(newses(1, 2)...)
	s.drop()
	parts := strings.Split(s.last, ".")
	if len(parts) != 7 {
		t.Fatalf("the last id is %s, want one that names the upstream's", s.last)
	}
	a.kill()
	for name, forge := range map[string]func(id []string){
		"another event":            func(id []string) { id[5] = base64.RawURLEncoding.EncodeToString([]byte("9")) },
		"another position":         func(id []string) { id[2] = "9" },
		"another seal":             func(id []string) { id[6] = strings.Repeat("A", len(id[6])) },
		"a later upstream session": func(id []string) { id[2], id[4] = "9", "9" },
		"another claim, and event": func(id []string) { id[1], id[5] = "2", "OQ" },
	} {
		forged := slices.Clone(parts)
		forge(forged)
		got := get(b.url, token).with("Last-Event-ID", strings.Join(forged, ".")).send(t)
		if got.status != http.StatusGone {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for _, r := range k.requests() {
		if id := r.header.Get("Last-Event-ID"); id == "9" {
			t.Errorf("the upstream was asked for what follows its event %s", id)
		}
	}
	s = s.resume(b.replica, token).stream(t)
	k.say(news(3))
	s.wants(news(3))
}

// The header of a stream comes with the stream's first event: a client that had only the one could not go on.
func TestAStreamsHeaderComesWithItsFirstEvent(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	messages := make(chan string)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		answerWith(w, r, messages)
		return true
	})
	r := newFleet(t, u.url).node()
	token := r.openSession()
	for name, text := range map[string]string{
		"answer": "POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(callBody)),
		"own":    "GET /mcp HTTP/1.1",
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		text += "\r\nHost: " + conn.RemoteAddr().String() + "\r\nAccept: application/json, text/event-stream\r\nMcp-Session-Id: " + token + "\r\n\r\n"
		if name == "answer" {
			text += callBody
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 4096)
		n, err := conn.Read(first)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(first[:n]); !strings.Contains(got, "200 OK") || !strings.Contains(got, "\nid: ") {
			t.Errorf("%s: first came %q", name, got)
		}
		_ = conn.Close()
	}
}
