package integration_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
)

const (
	// manySessions take a leader seconds to sweep in the batches of these tests.
	manySessions = 2000
	smallBatch   = "10"
	// failoverTime is how long Sentinel takes: see failoverBound.
	failoverTime = failoverBound / 3
)

// A failover in the middle of a sweep. What the new primary knows of epochs differs.
func TestChaosAFailoverInMidSweep(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]failover{
		"Plain":        {},
		"RolledBack":   {cutsReplication: true},
		"FenceIsAhead": {forgets: true, fence: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fail.run(t)
		})
	}
}

// failover is how a primary is lost, and what its successor makes of it.
type failover struct {
	// cutsReplication: the successor has nothing of what the primary did under the last epoch.
	cutsReplication bool
	// forgets: the successor has no epoch.
	forgets bool
	// fence is by how much the successor's fence is ahead of its clock: as if the primary's clock had been.
	fence time.Duration
}

func (f failover) run(t *testing.T) {
	topology := newSentinel(t, sentinel.Options{})
	w := newChaosWorld(t, topology, func(c *cluster.Config) { c.IdleTimeout = 30 * time.Second })
	due := w.mortals(t, manySessions)
	replicas := w.replicas(t, 3, "--sweep-batch", smallBatch)
	leader := w.awaitSweeper(t, replicas...)
	if err := topology.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err := topology.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var copies []*redisserver.Server
	w.doom(t, due)
	if f.cutsReplication {
		if err := topology.WaitReplicated(t.Context()); err != nil {
			t.Fatal(err)
		}
		copies = cutOff(t, topology, old)
		leader.Kill() // its successor's epoch, lock and fences are the primary's alone
	}
	newestEpoch := w.awaitMidSweep(t, old.Address(), f.cutsReplication)
	old.Kill()
	killed := time.Now()
	for _, c := range copies {
		if err := c.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	young := f.awaitSuccessor(t, topology, old)
	f.rollBack(t, w)
	w.awaitExpired(t, manySessions)
	within(t, "from the kill of the primary until all that was due is gone", time.Since(killed), failoverTime+successionBound+2*chaosInterval)
	w.awaitLeader(t, recovery, replicas...)
	w.checkLaterEpochs(t, young.Address(), newestEpoch)
	if f.fence > 0 && w.witness.refused(young.Address()) == 0 {
		t.Error("the fence refused nobody, although it was ahead")
	}
	if err := topology.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.finish(t)
}

// awaitMidSweep waits until some of what is due is gone, by a second leader if it is to, and returns its epoch.
func (w *chaosWorld) awaitMidSweep(t *testing.T, primary string, bySecond bool) (newest int64) {
	t.Helper()
	eventually(t, recovery, func(ctx context.Context) error {
		epochs := make(map[int64]bool)
		for _, d := range w.witness.deeds(primary) {
			if d.passed {
				epochs[d.epoch] = true
				newest = max(newest, d.epoch)
			}
		}
		stats, err := w.store.Stats(ctx)
		if err != nil {
			return err
		}
		if bySecond && len(epochs) < 2 || stats.Ended[cluster.StatusExpired] == 0 {
			return fmt.Errorf("%d sessions have expired in %d epochs", stats.Ended[cluster.StatusExpired], len(epochs))
		}
		t.Logf("the primary is killed when %d sessions have expired and %d are due", stats.Ended[cluster.StatusExpired], stats.Due)
		if stats.Due == 0 {
			t.Error("this is not the middle of a sweep")
		}
		return nil
	})
	return newest
}

// awaitSuccessor waits for another primary than the old one.
func (f failover) awaitSuccessor(t *testing.T, topology aSentinel, old *redisserver.Server) (young *redisserver.Server) {
	t.Helper()
	took := eventually(t, recovery, func(ctx context.Context) (err error) {
		if young, err = topology.Primary(ctx); err == nil && young == old {
			err = errNotYet
		}
		return err
	})
	t.Logf("another primary after %s", took.Round(time.Millisecond))
	return young
}

// rollBack makes the new primary know what the failover is about. It fails the test if the store cannot be reached.
func (f failover) rollBack(t *testing.T, w *chaosWorld) {
	t.Helper()
	client := w.store.Client()
	eventually(t, recovery, func(ctx context.Context) error {
		if f.forgets {
			if err := client.Del(ctx, w.options.Prefix+":epoch").Err(); err != nil {
				return err
			}
		}
		if f.fence > 0 {
			return client.Set(ctx, w.options.Prefix+":{0}:fence", time.Now().Add(f.fence).UnixMilli(), 0).Err()
		}
		return client.Ping(ctx).Err()
	})
}

// checkLaterEpochs fails the test when a new primary let a script pass whose epoch is older than what its predecessor had seen.
func (w *chaosWorld) checkLaterEpochs(t *testing.T, primary string, newest int64) {
	t.Helper()
	for _, d := range w.witness.deeds(primary) {
		if d.passed && d.epoch < newest {
			t.Errorf("the new primary ran a script of epoch %d, the old one had one of %d", d.epoch, newest)
			return
		}
	}
}

// The clocks of replicas and store are an hour apart. It is the store's clock that is moved: what matters is the difference,
// and no replica compares its clock with another's but by the store.
func TestChaosClocksAnHourApart(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]time.Duration{"ReplicasAhead": -time.Hour, "ReplicasBehind": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := newChaosServer(t, redisserver.Options{Clock: runningClock(t, offset)})
			w := newChaosWorld(t, at, nil)
			w.awaitSweeper(t, w.replicas(t, 2)...)
			born := w.mortalsOnce(t, dueSessions)
			w.awaitExpired(t, dueSessions)
			within(t, "from the last activity until what was due is gone", time.Since(born), chaosIdle+chaosSlack+2*chaosInterval)
			w.checkLifetimes(t, dueSessions)
			w.finish(t)
		})
	}
}

// runningClock is a clock that runs as fast as the real one, with an offset to it, until the test ends.
func runningClock(t *testing.T, offset time.Duration) *redisserver.Clock {
	t.Helper()
	clock := newClock(t)
	if err := clock.Set(time.Now().Add(offset)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := clock.Set(time.Now().Add(offset)); err != nil {
				t.Error(err)
				return
			}
			pause(ctx, time.Millisecond)
		}
	})
	t.Cleanup(func() { // before the clock and the server end
		stop()
		running.Wait()
	})
	return clock
}

// mortalsOnce makes sessions that live as long as the replicas say, and returns when the last one was active.
func (w *chaosWorld) mortalsOnce(t *testing.T, n int) time.Time {
	t.Helper()
	ordinary := w.options
	ordinary.Config.StoreTimeout = patientTimeout
	store := openStore(t, w.at.URL(storeUser), ordinary)
	inParallel(t, n, func(ctx context.Context, _ int) error {
		_, err := newActive(ctx, store)
		return err
	})
	return time.Now()
}

// checkLifetimes looks at the sessions that have expired: none was ended before it had been idle for as long as it may, none
// much later.
func (w *chaosWorld) checkLifetimes(t *testing.T, n int) {
	t.Helper()
	page, err := w.store.List(t.Context(), cluster.Query{Ended: true, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	may := w.options.Config.IdleTimeout + w.options.Config.ReportSlack
	shortest, longest := time.Hour, time.Duration(0)
	for _, s := range page.Sessions {
		lived := s.EndedAt.Sub(s.LastActivityAt)
		shortest, longest = min(shortest, lived), max(longest, lived)
	}
	t.Logf("%d sessions ended %s to %s after their last activity, which may be no less than %s", len(page.Sessions), shortest, longest, may)
	if len(page.Sessions) < n || shortest < may {
		t.Errorf("%d sessions have ended, one %s after its last activity; want %d, none before %s", len(page.Sessions), shortest, n, may)
	}
	within(t, "from the end of a session until it was ended", longest-may, 2*chaosInterval)
}
