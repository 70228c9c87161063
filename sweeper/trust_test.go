package sweeper_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func TestALeaderThatCannotExtendStopsBeforeItsTrustEnds(t *testing.T) {
	t.Parallel()
	for name, breakLink := range map[string]func(*link){
		"fails":      func(l *link) { l.set(cut) },
		"hangs":      func(l *link) { l.set(hanging) },
		"reply lost": func(l *link) { l.set(lost) },
		"deaf":       func(l *link) { l.change(deaf, 3*ttl) },
		"tardy":      func(l *link) { l.change(tardy, ttl/4) },
		"too late":   func(l *link) { l.change(late, ttl/2) },
		"no scripts": func(l *link) { l.fail("evalsha", errCut) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inElectorate(t, func(t *testing.T, w *electorate) {
				a := w.candidate("a").start()
				w.awaitLeader(soon, a)
				b := w.candidate("b").start()
				w.pass(47 * time.Second)
				extended := a.election.Status().SeenAt
				breakLink(a.link)
				w.pass(time.Until(extended.Add(window - time.Millisecond)))
				if !a.election.Status().IsLeader {
					t.Error("it gave up too early")
				}
				w.awaitLeader(2*ttl, b)
				first := w.history()[0]
				if !first.end.Equal(extended.Add(window)) || !errors.Is(first.cause, sweeper.ErrTrustEnded) {
					t.Errorf("ended %v after its last extension because of %v", first.end.Sub(extended), first.cause)
				}
				if want := []sweeper.Reason{sweeper.ReasonElected, sweeper.ReasonExpired}; !slices.Equal(a.seen.told(), want) {
					t.Errorf("told %v, want %v", a.seen.told(), want)
				}
				if a.seen.count().failed < 2 && name != "deaf" {
					t.Errorf("%d failed extensions, want it to try again", a.seen.count().failed)
				}
			})
		})
	}
}

// rude is an observer that panics whenever it is told.
type rude struct{ *witness }

func (o rude) LeaderChanged(isLeader bool, reason sweeper.Reason) {
	o.witness.LeaderChanged(isLeader, reason)
	panic("rude")
}

func (o rude) Panicked(loop string) {
	o.witness.Panicked(loop)
	panic("ruder")
}

// The timer of the trust window tells the observer, on a goroutine that nobody waits for.
func TestAnObserverThatPanicsHarmsNoTerm(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a", func(cfg *sweeper.ElectionConfig) { cfg.Observer = rude{cfg.Observer.(*witness)} }).start() //nolint:errcheck,forcetypeassert // what candidate sets
		w.awaitLeader(soon, a)
		a.link.set(hanging)
		w.pass(2 * ttl)
		if a.election.Status().IsLeader {
			t.Error("it leads beyond its trust")
		}
		a.link.set(whole)
		w.pass(3 * ttl)
		w.awaitLeader(tick, a)
		if want := []sweeper.Reason{sweeper.ReasonElected, sweeper.ReasonExpired, sweeper.ReasonElected}; !slices.Equal(a.seen.told(), want) {
			t.Errorf("told %v, want %v", a.seen.told(), want)
		}
		if seen := a.seen.count(); len(seen.panicked) != 3 || a.log.count("loop=observer") != 3 {
			t.Errorf("panics in %v were counted, %d logged; want 3", seen.panicked, a.log.count("loop=observer"))
		}
	})
}

func TestATermOutlastsAnOutageOfAThirdOfItsTTL(t *testing.T) {
	t.Parallel()
	for _, state := range []linkState{cut, hanging} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			inElectorate(t, func(t *testing.T, w *electorate) {
				a := w.candidate("a").start()
				w.awaitLeader(soon, a)
				for range 10 {
					// From just before the next extension.
					w.pass(time.Until(a.election.Status().SeenAt.Add(ttl/3 - time.Millisecond)))
					a.link.set(state)
					w.pass(ttl / 3 * 5 / 4)
					a.link.set(whole)
					w.pass(ttl)
				}
				if len(w.history()) != 1 || !a.election.Status().IsLeader {
					t.Errorf("%d reigns, want one", len(w.history()))
				}
				if a.seen.count().failed < 10 {
					t.Errorf("%d failed extensions", a.seen.count().failed)
				}
			})
		})
	}
}

func TestALeaderThatLostItsLockStopsAtTheNextExtension(t *testing.T) {
	t.Parallel()
	for name, robber := range map[string]string{"gone": "", "stolen": "thief 1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inElectorate(t, func(t *testing.T, w *electorate) {
				a := w.candidate("a").start()
				w.awaitLeader(soon, a)
				w.pass(time.Minute)
				w.server.Del(w.keys.LeaderKey())
				if robber != "" {
					if err := w.server.Set(w.keys.LeaderKey(), robber); err != nil {
						t.Fatal(err)
					}
				}
				begun := time.Now()
				w.pass(ttl / 3)
				first := w.history()[0]
				if first.end.IsZero() || !errors.Is(first.cause, sweeper.ErrLockLost) {
					t.Fatalf("ended at %v because of %v", first.end, first.cause)
				}
				t.Logf("stopped after %v", first.end.Sub(begun))
				w.pass(time.Minute)
				if robber == "" {
					w.awaitLeader(0, a)
					return
				}
				if holder, err := w.server.Get(w.keys.LeaderKey()); holder != robber || err != nil {
					t.Errorf("the lock holds %q, %v", holder, err)
				}
				if s := a.election.Status(); s.Leader != "thief" || s.IsLeader {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

func TestASlowStoreDoesNotStretchTrust(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		const delay = ttl / 10 * 9 / 10
		a := w.candidate("a")
		a.link.change(whole, delay)
		a.start()
		w.awaitLeader(time.Minute, a)
		// The attempt began a delay before the lead began, and the epoch took another: the trust is counted from there.
		s := a.election.Status()
		if asked := w.history()[0].begun.Add(-2 * delay); s.TrustedUntil.After(asked.Add(window)) {
			t.Errorf("trusted until %v after the attempt, want at most %v", s.TrustedUntil.Sub(asked), window)
		}
		for range 200 {
			w.pass(100 * time.Millisecond)
			s := a.election.Status()
			if lock := time.Now().Add(w.server.TTL(w.keys.LeaderKey())); !s.IsLeader || s.TrustedUntil.After(lock.Add(-ttl/10)) {
				t.Fatalf("leads %v, trusted until %v, locked until %v", s.IsLeader, s.TrustedUntil, lock)
			}
		}
	})
}

func TestALeaderThatDoesNotLetGoIsNotTrustedAndHarmsNoSuccessor(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		held := make(chan struct{})
		a.work = func(ctx context.Context, term *sweeper.Term) error {
			<-ctx.Done()
			<-held
			if term.Trusted() {
				t.Error("trusted after its end")
			}
			if err := term.Raise(t.Context(), 1); !errors.Is(err, sweeper.ErrTrustEnded) {
				t.Errorf("Raise: %v", err)
			}
			return nil
		}
		a.start()
		w.awaitLeader(soon, a)
		b := w.candidate("b").start()
		a.link.set(cut)
		w.pass(3 * ttl)
		a.link.set(whole)
		w.awaitLeader(0, b)
		if s := a.election.Status(); s.IsLeader {
			t.Error("it says that it leads")
		}
		holder, _ := w.server.Get(w.keys.LeaderKey())
		close(held)
		w.pass(time.Minute)
		if now, _ := w.server.Get(w.keys.LeaderKey()); now != holder {
			t.Errorf("the lock holds %q, want %q", now, holder)
		}
		w.awaitLeader(0, b)
	})
}

func TestALockThatCannotBeGivenBackIsTriedAgain(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		b := w.candidate("b").start()
		w.pass(time.Minute)
		a.link.set(lost)
		go func() {
			<-time.After(resignTimeout + 20*time.Millisecond)
			a.link.set(whole)
		}()
		begun := time.Now()
		a.stop()
		if took := time.Since(begun); took > soon {
			t.Errorf("the stop took %v", took)
		}
		w.awaitLeader(200*time.Millisecond, b)
		if n := a.log.count("could not be given back"); n > 0 {
			t.Error("it was given back, the reply was lost")
		}

		b.link.set(cut)
		b.stop()
		if n := b.log.count("could not be given back"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
	})
}

// resignTimeout is what one try of a resignation takes.
const resignTimeout = 500 * time.Millisecond
