package integration_test

import (
	"context"
	"errors"
	"fmt"
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

// The default store_timeout is enough for two round trips to a server 100 ms away and back: a call needs one, and one more on
// a new connection. (To create under a limit costs more.)
// It runs by itself, because other tests would take some of that time.
func TestAStoreFarAwayServesWithinItsTimeout(t *testing.T) {
	at := newStandalone(t)
	proxy := newDetour(t, at).proxies[at.Address()]
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	nearby := aFirstDatabase{at, at.Address()}
	patient := options
	patient.Config.StoreTimeout = patientTimeout
	near := openStore(t, nearby.URL(storeUser), patient)
	useAll(t, near) // the scripts are known, as they are to any server in use
	proxy.Delay(farAway)
	store := openStore(t, aFirstDatabase{at, proxy.Address()}.URL(storeUser), options)

	far := &load{store: store, options: options}
	far.connect(t, farWorkers)
	var workers sync.WaitGroup
	for range farWorkers {
		workers.Go(func() {
			for range farLives {
				if err := far.liveFarAway(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	got := far.outcome()
	t.Logf("%d calls, %d failed; the slowest took %s", got.calls, got.failed, got.slowest.Round(time.Millisecond))
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
func (l *load) liveFarAway(ctx context.Context) error {
	var k knownSession
	for _, c := range []storeCall{
		{"create", true, func(ctx context.Context) error {
			created, err := l.store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
			k.Session, k.token = created.Session, created.Token
			return err
		}},
		{"update", true, func(ctx context.Context) error {
			_, err := l.store.Update(ctx, cluster.Change{ID: k.ID, ExpectedVersion: k.Version, Writer: "w"})
			return err
		}},
		{"lease", true, func(ctx context.Context) error {
			_, err := l.store.Lease(ctx, k.lease())
			return err
		}},
		{"report", true, func(ctx context.Context) error {
			return l.store.Report(ctx, []cluster.Report{{ID: k.ID, Requests: 1}})[0].Err
		}},
		{"check", false, func(ctx context.Context) error { return l.store.Check(ctx, []cluster.ID{k.ID})[0] }},
		{"append events", true, func(ctx context.Context) error {
			_, err := l.store.AppendEvents(ctx, cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{{'e'}}})
			return err
		}},
		{"read events", false, func(ctx context.Context) error {
			return l.store.ReadEvents(ctx, []cluster.EventQuery{{ID: k.ID, Stream: "s", Limit: 1}})[0].Err
		}},
		{"terminate", true, func(ctx context.Context) error {
			session, err := l.store.Terminate(ctx, k.ID, cluster.StatusClosed)
			if session.Status == cluster.StatusClosed {
				return nil // at the latest by the call before, which took too long
			}
			return err
		}},
	} {
		if err := l.patientCall(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// patientCall makes a call again when it was not answered in time, as the clients of a replica do. A busy machine may need
// what is left of store_timeout; a call that needs more round trips than fit is never answered.
func (l *load) patientCall(ctx context.Context, c storeCall) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	for {
		var err error
		answered := l.call(ctx, c.name, cluster.ID{}, func(ctx context.Context) error {
			err = c.do(ctx)
			return err
		})
		if answered {
			return nil
		}
		if !errors.Is(err, cluster.ErrStoreUnavailable) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
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
		renewals := store.Report(t.Context(), reports)
		took[i] = turns() - before
		if took[i] == 1 && renewals[len(renewals)-1].Err == nil {
			return
		}
	}
	t.Errorf("%d reports took %v round trips, want 1", len(reports), took)
}
