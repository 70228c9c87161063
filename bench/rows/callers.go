package rows

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

const (
	// leaseCallers lease at leaseRate a second together, which leaves Redis and the load idle most of the time.
	leaseCallers = 8
	leaseRate    = 1000
	// leasedSessions are those that they use.
	leasedSessions = 1000
	// sweepTimeout bounds a sweep; one that takes so long does not work.
	sweepTimeout = time.Minute
)

// callersWhileSweeping measures the p99 of callers that lease sessions while a sweeper runs, over that before and after.
func callersWhileSweeping(p Plan) measure.Experiment {
	due, length := 20_000, p.full(2*time.Second, 400*time.Millisecond)
	if p.Quick {
		due = 3000
	}
	var s *swept
	idle := func(ctx context.Context) (float64, error) {
		latencies, err := s.leases(length, nil).Run(ctx)
		return latencies.Quantile(0.99).Seconds(), err
	}
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "sweep-callers-p99", What: "callers' p99 while a sweeper ends " + count(due) + " of " + count(p.Many) + " sessions, over idle", Unit: "x", Goal: 1.3},
			{Name: "sweep-script-median", What: "one script of that sweeper: server time, median", Unit: "ms", Goal: 0.5},
			{Name: "sweep-script-p99", What: "the same, p99", Unit: "ms", Goal: 2},
		},
		Prepare: func(ctx context.Context) (err error) {
			s, err = newSwept(ctx, p.Many)
			return err
		},
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			if err := s.makeDue(ctx, due); err != nil {
				return nil, err
			}
			sample, err := measure.Pair(ctx, turn, idle, func(ctx context.Context) (float64, error) { return s.leasesWhileSweeping(ctx, due) }, idle)
			if err != nil {
				return nil, err
			}
			median, p99, err := s.scripts(ctx)
			return []measure.Sample{sample, median, p99}, err
		},
		Close: func() error {
			if s == nil {
				return nil
			}
			return s.store.Close()
		},
	}
}

// leases is a load of callers that lease sessions.
func (s *swept) leases(length time.Duration, until <-chan struct{}) measure.Load {
	return measure.Load{
		Callers: leaseCallers, Rate: leaseRate, For: length, Until: until,
		Do: func(ctx context.Context, caller, n int) error {
			_, err := s.store.Store.Lease(ctx, s.all.Call((n*leaseCallers+caller)%leasedSessions))
			return err
		},
	}
}

// leasesWhileSweeping returns the p99 of callers from a sweeper's first script to its last.
func (s *swept) leasesWhileSweeping(ctx context.Context, due int) (float64, error) {
	ctx, stop := context.WithTimeoutCause(ctx, sweepTimeout, fmt.Errorf("the sweep of %d sessions takes over %s", due, sweepTimeout))
	defer stop()
	seen := &progress{due: due, begun: make(chan struct{}), all: make(chan struct{})}
	// It goes by the limits under which the sessions came due, or its reconciler would give them the time that they have lost.
	w, err := sweeper.New(sweeper.Config{
		Store: s.hasty, Incarnation: "bench", Slack: time.Millisecond, LockTTL: sweeper.MinTTL, Observer: seen, EmergencyAbove: -1,
	})
	if err != nil {
		return 0, err
	}
	group, ctx := errgroup.WithContext(ctx)
	sweeping, end := context.WithCancel(ctx)
	group.Go(func() error { return w.Run(sweeping) }) // ends below
	var latencies *measure.Latencies
	group.Go(func() error {
		defer end()
		select {
		case <-seen.begun:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var err error
		latencies, err = s.leases(sweepTimeout, seen.all).Run(ctx)
		return err
	})
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if latencies.Calls() == 0 {
		return 0, errors.New("the sweep was over before a single call: let more sessions come due")
	}
	return latencies.Quantile(0.99).Seconds(), nil
}

// progress is told of what a sweeper has done. What else it is told, it does not heed.
type progress struct {
	due        int
	begun, all chan struct{} // closed with the first batch, and when all that was due is gone

	mu      sync.Mutex
	expired int
}

// Swept counts.
func (p *progress) Swept(expired, _ int, _ time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.expired == 0 && expired > 0 {
		close(p.begun)
	}
	if p.expired < p.due && p.expired+expired >= p.due {
		close(p.all)
	}
	p.expired += expired
}

// LeaderChanged does nothing.
func (*progress) LeaderChanged(bool, sweeper.Reason) {}

// Renewed does nothing.
func (*progress) Renewed(time.Duration, error) {}

// Panicked does nothing.
func (*progress) Panicked(string) {}

// SweepFailed does nothing.
func (*progress) SweepFailed() {}

// Fenced does nothing.
func (*progress) Fenced() {}

// Mended does nothing.
func (*progress) Mended(cluster.RepairKind) {}

// Relieved does nothing.
func (*progress) Relieved(int, int, float64) {}
