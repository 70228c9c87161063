package integration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// callTimeout is how long a sweep waits for what hangs, until it asks there no more.
const callTimeout = 2 * time.Second

// A third of a Redis Cluster hangs, its replica too, so that nobody takes over. The leader goes on with the rest, and with that
// third when it is back.
func TestChaosAPartOfTheStoreThatHangsDoesNotStopTheRest(t *testing.T) {
	t.Parallel()
	topology := newRedisCluster(t, rediscluster.Options{})
	var prefix string
	var hung []*redisserver.Server
	for tries := 0; hung == nil; tries++ { // under most prefixes there is such a shard
		if tries == 30 {
			t.Fatal("under 30 prefixes the keys of the election are on all shards")
		}
		prefix = freshPrefix()
		hung = shardWithoutElection(t, topology, prefix)
	}
	w := newChaosWorldUnder(t, topology, prefix, nil)
	due := w.mortals(t, dueSessions)
	replicas := w.replicas(t, 3)
	leader := w.awaitSweeper(t, replicas...)
	for _, server := range hung {
		if err := server.Suspend(); err != nil {
			t.Fatal(err)
		}
	}
	suspended := time.Now()
	doomed, spared := w.doomReachable(t, due)
	t.Logf("%d servers hang; %d sessions past their end can be reached, %d cannot", len(hung), len(doomed), len(spared))
	if len(doomed) == 0 || len(spared) == 0 {
		t.Fatal("this is not a part of the store")
	}
	begun := time.Now()
	eventually(t, recovery, func(ctx context.Context) error { return w.allSwept(ctx, doomed) })
	within(t, "until what could be reached is gone", time.Since(begun), 2*chaosInterval+callTimeout)
	pause(t.Context(), 4*chaosInterval-time.Since(suspended))
	// It may have changed: until its servers are known to hang, a call to all shards may fail as a whole.
	leads, err := leader.metric(t.Context(), "shadowcat_leader")
	t.Logf("the first leader still leads: %v, %v", leads == 1, err)
	for _, server := range hung {
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := topology.WaitHealthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.doom(t, spared)
	w.awaitExpired(t, dueSessions)
	w.finish(t)
}

// shardWithoutElection returns the servers that hold a third of the partitions, but neither the leader's lock nor its epoch, nor
// what says which replicas live; nil when there are none.
func shardWithoutElection(t *testing.T, topology *rediscluster.Topology, prefix string) []*redisserver.Server {
	t.Helper()
	var busy []*redisserver.Server
	for _, key := range []string{":leader", ":epoch", ":replicas"} {
		shard, err := topology.Shard(t.Context(), prefix+key)
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, shard...)
	}
	for tag := range 100 {
		shard, err := topology.Shard(t.Context(), fmt.Sprintf("{%d}", tag))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(shard, func(s *redisserver.Server) bool { return slices.Contains(busy, s) }) {
			return shard
		}
	}
	return nil
}

// doomReachable is doom, but for the sessions that no server answers for.
func (w *chaosWorld) doomReachable(t *testing.T, sessions []knownSession) (doomed, unreachable []knownSession) {
	t.Helper()
	hasty := w.options
	c := &hasty.Config
	c.Lease, c.IdleTimeout, c.ReportInterval, c.ReportSlack = 0, time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	c.StoreTimeout = time.Second
	store := openStore(t, w.at.URL(storeUser), hasty)
	var mu sync.Mutex
	inParallel(t, len(sessions), func(ctx context.Context, i int) error {
		_, err := store.Lease(ctx, sessions[i].lease())
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			doomed = append(doomed, sessions[i])
		case errors.Is(err, cluster.ErrStoreUnavailable):
			unreachable = append(unreachable, sessions[i])
		default:
			return err
		}
		return nil
	})
	return doomed, unreachable
}

// allSwept is a probe: all of some sessions have been ended, and not only are past their end.
func (w *chaosWorld) allSwept(ctx context.Context, sessions []knownSession) error {
	for _, k := range sessions {
		got, err := w.store.Get(ctx, k.ID)
		if err != nil || got.EndedAt.IsZero() {
			return errors.Join(fmt.Errorf("session %s is not swept yet", k.ID), err)
		}
	}
	return nil
}
