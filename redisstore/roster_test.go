package redisstore_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestTheRosterTellsWhatReplicasTellOfThemselves(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	now := time.Now()
	server.SetTime(now)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 10 * time.Second
	store, err := redisstore.New(client, redisstore.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	beat := func(incarnation string) {
		t.Helper()
		if err := store.Beat(t.Context(), incarnation); err != nil {
			t.Fatal(err)
		}
	}
	pass := func(d time.Duration) {
		now = now.Add(d)
		server.SetTime(now)
	}
	beat("dead/1")
	pass(redisstore.ReplicaAlive + time.Second)
	beat("old/1")
	pass(time.Second)
	beat("new/1")
	about := redisstore.About{Version: "v9", Limits: cluster.SharedLimits{"max_sessions": "7"}, Sessions: 3, Streams: 2}
	if err := store.Tell(t.Context(), "new/1", about); err != nil {
		t.Fatal(err)
	}
	beat("left/1")
	if err := store.Leave(t.Context(), "left/1"); err != nil {
		t.Fatal(err)
	}
	roster, err := store.Roster(t.Context())
	if err != nil || len(roster) != 3 {
		t.Fatalf("%+v, %v; want three", roster, err)
	}
	dead, old, fresh := roster[0], roster[1], roster[2]
	if dead.Incarnation != "dead/1" || dead.IsAlive || dead.Silent != redisstore.ReplicaAlive+2*time.Second {
		t.Errorf("the dead one: %+v", dead)
	}
	if old.Incarnation != "old/1" || !old.IsAlive || old.Silent != time.Second || old.About != nil {
		t.Errorf("the one that tells nothing: %+v", old)
	}
	if fresh.Incarnation != "new/1" || !fresh.IsAlive || fresh.About == nil || fresh.About.Limits.Digest() != about.Limits.Digest() ||
		fresh.About.Version != "v9" || fresh.About.Sessions != 3 || fresh.About.Streams != 2 {
		t.Errorf("the one that tells: %+v, %+v", fresh, fresh.About)
	}
}
