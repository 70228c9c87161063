package rows

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	cpuReplicas = 3
	// cpuSessions make 2,000 requests a second together: enough that what a server does when nobody asks it does not count.
	cpuSessions = 200
	// aLongTime is longer than any measurement.
	aLongTime = time.Hour
)

// serverCPU measures a server's processor time for each request of hot sessions, with leases over without. Each of the three has a server of
// its own and its load runs all the time, so that leases are renewed as they are in the long run.
func serverCPU(p Plan) measure.Experiment {
	length := p.full(6*time.Second, 1200*time.Millisecond)
	var sides [3]*side // strict, leased, strict
	var loads *errgroup.Group
	over := make(chan struct{})
	return measure.Experiment{
		Rows: []measure.Row{{
			Name: "server-cpu", What: "server CPU a request, sessions with 10 a second over three replicas: leased over strict", Unit: "x", Goal: 0.35,
		}},
		Prepare: func(ctx context.Context) (err error) {
			loads, ctx = errgroup.WithContext(ctx)
			for i := range sides {
				cfg := cluster.DefaultConfig()
				cfg.CreateRate, cfg.StoreTimeout = 0, world.Patience
				if i != 1 {
					cfg.Lease = 0
				}
				if sides[i], err = newSide(ctx, cfg, cpuReplicas, cpuSessions); err != nil {
					return err
				}
				loads.Go(func() error { // ends when over is closed
					_, err := sides[i].fleet.load(aLongTime, over).Run(ctx)
					return err
				})
			}
			return measure.Wait(ctx, 2*time.Second) // all leases are taken, and reported once
		},
		Pair: func(ctx context.Context, _ int) ([]measure.Sample, error) {
			group, ctx := errgroup.WithContext(ctx)
			var each [3]float64
			for i, s := range sides {
				group.Go(func() (err error) {
					each[i], err = s.cpu(ctx, length)
					return err
				})
			}
			err := group.Wait()
			return []measure.Sample{{Value: 2 * each[1] / (each[0] + each[2]), Control: each[2] / each[0]}}, err
		},
		Close: func() error {
			close(over)
			var errs []error
			if loads != nil {
				errs = append(errs, loads.Wait())
			}
			for _, s := range sides {
				if s != nil {
					errs = append(errs, s.close())
				}
			}
			return errors.Join(errs...)
		},
	}
}

// side is a server with the replicas that use it.
type side struct {
	store *world.Store
	fleet *fleet
}

// newSide starts one with some active sessions.
func newSide(ctx context.Context, cfg cluster.Config, replicas, sessions int) (*side, error) {
	store, err := world.StartStore(ctx, cfg, storeCallers)
	if err != nil {
		return nil, err
	}
	s := &side{store: store}
	if s.fleet, err = startFleet(ctx, store.Store, cfg, replicas); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	for range sessions {
		token, _, err := store.NewSession(ctx, world.Initialize)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.fleet.tokens = append(s.fleet.tokens, token)
	}
	return s, nil
}

func (s *side) close() error {
	s.fleet.stop()
	return s.store.Close()
}

// cpu is the server's processor time for each request of the next while, in seconds.
func (s *side) cpu(ctx context.Context, length time.Duration) (float64, error) {
	before, err := world.CPU(ctx, s.store.Client)
	if err != nil {
		return 0, err
	}
	requests := s.fleet.requests.Load()
	if err := measure.Wait(ctx, length); err != nil {
		return 0, err
	}
	after, err := world.CPU(ctx, s.store.Client)
	if err != nil {
		return 0, err
	}
	requests = s.fleet.requests.Load() - requests
	if requests == 0 {
		return 0, errors.New("no request was served")
	}
	return (after - before).Seconds() / float64(requests), nil
}
