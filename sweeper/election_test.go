package sweeper_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func TestTwentyStartedAtOnceElectOne(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		all := make([]*candidate, 20)
		for i := range all {
			all[i] = w.candidate(fmt.Sprintf("r%d", i)).start()
		}
		leader := w.awaitLeader(soon, all...)
		for range 100 {
			w.pass(time.Second)
			if found := leaders(all); len(found) != 1 || found[0] != leader {
				t.Fatalf("%d leaders", len(found))
			}
		}
		for _, c := range all {
			s, want := c.election.Status(), leader.election.Status()
			if s.Leader != want.Incarnation || s.Epoch != want.Epoch {
				t.Errorf("a replica sees %q lead with epoch %d, want %q and %d", s.Leader, s.Epoch, want.Incarnation, want.Epoch)
			}
		}
	})
}

func TestACleanStopHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		all := []*candidate{w.candidate("a").start(), w.candidate("b").start(), w.candidate("c").start()}
		for range 3 {
			first := w.awaitLeader(soon, all...)
			w.pass(time.Minute)
			first.stop()
			if got := first.election.Status(); got.IsLeader {
				t.Errorf("a stopped replica leads")
			}
			all = slices.DeleteFunc(all, func(c *candidate) bool { return c == first })
			if len(all) > 0 {
				begun := time.Now()
				w.awaitLeader(200*time.Millisecond, all...)
				t.Logf("handed over in %v", time.Since(begun))
			}
			if want := []sweeper.Reason{sweeper.ReasonElected, sweeper.ReasonStopped}; !slices.Equal(first.seen.told(), want) {
				t.Errorf("told %v, want %v", first.seen.told(), want)
			}
		}
		if w.server.Exists(w.keys.LeaderKey()) {
			t.Error("the last leader has left its lock")
		}
	})
}

func TestAMissedResignationCostsATick(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(_ *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		b := w.candidate("b").start()
		w.pass(time.Minute)
		a.link.fail("publish", errCut)
		a.stop()
		w.awaitLeader(tick, b)
	})
}

func TestAListenerSubscribesAgain(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		b := w.candidate("b").start()
		w.pass(5 * time.Minute) // of silence: connections are asked whether they stand
		if n := w.server.PubSubNumSub(w.keys.ResignedChannel())[w.keys.ResignedChannel()]; n != 2 {
			t.Fatalf("%d listeners, want 2", n)
		}
		b.link.sever()
		w.pass(time.Minute)
		if n := w.server.PubSubNumSub(w.keys.ResignedChannel())[w.keys.ResignedChannel()]; n != 2 {
			t.Errorf("%d listeners after connections broke, want 2", n)
		}
		a.stop()
		w.awaitLeader(200*time.Millisecond, b)
	})
}

func TestAKilledLeaderHasASuccessorAfterItsLockAndATick(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		b, c := w.candidate("b").start(), w.candidate("c").start()
		w.pass(time.Minute)
		a.kill()
		begun := time.Now()
		w.awaitLeader(ttl+tick+100*time.Millisecond, b, c)
		t.Logf("a successor after %v", time.Since(begun))
	})
}

func TestAStopDuringAnElectionLeavesNoLock(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*link{"slow": {delay: 400 * time.Millisecond}, "answers lost": {loses: "set"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inElectorate(t, func(t *testing.T, w *electorate) {
				a := w.candidate("a", func(cfg *sweeper.ElectionConfig) { cfg.Store = w.store(l) })
				a.start()
				for range 5000 { // until the attempt is on its way back
					if w.pass(time.Millisecond); w.server.Exists(w.keys.LeaderKey()) {
						break
					}
				}
				if !w.server.Exists(w.keys.LeaderKey()) {
					t.Fatal("no attempt under way")
				}
				a.stop()
				if w.server.Exists(w.keys.LeaderKey()) {
					t.Error("the lock is left")
				}
				if len(w.history()) > 0 {
					t.Error("it has led after its stop")
				}
			})
		})
	}
}

func TestNothingOfATermOutlivesRun(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		a.link.change(whole, time.Second)
		extensions := a.link.called("evalsha")
		for i := 0; i < 500 && a.link.called("evalsha") == extensions; i++ { // until one is under way
			w.pass(10 * time.Millisecond)
		}
		a.link.set(whole) // for all that follows
		a.stop()
		renewed, told := a.seen.count().renewed, len(a.seen.told())
		w.pass(time.Minute)
		if a.seen.count().renewed != renewed || len(a.seen.told()) != told {
			t.Error("an extension came to its end after Run")
		}
	})
}

func TestALeaderWithoutAnEpochGivesTheLockBack(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.server.Server().SetPreHook(func(peer *server.Peer, cmd string, args ...string) bool {
			if strings.HasPrefix(cmd, "EVAL") && slices.Contains(args, "shadowcat:epoch") {
				peer.WriteError("READONLY You can't write against a read only replica.")
				return true
			}
			return false
		})
		a := w.candidate("a").start()
		w.pass(time.Minute)
		if w.server.Exists(w.keys.LeaderKey()) || len(w.history()) > 0 {
			t.Error("it holds the lock, or leads, without an epoch")
		}
		if n := a.log.count("cannot be asked"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		w.server.Server().SetPreHook(nil)
		w.awaitLeader(ttl+tick, a)
		if n := a.log.count("can be elected again"); n != 1 {
			t.Errorf("its end logged %d times, want once", n)
		}
	})
}

func TestAStoreThatIsAwayIsAskedAtEachTickAndSpokenOfOnce(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a")
		a.link.set(cut)
		a.start()
		w.pass(time.Minute)
		if n := a.link.called("pipeline"); n < 30 || n > 45 {
			t.Errorf("asked %d times in a minute, want one for every tick of 1.5 to 2 s", n)
		}
		if n := a.log.count("cannot be asked"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		a.link.set(whole)
		w.awaitLeader(tick, a)
		if n := a.log.count("can be elected again"); n != 1 {
			t.Errorf("its end logged %d times, want once", n)
		}
	})
}

func TestAFailedLeaderLetsAnotherLead(t *testing.T) {
	t.Parallel()
	failed := errors.New("cannot sweep")
	for name, test := range map[string]struct {
		work     func() error
		reason   sweeper.Reason
		says     string
		panicked []string
	}{
		"error":  {work: func() error { return failed }, reason: sweeper.ReasonFailed, says: "cannot sweep"},
		"return": {work: func() error { return nil }, reason: sweeper.ReasonFailed, says: "ended before its term"},
		"panic":  {work: func() error { panic("at the disco") }, reason: sweeper.ReasonPanicked, says: "at the disco", panicked: []string{"lead"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inElectorate(t, func(t *testing.T, w *electorate) {
				a := w.candidate("a")
				a.work = func(context.Context, *sweeper.Term) error {
					<-time.After(time.Minute)
					return test.work()
				}
				a.start()
				w.awaitLeader(soon, a)
				b := w.candidate("b").start()
				w.pass(time.Minute - 10*time.Millisecond)
				w.awaitLeader(soon, b)
				if want := []sweeper.Reason{sweeper.ReasonElected, test.reason}; !slices.Equal(a.seen.told(), want) {
					t.Errorf("told %v, want %v", a.seen.told(), want)
				}
				if !slices.Equal(a.seen.count().panicked, test.panicked) {
					t.Errorf("panicked in %v, want %v", a.seen.count().panicked, test.panicked)
				}
				if a.log.count(test.says) == 0 || (test.panicked != nil && a.log.count("election_test.go") == 0) {
					t.Errorf("the log does not say why:\n%s", a.log.text.String())
				}
			})
		})
	}
}

func TestAFailedLeaderDoesNotStandForOneTTL(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		var tried []time.Time
		a := w.candidate("a")
		a.work = func(context.Context, *sweeper.Term) error {
			tried = append(tried, time.Now())
			return errors.New("no")
		}
		a.start()
		w.pass(2 * time.Minute)
		a.stop()
		for i := 1; i < len(tried); i++ {
			if gap := tried[i].Sub(tried[i-1]); gap < ttl || gap > ttl+tick+100*time.Millisecond {
				t.Errorf("stood again after %v, want one TTL", gap)
			}
		}
		if len(tried) < 9 {
			t.Errorf("stood %d times in two minutes", len(tried))
		}
	})
}

func TestAFullStoreIsCleanedWithoutALeader(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		first := w.candidate("first").start()
		w.awaitLeader(soon, first)
		epoch := first.election.Status().Epoch
		full := func(peer *server.Peer, cmd string, _ ...string) bool {
			if cmd == "SET" {
				peer.WriteError("OOM command not allowed when used memory > 'maxmemory'.")
			}
			return cmd == "SET"
		}
		w.server.Server().SetPreHook(full)

		var calls []time.Time
		a := w.candidate("a", func(cfg *sweeper.ElectionConfig) {
			cfg.Caretaker = func(_ context.Context, stored int64) error {
				if stored != epoch {
					t.Errorf("called with epoch %d, want the stored one, %d", stored, epoch)
				}
				calls = append(calls, time.Now())
				if len(calls)%3 == 0 {
					panic("even a caretaker")
				}
				return errors.New("not enough")
			}
		}).start()
		w.pass(time.Minute)
		if len(calls) > 0 {
			t.Fatal("called although somebody leads")
		}
		first.stop()
		w.pass(time.Minute)
		if len(calls) < 29 {
			t.Errorf("called %d times in a minute", len(calls))
		}
		for i := 1; i < len(calls); i++ {
			if gap := calls[i].Sub(calls[i-1]); gap < tick*3/4 {
				t.Errorf("called again after %v", gap)
			}
		}
		if n := a.log.count("memory is full"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		if len(a.seen.count().panicked) != len(calls)/3 {
			t.Errorf("%d panics counted, want %d", len(a.seen.count().panicked), len(calls)/3)
		}
		w.server.Server().SetPreHook(nil)
		w.awaitLeader(tick, a)
	})
}

func TestAnElectionRunsOnce(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.candidate("a").start()
		w.awaitLeader(soon, a)
		if err := a.election.Run(t.Context(), a.work); err == nil {
			t.Error("ran twice at once")
		}
		a.stop()
		a.start() // but again, later
		w.awaitLeader(soon, a)
	})
}

func TestAnElectionRefusesABadConfiguration(t *testing.T) {
	t.Parallel()
	_, err := sweeper.NewElection(sweeper.ElectionConfig{Incarnation: "a b", TTL: time.Millisecond})
	for _, want := range []string{"store", `"a b"`, "1ms"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not speak of %s", err, want)
		}
	}
}
