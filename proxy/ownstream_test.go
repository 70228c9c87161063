package proxy_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// listening starts two replicas in front of a talker, and opens a session.
func listening(t *testing.T, k *talker, change ...func(*proxy.Config)) (f *fleet, a, b *node, token string) {
	t.Helper()
	f = newFleet(t, k.url)
	a, b = f.nodes(change...)
	token = a.openSession()
	return f, a, b, token
}

// listen opens a session's own stream, and waits until it is told so.
func listen(t *testing.T, at *node, token string) *stream {
	t.Helper()
	s := get(at.url, token).stream(t)
	if e := s.next(); e.ID == "" || len(e.Data) > 0 {
		t.Fatalf("the stream begins with %+v, want an id without data", e)
	}
	return s
}

func TestAnOwnStreamGoesOnAtAnyReplicaWithOneReader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  []func(*talker)
		dropped bool // before it comes back
	}{
		{"whose connection broke", nil, true},
		{"while the first replica has not noticed", nil, false},
		{"with an upstream that has ids", []func(*talker){withIDs}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t, tt.change...)
			_, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(newses(1, 3)...)
			s.wants(newses(1, 3)...)
			if tt.dropped {
				s.drop()
			}
			k.say(newses(4, 6)...)
			if !tt.dropped {
				s.wants(news(4)) // and no more, as far as the client knows
			}
			back := s.resume(b.replica, token).stream(t)
			if !tt.dropped {
				back.wants(news(5), news(6))
			} else {
				back.wants(newses(4, 6)...)
			}
			k.say(newses(7, 9)...)
			back.wants(newses(7, 9)...)
			back.drop()
			k.say(news(10))
			again := back.resume(a.replica, token).stream(t)
			k.say(news(11))
			again.wants(news(10), news(11))
			if now, most, ever := k.readers(); now != 1 || most != 1 || ever != 1 {
				t.Errorf("the upstream has %d readers, had %d at a time, %d ever; want 1", now, most, ever)
			}
		})
	}
}

func TestTheLatestListenerIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"at the same replica", "at another replica"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			if name == "at the same replica" {
				b = a
			}
			first := listen(t, a, token)
			k.say(news(1))
			first.wants(news(1))
			second := listen(t, b, token)
			k.say(newses(2, 4)...)
			second.wants(newses(2, 4)...)
			first.wantsRest()
			if _, most, _ := k.readers(); most != 1 {
				t.Errorf("the upstream had %d readers at a time", most)
			}
		})
	}
}

// claims has something happen between two claims to a stream.
type claims struct {
	proxy.Sessions

	listened func() // a client has become the listener
}

func (c *claims) ClaimStream(ctx context.Context, claim cluster.StreamClaim) (cluster.StreamState, error) {
	state, err := c.Sessions.ClaimStream(ctx, claim)
	if claim.Listen {
		c.listened()
	}
	return state, err
}

// A client that becomes the listener while the replica of an earlier one takes over from a dead reader is the only one.
func TestTheLatestListenerIsTheOnlyOneDuringATakeover(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	listen(t, a, token).drop()
	a.kill()
	overtaken := make(chan *stream, 1)
	f.sessions = func(s proxy.Sessions) proxy.Sessions {
		return &claims{Sessions: s, listened: sync.OnceFunc(func() { overtaken <- get(b.url, token).stream(t) })}
	}
	first := listen(t, f.node(), token)
	second := receive(t, "the second stream", overtaken)
	k.say(newses(1, 3)...)
	second.wants(newses(1, 3)...)
	for {
		e, err := first.events.Next()
		if err != nil {
			break
		}
		if len(e.Data) > 0 {
			t.Fatalf("the first stream brings %s, too", e.Data)
		}
	}
}

// However many ask at once, one of them reads.
func TestConcurrentListenersHaveOneReader(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	const count = 6 // fewer than may be open
	answered := make(chan *stream, count)
	for i := range count {
		at := []*node{a, b}[i%2]
		go func() { answered <- get(at.url, token).stream(t) }()
	}
	for range count {
		receive(t, "an answer", answered)
	}
	last := listen(t, b, token)
	k.say(newses(1, 5)...)
	last.wants(newses(1, 5)...)
	if now, most, ever := k.readers(); now != 1 || most != 1 || ever != 1 {
		t.Errorf("the upstream has %d readers, had %d at a time, %d ever; want 1", now, most, ever)
	}
	if n := counts([]*upstream{k.upstream}, http.MethodGet)[0]; n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestAnotherReplicaTakesOverFromOneThatDrains(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	_, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(newses(1, 2)...)
	s.wants(newses(1, 2)...)
	elsewhere := s.resume(b.replica, token).stream(t)
	k.say(news(3))
	elsewhere.wants(news(3))
	begun := time.Now()
	a.proxy.Drain()
	k.say(newses(4, 8)...)
	elsewhere.wants(newses(4, 8)...)
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("that took %v", took)
	}
	if _, most, _ := k.readers(); most != 1 {
		t.Errorf("the upstream had %d readers at a time", most)
	}
}

// A client of a replica that drains is told to come back, and misses nothing.
func TestAClientIsSentAwayByAReplicaThatDrains(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	_, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	a.proxy.Drain()
	k.say(newses(2, 4)...)
	if e := s.next(); e.Retry == "" {
		t.Errorf("the client gets %+v, want to be told when to come back", e)
	}
	s.wantsRest()
	if again := s.resume(a.replica, token).stream(t); again.next().Retry == "" {
		t.Error("coming back to the same replica it is not sent away")
	}
	back := s.resume(b.replica, token).stream(t)
	k.say(news(5))
	back.wants(newses(2, 5)...)
}

func TestAnotherReplicaTakesOverFromOneThatDied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		resumes bool // the client comes back after that, else it was there already
	}{{"whose client was there", false}, {"whose client comes back", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t, startsNowWithIDs) // what it says while nobody reads, it gives out by ids alone
			_, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(newses(1, 2)...)
			s.wants(newses(1, 2)...)
			if !tt.resumes {
				s = s.resume(b.replica, token).stream(t)
				k.say(news(3))
				s.wants(news(3))
			}
			a.kill()
			if tt.resumes {
				k.say(news(3))
				s = s.resume(b.replica, token).stream(t)
				s.wants(news(3))
			}
			k.say(newses(4, 6)...)
			s.wants(newses(4, 6)...)
			s.drop()
			k.say(news(7))
			s = s.resume(b.replica, token).stream(t)
			s.wants(news(7))
			k.say(news(8))
			s.wants(news(8))
		})
	}
}

// Events that a client has got under one reader are not sent again under the next one.
func TestWhatAClientHasIsNotSentAgainAfterTheReaderHasChanged(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	f, a, b, token := listening(t, k)
	c := f.node()
	s := listen(t, a, token) // a reads
	k.say(news(1))
	s.wants(news(1))
	s = s.resume(b.replica, token).stream(t) // b follows
	k.say(news(2))
	s.wants(news(2))
	a.proxy.Drain()
	k.say(newses(3, 6)...)
	s.wants(newses(3, 6)...) // b reads now
	last := s.last
	s.drop()
	s = get(c.url, token).with("Last-Event-ID", last).stream(t) // c follows
	k.say(news(7))
	s.wants(news(7))
	b.proxy.Drain() // c reads
	k.say(news(8))
	s.wants(news(8))
	s.drop()
	s = s.resume(c.replica, token).stream(t)
	k.say(news(9))
	s.wants(news(9))
}

func TestAnUpstreamWithoutOwnStreams(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusMethodNotAllowed, http.StatusNotFound} {
		k := newTalker(t, func(k *talker) { k.getStatus = status })
		_, a, b, token := listening(t, k)
		for _, at := range []*node{a, b, a} {
			got := get(at.url, token).send(t)
			if got.status != http.StatusMethodNotAllowed {
				t.Errorf("GET of an upstream that answers it %d: %d %s", status, got.status, got.body)
			}
			if got := post(at.url, token, pingBody).send(t); got.status != http.StatusOK {
				t.Errorf("and then: %d %s", got.status, got.body)
			}
		}
		if sessions := k.sessions(); sessions != 1 {
			t.Errorf("the upstream was initialized %d times", sessions)
		}
	}
}

func TestAnOwnStreamOutlivesItsUpstream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change []func(*talker)
		broken func(*talker)
	}{
		{"whose connection breaks", nil, (*talker).hangUp},
		{"whose connection breaks, and which has ids", []func(*talker){withIDs}, (*talker).hangUp},
		{"which restarts", nil, (*talker).lose},
		{"which restarts, and has ids", []func(*talker){withIDs}, (*talker).lose},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t, tt.change...)
			_, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(newses(1, 3)...)
			s.wants(newses(1, 3)...)
			for i := range 2 {
				_, _, before := k.readers()
				sessions := k.sessions()
				tt.broken(k)
				eventually(t, "the upstream to be read again", func() bool {
					now, _, ever := k.readers()
					n := k.sessions()
					return now == 1 && (ever > before || n > sessions)
				})
				k.say(newses(4+3*i, 6+3*i)...)
				s.wants(newses(4+3*i, 6+3*i)...)
			}
			s = s.resume(b.replica, token).stream(t)
			k.say(news(10))
			s.wants(news(10))
		})
	}
}

func TestAnOwnStreamGoesOnWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(newses(1, 2)...)
	s.wants(newses(1, 2)...)
	a.gate.shut()
	k.say(newses(3, 150)...)
	s.wants(newses(3, 150)...)
	a.gate.open()
	k.say(newses(151, 152)...)
	s.wants(newses(151, 152)...)
	if s.last == "" {
		t.Fatal("the last event has no id")
	}
	f.stored(token, s, 152)
	s.drop()
	s = s.resume(b.replica, token).stream(t)
	k.say(newses(153, 154)...)
	s.wants(newses(153, 154)...)
	if _, most, ever := k.readers(); most != 1 || ever != 1 {
		t.Errorf("the upstream had %d readers at a time, %d ever", most, ever)
	}
}

// A client may come back before what it had got without the store is stored.
func TestAClientThatIsAheadOfTheStoreIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"at the replica that reads", "at another one"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(news(1))
			s.wants(news(1))
			a.gate.shut()
			k.say(newses(2, 4)...)
			s.wants(newses(2, 4)...)
			s.drop()
			a.gate.open()
			back := b
			if name == "at the replica that reads" {
				back = a
			}
			again := s.resume(back.replica, token)
			var got *opened
			eventually(t, "the store to be asked again", func() bool {
				got = again.open(t)
				return got.StatusCode != http.StatusServiceUnavailable
			})
			if got.StatusCode != http.StatusOK {
				t.Fatalf("coming back: %d", got.StatusCode)
			}
			s = &stream{opened: got, t: t, events: mcp.NewEventReader(got.Body, 1<<20)}
			k.say(news(5))
			s.wants(news(5))
		})
	}
}

// Whose claim has moved on does not read any longer, and its client goes on with what the other one reads.
func TestAReaderWhoseClaimHasMovedStops(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	f, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	a.gate.shut() // it does not hear of it
	f.forget(a)
	back := s.resume(b.replica, token).stream(t) // the upstream refuses a second reader
	a.gate.open()
	eventually(t, "the other replica to read", func() bool { now, most, ever := k.readers(); return now == 1 && most == 1 && ever == 2 })
	k.say(newses(2, 4)...)
	back.wants(newses(2, 4)...)
	s.rest()
}

func TestAnOwnStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	first := listen(t, a, token)
	first.drop()
	s := listen(t, b, token)
	if got := del(b.url, token).send(t); got.status != http.StatusNoContent {
		t.Fatalf("DELETE: %d", got.status)
	}
	s.wantsRest()
	eventually(t, "the reader to stop", func() bool { now, _, _ := k.readers(); return now == 0 })
	if got := s.resume(a.replica, token).send(t); got.status != http.StatusNotFound {
		t.Errorf("resuming then: %d %s", got.status, got.body)
	}
}

// What is not kept any more is said to be gone.
func TestMissedMessagesThatAreNotKeptAreGone(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.EventsCount = 5 })
	a, b := f.nodes()
	token := a.openSession()
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	s.drop()
	k.say(newses(2, 9)...)
	f.stored(token, s, 9)
	got := s.resume(b.replica, token).send(t)
	if got.status != http.StatusGone || got.problem().Error.Data.Reason != "events_gone" {
		t.Errorf("resuming: %d %s", got.status, got.body)
	}
	s = listen(t, b, token)
	k.say(news(10))
	s.wants(news(10))
}

// A client that is refused must not leave a stream that nobody reads: its replica may have taken the claim to.
func TestAClientThatIsRefusedLeavesNoStreamUnread(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	if got := get(a.url, token).with("Last-Event-ID", "g.1.zz").send(t); got.status != http.StatusGone {
		t.Fatalf("GET: %d", got.status)
	}
	s := listen(t, b, token)
	eventually(t, "the upstream to be read", func() bool { now, _, _ := k.readers(); return now == 1 })
	k.say(news(1))
	s.wants(news(1))
}

// An upstream's refusal reaches the client whole.
func TestAnUpstreamsRefusalOfAStreamIsPassedOn(t *testing.T) {
	t.Parallel()
	reason := strings.Repeat("not now; ", 20_000)
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.method != http.MethodGet {
			return false
		}
		http.Error(w, reason, http.StatusForbidden)
		return true
	})
	a, b := newFleet(t, u.url).nodes()
	token := a.openSession()
	for _, at := range []*node{a, b} {
		if got := get(at.url, token).send(t); got.status != http.StatusForbidden || got.body != reason+"\n" || got.err != nil {
			t.Errorf("GET: %d, %d bytes, %v", got.status, len(got.body), got.err)
		}
	}
}

// script is a reader of a session's own stream that tests play.
type script struct {
	t     *testing.T
	store cluster.Store
	id    cluster.ID
	name  string
	claim int64
}

// script claims to read a session's own stream.
func (f *fleet) script(at *node, token, name string, from int64) *script {
	f.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		f.t.Fatal(err)
	}
	store := f.direct()
	f.t.Cleanup(func() { _ = store.Close() })
	if err := store.Beat(f.t.Context(), name); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "the reader to be known", func() bool {
		alive, err := at.manager.Alive(f.t.Context(), name)
		return err == nil && alive
	})
	state, err := store.ClaimStream(f.t.Context(), cluster.StreamClaim{ID: parsed.ID, Owner: name, Read: true, From: from})
	if err != nil || state.Reader != name {
		f.t.Fatalf("claim: %+v, %v", state, err)
	}
	return &script{f.t, store, parsed.ID, name, state.Claim}
}

// reads stores messages from a position on.
func (s *script) reads(first int64, messages ...string) {
	s.t.Helper()
	a := cluster.EventAppend{ID: s.id, Stream: cluster.OwnStream, First: first, Claim: s.claim}
	for _, m := range messages {
		a.Events = append(a.Events, []byte("m\n"+m))
	}
	if _, err := s.store.AppendEvents(s.t.Context(), a); err != nil {
		s.t.Fatal(err)
	}
}

// What a follower's client has got is not sent again because the reader has changed in the meantime.
func TestWhatAFollowersClientHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	f, _, b, token := listening(t, newTalker(t))
	first := f.script(b, token, "x/AAAAAAAA", 0)
	s := listen(t, b, token)
	first.reads(1, newses(1, 2)...)
	s.wants(newses(1, 2)...)
	second := f.script(b, token, "x/BBBBBBBB", first.claim)
	second.reads(3, newses(3, 5)...)
	s.wants(newses(3, 5)...)
	s.drop()
	s = s.resume(b.replica, token).stream(t)
	second.reads(6, news(6))
	s.wants(news(6))
}

// What a client has got without the store, from a reader that died, is forgotten: it goes on with what is stored since.
func TestAClientThatIsAheadOfADeadReadersStore(t *testing.T) {
	t.Parallel()
	f, _, b, token := listening(t, newTalker(t))
	first := f.script(b, token, "x/AAAAAAAA", 0)
	first.reads(1, news(1))
	f.script(b, token, "x/BBBBBBBB", first.claim).reads(2, newses(2, 3)...)
	s := get(b.url, token).with("Last-Event-ID", "g.1.9").stream(t)
	s.wants(newses(2, 3)...)
}

// A reader hears that its claim has moved although its upstream says nothing; until then the next one is refused by the upstream.
func TestASilentReaderHearsThatItsClaimHasMoved(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, _, token := listening(t, k)
	s := listen(t, a, token)
	next := f.script(a, token, "x/AAAAAAAA", 1)
	eventually(t, "the reader to stop", func() bool { now, _, _ := k.readers(); return now == 0 })
	next.reads(1, news(1))
	s.wants(news(1))
}

// A session that was made anew is listened to, even if the connection to the upstream session before still stands.
func TestAnOwnStreamMovesWithItsSession(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	_, a, _, token := listening(t, k)
	s := listen(t, a, token)
	k.say(newses(1, 2)...)
	s.wants(newses(1, 2)...)
	k.forget()
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	k.say(newses(3, 4)...)
	s.wants(newses(3, 4)...)
}

// The same when the session was made anew at another replica, and nobody asks for anything at the one that reads.
func TestAnOwnStreamMovesWithASessionRecoveredElsewhere(t *testing.T) {
	t.Parallel()
	k := newTalker(t, withIDs)
	_, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	k.forget()
	wantsAnswer(t, post(b.url, token, pingBody).send(t))
	k.say(news(2))
	s.wants(news(2))
	for _, got := range k.requests() {
		if strings.Contains(got.body, "shadowcat:known") {
			t.Error("the upstream was asked whether it knows the session, which the store had told")
		}
	}
}

// Who takes a stream over may not have heard yet that its session was made anew: it goes on in the new upstream session, not at its
// beginning.
func TestAStreamIsTakenOverInTheUpstreamSessionThatItHas(t *testing.T) {
	t.Parallel()
	k := newTalker(t, startsAnewWithIDs)
	_, a, b, token := listening(t, k)
	listen(t, a, token) // it reads from now on
	s := listen(t, b, token)
	k.forget()
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	k.say(newses(1, 2)...)
	s.wants(newses(1, 2)...)
	a.kill()
	k.say(news(3))
	s.wants(news(3))
}

// A message that is too large to be kept is gone for who missed it, and holds up none of the others.
func TestAMessageThatIsTooLargeToBeKeptHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.EventsBytes = 4 << 10 })
	a, b := f.nodes()
	token := a.openSession()
	large := largeNews(17 << 10)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	missed := s.last
	a.gate.shut()
	k.say(news(2), large, news(3))
	s.wants(news(2), large)
	has := s.last
	s.wants(news(3))
	a.gate.open()
	f.stored(token, s, 4)
	back := get(b.url, token).with("Last-Event-ID", has).stream(t)
	back.wants(news(3))
	k.say(large, news(4)) // also when it is there
	back.drop()
	f.stored(token, s, 6)
	got := get(b.url, token).with("Last-Event-ID", missed).stream(t)
	got.wants(news(2))
	got.wantsRest()
	if again := got.resume(b.replica, token).send(t); again.status != http.StatusGone {
		t.Errorf("after the last one before it: %d %s", again.status, again.body)
	}
}

// largeNews is a message of some more than size bytes.
func largeNews(size int) string {
	return `{"jsonrpc":"2.0","method":"large","params":["` + strings.Repeat("x", size) + `"]}`
}

// A message that is larger than all that is kept of a session reaches a client at another replica than the reader, also when something
// follows on it at once.
func TestALargeMessageReachesAListenerElsewhere(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.EventsBytes = 4 << 10 })
	a, b := f.nodes()
	token := a.openSession()
	listen(t, a, token) // it reads from now on
	s := listen(t, b, token)
	for n := range 4 {
		k.say(largeNews(15<<10), news(n))
		s.wants(largeNews(15<<10), news(n))
	}
}

// A client at another replica than the reader is told of what is too large to be kept at once, though nothing follows on it; and whoever
// runs the reader is told, once.
func TestAListenerElsewhereIsToldOfAMessageThatIsTooLarge(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.EventsBytes = 4 << 10 })
	var log logBuffer
	a, b := f.node(func(c *proxy.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }), f.node()
	token := a.openSession()
	listen(t, a, token) // it reads from now on
	for range 2 {
		s := listen(t, b, token)
		k.say(news(1))
		s.wants(news(1))
		k.say(largeNews(17 << 10))
		s.wantsRest()
		if got := s.resume(b.replica, token).send(t); got.status != http.StatusGone || got.problem().Error.Data.Reason != "events_gone" {
			t.Errorf("resuming: %d %s", got.status, got.body)
		}
	}
	id, _, _ := strings.Cut(token, ".")
	text := log.String()
	if strings.Count(text, "too large to be kept") != 1 || !strings.Contains(text, "session="+id) || strings.Contains(text, "xxx") {
		t.Errorf("the reader's log is not one line that names the session:\n%s", text)
	}
}

// What was said before a client listened anew is for the stream that it had then.
func TestWhatComesBetweenTwoListenersIsOnOneOfThem(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	listen(t, a, token) // it reads from now on
	for n := range 8 {
		first := listen(t, b, token)
		k.say(news(2*n + 1))
		second := listen(t, a, token) // before b has looked, mostly
		k.say(news(2*n + 2))
		heard := append(first.rest(), second.message()) // rest waits for the end of the first
		want := []string{news(2*n + 1), news(2*n + 2)}
		if len(heard) == 1 { // it was said after the second had begun
			heard = append(heard, second.message())
		}
		if !slices.Equal(heard, want) {
			t.Fatalf("heard %v, want %v", heard, want)
		}
	}
}
