package redisstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// roundTrips counts what a client waits for.
type roundTrips struct{ n atomic.Int64 }

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.n.Add(1)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.n.Add(1)
		return next(ctx, cmds)
	}
}

func TestCreationAtTheCapOfManyPartitions(t *testing.T) {
	t.Parallel()
	const partitions = 64
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	trips := &roundTrips{}
	client.AddHook(trips)
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.EvictMinIdle, cfg.CreateRate, cfg.CreateRatePerPrincipal = partitions, time.Hour, 0, 0
	cfg.StoreTimeout = 30 * time.Second
	store, err := redisstore.New(client, redisstore.Options{Config: cfg, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	create := func() (cluster.Created, error) {
		return store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u", Principal: "p"}})
	}
	made := make([]cluster.ID, 0, partitions)
	for range partitions { // the last ones find the one that has room among many that are full
		created, err := create()
		if err != nil {
			t.Fatalf("create with %d of %d: %v", len(made), partitions, err)
		}
		made = append(made, created.Session.ID)
	}
	before := trips.n.Load()
	_, err = create()
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || !errors.Is(err, cluster.ErrCapacity) || limit.RetryAfter < 59*time.Minute {
		t.Errorf("create at the cap: %v, want ErrCapacity for about an hour", err)
	}
	if n := trips.n.Load() - before; n > 8 {
		t.Errorf("a refusal took %d round trips, want a few, however many partitions there are", n)
	}
	for _, id := range made[:5] {
		if _, err := store.Terminate(t.Context(), id, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
		if _, err := create(); err != nil {
			t.Errorf("create with room in one partition: %v", err)
		}
	}
	violations, err := store.Violations(t.Context())
	if err != nil || len(violations) > 0 {
		t.Errorf("%v, %v", violations, err)
	}
}
