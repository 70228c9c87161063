package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestMain(m *testing.M) {
	logging.Disable() // the client library logs every connection that a test breaks
	goleak.VerifyTestMain(m)
}

func TestContractOnEmbeddedRedis(t *testing.T) {
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	server.SetTime(now)
	runContract(t, server.Addr(), func(d time.Duration) {
		now = now.Add(d)
		server.SetTime(now)
	})
}

// runContract runs the suite on the server at addr, each test under a prefix of its own.
func runContract(t *testing.T, addr string, advance func(time.Duration)) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	var (
		prefix string
		stores int
		last   *redisstore.Store
	)
	reopen := func(t *testing.T, cfg cluster.Config) cluster.Store {
		t.Helper()
		store, err := redisstore.New(client, redisstore.Options{Prefix: prefix, Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		last = store
		return store
	}
	storetest.Run(t, storetest.Backend{
		Open: func(t *testing.T, cfg cluster.Config) cluster.Store {
			t.Helper()
			stores++
			prefix = fmt.Sprintf("test-%d", stores)
			return reopen(t, cfg)
		},
		Reopen:  reopen,
		Advance: advance,
		Forget:  func(t *testing.T, id cluster.ID, change func()) { t.Helper(); forget(t, client, id, change) },
		Verify: func(t *testing.T) {
			t.Helper()
			violations, err := last.Violations(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range violations {
				t.Error(v)
			}
		},
	})
}

// forget calls change, and takes back what that has changed of the keys that a session has.
func forget(t *testing.T, client *redis.Client, id cluster.ID, change func()) {
	t.Helper()
	keys := client.Keys(t.Context(), "*:"+id.String()).Val()
	move := func(from, to string) {
		for _, key := range keys {
			if err := client.Do(t.Context(), "copy", key+from, key+to, "replace").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	move("", ":kept")
	change()
	move(":kept", "")
	for _, key := range keys {
		client.Del(t.Context(), key+":kept")
	}
}
