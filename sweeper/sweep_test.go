package sweeper_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func TestTheFirstSweepComesOneSlackAfterTheElection(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(3)
		c := w.cleaner("a/1")
		since := c.elected()
		w.pass(slack + time.Second)
		sweeps := c.seen.busy()
		if len(sweeps) != 1 || sweeps[0].expired != 3 || sweeps[0].at.Sub(since) != slack {
			t.Errorf("elected at %v, sweeps %v; want one, %v later", since, sweeps, slack)
		}
	})
}

func TestDueSessionsAreGoneWithinTwoIntervals(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		c := w.cleaner("a/1")
		c.elected()
		for range 200 {
			w.sessions(1)
			w.pass(700 * time.Millisecond)
			if stats := w.stats(); stats.Lag > 2*interval {
				t.Fatalf("%d sessions due, the oldest for %v", stats.Due, stats.Lag)
			}
		}
		w.pass(cluster.DefaultConfig().InitializeTimeout + 2*interval)
		if got := w.stats().Ended[cluster.StatusExpired]; got != 200 {
			t.Errorf("%d expired, want 200", got)
		}
		w.pass(cluster.DefaultConfig().Retention)
		if stats := w.stats(); stats.ByStatus[cluster.StatusExpired] != 0 {
			t.Errorf("%d records outlive their retention", stats.ByStatus[cluster.StatusExpired])
		}
	})
}

func TestABacklogIsSweptInPacedBatchesUntilNothingIsDue(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(950)
		c := w.cleaner("a/1")
		c.elected()
		w.pass(slack + time.Second) // much less than an interval more
		sweeps := c.seen.busy()
		sum := 0
		for i, s := range sweeps {
			sum += s.expired
			if s.expired > 8 {
				t.Errorf("a batch of %d", s.expired)
			}
			if i > 0 && s.at.Sub(sweeps[i-1].at) < 5*time.Millisecond {
				t.Errorf("a batch only %v after the one before", s.at.Sub(sweeps[i-1].at))
			}
		}
		if sum != 950 || len(sweeps) != 119 {
			t.Errorf("%d expired in %d batches, want 950 in 119", sum, len(sweeps))
		}
	})
}

func TestALeaderThatCannotSweepResignsAndSaysWhy(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		a := w.cleaner("a/1")
		a.elected()
		w.pass(slack + time.Second)
		b := w.cleaner("b/1")
		w.due(3)
		a.gate.set(true)
		begun := time.Now()
		for a.sweeper.Status().IsLeader {
			w.pass(50 * time.Millisecond)
			if time.Since(begun) > 6*interval {
				t.Fatal("it leads still")
			}
		}
		if led := time.Since(begun); led < 2*interval {
			t.Errorf("it gave up after %v", led)
		}
		if told := a.seen.told(); told[len(told)-1] != sweeper.ReasonFailed {
			t.Errorf("reasons %v, want the last to be failed", told)
		}
		if a.log.count("sweeping has not worked for") == 0 || a.log.count(errGate.Error()) == 0 {
			t.Error("the log does not say why it leads no more")
		}
		b.elected()
		w.pass(slack + time.Second)
		if got := w.stats(); got.Due != 0 {
			t.Errorf("%d sessions are due under the next leader", got.Due)
		}
		if _, failed, _, _, _ := a.seen.cleanup(); failed < 3 {
			t.Errorf("%d failed sweeps were told", failed)
		}
	})
}

// After an outage replicas must be able to report before anybody is ended, however often the leader sweeps.
func TestAfterAnOutageOneSlackPassesBeforeTheNextSweep(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{700 * time.Millisecond, 850 * time.Millisecond} {
		inElectorate(t, func(t *testing.T, w *electorate) {
			c := w.cleaner("a/1", func(cfg *sweeper.Config) { cfg.Interval = 500 * time.Millisecond })
			c.elected()
			w.pass(slack + 3*time.Second)
			c.gate.set(true)
			w.pass(outage)
			c.gate.set(false)
			back, before := time.Now(), c.seen.sweepsThatWorked()
			for ; c.seen.sweepsThatWorked() == before; w.pass(10 * time.Millisecond) {
				if time.Since(back) > 2*slack {
					t.Fatalf("no sweep %v after the outage; leads: %v", time.Since(back), c.sweeper.Status().IsLeader)
				}
			}
			if waited := time.Since(back); waited < slack {
				t.Errorf("outage of %v: a sweep %v after its end, want at least %v", outage, waited, slack)
			}
			if told := c.seen.told(); len(told) != 1 {
				t.Errorf("outage of %v: leadership changed: %v", outage, told)
			}
			last := time.Now()
			w.pass(2 * time.Second)
			if more := c.seen.sweepsThatWorked() - before; more < 3 {
				t.Errorf("%d sweeps in %v after that: the outage is over", more, time.Since(last))
			}
		})
	}
}

func TestALeaderThatIsFencedTakesALaterEpochAndGoesOn(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(3)
		c := w.cleaner("a/1")
		c.elected()
		before := c.sweeper.Status().Epoch
		// A failover has rolled the epoch back that this fence was raised under.
		fence := before + time.Hour.Milliseconds()
		if _, err := w.keys.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: fence, Leader: true}, Limit: 1}); err != nil {
			t.Fatal(err)
		}
		w.pass(slack + 2*interval)
		_, failed, fenced, _, _ := c.seen.cleanup()
		if s := c.sweeper.Status(); !s.IsLeader || s.Epoch <= fence || fenced != 1 || failed != 0 {
			t.Errorf("leads: %v, epoch %d, fence %d, fenced %d times, %d failed sweeps", s.IsLeader, s.Epoch, fence, fenced, failed)
		}
		if got := w.stats(); got.Due != 0 {
			t.Errorf("%d sessions are due", got.Due)
		}
		if told := c.seen.told(); len(told) != 1 {
			t.Errorf("leadership changed: %v", told)
		}
	})
}

func TestAPanicWhileSweepingIsCountedAndSweepingGoesOn(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(1)
		var calls atomic.Int64
		c := w.cleaner("a/1", func(cfg *sweeper.Config) {
			cfg.Expired = func([]cluster.Session) {
				if calls.Add(1) == 1 {
					panic("boom")
				}
			}
		})
		c.elected()
		w.pass(slack + time.Second)
		w.due(1)
		w.pass(2 * interval)
		if got := c.seen.count().panicked; len(got) != 1 || got[0] != "sweep" {
			t.Errorf("panics: %v, want one in sweep", got)
		}
		if calls.Load() != 2 || !c.sweeper.Status().IsLeader {
			t.Errorf("told %d times of sessions; leads: %v", calls.Load(), c.sweeper.Status().IsLeader)
		}
		if c.log.count("sweep_test.go") == 0 || c.log.count("boom") == 0 {
			t.Error("the log lacks the stack")
		}
	})
}

func TestWhatASweepDidIsAuditedOnce(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		var expired []cluster.Session
		ids := w.due(30)
		c := w.cleaner("a/1", func(cfg *sweeper.Config) {
			cfg.Batch = 7
			cfg.Expired = func(s []cluster.Session) { expired = append(expired, s...) }
		})
		c.elected()
		w.pass(slack + time.Second)
		if len(expired) != 30 {
			t.Errorf("told of %d sessions, want 30", len(expired))
		}
		w.pass(cluster.DefaultConfig().Retention + 2*interval)
		c.stop()
		actions := make(map[cluster.ID]string)
		for _, r := range c.auditor.all() {
			actions[r.Session] += string(r.Action) + " "
			if r.Actor != cluster.ActorSweeper || r.By != "a/1" || !strings.HasPrefix(r.Reason, "past its ") || r.At.IsZero() {
				t.Errorf("record %+v", r)
			}
		}
		for _, id := range ids {
			if actions[id] != "expired purged " {
				t.Errorf("session %s: %q, want that it expired and was purged", id, actions[id])
			}
		}
		if len(actions) != 30 {
			t.Errorf("%d sessions are audited", len(actions))
		}
	})
}

// The embedded Redis does not tell its memory: the leader asks, is told nothing, and does not complain.
// A failover has rolled the epoch back, the fence is ahead of it, and nobody can take a new epoch: the server is full. Then who
// cleans up without a leader does so under the fence's epoch, and raises no fence.
func TestACaretakerCleansUpUnderTheFenceWhereTheEpochIsRolledBack(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		first := w.cleaner("a/1")
		first.elected()
		w.pass(slack + time.Second)
		first.stop()
		client := w.keys.Client()
		const fence = "shadowcat:{0}:fence"
		ahead := time.Now().Add(time.Hour).UnixMilli()
		err := errors.Join(client.Set(t.Context(), "shadowcat:epoch", 5, 0).Err(), client.Set(t.Context(), fence, ahead, 0).Err())
		if err != nil {
			t.Fatal(err)
		}
		w.due(3)
		w.server.Server().SetPreHook(func(peer *server.Peer, cmd string, _ ...string) bool {
			if cmd == "SET" {
				peer.WriteError("OOM command not allowed when used memory > 'maxmemory'.")
			}
			return cmd == "SET"
		})
		c := w.cleaner("b/1")
		w.pass(3 * tick)
		if c.sweeper.Status().IsLeader || c.log.count("memory is full") != 1 {
			t.Errorf("leads: %v, told %d times that it is full", c.sweeper.Status().IsLeader, c.log.count("memory is full"))
		}
		if stats := w.stats(); stats.Due > 0 || stats.Ended[cluster.StatusExpired] != 3 {
			t.Errorf("%d are due, %d have expired; want none and 3", stats.Due, stats.Ended[cluster.StatusExpired])
		}
		if now, err := client.Get(t.Context(), fence).Int64(); err != nil || now != ahead {
			t.Errorf("the fence is %d, %v; want %d as before", now, err, ahead)
		}
		w.server.Server().SetPreHook(nil)
	})
}

func TestAServerThatDoesNotTellItsMemoryDisturbsNobody(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(3)
		c := w.cleaner("a/1")
		c.elected()
		w.pass(slack + 3*interval)
		if _, _, _, looks, _ := c.seen.cleanup(); looks < 2 || c.log.count("emergency") > 0 {
			t.Errorf("%d looks at memory, %d complaints", looks, c.log.count("emergency"))
		}
		if got := w.stats(); got.Due != 0 || !c.sweeper.Status().IsLeader {
			t.Errorf("%d due, leads: %v", got.Due, c.sweeper.Status().IsLeader)
		}
	})
}

func TestAbandonedSessionsAreCleanedUpToTheLastKey(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		cfg := cluster.DefaultConfig()
		cfg.IdleTimeout, cfg.Retention, cfg.CreateRate, cfg.CreateRatePerPrincipal = 10*time.Second, 20*time.Second, 0, 0
		store, err := redisstore.New(w.keys.Client(), redisstore.Options{Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		manager, err := cluster.NewManager(store, cfg, cluster.Options{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		ctx, cancel := contextOf(t)
		go func() { done <- manager.Run(ctx) }()
		c := w.cleaner("a/1", func(cfg *sweeper.Config) { cfg.Store = store })
		for range 250 {
			abandon(t, manager, store)
		}
		w.pass(30 * time.Second)
		if stats := w.stats(); stats.ByStatus[cluster.StatusActive] != 0 || stats.Ended[cluster.StatusExpired] != 250 {
			t.Errorf("abandoned sessions: %+v; want 250 expired", stats)
		}
		w.pass(time.Minute)
		c.stop()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		kept := map[string]bool{"counts": true, "fence": true, "epoch": true} // the cluster's own
		for _, key := range w.server.Keys() {
			if !kept[key[strings.LastIndex(key, ":")+1:]] {
				t.Errorf("key %s is left", key)
			}
		}
		violations, err := store.Violations(t.Context())
		if err != nil || len(violations) > 0 {
			t.Errorf("%v, %v", violations, err)
		}
	})
}

// abandon makes a session that has everything, and leaves it.
func abandon(t *testing.T, manager *cluster.Manager, store *redisstore.Store) {
	t.Helper()
	s, token, err := manager.Create(t.Context(), cluster.NewSession{Upstream: "u", Principal: "ann", Initialize: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Activate(t.Context(), s, cluster.Activation{UpstreamSession: "x"}); err != nil {
		t.Fatal(err)
	}
	l, err := manager.Lease(t.Context(), token, cluster.Use{Upstream: "u", Principal: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	if _, err := store.AppendEvents(t.Context(), cluster.EventAppend{ID: s.ID, Stream: "s", First: 1, Events: [][]byte{[]byte("e")}}); err != nil {
		t.Fatal(err)
	}
	if err := store.AppendFrames(t.Context(), s.ID, []cluster.Frame{{Direction: cluster.FromClient, Method: "m"}}); err != nil {
		t.Fatal(err)
	}
}
