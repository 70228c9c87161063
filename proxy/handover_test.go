package proxy_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// seldom has a replica look at what others store so seldom that a client of its own is behind.
func seldom(cfg *proxy.Config) { cfg.FollowInterval = time.Second }

// However far behind a stream is when its client listens anew, it brings what was said until then, and the next one what follows.
func TestAListenerGetsAllThatComesBeforeTheNextOne(t *testing.T) {
	t.Parallel()
	const many = 200 // more than one look brings
	for _, tt := range []struct {
		name    string
		resumes bool // the first stream begins with more than one look brings, at the replica that reads
		atOther bool // the second stream is at another replica than the first
	}{
		{"which another replica reads", false, true},
		{"which the same replica reads", true, false},
		{"which goes on at another replica than the reader", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			f, a, b, token := listening(t, k, seldom)
			first := listen(t, a, token) // it reads
			if tt.resumes {
				first.drop()
				k.say(newses(1, many)...)
				f.stored(token, first, many)
				first = first.resume(a.replica, token).stream(t)
			} else {
				first = listen(t, b, token)
				k.say(newses(1, many)...)
				f.stored(token, first, many)
			}
			next := a
			if tt.resumes && tt.atOther {
				next = b
			}
			second := listen(t, next, token)
			k.say(newses(many+1, many+3)...)
			first.wantsRest(newses(1, many)...)
			second.wants(newses(many+1, many+3)...)
		})
	}
}

// Of several clients that listen one after the other before anybody has looked each gets what came in its time.
func TestEachOfSeveralListenersGetsWhatCameInItsTime(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k, seldom)
	streams := []*stream{listen(t, a, token)} // it reads from now on
	for n := 1; n <= 6; n++ {
		at := []*node{a, b}[n%2]
		streams = append(streams, listen(t, at, token))
		k.say(newses(2*n-1, 2*n)...)
		f.stored(token, streams[n], 2*n)
	}
	last := listen(t, b, token)
	k.say(news(13))
	last.wants(news(13))
	streams[0].wantsRest()
	for n := 1; n <= 6; n++ {
		streams[n].wantsRest(newses(2*n-1, 2*n)...)
	}
}

// A client that is ahead of the store, and goes on where another reader began, begins there for those before it, too.
func TestWhatAClientGetsAnewIsNotOnTheStreamBefore(t *testing.T) {
	t.Parallel()
	f, a, b, token := listening(t, newTalker(t), seldom)
	first := f.script(b, token, "x/AAAAAAAA", 0)
	before := listen(t, b, token)
	first.reads(1, news(1))
	f.script(b, token, "x/BBBBBBBB", first.claim).reads(2, newses(2, 3)...)
	s := get(a.url, token).with("Last-Event-ID", "g.1.9").stream(t)
	s.wants(newses(2, 3)...)
	before.wantsRest(news(1))
}

// A client that is waited for listens once, however often the store is asked.
func TestAClientThatIsWaitedForListensOnce(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	a.gate.shut()
	k.say(news(2))
	s.wants(news(2))
	s.drop()
	asked := len(b.requests())
	back := make(chan *opened, 1)
	go func() { back <- s.resume(b.replica, token).open(t) }()
	eventually(t, "the client to be waited for", func() bool { return f.listeners(token) > 1 })
	began := time.Now()
	eventually(t, "the store to be asked again", func() bool { return time.Since(began) > 400*time.Millisecond })
	if n := f.listeners(token); n != 2 {
		t.Errorf("there have been %d listeners, want 2", n)
	}
	a.gate.open()
	got := receive(t, "the stream", back)
	if got.StatusCode != http.StatusOK || len(b.requests()) != asked {
		t.Fatalf("coming back: %d", got.StatusCode)
	}
	again := &stream{opened: got, t: t, events: mcp.NewEventReader(got.Body, 1<<20)}
	k.say(news(3))
	again.wants(news(3))
}

// A client that its reader sent what it could not store, before the claim moved to another one, misses nothing of what that one reads,
// however much that is before anybody looks, and however often the claim moves meanwhile.
func TestAClientOfAReaderThatWasCutOffMissesNothingOfTheNextOnes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		readers int
	}{{"with one that follows", 1}, {"with two that follow", 2}, {"with three", 3}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			f, a, b, token := listening(t, k)
			s := listen(t, a, token)
			k.say(news(1))
			s.wants(news(1))
			a.gate.shut()
			k.say(newses(2, 4)...) // which are never stored
			s.wants(newses(2, 4)...)
			f.forget(a)
			claim, said := int64(1), 0
			for i := range tt.readers {
				r := f.script(b, token, "x/"+string("ABC"[i])+"AAAAAAA", claim)
				r.reads(int64(2+said), newses(101+said, 105+said)...)
				claim, said = r.claim, said+5
			}
			a.gate.open()
			if got := s.rest(); len(got) > 0 { // it is to come back, and to say what it has
				t.Fatalf("the stream brings %q after what was never stored", got)
			}
			s.resume(b.replica, token).stream(t).wants(newses(101, 100+said)...)
		})
	}
}

// A client that becomes the listener gets what a reader stores that is taken for dead, until another one has the claim.
func TestAListenerGetsWhatIsStoredBeforeItsReplicaTakesOver(t *testing.T) {
	t.Parallel()
	f, a, _, token := listening(t, newTalker(t))
	dead := f.script(a, token, "x/AAAAAAAA", 0)
	if err := dead.store.Leave(t.Context(), dead.name); err != nil {
		t.Fatal(err)
	}
	f.sessions = func(s proxy.Sessions) proxy.Sessions {
		return &claims{Sessions: s, listened: sync.OnceFunc(func() { dead.reads(1, news(1)) })}
	}
	s := listen(t, f.node(), token)
	s.wants(news(1))
	if state := f.own(token); state.Claim != 2 {
		t.Errorf("the claim is number %d, want 2", state.Claim)
	}
}

// While messages flow, a client listens anew, at two replicas at once, and gets each of them on one stream, in order.
func TestMessagesThatFlowAreOnOneOfManyStreamsEach(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.MaxStreams = 0 }) // earlier ones are closed when somebody looks
	a, b := f.nodes()
	token := a.openSession()
	nodes := []*node{a, b, f.node()}
	const rounds, each = 20, 20
	var heard [rounds]chan []string
	begun := make(chan bool)
	got := make(map[string]int)
	count := func(round int) {
		t.Helper()
		for range 2 {
			before := 0
			for _, m := range receive(t, "what a stream brought", heard[round]) {
				n := slices.Index(newses(1, rounds*each), m)
				if n < before {
					t.Errorf("%s comes after message %d", m, before+1)
				}
				before = n
				got[m]++
			}
		}
	}
	for n := range rounds {
		heard[n] = make(chan []string, 2)
		for i := range 2 {
			go func() {
				s := listen(t, nodes[(n*n+n/3+i)%len(nodes)], token)
				begun <- true
				heard[n] <- s.rest()
			}()
		}
		receive(t, "the first stream", begun)
		k.say(newses(each*n+1, each*(n+1))...)
		receive(t, "the second stream", begun)
		if n >= 3 { // where the latest eight began is known
			count(n - 3)
		}
	}
	last := listen(t, a, token)
	for n := rounds - 3; n < rounds; n++ {
		count(n)
	}
	for left := rounds*each - len(got); left > 0; left-- {
		got[last.message()]++
	}
	for _, m := range newses(1, rounds*each) {
		if got[m] != 1 {
			t.Errorf("%s came %d times", m, got[m])
		}
	}
}

// While messages flow and replicas die, a client that resumes wherever it gets to has each message once, in order.
func TestMessagesThatFlowWhileReplicasDieComeInOrder(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*talker){
		"from an upstream that goes on":      withIDs,
		"from one that begins anew":          startsAnewWithIDs,
		"from one that goes on with the new": startsNowWithIDs,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t, change)
			f, a, b, token := listening(t, k)
			nodes := []*node{a, b, f.node()}
			const rounds, each = 12, 30
			s := listen(t, a, token)
			next := 1
			for n := range rounds {
				k.say(newses(each*n+1, each*(n+1))...)
				some := next + (7*n)%each
				s.wants(newses(next, some)...)
				next = some + 1
				switch n % 3 {
				case 0: // whoever reads dies
					reader := f.own(token).Reader
					i := slices.IndexFunc(nodes, func(n *node) bool { return n.manager.Incarnation() == reader })
					if i >= 0 {
						nodes[i].kill()
						nodes[i] = f.node()
					}
				case 1: // a second stream, which nobody reads
					s.resume(nodes[n%len(nodes)].replica, token).stream(t)
				}
				s = s.resume(nodes[(n*n+1)%len(nodes)].replica, token).stream(t)
			}
			s.wants(newses(next, rounds*each)...)
		})
	}
}
