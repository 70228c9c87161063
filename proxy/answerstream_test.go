package proxy_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// answering starts two replicas in front of an upstream that answers calls with the messages it is given, and opens a session.
func answering(t *testing.T, change ...func(*proxy.Config)) (f *fleet, a, b *node, token string, messages chan string) {
	t.Helper()
	messages = make(chan string, 10_000)
	f = newFleet(t, streaming(t, messages).url)
	a, b = f.nodes(change...)
	token = a.openSession()
	return f, a, b, token, messages
}

func send(to chan<- string, messages ...string) {
	for _, m := range messages {
		to <- m
	}
}

// stored waits until that many events of a session's streams are stored.
func (f *fleet) stored(token string, s *stream, events int) {
	f.t.Helper()
	store := f.direct()
	defer func() { _ = store.Close() }()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		f.t.Fatal(err)
	}
	parts := strings.Split(s.last, ".")
	name := strings.Join(parts[:min(3, len(parts))], ".")
	if parts[0] == cluster.OwnStream {
		name = cluster.OwnStream
	}
	eventually(f.t, fmt.Sprint(events, " events to be stored"), func() bool {
		last := store.ReadEvents(f.t.Context(), []cluster.EventQuery{{ID: parsed.ID, Stream: name, After: int64(events) - 1, Limit: 1}})[0].Last
		if name == cluster.OwnStream {
			last = store.StreamStates(f.t.Context(), []cluster.ID{parsed.ID})[0].Last
		}
		return last >= int64(events)
	})
}

func TestABrokenAnswerGoesOnAtAnyReplica(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		had         int // messages that the client has when it breaks off
		before      int // messages that were sent until it comes back
		isStored    bool
		atTheSame   bool // it comes back to the replica it was at
		twice       bool // it breaks off again
		isUnnoticed bool // it comes back while the first connection still stands
	}{
		{name: "in the middle", had: 3, before: 3},
		{name: "at the same replica", had: 3, before: 3, atTheSame: true},
		{name: "before the first message", had: 0, before: 0},
		{name: "before the first message, which has come since", had: 0, before: 4},
		{name: "after the answer was complete", had: 2, before: 9},
		{name: "after it was stored", had: 3, before: 5, isStored: true},
		{name: "twice", had: 1, before: 5, twice: true},
		{name: "before anybody has noticed", had: 3, before: 3, isStored: true, isUnnoticed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, a, b, token, messages := answering(t, func(c *proxy.Config) {
				if tt.isStored {
					c.KeepAfter = time.Millisecond
				}
			})
			all := append(progresses(1, 8), result)
			first := post(a.url, token, callBody).stream(t)
			if e := first.next(); e.ID == "" || len(e.Data) > 0 {
				t.Fatalf("the stream begins with %+v, want an id without data", e)
			}
			send(messages, all[:tt.had]...)
			first.wants(all[:tt.had]...)
			if tt.isStored {
				f.stored(token, first, 1+tt.had)
			}
			if !tt.isUnnoticed {
				first.drop()
			}
			if tt.before == len(all) {
				f.stored(token, first, 1+tt.had) // the replica has noticed: what is complete before that is kept nowhere
			}
			send(messages, all[tt.had:tt.before]...)
			if tt.before == len(all) {
				f.stored(token, first, 1+tt.before+1)
			}
			back, at := b, tt.had
			if tt.atTheSame {
				back = a
			}
			second := first.resume(back.replica, token).stream(t)
			if tt.twice {
				second.wants(all[at])
				at++
				second.drop()
				second = second.resume(a.replica, token).stream(t)
			}
			send(messages, all[tt.before:]...)
			second.wantsRest(all[at:]...)
		})
	}
}

// Ids of an answer's events name its stream, so no two events of a session have the same.
func TestEventsHaveIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t)
	seen := map[string]bool{}
	for _, at := range []*node{a, b, a} {
		s := post(at.url, token, callBody).stream(t)
		send(messages, progress(1), result)
		for range 3 {
			e := s.next()
			if e.ID == "" || seen[e.ID] {
				t.Errorf("event %+v: want an id that no other has", e)
			}
			seen[e.ID] = true
		}
		s.wantsRest()
	}
}

// Clients of older revisions take every event for a message.
func TestOldClientsGetNoEventWithoutData(t *testing.T) {
	t.Parallel()
	for _, revision := range []string{"2025-03-26", "2025-06-18"} {
		k := newTalker(t, func(k *talker) {
			k.initAs = func(w http.ResponseWriter, _ recorded) bool {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, strings.Replace(initialized, "2025-11-25", revision, 1))
				return true
			}
		})
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
			if got.msg.Initializes {
				return k.handle(w, r, got)
			}
			if got.msg.Method != "tools/call" && got.method != http.MethodGet {
				return false
			}
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: "+result+"\n\n")
			return true
		})
		r := newFleet(t, u.url).replica()
		token := r.openSessionWith(strings.Replace(initializeBody, "2025-11-25", revision, 1))
		for _, q := range []request{post(r.url, token, callBody), get(r.url, token)} {
			s := q.stream(t)
			if e := s.next(); string(e.Data) != result || e.ID == "" {
				t.Errorf("%s in %s: the first event is %+v", q.method, revision, e)
			}
			s.drop()
		}
	}
}

// What a client does not take waits at its upstream, but for what the connections hold, and all of it comes in the end.
func TestASlowClientLosesNothing(t *testing.T) {
	t.Parallel()
	const count, size = 64, 256 << 10
	padding := strings.Repeat("x", size)
	message := func(n int) string {
		return `{"jsonrpc":"2.0","method":"m","params":[` + strconv.Itoa(n) + `,"` + padding + `"]}`
	}
	_, a, _, token, messages := answering(t, func(c *proxy.Config) { c.KeepAfter = time.Hour })
	for i := range count {
		send(messages, message(i))
	}
	send(messages, result)
	s := post(a.url, token, callBody).stream(t)
	for left := -1; left != len(messages); <-time.After(300 * time.Millisecond) {
		left = len(messages)
	}
	if len(messages) == 0 {
		t.Errorf("the upstream got rid of %d MiB that nobody takes", count*size>>20)
	}
	text, err := io.ReadAll(s.Body)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for i := range count {
		_, after, found := strings.Cut(rest, "data: "+message(i)+"\n\n")
		if !found {
			t.Fatalf("message %d did not come, or too early", i)
		}
		rest = after
	}
	if !strings.HasSuffix(rest, "data: "+result+"\n\n") {
		t.Errorf("the end is %.300q", rest)
	}
}

func TestAnAnswerThatItsUpstreamLeavesUnfinishedMayHaveRun(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t)
	for _, id := range []string{`7`, `"7"`} {
		body := strings.Replace(callBody, `"id":7`, `"id":`+id, 1)
		for _, at := range []*node{nil, b} {
			s := post(a.url, token, body).stream(t)
			send(messages, progress(1))
			s.wants(progress(1))
			if at != nil {
				s.drop()
				s = s.resume(at.replica, token).stream(t)
			}
			send(messages, "")
			wantsMayHaveRun(t, s.rest(), id)
		}
	}
}

// Of a batch each request is answered, whichever of them its upstream has left unanswered.
func TestARequestOfABatchThatItsUpstreamLeavesUnansweredMayHaveRun(t *testing.T) {
	t.Parallel()
	messages := make(chan string, 10)
	k := newTalker(t, func(k *talker) { k.revision = "2025-03-26" })
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Kind != mcp.KindBatch {
			return k.handle(w, r, got)
		}
		answerWith(w, r, messages)
		return true
	})
	f := newFleet(t, u.url)
	a := f.node()
	token := a.openSessionWith(strings.Replace(initializeBody, "2025-11-25", "2025-03-26", 1))
	call := func(id string) string { return strings.Replace(callBody, `"id":7`, `"id":`+id, 1) }
	batch := "[" + strings.Join([]string{call("7"), call("8"), call(`"7"`), progress(1), call("9"), call("10")}, ",") + "]"
	failed := func(id string) string { return `{"jsonrpc":"2.0","id":` + id + `,"error":{"code":-1,"message":"no"}}` }
	for _, breaks := range []func(){
		func() { send(messages, "") },
		func() { f.terminates(token) },
	} {
		s := post(a.url, token, batch).stream(t)
		send(messages, progress(1), failed("8"), "["+failed("9")+","+failed("10")+"]")
		s.wants(progress(1), failed("8"), "["+failed("9")+","+failed("10")+"]")
		breaks()
		rest := s.rest()
		if len(rest) != 2 {
			t.Fatalf("the rest is %q, want two errors", rest)
		}
		wantsMayHaveRun(t, rest[:1], "7")
		wantsMayHaveRun(t, rest[1:], `"7"`)
	}
}

// wantsMayHaveRun wants one message: the error that answers a request whose own answer is lost.
func wantsMayHaveRun(t *testing.T, rest []string, id string) {
	t.Helper()
	wantsLost(t, rest, id, "may_have_run", 1503)
}

func wantsLost(t *testing.T, rest []string, id, reason string, code int) {
	t.Helper()
	if len(rest) != 1 {
		t.Fatalf("the rest is %q, want one error", rest)
	}
	p := answer{body: rest[0]}.problem()
	if string(p.ID) != id || p.Error.Data.Reason != reason || p.Error.Code != code {
		t.Errorf("the answer is %s, want %s for the request %s", rest[0], reason, id)
	}
}

// An upstream may close the connection in the middle of an answer, and expect to be asked for the rest. The client sees one stream.
func TestAnUpstreamThatWantsToBeAskedAgainIs(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		write := func(text string) { _, _ = io.WriteString(w, text) }
		switch {
		case got.msg.Method == "tools/call":
			w.Header().Set("Content-Type", "text/event-stream")
			write("id: u-1\nretry: 10\ndata:\n\nid: u-2\ndata: " + progress(1) + "\n\n")
		case got.method != http.MethodGet:
			return false
		case got.header.Get("Mcp-Session-Id") != upstreamSession || got.header.Get("Content-Type") != "":
			http.Error(w, "what do you want?", http.StatusBadRequest)
		case asked.Add(1) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case got.header.Get("Last-Event-ID") == "u-2":
			w.Header().Set("Content-Type", "text/event-stream")
			write("id: u-3\ndata: " + progress(2) + "\n\n")
		case got.header.Get("Last-Event-ID") == "u-3":
			w.Header().Set("Content-Type", "text/event-stream")
			write("id: u-4\ndata: " + result + "\n\n")
		}
		return true
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	s := post(r.url, token, callBody).stream(t)
	var retry []string
	for want := []string{progress(1), progress(2), result}; len(want) > 0; {
		e := s.next()
		if strings.Contains(e.ID, "u-") {
			t.Errorf("the client got the upstream's id %s", e.ID)
		}
		if e.Retry != "" {
			retry = append(retry, e.Retry)
		}
		if len(e.Data) > 0 {
			if string(e.Data) != want[0] {
				t.Fatalf("message %s, want %s", e.Data, want[0])
			}
			want = want[1:]
		}
	}
	s.wantsRest()
	if !slices.Equal(retry, []string{"10"}) {
		t.Errorf("the client was told to wait for %q ms, want 10, once", retry)
	}
}

// An upstream that does not have the rest is not asked for ever.
func TestAnUpstreamWithoutTheRestIsAskedOnce(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method == "tools/call" {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "id: u-1\nretry: 1\ndata: "+progress(1)+"\n\n")
		}
		if got.method == http.MethodGet {
			w.WriteHeader(http.StatusBadRequest)
		}
		return got.msg.Method == "tools/call" || got.method == http.MethodGet
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	rest := post(r.url, token, callBody).stream(t).rest()
	if rest[0] != progress(1) {
		t.Errorf("the answer begins with %s", rest[0])
	}
	wantsMayHaveRun(t, rest[1:], "7")
	if n := counts([]*upstream{u}, http.MethodGet)[0]; n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// Whatever ends a session: a request that is not answered yet is told, wherever its client listens for the answer.
func TestAnswersEndWithTheirSessionWherever(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fleet, b *node, token string){
		"by its client": func(f *fleet, b *node, token string) {
			if got := del(b.url, token).send(f.t); got.status != http.StatusNoContent {
				f.t.Errorf("DELETE: %d", got.status)
			}
		},
		"by an operator":                  func(f *fleet, _ *node, token string) { f.terminates(token) },
		"with a store that is empty then": func(f *fleet, _ *node, _ string) { f.empties() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answersEnd(t, end)
		})
	}
}

func answersEnd(t *testing.T, end func(f *fleet, b *node, token string)) {
	t.Helper()
	f, a, b, token, _ := answering(t)
	s := post(a.url, token, callBody).stream(t)
	left := post(a.url, token, strings.Replace(callBody, "7", "8", 1)).stream(t)
	left.next()
	left.drop()
	f.stored(token, left, 1)
	resumed := left.resume(b.replica, token).stream(t)
	resumed.next()
	s.next()
	end(f, b, token)
	wantsMayHaveRun(t, s.rest(), "7")
	wantsMayHaveRun(t, resumed.rest(), "8")
	if got := s.resume(b.replica, token).send(t); got.status != http.StatusNotFound {
		t.Errorf("resuming then: %d", got.status)
	}
	eventually(t, "the session to be let go", func() bool { return a.manager.Held() == 0 && b.manager.Held() == 0 })
}

func TestTheAnswerOfAReplicaThatDiedMayHaveRun(t *testing.T) {
	t.Parallel()
	f, a, b, token, messages := answering(t, func(c *proxy.Config) { c.KeepAfter = time.Millisecond })
	all := progresses(1, 3)
	s := post(a.url, token, callBody).stream(t)
	send(messages, all...)
	s.wants(all[:1]...)
	f.stored(token, s, 4)
	s.drop()
	waiting := s.resume(b.replica, token).stream(t)
	waiting.wants(all[1:]...)
	a.kill()
	wantsMayHaveRun(t, waiting.rest(), "7")
	// Who comes later hears the same.
	later := s.resume(b.replica, token).stream(t)
	later.wants(all[1:]...)
	wantsMayHaveRun(t, later.rest(), "7")
}

// An answer that its client has not got, but for the replica it has, is stored nowhere: nobody needs to wait for more of it.
func TestAnAnswerThatWasCompleteBeforeItsClientWasMissedIsGone(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t, func(c *proxy.Config) { c.KeepAfter = 500 * time.Millisecond })
	send(messages, progress(1), result)
	s := post(a.url, token, callBody).stream(t)
	s.wants(progress(1))
	was := s.last
	s.wantsRest(result)
	s.last = was // as if the connection had lost the rest
	wantsLost(t, s.resume(b.replica, token).stream(t).rest(), "7", "events_gone", 1410)
}

// Of an answer, too, nothing is passed over in silence: who resumes from further back than is kept is told so.
func TestMissedMessagesOfAnAnswerThatAreNotKeptAreGone(t *testing.T) {
	t.Parallel()
	messages := make(chan string, 100)
	f := newFleet(t, streaming(t, messages).url, func(c *cluster.Config) { c.EventsCount = 5 })
	a, b := f.nodes(func(c *proxy.Config) { c.KeepAfter = time.Millisecond })
	token := a.openSession()
	s := post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	s.drop()
	send(messages, progresses(2, 9)...)
	f.stored(token, s, 10)
	waiting := s.resume(b.replica, token).stream(t)
	send(messages, result)
	wantsLost(t, waiting.rest(), "7", "events_gone", 1410)
}

// What was never stored of an answer is gone with its replica. That is said, too.
func TestAnAnswerThatDiedBeforeItWasStoredMayHaveRun(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t, func(c *proxy.Config) { c.KeepAfter = time.Hour })
	s := post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	a.kill()
	wantsMayHaveRun(t, s.resume(b.replica, token).stream(t).rest(), "7")
}

func TestAnswersGoOnWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t, func(c *proxy.Config) { c.KeepAfter = time.Millisecond })
	all := append(progresses(1, 100), result)
	s := post(a.url, token, callBody).stream(t)
	send(messages, all[0])
	s.wants(all[0])
	a.gate.shut()
	send(messages, all[1:75]...)
	s.wants(all[1:50]...)
	s.drop()
	a.gate.open()
	resumed := s.resume(b.replica, token).stream(t)
	send(messages, all[75:]...)
	resumed.wantsRest(all[50:]...)
}

// Whatever a client names to go on after: what it learns does not tell what there is of other sessions.
func TestForeignEventIDsAreAnsweredLikeUnknownOnes(t *testing.T) {
	t.Parallel()
	events := make(chan string, 10)
	k := newTalker(t)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		answerWith(w, r, events)
		return true
	})
	f := newFleet(t, u.url)
	a, b := f.nodes(func(c *proxy.Config) { c.KeepAfter = time.Millisecond })
	victim := a.openSession()
	const secret = `{"jsonrpc":"2.0","method":"secret"}`
	own := get(a.url, victim).stream(t)
	own.next()
	k.say(secret, secret, secret)
	own.wants(secret, secret, secret)
	call := post(a.url, victim, callBody).stream(t)
	events <- secret
	call.wants(secret)
	call.drop()
	f.stored(victim, call, 2)
	f.stored(victim, own, 3)
	first := strings.Replace(call.last, ".2.", ".1.", 1) // what follows is a secret

	thief := a.openSession()
	listen(t, a, thief).drop() // it has a stream of its own, too, by the same claim
	for _, at := range []*node{a, b} {
		ids := []string{
			own.last, "g.1.1", "g.1.zz", "g.7.2", strings.Repeat("x", 600), "x", "g", "g.1", "g.1.-1", "g.01.1", "g.1.1.1", "p.1", "p.AAAAAAAA.1.1",
			"g.1.99999999999999999", first + "=", strings.ToUpper(first), "u-1",
		}
		refused := answers(t, at, thief, ids...)
		want := refused["x"]
		if want.status != http.StatusGone || want.problem().Error.Data.Reason != "events_gone" {
			t.Errorf("an id that is none: %d %s", want.status, want.body)
		}
		for id, got := range refused {
			if got.status != want.status || got.body != want.body || !sameHeader(got.header, want.header) {
				t.Errorf("%s: %d %v %s; want %d %v %s", id, got.status, got.header, got.body, want.status, want.header, want.body)
			}
		}
		unknown := strings.Join(append(strings.Split(first, ".")[:2], "zz", "1", "Nw"), ".")
		ended := answers(t, at, thief, unknown, first, call.last)
		want = ended[unknown]
		if want.status != http.StatusOK || !strings.Contains(want.body, "events_gone") {
			t.Errorf("an unknown answer: %d %s", want.status, want.body)
		}
		for id, got := range ended {
			// What it has sent it is told.
			if got.status != want.status || withoutIDs(got.body) != withoutIDs(want.body) || !sameHeader(got.header, want.header) {
				t.Errorf("%s: %d %v %s; want %d %v %s", id, got.status, got.header, got.body, want.status, want.header, want.body)
			}
		}
	}
	events <- result
	call.resume(b.replica, victim).stream(t).wantsRest(result)
}

var idIn = regexp.MustCompile(`(?m)^id: .*$`)

func withoutIDs(text string) string { return idIn.ReplaceAllString(text, "") }

// answers are those to GETs that go on after events, all at once.
func answers(t *testing.T, at *node, token string, ids ...string) map[string]answer {
	t.Helper()
	var mu sync.Mutex
	var sending sync.WaitGroup
	all := make(map[string]answer)
	for _, id := range ids {
		sending.Go(func() {
			got := get(at.url, token).with("Last-Event-ID", id).send(t)
			mu.Lock()
			defer mu.Unlock()
			all[id] = got
		})
	}
	sending.Wait()
	return all
}

func sameHeader(a, b http.Header) bool {
	a, b = a.Clone(), b.Clone()
	for _, ofOneAnswer := range []string{"Date", "X-Request-Id"} {
		a.Del(ofOneAnswer)
		b.Del(ofOneAnswer)
	}
	return maps.EqualFunc(a, b, slices.Equal[[]string])
}

func TestSilentStreamsAreKeptAlive(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(w)
		<-r.Context().Done()
		return true
	})
	f := newFleet(t, u.url)
	loud, silent := f.node(func(c *proxy.Config) { c.KeepAlive = 30 * time.Millisecond }), f.node(func(c *proxy.Config) {
		c.KeepAlive, c.NoKeepAlive = 30*time.Millisecond, true
	})
	token := loud.openSession()
	for _, q := range []request{post(loud.url, token, callBody), get(loud.url, token)} {
		s := q.open(t)
		text := make([]byte, 4096)
		got := ""
		for strings.Count(got, ":") < 5 {
			n, err := s.Body.Read(text)
			if err != nil {
				t.Fatal(err)
			}
			got += string(text[:n])
		}
		if !strings.HasSuffix(got, "\n\n: keep-alive\n\n: keep-alive\n\n: keep-alive\n\n") {
			t.Errorf("%s: %q", q.method, got)
		}
		_ = s.Body.Close()
	}
	s := get(silent.url, silent.openSession()).open(t)
	heard := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(s.Body)
		heard <- string(text)
	}()
	<-time.After(200 * time.Millisecond)
	k.lose()
	_ = s.Body.Close()
	if text := receive(t, "the stream to end", heard); strings.Contains(text, ": keep") {
		t.Errorf("a stream that is to be left silent: %q", text)
	}
}
