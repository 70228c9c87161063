package rows

import (
	"context"
	"errors"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// storeCallers call a store at once; more do not make a server of one thread any faster.
const storeCallers = 64

// createAtCap measures how many sessions a second are created where each evicts another, over how many are where there is room.
func createAtCap(p Plan) measure.Experiment {
	limit, length := 10_000, p.full(time.Second, 200*time.Millisecond)
	if p.Quick {
		limit = 2000
	}
	var stores [3]*world.Store
	create := func(i int) measure.Arm {
		return func(ctx context.Context) (float64, error) {
			latencies, err := measure.Load{Callers: storeCallers, For: length, Do: func(ctx context.Context, _, _ int) error {
				_, err := stores[i].Create(ctx, world.Initialize)
				return err
			}}.Run(ctx)
			return latencies.PerSecond(), err
		}
	}
	return measure.Experiment{
		Rows: []measure.Row{{
			Name: "create-at-cap", What: "sessions created a second where each evicts another, over where there is room",
			Unit: "x", Goal: 0.7, AtLeast: true,
		}},
		Prepare: func(ctx context.Context) (err error) {
			for i := range stores {
				cfg := world.Limits()
				cfg.EvictMinIdle, cfg.InitializeTimeout = 0, time.Hour
				if i == 1 {
					cfg.MaxSessions = limit
				}
				if stores[i], err = world.StartStore(ctx, cfg, storeCallers); err != nil {
					return err
				}
			}
			_, err = stores[1].Fill(ctx, limit, world.Initialize)
			return err
		},
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			sample, err := measure.Pair(ctx, turn, create(0), create(1), create(2))
			return []measure.Sample{sample}, err
		},
		Close: func() error { return closeAll(stores[:]) },
	}
}

func closeAll(stores []*world.Store) error {
	var errs []error
	for _, s := range stores {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
