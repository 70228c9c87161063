package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// What is stored in a session's own stream, and where.

// appendOwn stores events of a session's own stream, as said by its upstream session. It returns the listener.
func (s *suite) appendOwn(id cluster.ID, claim, first int64, upstreamEvent string, events ...string) (int64, error) {
	s.t.Helper()
	a := cluster.EventAppend{ID: id, Stream: cluster.OwnStream, First: first, Claim: claim, UpstreamEvent: upstreamEvent}
	if session, err := s.store.Get(s.t.Context(), id); err == nil { // it may be unknown
		a.Version = session.Version
	}
	for _, event := range events {
		a.Events = append(a.Events, []byte(event))
	}
	appended, err := s.store.AppendEvents(s.t.Context(), a)
	return appended.Listener, err
}

func (s *suite) mustAppendOwn(id cluster.ID, claim, first int64, events ...string) {
	s.t.Helper()
	if _, err := s.appendOwn(id, claim, first, "", events...); err != nil {
		s.t.Fatalf("AppendEvents: %v", err)
	}
}

// wantOwn fails the test unless just these events of a session's own stream follow a position.
func (s *suite) wantOwn(id cluster.ID, after, last int64, want ...string) {
	s.t.Helper()
	s.wantEvents(id, cluster.OwnStream, after, last, want...)
}

func streamStale(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	refused := func(claim int64) {
		t.Helper()
		if _, err := s.appendOwn(made.ID, claim, 1, "x", "refused"); !errors.Is(err, cluster.ErrStaleClaim) {
			t.Errorf("append by claim %d: %v, want ErrStaleClaim", claim, err)
		}
	}
	refused(1) // nobody has claimed it
	s.read(made.ID, "a/1")
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: 1}, cluster.StreamState{Reader: "b/1", Claim: 2})
	refused(1)
	refused(3)
	s.wantOwn(made.ID, 0, 0)
	s.mustAppendOwn(made.ID, 2, 1, "one")
	refused(1)
	s.wantOwn(made.ID, 0, 1, "one")
	if _, err := s.appendOwn(made.ID, 0, 2, "", "two"); err == nil || errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("append without a claim: %v, want a refusal that says so", err)
	}
	s.wantOwn(made.ID, 0, 1, "one")
}

func streamTakeover(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	claim := s.read(made.ID, "a/1")
	if _, err := s.appendOwn(made.ID, claim, 1, "up-3", "one", "two", "three"); err != nil {
		s.t.Fatal(err)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: claim},
		cluster.StreamState{Reader: "b/1", Claim: 2, Last: 3, Since: []int64{3, 0}, UpstreamEvent: "up-3"})
	s.mustAppendOwn(made.ID, 2, 3, "not three", "four") // what is there stays
	s.wantOwn(made.ID, 0, 4, "one", "two", "three", "four")
	s.wantOwn(made.ID, 4, 4)
	if page := s.readEvents(made.ID, cluster.OwnStream, 0, 1); page.Claim != 2 {
		s.t.Errorf("what is read comes with claim %d, want 2", page.Claim)
	}
	s.mustAppendOwn(made.ID, 2, 7, "seven")
	s.wantOwn(made.ID, 3, 7, "four") // up to the hole
	s.wantGone(made.ID, cluster.OwnStream, 5)
	s.wantOwn(made.ID, 6, 7, "seven")
	s.wantGone(made.ID, cluster.OwnStream, 8)
	s.mustAppendOwn(made.ID, 2, 5, "five", "six") // too late: a hole stays one
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1"}, cluster.StreamState{Reader: "b/1", Claim: 2, Last: 7, Since: []int64{3, 0}})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "c/1", Read: true, From: 2}, cluster.StreamState{Reader: "c/1", Claim: 3, Last: 7, Since: []int64{7, 3, 0}})
}

func streamUpstreamEvent(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	claim := s.read(made.ID, "a/1")
	longest := strings.Repeat("\x00\xff", 128)
	for i, step := range []struct {
		given string
		first int64
		want  string
	}{
		{"up-2", 1, "up-2"},
		{"up-1", 1, "up-2"}, // passed over
		{"up-4", 2, "up-4"}, // one of the two is new
		{"", 4, ""},
		{longest, 6, longest},
		{longest + "x", 8, ""},
	} {
		if _, err := s.appendOwn(made.ID, claim, step.first, step.given, "x", "y"); err != nil {
			t.Fatal(err)
		}
		state, err := s.store.ClaimStream(t.Context(), cluster.StreamClaim{ID: made.ID, Owner: "b/1"})
		if err != nil || state.UpstreamEvent != step.want {
			t.Errorf("step %d: the upstream's event is %q, %v; want %q", i, state.UpstreamEvent, err, step.want)
		}
	}
}

func streamTrimmed(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsCount = 2 })
	made := s.active()
	claim := s.read(made.ID, "a/1")
	s.mustAppendOwn(made.ID, claim, 1, "1", "2", "3", "4", "5")
	s.wantOwn(made.ID, 3, 5, "4", "5")
	s.wantGone(made.ID, cluster.OwnStream, 2)
	s.wantGone(made.ID, cluster.OwnStream, 0)
	s.mustAppend(made.ID, "s", 1, "s1", "s2") // all that is kept
	s.wantOwn(made.ID, 5, 5)
	for _, after := range []int64{0, 4, 6} {
		s.wantGone(made.ID, cluster.OwnStream, after)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: claim}, cluster.StreamState{Reader: "b/1", Claim: 2, Last: 5, Since: []int64{5, 0}})
	s.mustAppendOwn(made.ID, 2, 4, "4", "5", "6")
	s.wantOwn(made.ID, 5, 6, "6")
	s.wantGone(made.ID, cluster.OwnStream, 4)
}

func streamOthers(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.read(made.ID, "a/1")
	for name, a := range map[string]cluster.EventAppend{
		"a claim":           {Claim: 1},
		"an upstream event": {UpstreamEvent: "x"},
	} {
		a.ID, a.Stream, a.First, a.Events = made.ID, "s", 1, [][]byte{[]byte("one")}
		if _, err := s.store.AppendEvents(t.Context(), a); err == nil || errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrStaleClaim) {
			t.Errorf("%s to another stream: %v, want a refusal that says so", name, err)
		}
	}
	s.wantEvents(made.ID, "s", 0, 0)
}

// streamRemapped: what the old upstream session called its events says nothing to the new one.
func streamRemapped(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.read(made.ID, "a/1")
	if _, err := s.appendOwn(made.ID, 1, 1, "up-1", "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Update(t.Context(), change(made.Session, "another")); err != nil {
		t.Fatal(err)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1, Last: 1})
	late := cluster.EventAppend{
		ID: made.ID, Stream: cluster.OwnStream, First: 2, Claim: 1, UpstreamEvent: "up-2", Version: made.Version, Events: [][]byte{[]byte("two")},
	}
	if _, err := s.store.AppendEvents(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1, Last: 2})
	s.wantOwn(made.ID, 0, 2, "one", "two")
}

// streamAhead: what a reader sent and could not store, its client can tell the next one.
func streamAhead(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.read(made.ID, "a/1")
	if _, err := s.appendOwn(made.ID, 1, 1, "up-1", "one"); err != nil {
		t.Fatal(err)
	}
	// ask claims for a client that was sent an event, and wants the claim to be there then.
	ask := func(owner string, from, after int64, sent cluster.SentEvent, want cluster.StreamState) {
		t.Helper()
		s.claim(cluster.StreamClaim{ID: made.ID, Owner: owner, Read: true, From: from, After: after, Sent: sent}, want)
	}
	four := cluster.SentEvent{UpstreamEvent: "up-4", Claim: 1, Version: made.Version}
	is := cluster.StreamState{Reader: "a/1", Claim: 1, Last: 1, UpstreamEvent: "up-1"}
	for _, unknown := range []cluster.SentEvent{
		{},
		{Claim: 1, Version: made.Version},
		{UpstreamEvent: "up-4", Claim: 2, Version: made.Version},
		{UpstreamEvent: "up-4", Claim: 1, Version: made.Version + 1},
		{UpstreamEvent: strings.Repeat("x", 257), Claim: 1, Version: made.Version},
	} {
		ask("b/1", 0, 4, unknown, is)
	}
	ask("b/1", 0, 1, four, is) // as far as the store
	ask("b/1", 1, 4, four, cluster.StreamState{Reader: "b/1", Claim: 2, Last: 4, Since: []int64{4, 0}, UpstreamEvent: "up-4"})
	ask("c/1", 2, 6, four, cluster.StreamState{Reader: "c/1", Claim: 3, Last: 4, Since: []int64{4, 4, 0}, UpstreamEvent: "up-4"}) // of an older claim
	s.wantOwn(made.ID, 4, 4)
	s.wantGone(made.ID, cluster.OwnStream, 1)
	// Also of the reader that is there yet: what it stores later begins behind that.
	six := cluster.SentEvent{UpstreamEvent: "up-6", Claim: 3, Version: made.Version}
	ask("d/1", 0, 6, six, cluster.StreamState{Reader: "c/1", Claim: 3, Last: 6, Since: []int64{4, 4, 0}, UpstreamEvent: "up-6"})
	s.mustAppendOwn(made.ID, 3, 5, "five", "six", "seven")
	s.wantOwn(made.ID, 6, 7, "seven")
}

func streamAged(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsAge = time.Minute })
	made := s.active()
	claim := s.read(made.ID, "a/1")
	s.mustAppendOwn(made.ID, claim, 1, "1", "2")
	s.mustAppend(made.ID, "s", 1, "s1")
	s.b.Advance(time.Minute - time.Millisecond)
	s.wantOwn(made.ID, 0, 2, "1", "2")
	for range 2 { // just past their age, and long after
		s.b.Advance(time.Minute)
		s.wantOwn(made.ID, 2, 2)
		for _, after := range []int64{0, 1, 3} {
			s.wantGone(made.ID, cluster.OwnStream, after)
		}
	}
	s.wantEvents(made.ID, "s", 0, 0) // other streams are forgotten
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: claim, Last: 2})
	s.mustAppendOwn(made.ID, claim, 1, "1", "2") // repeated late: nothing is stored anew
	s.wantGone(made.ID, cluster.OwnStream, 0)
	s.mustAppendOwn(made.ID, claim, 2, "2", "3")
	s.wantOwn(made.ID, 2, 3, "3")
	s.wantGone(made.ID, cluster.OwnStream, 1)
}
