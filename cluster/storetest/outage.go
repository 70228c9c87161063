package storetest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// OutageBackend makes stores that may be away, inside of synctest bubbles: their clock is the bubble's.
type OutageBackend struct {
	// Open returns an empty store. It is closed by the backend when the test ends.
	Open func(t *testing.T, cfg cluster.Config) cluster.Store
	// SetAway makes the last store that was opened answer nobody, or everybody again.
	SetAway func(isAway bool)
}

// A session idles out during the outage.
const (
	outageLength = time.Minute
	outageIdle   = 30 * time.Second
)

// servedAfterOutages are the calls that a session which has idled out may be granted or refused. Each returns ErrNotFound when it is.
var servedAfterOutages = map[string]func(*suite, known) error{
	"lease": func(s *suite, k known) error {
		_, err := s.lease(k, 1)
		return err
	},
	"report": func(s *suite, k known) error {
		return s.store.Report(s.t.Context(), []cluster.Report{{ID: k.ID, Idle: outageLength / 2}})[0].Err
	},
	"report of a stream": func(s *suite, k known) error {
		return s.store.Report(s.t.Context(), []cluster.Report{{ID: k.ID, Idle: -1}})[0].Err
	},
	"check": func(s *suite, k known) error { return s.store.Check(s.t.Context(), []cluster.ID{k.ID})[0] },
	"claim": func(s *suite, k known) error {
		_, err := s.store.ClaimStream(s.t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Listen: true})
		return err
	},
	"open": func(s *suite, k known) error {
		_, err := s.store.OpenStream(s.t.Context(), cluster.OpenStream{ID: k.ID, Kind: cluster.StreamListening, Key: "k", Owner: "a/1"}, 1, 0)
		return err
	},
	"release": func(s *suite, k known) error {
		if err := s.store.ReleaseStream(s.t.Context(), k.ID, 1); !errors.Is(err, cluster.ErrStaleClaim) {
			return err
		}
		return nil
	},
	"states": func(s *suite, k known) error { return s.state(k.ID).Err },
	"append": func(s *suite, k known) error { return s.appendEvents(k.ID, "s", 1, "one") },
	"read":   func(s *suite, k known) error { return s.readEvents(k.ID, "s", 0, 1).Err },
	"note":   func(s *suite, k known) error { return s.note(k.ID, "k", "note") },
	"recovery": func(s *suite, k known) error {
		_, err := s.recover(k.Session, "w")
		if errors.Is(err, cluster.ErrIllegalTransition) {
			return cluster.ErrNotFound
		}
		return err
	},
	"change": func(s *suite, k known) error {
		_, err := s.store.Update(s.t.Context(), cluster.Change{ID: k.ID, ExpectedVersion: k.Version, Writer: "later"})
		if errors.Is(err, cluster.ErrIllegalTransition) {
			return cluster.ErrNotFound
		}
		return err
	},
	"end": func(s *suite, k known) error {
		_, err := s.store.Terminate(s.t.Context(), k.ID, cluster.StatusTerminated)
		if errors.Is(err, cluster.ErrExpired) {
			return cluster.ErrNotFound
		}
		return err
	},
	"sweep": func(s *suite, _ known) error {
		swept, err := s.store.Sweep(s.t.Context(), sweep)
		if err == nil && len(swept.Expired) > 0 {
			err = cluster.ErrNotFound
		}
		return err
	},
	"creation": func(s *suite, _ known) error {
		created, err := s.store.Create(s.t.Context(), creation(s.token()))
		if err == nil && len(created.Ended) > 0 {
			err = cluster.ErrNotFound
		}
		return err
	},
}

// RunOutages runs the part of the suite that is about what a store grants to callers that have seen an outage: for two report
// slacks after it, sessions end for want of activity later by its length, because reports are on their way.
func RunOutages(t *testing.T, b OutageBackend) {
	t.Helper()
	for name, serves := range servedAfterOutages {
		t.Run(name+" just after an outage spares what idled out during it", func(t *testing.T) {
			b.run(t, 0, func(_ *testing.T, s *suite, k known) { s.wantServed(serves(s, k), nil) })
		})
		t.Run(name+" two slacks after an outage ends what idled out", func(t *testing.T) {
			b.run(t, 0, func(_ *testing.T, s *suite, k known) {
				<-time.After(2*limits().ReportSlack + time.Millisecond)
				s.wantServed(serves(s, k), cluster.ErrNotFound)
			})
		})
		if name == "sweep" || name == "creation" {
			continue // they may be late
		}
		t.Run(name+" just after an outage refuses what was too old", func(t *testing.T) {
			b.run(t, outageLength, func(_ *testing.T, s *suite, k known) { s.wantServed(serves(s, k), cluster.ErrNotFound) })
		})
	}
	t.Run("a late report does not make a session live for ever", func(t *testing.T) {
		b.run(t, 0, func(t *testing.T, s *suite, k known) {
			r := s.store.Report(t.Context(), []cluster.Report{{ID: k.ID, Idle: outageLength - time.Second}})[0]
			if r.Err != nil || r.EndsIn != 0 {
				t.Errorf("a report of activity that was too long ago: ends in %v, %v; want at once", r.EndsIn, r.Err)
			}
		})
	})
}

// run makes a session, and an outage during which it idles out; then it runs the test.
func (b OutageBackend) run(t *testing.T, maxAge time.Duration, test func(*testing.T, *suite, known)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &suite{t: t, b: Backend{Open: b.Open}}
		s.open(func(c *cluster.Config) {
			c.IdleTimeout, c.MaxAge = outageIdle, maxAge
			c.StoreTimeout = 250 * time.Millisecond
		})
		k := s.active()
		s.mustLease(k, 1)
		b.SetAway(true)
		for range int(outageLength / time.Second) {
			if err := s.store.Beat(t.Context(), "replica/1"); !errors.Is(err, cluster.ErrStoreUnavailable) {
				t.Fatalf("while the store is away: %v", err)
			}
			<-time.After(time.Second)
		}
		b.SetAway(false)
		for s.store.Beat(t.Context(), "replica/1") != nil { // it may be noticed a little later
			<-time.After(100 * time.Millisecond)
		}
		test(t, s, k)
	})
}

func (s *suite) wantServed(err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) || (want == nil && err != nil) {
		s.t.Errorf("%v, want %v", err, want)
	}
}
