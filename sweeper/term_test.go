package sweeper_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func TestEpochsGrowOverTermsEvenWhenTheStoreForgets(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		holders := make(map[string]bool)
		for i := range 10 {
			c := w.candidate("r").start()
			w.awaitLeader(soon, c)
			holder, err := w.server.Get(w.keys.LeaderKey())
			if err != nil || holders[holder] || sweeper.HolderIncarnation(holder) != "r" {
				t.Errorf("the lock holds %q (%v), want r and something new", holder, err)
			}
			holders[holder] = true
			w.pass(time.Duration(i) * time.Millisecond)
			if i%2 == 0 {
				w.server.Del("shadowcat:epoch")
			}
			c.stop()
		}
		if n := len(w.history()); n != 10 { // whose epochs are compared at the end of each test
			t.Errorf("%d terms, want 10", n)
		}
	})
}

func TestATrustedLeaderRaisesItsEpochOverAFence(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		term, fence := a.reigning(w)
		first := term.Epoch()
		if first < fence-(time.Hour+time.Second).Milliseconds() {
			t.Errorf("epoch %d is behind the store's clock", first)
		}
		if err := term.Raise(t.Context(), fence); err != nil || term.Epoch() != fence+1 {
			t.Fatalf("Raise: %v; epoch %d, want %d", err, term.Epoch(), fence+1)
		}
		if err := term.Raise(t.Context(), 5); err != nil || term.Epoch() != fence+2 {
			t.Errorf("Raise over less: %v; epoch %d, want %d", err, term.Epoch(), fence+2)
		}
		if got := a.election.Status().Epoch; got != term.Epoch() {
			t.Errorf("status tells epoch %d, want %d", got, term.Epoch())
		}
		// Forgotten by the store, remembered by the replica.
		w.server.Del("shadowcat:epoch")
		if err := term.Raise(t.Context(), 0); err != nil || term.Epoch() != fence+3 {
			t.Errorf("Raise without the stored one: %v; epoch %d, want %d", err, term.Epoch(), fence+3)
		}
		a.stop()
		w.server.Del("shadowcat:epoch")
		if term, _ := a.reigning(w); term.Epoch() != fence+4 {
			t.Errorf("the next term has epoch %d, want %d", term.Epoch(), fence+4)
		}
	})
}

func TestALeaderThatCannotReachTheStoreDoesNotRaise(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		term, fence := a.reigning(w)
		epoch := term.Epoch()
		a.link.set(lost)
		if err := term.Raise(t.Context(), fence); !errors.Is(err, cluster.ErrStoreUnavailable) || term.Epoch() != epoch {
			t.Errorf("Raise: %v; epoch %d, want %d", err, term.Epoch(), epoch)
		}
		w.pass(ttl)
		if err := term.Raise(t.Context(), fence); !errors.Is(err, sweeper.ErrTrustEnded) || term.Epoch() != epoch {
			t.Errorf("Raise: %v; epoch %d, want %d", err, term.Epoch(), epoch)
		}
	})
}

func TestALeaderWhoseTrustEndsWhileItRaisesKeepsItsEpoch(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		term, fence := a.reigning(w)
		epoch := term.Epoch()
		a.link.fail("evalsha", errCut) // no extension
		w.pass(time.Until(term.TrustedUntil()) - time.Second)
		a.link.fail("evalsha", nil)
		a.link.change(deaf, 600*time.Millisecond) // for each of the two calls, whose answers come
		err := term.Raise(t.Context(), fence)
		if !errors.Is(err, sweeper.ErrTrustEnded) || term.Epoch() != epoch {
			t.Errorf("Raise: %v; epoch %d, want %d", err, term.Epoch(), epoch)
		}
	})
}

func TestALeaderThatIsNoLeaderToTheStoreDoesNotRaise(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		term, fence := a.reigning(w)
		epoch := term.Epoch()
		if err := w.server.Set(w.keys.LeaderKey(), "b 1"); err != nil {
			t.Fatal(err)
		}
		err := term.Raise(t.Context(), fence)
		if !errors.Is(err, sweeper.ErrLockLost) || term.Epoch() != epoch || a.election.Status().IsLeader {
			t.Errorf("Raise: %v; epoch %d, want %d", err, term.Epoch(), epoch)
		}
	})
}

// reigning starts a replica, and returns its term and a fence that is far ahead of it.
func (c *candidate) reigning(w *electorate) (term *sweeper.Term, fence int64) {
	terms := make(chan *sweeper.Term, 1)
	c.work = func(ctx context.Context, term *sweeper.Term) error {
		terms <- term
		<-ctx.Done()
		return nil
	}
	c.start()
	w.awaitLeader(soon, c)
	return <-terms, time.Now().Add(time.Hour).UnixMilli()
}
