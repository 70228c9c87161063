package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// unhurried is after how long a server counts as down where none is meant to: the tests may be slow, and nobody shall fail
// over for that.
const unhurried = 15 * time.Second

// The contract of the store on every kind of Redis, each store as a user with no more than redisstore.ACLRule.
func TestContract(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		contractOnMiniredis(t)
	})
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		contract{name: "redis-server", at: newStandalone(t), partitions: 1}.run(t)
	})
	t.Run("redis-server, clock moved by the test", func(t *testing.T) {
		t.Parallel()
		at, clock := newClocked(t)
		contract{name: "redis-server, clock moved by the test", at: at, clock: clock, partitions: 1}.run(t)
	})
	t.Run("redis-server over TLS", func(t *testing.T) {
		t.Parallel()
		at, files := newTLS(t)
		contract{name: "redis-server over TLS", at: at, tls: files, partitions: 1}.run(t)
	})
	t.Run("Sentinel", func(t *testing.T) {
		t.Parallel()
		contract{name: "Sentinel, 1 + 2 replicas", at: newSentinel(t, sentinel.Options{DownAfter: unhurried}), partitions: 1}.run(t)
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		topology := newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
		contract{name: "Cluster, 3 + 3 replicas, 1 partition", at: topology, partitions: 1}.run(t)
		contract{name: "Cluster, 3 + 3 replicas, 16 partitions", at: topology, partitions: 16}.run(t)
	})
}

// contract is one run of the suite.
type contract struct {
	name       string
	at         server
	tls        redisstore.TLSFiles
	clock      *redisserver.Clock // nil where time passes by itself
	partitions int
}

// advance is what the suite moves the clock with: nil without a clock.
func (c contract) advance(t *testing.T) func(time.Duration) {
	t.Helper()
	if c.clock == nil {
		return nil
	}
	return func(d time.Duration) {
		if err := c.clock.Advance(d); err != nil {
			t.Error(err)
		}
	}
}

func (c contract) run(t *testing.T) {
	t.Helper()
	start := time.Now()
	tests := 0
	var options redisstore.Options
	reopen := func(t *testing.T, cfg cluster.Config) cluster.Store {
		t.Helper()
		options.Config = cfg
		return openStore(t, c.at.URL(storeUser), options)
	}
	storetest.Run(t, storetest.Backend{
		Open: func(t *testing.T, cfg cluster.Config) cluster.Store {
			t.Helper()
			options = redisstore.Options{Prefix: freshPrefix(), Partitions: c.partitions, TLS: c.tls}
			return reopen(t, cfg)
		},
		Reopen:     reopen,
		Advance:    c.advance(t),
		Forget:     func(t *testing.T, id cluster.ID, change func()) { t.Helper(); forget(t, c.at.Servers(), id, change) },
		Partitions: c.partitions,
		Verify: func(t *testing.T) {
			t.Helper()
			tests++
			checkViolations(t, c.at, options)
		},
	})
	contracts.add(c.name, tests, time.Since(start))
	store := openStore(t, c.at.URL(storeUser), redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Partitions: c.partitions, TLS: c.tls})
	for call, do := range map[string]func(context.Context) error{"ping": store.Ping, "claim": store.Claim, "adopt": store.Adopt} {
		if err := do(t.Context()); err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
	checkRefusals(t, c.at)
	c.checkWrongPassword(t)
}

// checkWrongPassword fails the test when a wrong password is not named as the reason, or is shown.
func (c contract) checkWrongPassword(t *testing.T) {
	t.Helper()
	const wrong = "not-the-password"
	store := openStore(t, c.at.URL(url.UserPassword(storeUser.Username(), wrong)), redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), TLS: c.tls})
	for call, do := range map[string]func(context.Context) error{"ping": store.Ping, "claim": store.Claim} {
		err := do(t.Context())
		if !errors.Is(err, cluster.ErrStoreUnavailable) || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("%s with a wrong password: %v, want ErrStoreUnavailable that says WRONGPASS", call, err)
		}
		if err != nil && strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: the error holds the password: %v", call, err)
		}
	}
}

// contractOnMiniredis runs the suite with a clock that the tests move.
func contractOnMiniredis(t *testing.T) {
	t.Helper()
	start := time.Now()
	tests := 0
	now := someDay
	embedded := miniredis.RunT(t)
	embedded.ClockTTL(true)
	embedded.SetTime(now)
	var options redisstore.Options
	open := func(t *testing.T, cfg cluster.Config) cluster.Store {
		t.Helper()
		options.Config = cfg
		return openStore(t, "redis://"+embedded.Addr(), options)
	}
	storetest.Run(t, storetest.Backend{
		Open: func(t *testing.T, cfg cluster.Config) cluster.Store {
			t.Helper()
			options.Prefix = freshPrefix()
			return open(t, cfg)
		},
		Reopen: open,
		Advance: func(d time.Duration) {
			now = now.Add(d)
			embedded.SetTime(now)
		},
		Verify: func(t *testing.T) {
			t.Helper()
			tests++
			violations, err := openStore(t, "redis://"+embedded.Addr(), options).Violations(t.Context())
			if err != nil || len(violations) > 0 {
				t.Errorf("violations: %v, %v", violations, err)
			}
		},
	})
	contracts.add("miniredis", tests, time.Since(start))
}

// contracts is what TestMain prints at the end.
var contracts contractTable

// contractTable collects how the suite went on each topology.
type contractTable struct {
	mu   sync.Mutex
	rows []string
}

func (c *contractTable) add(topology string, tests int, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, fmt.Sprintf("%s\t%d\t%.1fs", topology, tests, took.Seconds()))
}

// print writes the table, if there is anything in it.
func (c *contractTable) print(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rows) == 0 {
		return
	}
	out := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(out, "store contract on\ttests\ttime")
	for _, row := range c.rows {
		fmt.Fprintln(out, row)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(w, "print the table of the store's contract:", err)
	}
}
