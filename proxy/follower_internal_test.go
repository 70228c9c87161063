package proxy

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// followTest is a client that listens to a stream that another replica reads, without its connection.
type followTest struct {
	t        *testing.T
	manager  *cluster.Manager
	follower *follower
	listener *listener
	last     int64 // the position of the last event stored
}

func newFollowTest(t *testing.T, limits cluster.Config) *followTest {
	t.Helper()
	manager, token := newSessionTest(t, limits)
	p, err := New(manager, Config{Upstreams: []Upstream{{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:9"}}}, FollowInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	lease, err := manager.Lease(t.Context(), token, cluster.Use{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	call := &upstreamCall{p: p, session: lease.Session(), upstream: p.upstreams["/mcp"]}
	l := newListener(call, lease, eventID{stream: cluster.OwnStream, claim: 1})
	l.onLeave = func() {}
	t.Cleanup(func() { l.leave(true) })
	for _, claim := range []cluster.StreamClaim{{Owner: "other/1", Read: true}, {Owner: "other/1", Listen: true}} {
		claim.ID = l.session
		state, err := manager.ClaimStream(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		l.number = state.Listener
	}
	p.follower.add(l)
	return &followTest{t: t, manager: manager, follower: p.follower, listener: l}
}

// store has the reader store more events.
func (f *followTest) store(count int, message string) {
	f.t.Helper()
	for range count {
		f.last++
		_, err := f.manager.Append(f.t.Context(), cluster.EventAppend{
			ID: f.listener.session, Stream: cluster.OwnStream, First: f.last, Claim: 1,
			Events: [][]byte{keptEvent{kind: keptMessage, data: []byte(message)}.encode()},
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// look looks once at what the reader has stored. That it is not known to live makes this replica want to take over, which it does not here.
func (f *followTest) look() {
	f.t.Helper()
	f.follower.taking[f.listener.session] = true
	f.follower.look(f.t.Context(), time.Now())
}

// A client at another replica than the reader gets a burst of messages at the next look, before newer ones take their places.
func TestOneLookGivesAllThatIsKept(t *testing.T) {
	t.Parallel()
	f := newFollowTest(t, cluster.DefaultConfig())
	for range 3 { // each drops what was kept before
		f.store(cluster.DefaultConfig().EventsCount, "m")
		f.look()
		if at := f.listener.at(); at != f.last || f.listener.isOver() {
			t.Fatalf("after a look the client has %d of %d messages, and its stream is over: %v", at, f.last, f.listener.isOver())
		}
	}
}

// For a client that takes nothing no more is read than it may have waiting: the rest stays in the store, and comes when it takes that.
func TestNothingIsReadForAClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	limits := cluster.DefaultConfig()
	limits.EventsBytes = 32 << 20
	f := newFollowTest(t, limits)
	const count, size = 30, 200 << 10
	f.store(count, strings.Repeat("x", size))
	taken := 0
	for range 10 {
		for range 3 {
			f.look()
		}
		text, err := f.listener.take(nil)
		if err != nil || len(text) > 2*maxAhead+2*size {
			t.Fatalf("%d bytes wait for the client, want about %d at most; %v", len(text), 2*maxAhead, err)
		}
		taken += strings.Count(string(text), "data:")
	}
	if taken != count {
		t.Errorf("the client got %d of %d messages", taken, count)
	}
}

// One that gets more all the time keeps the next look waiting for no longer than it is due.
func TestALookEndsThoughThereIsAlwaysMore(t *testing.T) {
	t.Parallel()
	f := newFollowTest(t, cluster.DefaultConfig())
	f.follower.p.cfg.FollowInterval = 50 * time.Millisecond
	f.follower.p.sessions = &endless{Manager: f.manager, listener: f.listener}
	begun := time.Now()
	f.look()
	if took := time.Since(begun); took > 5*time.Second || f.listener.at() == 0 {
		t.Errorf("the look took %v, to event %d", took, f.listener.at())
	}
}

// endless has more than it gives whenever it is asked, and a client that takes it.
type endless struct {
	*cluster.Manager

	listener *listener
}

func (e *endless) StreamStates(context.Context, []cluster.ID) []cluster.StreamState {
	return []cluster.StreamState{{Reader: "other/1", Claim: 1, Last: 1 << 50, Listener: e.listener.number, Since: []int64{0}}}
}

func (e *endless) Events(context.Context, []cluster.EventQuery) []cluster.EventPage {
	_, _ = e.listener.take(nil)
	event := keptEvent{kind: keptMessage, data: []byte("m")}.encode()
	return []cluster.EventPage{{Events: [][]byte{event}, Last: 1 << 50, Listener: e.listener.number, Claim: 1}}
}

// A tick that comes a moment early or late is a look all the same, at streams that were quiet for long, too.
func TestNoTickIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, quiet := range map[string]time.Duration{"a stream": 0, "one of many quiet ones": 500 * time.Millisecond} {
		const interval = 100 * time.Millisecond
		start := time.Now()
		l := &listener{heard: start}
		if quiet > 0 {
			l.heard = start.Add(-time.Hour)
		}
		f := &follower{p: &Proxy{cfg: Config{FollowInterval: interval}}, listeners: map[*listener]struct{}{l: {}}}
		for range quietAtOnce * int(quiet/time.Millisecond) / 1000 {
			f.listeners[&listener{over: true}] = struct{}{}
		}
		looks := 0
		for tick := range 50 {
			jitter := time.Duration(tick%3-1) * 5 * time.Millisecond
			_, answers := f.due(start.Add(time.Duration(tick)*interval + jitter))
			looks += len(answers)
		}
		if want := 50 * int(interval) / int(max(interval, quiet)); looks != want {
			t.Errorf("%s was looked at %d times in 50 ticks, want %d", name, looks, want)
		}
	}
}
