package rows

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
)

// hotRate is how many requests a second a hot session makes.
const hotRate = 10

const (
	updatesPairs = 5
	// settled is when the first lease has grown to what the session needs.
	settled = 4 * time.Second
)

// updates measures how often a store is told of a hot session that one replica serves, in the long run. All pairs are measured at once, each
// half of one by a replica of its own: what is counted does not depend on how busy the machine is.
func updates(p Plan) measure.Experiment {
	length := p.full(20*time.Second, 4*time.Second)
	var rates []float64 // updates for each 1,000 requests, of each replica
	return measure.Experiment{
		Rows: []measure.Row{{Name: "updates", What: "session updates at Redis for 1,000 requests of a hot session (10 a second, one replica)", Unit: "updates", Goal: 120}},
		Prepare: func(ctx context.Context) (err error) {
			rates, err = countUpdates(ctx, 2*updatesPairs, length)
			return err
		},
		Pairs: updatesPairs,
		Pair: func(_ context.Context, turn int) ([]measure.Sample, error) {
			first, second := rates[(2*turn)%len(rates)], rates[(2*turn+1)%len(rates)]
			return []measure.Sample{{Value: first, Control: second / first}}, nil
		},
	}
}

// countUpdates runs replicas with one session each.
func countUpdates(ctx context.Context, replicas int, length time.Duration) (rates []float64, err error) {
	cfg := cluster.DefaultConfig()
	cfg.CreateRate, cfg.StoreTimeout = 0, world.Patience
	store, err := world.StartStore(ctx, cfg, replicas)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	rates = make([]float64, replicas)
	group, ctx := errgroup.WithContext(ctx)
	for i := range rates {
		group.Go(func() error {
			token, _, err := store.NewSession(ctx, world.Initialize)
			if err != nil {
				return err
			}
			told := &countedStore{Store: store.Store}
			f, err := startFleet(ctx, told, cfg, 1)
			if err != nil {
				return err
			}
			defer f.stop()
			f.tokens = []cluster.Token{token}
			if _, err := f.load(settled, nil).Run(ctx); err != nil {
				return err
			}
			before := told.sessions.Load()
			latencies, err := f.load(length, nil).Run(ctx)
			rates[i] = 1000 * float64(told.sessions.Load()-before) / float64(latencies.Calls())
			return err
		})
	}
	return rates, group.Wait()
}

// countedStore counts how many sessions it is told of.
type countedStore struct {
	cluster.Store
	sessions atomic.Int64
}

// Lease counts one.
func (s *countedStore) Lease(ctx context.Context, c cluster.LeaseCall) (cluster.Grant, error) {
	s.sessions.Add(1)
	return s.Store.Lease(ctx, c)
}

// Report counts all that it is about.
func (s *countedStore) Report(ctx context.Context, reports []cluster.Report) []cluster.Renewal {
	s.sessions.Add(int64(len(reports)))
	return s.Store.Report(ctx, reports)
}

// fleet is some replicas, without a proxy, and the sessions that they serve.
type fleet struct {
	managers []*cluster.Manager
	tokens   []cluster.Token
	requests atomic.Int64

	cancel  context.CancelFunc
	running *errgroup.Group
}

// startFleet starts n replicas. The caller must stop them.
func startFleet(ctx context.Context, store cluster.Store, cfg cluster.Config, n int) (*fleet, error) {
	f := &fleet{}
	ctx, f.cancel = context.WithCancel(ctx)
	f.running, ctx = errgroup.WithContext(ctx)
	for range n {
		m, err := cluster.NewManager(store, cfg, cluster.Options{})
		if err != nil {
			f.stop()
			return nil, err
		}
		f.managers = append(f.managers, m)
		f.running.Go(func() error { return m.Run(ctx) })
	}
	return f, nil
}

// stop has the replicas report a last time, and ends them. It may be called again.
func (f *fleet) stop() {
	f.cancel()
	_ = f.running.Wait() // a manager that is stopped returns nil
}

// load has each session make hotRate requests a second, at each replica in turn.
func (f *fleet) load(length time.Duration, until <-chan struct{}) measure.Load {
	callers := min(len(f.tokens), 16)
	return measure.Load{
		Callers: callers, Rate: float64(hotRate * len(f.tokens)), For: length, Until: until,
		Do: func(ctx context.Context, caller, n int) error {
			mine := (len(f.tokens) + callers - 1 - caller) / callers // how many sessions this caller has: caller, caller+callers, …
			round, nth := n/mine, n%mine
			lease, err := f.managers[round%len(f.managers)].Lease(ctx, f.tokens[caller+nth*callers], cluster.Use{Upstream: world.Upstream, PendingKey: "c:1"})
			if err != nil {
				return err
			}
			lease.Release()
			f.requests.Add(1)
			return nil
		},
	}
}
