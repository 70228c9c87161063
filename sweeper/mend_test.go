package sweeper_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// drift makes counts wrong.
func (w *electorate) drift() {
	w.t.Helper()
	if err := w.keys.Client().HSet(w.t.Context(), "shadowcat:{0}:counts", "a", 99).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func TestDriftIsMendedAndToldByKind(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.sessions(3)
		w.drift()
		c := w.cleaner("a/1")
		since := c.elected()
		w.pass(slack + redisstore.ReplicaAlive - time.Second)
		if _, _, _, _, mended := c.seen.cleanup(); len(mended) > 0 {
			t.Errorf("mended %v before every replica could say that it lives", mended)
		}
		w.pass(5 * time.Second)
		if _, _, _, _, mended := c.seen.cleanup(); !slices.Equal(mended, []cluster.RepairKind{cluster.RepairCountWrong}) {
			t.Errorf("mended %v, want counts", mended)
		}
		if c.log.count("mended drift") != 1 || c.log.count("kind=count_wrong") != 1 {
			t.Error("the log does not tell it once")
		}
		if begun := c.seen.begun.Sub(since); begun < slack+redisstore.ReplicaAlive {
			t.Errorf("mended %v after the election", begun)
		}
		if stats := w.stats(); stats.ByStatus[cluster.StatusActive] != 0 {
			t.Errorf("%d active sessions are counted", stats.ByStatus[cluster.StatusActive])
		}
	})
}

func TestTheReconcilerWalksAgainAndAgain(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		c := w.cleaner("a/1", func(cfg *sweeper.Config) { cfg.MendInterval = time.Minute })
		c.elected()
		w.pass(redisstore.ReplicaAlive + 10*time.Second)
		for n := 1; n <= 3; n++ {
			w.drift()
			w.pass(80 * time.Second)
			if _, _, _, _, mended := c.seen.cleanup(); len(mended) != n {
				t.Fatalf("walk %d: mended %v", n, mended)
			}
		}
	})
}

// What is of a wrong type stops neither sweeps nor walks; it is counted and told.
func TestWhatIsBrokenIsMendedOnTheWay(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(3)
		client := w.keys.Client()
		broken, err := client.ZRange(t.Context(), "shadowcat:{0}:deadlines", 0, 0).Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Set(t.Context(), "shadowcat:{0}:session:"+broken[0], "no hash", 0).Err(); err != nil {
			t.Fatal(err)
		}
		c := w.cleaner("a/1")
		c.elected()
		w.pass(slack + time.Second)
		_, _, _, _, mended := c.seen.cleanup()
		if !slices.Equal(mended, []cluster.RepairKind{cluster.RepairRecordBroken}) || c.log.count("kind=record_broken") != 1 {
			t.Errorf("mended %v, logged %d times; want one broken record", mended, c.log.count("kind=record_broken"))
		}
		if stats := w.stats(); stats.Ended[cluster.StatusExpired] != 2 || stats.Due > 0 {
			t.Errorf("%d expired, %d due; want 2 and none", stats.Ended[cluster.StatusExpired], stats.Due)
		}
	})
}

// A walk that breaks off disturbs no sweep, and the next one mends.
func TestABrokenOffWalkIsMadeAnew(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		c := w.cleaner("a/1")
		c.elected()
		w.sessions(1)
		if err := w.keys.Client().Set(t.Context(), "shadowcat:replicas", "no sorted set", 0).Err(); err != nil {
			t.Fatal(err)
		}
		w.pass(redisstore.ReplicaAlive + 10*time.Second)
		if c.log.count("walk could not see everything") == 0 || !c.sweeper.Status().IsLeader {
			t.Errorf("told %d times; leads: %v", c.log.count("walk could not see everything"), c.sweeper.Status().IsLeader)
		}
		w.drift()
		if err := w.keys.Client().Del(t.Context(), "shadowcat:replicas").Err(); err != nil {
			t.Fatal(err)
		}
		w.pass(80 * time.Second) // far less than between two walks
		if _, _, _, _, mended := c.seen.cleanup(); len(mended) != 1 {
			t.Errorf("mended %v, want counts", mended)
		}
	})
}

// Requests in flight of replicas that live stay, although no replica could say so during an outage.
func TestAnOutageMakesNobodyDead(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		cfg := cluster.DefaultConfig()
		manager, err := cluster.NewManager(w.keys, cfg, cluster.Options{ReplicaID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		s, token, err := manager.Create(t.Context(), cluster.NewSession{Upstream: "u"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manager.Activate(t.Context(), s, cluster.Activation{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextOf(t)
		done := make(chan error, 1)
		go func() { done <- manager.Run(ctx) }()
		l, err := manager.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: "c:1"})
		if err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		// During an outage of a minute nobody has beaten; then the others do at once, and this one within its interval.
		if err := w.keys.Client().Del(t.Context(), "shadowcat:replicas").Err(); err != nil {
			t.Fatal(err)
		}
		if err := w.keys.Beat(t.Context(), "a/1"); err != nil {
			t.Fatal(err)
		}
		c := w.cleaner("a/1")
		c.elected()
		w.pass(time.Minute)
		got, err := manager.Get(t.Context(), s.ID)
		if _, _, _, _, mended := c.seen.cleanup(); err != nil || got.Pending != 1 || len(mended) > 0 {
			t.Errorf("%d requests in flight, %v; mended %v; want 1, nothing", got.Pending, err, mended)
		}
		l.Release()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
