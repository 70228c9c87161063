package redisstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestStoreBehavesLikeItsModel(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	dialer := new(storetest.LossyDialer)
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), Dialer: dialer.Dial, MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = client.Close() })
	var store *redisstore.Store
	checks := 0
	storetest.CheckModel(t, storetest.ModelBackend{
		Open: func(cfg cluster.Config) (_ cluster.Store, err error) {
			server.FlushAll()
			checks++
			store, err = redisstore.New(client, redisstore.Options{Config: cfg, Prefix: fmt.Sprintf("check-%d", checks)})
			return store, err
		},
		Set: func(now time.Time) error {
			server.SetTime(now)
			return nil
		},
		// GoesBack: the embedded Redis shortens the time that keys have left when its clock goes back.
		Violations: func(ctx context.Context) ([]string, error) { return store.Violations(ctx) },
		Lose:       dialer.Lose,
	})
}
