package rows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/peers"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	fewSessions = 1000
	// sweepBatch is how many sessions one script of cleanup takes at most: the default of the sweeper, which takes fewer where a script
	// takes too long.
	sweepBatch = 100
)

// sweep measures what it takes to end sessions that are due among few sessions and among many, one script after the other; and what
// a cleaner takes that scans all keys for them.
func sweep(p Plan) measure.Experiment {
	due := 10_000
	if p.Quick {
		due = 2000
	}
	var subjects [3]*swept // few, many, few
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "sweep-size", What: "sweep of " + count(due) + " due sessions: among " + count(p.Many) + " over among " + count(fewSessions), Unit: "x", Goal: 1.3},
			{Name: "sweep-scan", What: "the same among " + count(p.Many) + ": a SCAN cleaner's time over it", Unit: "x", Goal: 150, AtLeast: true, NeedsFull: true},
		},
		Prepare: func(ctx context.Context) (err error) {
			for i, n := range []int{fewSessions, p.Many, fewSessions} {
				if subjects[i], err = newSwept(ctx, n); err != nil {
					return err
				}
			}
			return nil
		},
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			for _, s := range subjects {
				if err := s.makeDue(ctx, due); err != nil {
					return nil, err
				}
			}
			many := subjects[1]
			scanned, again, err := many.scanTwice(ctx, turn, due)
			if err != nil {
				return nil, err
			}
			size, err := measure.Pair(ctx, turn, subjects[0].sweep(due), many.sweep(due), subjects[2].sweep(due))
			return []measure.Sample{size, {Value: (scanned + again) / 2 / many.took.Seconds(), Control: again / scanned}}, err
		},
		Close: func() error {
			var errs []error
			for _, s := range subjects {
				if s != nil {
					errs = append(errs, s.store.Close())
				}
			}
			return errors.Join(errs...)
		},
	}
}

// swept is a store that is swept again and again.
type swept struct {
	store *world.Store
	hasty *redisstore.Store // what it leases is due at once
	all   *world.Population // those that stay
	since time.Time         // when others last came due, by the store's clock
	took  time.Duration     // by the last sweep
}

// newSwept fills a store with n sessions that stay.
func newSwept(ctx context.Context, n int) (*swept, error) {
	cfg := world.Limits()
	cfg.IdleTimeout = cfg.MaxAge
	store, err := world.StartStore(ctx, cfg, storeCallers)
	if err != nil {
		return nil, err
	}
	s := &swept{store: store}
	cfg.Lease, cfg.IdleTimeout = 0, time.Millisecond
	cfg.ReportInterval, cfg.ReportSlack = 10*time.Millisecond, 10*time.Millisecond
	s.hasty, err = store.Open(redisstore.Options{Config: cfg})
	if err == nil {
		s.all, err = store.Fill(ctx, n, "")
	}
	// The slow log tells what each script took. The threshold keeps most of the callers' out of it; a script that ends more than a few
	// sessions takes longer.
	if err == nil {
		err = errors.Join(
			store.Client.ConfigSet(ctx, "slowlog-max-len", "100000").Err(), store.Client.ConfigSet(ctx, "slowlog-log-slower-than", "60").Err())
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// makeDue makes n sessions more, and lets them come due.
func (s *swept) makeDue(ctx context.Context, n int) error {
	doomed, err := s.store.Fill(ctx, n, "")
	if err != nil {
		return err
	}
	if err := measure.Wait(ctx, 2*time.Millisecond); err != nil { // what is made is older than what is due
		return err
	}
	if s.since, err = s.store.Client.Time(ctx).Result(); err != nil {
		return err
	}
	err = world.InParallel(ctx, storeCallers, n, func(ctx context.Context, i int) error {
		_, err := s.hasty.Lease(ctx, doomed.Call(i))
		return err
	})
	if err != nil {
		return err
	}
	return measure.Wait(ctx, 20*time.Millisecond) // until the last is past its end
}

// sweep ends what is due, one batch after the other.
func (s *swept) sweep(due int) measure.Arm {
	return func(ctx context.Context) (float64, error) {
		begun, ended := time.Now(), 0
		for {
			done, err := s.hasty.Sweep(ctx, cluster.SweepCall{Limit: sweepBatch})
			if err != nil {
				return 0, err
			}
			if ended += len(done.Expired); !done.More {
				break
			}
		}
		s.took = time.Since(begun)
		if ended != due {
			return 0, fmt.Errorf("a sweep ended %d sessions, %d were due", ended, due)
		}
		return s.took.Seconds(), nil
	}
}

// scanTwice has a cleaner look for what is due that reads all keys. It ends nothing, which is to its favour.
func (s *swept) scanTwice(ctx context.Context, turn, due int) (first, second float64, err error) {
	if turn == 0 { // there is nothing to warm up
		return 1, 1, nil
	}
	var took [2]float64
	for i := range took {
		begun := time.Now()
		found, err := peers.Scan(ctx, s.store.Client, s.since)
		if err != nil {
			return 0, 0, err
		}
		if took[i] = time.Since(begun).Seconds(); found != due {
			return 0, 0, fmt.Errorf("a scan found %d sessions that are due, not %d", found, due)
		}
	}
	return took[0], took[1], nil
}
