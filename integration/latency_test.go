package integration_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// farAway is how much longer everything takes to a server far away, each way.
	farAway = 50 * time.Millisecond
	// farWorkers make use of it at once, each for farLives sessions.
	farWorkers = 8
	farLives   = 2
)

// aFirstDatabase is a single server's database 0, at an address that may be a proxy's. Another database would cost each new
// connection one more round trip.
type aFirstDatabase struct {
	aStandalone
	address string
}

func (s aFirstDatabase) URL(user *url.Userinfo) string {
	return "redis://" + user.String() + "@" + s.address
}

// The default store_timeout is enough for two round trips to a server 100 ms away and back: most calls need one, and one more
// on a new connection, or to create under a limit.
// It runs by itself, because other tests would take some of that time.
func TestAStoreFarAwayServesWithinItsTimeout(t *testing.T) {
	at := newStandalone(t)
	proxy := newDetour(t, at).proxies[at.Address()]
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.CreateRate = 100_000
	nearby := aFirstDatabase{at, at.Address()}
	near := openStore(t, nearby.URL(storeUser), options)
	useAll(t, near) // the scripts are known, as they are to any server in use
	proxy.Delay(farAway)
	store := openStore(t, aFirstDatabase{at, proxy.Address()}.URL(storeUser), options)

	far := &load{store: store, options: options}
	far.connect(t, farWorkers)
	var workers sync.WaitGroup
	for range farWorkers {
		workers.Go(func() {
			for range farLives {
				far.liveFarAway(t.Context())
			}
		})
	}
	workers.Wait()
	got := far.outcome()
	t.Logf("%d calls, %d failed; the slowest took %s", got.calls, got.failed, got.slowest.Round(time.Millisecond))
	if got.failed > got.calls/10 { // some: a busy machine needs the time that is left
		t.Errorf("%d of %d calls failed, the first of them: %s", got.failed, got.calls, got.errs[0])
	}
	got.checkErrors(t, false)
	reportsTakeOneRoundTrip(t, store, newSettled(t, near), proxy.Turns)
	checkViolations(t, nearby, options)
}

// connect waits until so many connections are open.
func (l *load) connect(t *testing.T, connections int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recovery)
	defer cancel()
	var pings sync.WaitGroup
	for range connections {
		pings.Go(func() {
			err := process.Poll(ctx, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, l.options.Config.StoreTimeout)
				defer cancel()
				return l.store.Ping(ctx)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	pings.Wait()
}

// liveFarAway is the life of one session, call by call.
func (l *load) liveFarAway(ctx context.Context) {
	var k knownSession
	call := func(name string, do func(context.Context) error) bool { return l.call(ctx, name, cluster.ID{}, do) }
	lives := call("create", func(ctx context.Context) error {
		created, err := l.store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
		k.Session, k.token = created.Session, created.Token
		return err
	}) && call("update", func(ctx context.Context) error {
		_, err := l.store.Update(ctx, cluster.Change{ID: k.ID, ExpectedVersion: k.Version, Writer: "w"})
		return err
	})
	if !lives {
		return
	}
	call("lease", func(ctx context.Context) error {
		_, err := l.store.Lease(ctx, k.lease())
		return err
	})
	call("report", func(ctx context.Context) error {
		return l.store.Report(ctx, []cluster.Report{{ID: k.ID, Requests: 1}})[0].Err
	})
	call("check", func(ctx context.Context) error { return l.store.Check(ctx, []cluster.ID{k.ID})[0] })
	call("append", func(ctx context.Context) error {
		return l.store.AppendEvents(ctx, cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{{'e'}}})
	})
	call("read", func(ctx context.Context) error {
		return l.store.ReadEvents(ctx, []cluster.EventQuery{{ID: k.ID, Stream: "s", Limit: 1}})[0].Err
	})
	call("terminate", func(ctx context.Context) error {
		_, err := l.store.Terminate(ctx, k.ID, cluster.StatusClosed)
		return err
	})
	call("get", func(ctx context.Context) error {
		_, err := l.store.Get(ctx, k.ID)
		return err
	})
}

// reportsTakeOneRoundTrip fails the test when a hundred reports, four scripts, take more.
func reportsTakeOneRoundTrip(t *testing.T, store cluster.Store, sessions []knownSession, turns func() int) {
	t.Helper()
	reports := make([]cluster.Report, 100)
	for i := range reports {
		reports[i] = cluster.Report{ID: sessions[i%len(sessions)].ID, Requests: 1}
	}
	took := make([]int, 5) // in pieces the reports may look like several requests
	for i := range took {
		before := turns()
		for _, r := range store.Report(t.Context(), reports) {
			if r.Err != nil {
				t.Fatalf("report: %v", r.Err)
			}
		}
		if took[i] = turns() - before; took[i] == 1 {
			return
		}
	}
	t.Errorf("%d reports took %v round trips, want 1", len(reports), took)
}
