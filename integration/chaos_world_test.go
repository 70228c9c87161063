package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/lossyproxy"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// The clocks of the replicas in tests of chaos. The bounds in these tests are made of them.
const (
	chaosTTL      = 2 * time.Second        // of the leader's lock
	chaosInterval = time.Second            // between two sweeps
	chaosSlack    = 500 * time.Millisecond // of reports, and before a leader's first sweep
	chaosIdle     = 2 * time.Second        // after which a session ends, and the slack

	// patience is by how much a measurement may exceed its bound before a test fails: other tests need the machine, too.
	patience = 3
)

// chaosWorld is a store, the replicas that clean it up, and what a test knows of its sessions.
type chaosWorld struct {
	at      server
	options redisstore.Options // with the limits that the replicas use
	store   *redisstore.Store  // patient, and not through any proxy
	keeper  *keeper
	witness *witness
	all     []*cleaner
}

// newChaosWorld opens a store with a few sessions that are kept alive, and watches what cleans it up.
func newChaosWorld(t *testing.T, at server, change func(*cluster.Config)) *chaosWorld {
	t.Helper()
	return newChaosWorldUnder(t, at, freshPrefix(), change)
}

// newChaosWorldUnder is newChaosWorld with a prefix of the caller's choice.
func newChaosWorldUnder(t *testing.T, at server, prefix string, change func(*cluster.Config)) *chaosWorld {
	t.Helper()
	w := &chaosWorld{at: at, options: redisstore.Options{Prefix: prefix, Config: roomyConfig()}}
	c := &w.options.Config
	c.IdleTimeout, c.ReportSlack, c.ReportInterval, c.Lease = chaosIdle, chaosSlack, 200*time.Millisecond, time.Second
	if change != nil {
		change(c)
	}
	patient := w.options
	patient.Config.StoreTimeout = patientTimeout
	w.store = openStore(t, at.URL(storeUser), patient)
	w.witness = newWitness(t, at)
	w.keeper = newKeeper(t, w.store, w.options.Config)
	return w
}

// cleaner is a replica, at its proxy to the store if it has one.
type cleaner struct {
	*replica.Replica
	options replica.Options
	proxy   *lossyproxy.Proxy
}

// start starts the replica, at other addresses if another program has taken its own.
func (c *cleaner) start(ctx context.Context) (err error) {
	for range 3 {
		if c.Replica, err = replica.New(c.options); err != nil {
			return err
		}
		if err = c.Start(ctx); !errors.Is(err, process.ErrAddressInUse) {
			break
		}
	}
	return err
}

// replicas starts so many replicas, all at once.
func (w *chaosWorld) replicas(t *testing.T, n int, args ...string) []*cleaner {
	t.Helper()
	started := make([]*cleaner, n)
	var group sync.WaitGroup
	for i := range started {
		started[i] = w.newCleaner(t, w.at.URL(storeUser), args...)
		group.Go(func() {
			if err := started[i].start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, c := range started {
		watch(t, c.Replica)
	}
	if t.Failed() {
		t.FailNow()
	}
	return started
}

// behindProxy starts a replica that reaches the store, a single server, through a proxy of its own.
func (w *chaosWorld) behindProxy(t *testing.T) *cleaner {
	t.Helper()
	proxy, err := lossyproxy.Start(w.at.Servers()[0].Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, proxy.Close))
	to, err := url.Parse(w.at.URL(storeUser))
	if err != nil {
		t.Fatal(err)
	}
	to.Host = proxy.Address()
	c := w.newCleaner(t, to.String())
	c.proxy = proxy
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch(t, c.Replica)
	return c
}

func (w *chaosWorld) newCleaner(t *testing.T, redisURL string, args ...string) *cleaner {
	t.Helper()
	config := w.options.Config
	nobody, err := process.FreeAddress() // no client comes, so no upstream is needed
	if err != nil {
		t.Fatal(err)
	}
	c := &cleaner{options: replica.Options{
		Executable: built(t, productBinary), ID: fmt.Sprintf("replica-%d", len(w.all)), RedisURL: redisURL,
		Upstreams: []string{"http://" + nobody + "/mcp"},
		Args: append([]string{
			"--prefix", w.options.Prefix, "--leader-ttl", chaosTTL.String(), "--sweep-interval", chaosInterval.String(),
			"--lease", config.Lease.String(), "--report-interval", config.ReportInterval.String(), "--report-slack", config.ReportSlack.String(),
			"--idle-timeout", config.IdleTimeout.String(), "--evict-min-idle", config.EvictMinIdle.String(),
			"--max-sessions", strconv.Itoa(config.MaxSessions),
		}, args...),
	}}
	t.Cleanup(func() {
		if c.Replica != nil {
			c.Kill()
		}
	})
	w.all = append(w.all, c)
	return c
}

// finish ends all replicas, and fails the test when a session has ended that should live, or anything is out of step.
func (w *chaosWorld) finish(t *testing.T) {
	t.Helper()
	for _, c := range w.all {
		c.Kill()
	}
	w.keeper.end(t)
	w.witness.check(t)
	checkViolations(t, w.at, w.options)
	checkRefusals(t, w.at)
}

// leader returns the one of some replicas that says that it leads.
func (w *chaosWorld) leader(ctx context.Context, among []*cleaner) (*cleaner, error) {
	for _, c := range among {
		if !c.Running() {
			continue
		}
		if leads, err := c.metric(ctx, "shadowcat_leader"); err == nil && leads == 1 {
			return c, nil
		}
	}
	return nil, errNotYet
}

// awaitLeader waits until one of some replicas leads, and tells which and how long that took.
func (w *chaosWorld) awaitLeader(t *testing.T, limit time.Duration, among ...*cleaner) (leads *cleaner, took time.Duration) {
	t.Helper()
	took = eventually(t, limit, func(ctx context.Context) (err error) {
		leads, err = w.leader(ctx, among)
		return err
	})
	return leads, took
}

// awaitSweeper waits until one of some replicas leads and has swept.
func (w *chaosWorld) awaitSweeper(t *testing.T, among ...*cleaner) *cleaner {
	t.Helper()
	leads, took := w.awaitLeader(t, recovery, among...)
	t.Logf("the first leader led %s after all were ready", took.Round(time.Millisecond))
	eventually(t, recovery, func(ctx context.Context) error {
		if n, err := leads.metric(ctx, "shadowcat_sweep_duration_seconds_count"); err != nil || n == 0 {
			return errors.Join(errNotYet, err)
		}
		return nil
	})
	return leads
}

// metric reads one value without labels from the replica's metrics.
func (c *cleaner) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.AdminURL("/metrics"), http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s tells no %s", c.AdminURL("/metrics"), name)
}

// mortals makes sessions that live until doom is called.
func (w *chaosWorld) mortals(t *testing.T, n int) []knownSession {
	t.Helper()
	made := make([]knownSession, n)
	immortal := w.options
	immortal.Config.IdleTimeout, immortal.Config.StoreTimeout = time.Hour, patientTimeout
	store := openStore(t, w.at.URL(storeUser), immortal)
	inParallel(t, n, func(ctx context.Context, i int) (err error) {
		made[i], err = newActive(ctx, store)
		return err
	})
	return made
}

// doom makes sessions past their end, all of them a moment after it returns.
func (w *chaosWorld) doom(t *testing.T, sessions []knownSession) {
	t.Helper()
	hasty := w.options // whoever leases a session decides when it ends
	c := &hasty.Config
	c.Lease, c.IdleTimeout, c.ReportInterval, c.ReportSlack = 0, time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	c.StoreTimeout = patientTimeout
	store := openStore(t, w.at.URL(storeUser), hasty)
	inParallel(t, len(sessions), func(ctx context.Context, i int) error {
		_, err := store.Lease(ctx, sessions[i].lease())
		return err
	})
}

// inParallel calls do for 0 to n-1, several at a time.
func inParallel(t *testing.T, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	var group sync.WaitGroup
	for worker := range loadWorkers {
		group.Go(func() {
			for i := worker; i < n; i += loadWorkers {
				if err := do(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// awaitExpired waits until so many sessions have expired and none is due.
func (w *chaosWorld) awaitExpired(t *testing.T, n int) {
	t.Helper()
	eventually(t, recovery, func(ctx context.Context) error {
		stats, err := w.store.Stats(ctx)
		if err != nil {
			return err
		}
		if got := stats.Ended[cluster.StatusExpired]; got < int64(n) || stats.Due > 0 {
			return fmt.Errorf("%d sessions have expired and %d are due; want %d and none", got, stats.Due, n)
		}
		return nil
	})
}

// within tells what was measured, and fails the test when it exceeds its bound by far.
func within(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	t.Logf("%s: %s (bound %s)", what, took.Round(time.Millisecond), bound)
	if took > patience*bound {
		t.Errorf("%s took %s, over %d times its bound of %s", what, took, patience, bound)
	}
}

// newChaosServer is a single server for a test of chaos.
func newChaosServer(t *testing.T, options redisserver.Options) aStandalone {
	t.Helper()
	options.Users = storeUsers()
	return aStandalone{newRedis(t, options)}
}
