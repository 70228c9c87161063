package sweeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// sweepLoop sweeps once an interval. It fails when that has not worked for several intervals.
func (s *Sweeper) sweepLoop(ctx context.Context, term *Term) error {
	b := newBatch(s.cfg.Batch)
	lastGood := time.Now()
	for wasAway := false; ctx.Err() == nil; {
		var err error
		if wasAway {
			err = s.awaitReports(ctx)
		}
		if err == nil {
			err = s.sweep(ctx, term, &b)
		}
		wasAway = err != nil
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, cluster.ErrFenced):
			return fmt.Errorf("sweeping: %w", err)
		case err != nil:
			s.observer.SweepFailed()
			if away := time.Since(lastGood); away > givenUp*s.cfg.Interval {
				return fmt.Errorf("sweeping has not worked for %s: %w", away.Round(time.Millisecond), err)
			}
			s.log.Warn("sweeping", "error", err)
		default:
			lastGood = time.Now()
		}
		pause(ctx, jittered(s.cfg.Interval))
	}
	return nil
}

// awaitReports waits one slack when the whole store is back, and fails when it is not: activity that replicas could not report
// meanwhile must land before anybody is ended for want of it.
func (s *Sweeper) awaitReports(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	if _, err := s.cfg.Store.Stats(bounded); err != nil { // unlike a ping it asks every server
		return err
	}
	pause(ctx, s.cfg.Slack)
	return ctx.Err()
}

// sweep ends what is past its end and purges what is past its retention, until nothing is due.
func (s *Sweeper) sweep(ctx context.Context, term *Term, b *batch) error {
	var gap time.Duration
	for ctx.Err() == nil {
		var swept cluster.Swept
		begun := time.Now()
		err := s.call(ctx, term, func(ctx context.Context, who cluster.Cleanup) (err error) {
			started := time.Now()
			swept, err = s.cfg.Store.Sweep(ctx, cluster.SweepCall{Cleanup: who, Limit: b.size})
			s.tell(swept, time.Since(started)) // what was done beside a refusal, too
			return err
		})
		b.took(swept, gap)
		if err != nil || !swept.More {
			return err
		}
		pause(ctx, pace)
		gap = time.Since(begun)
	}
	return nil
}

// sweepOnce is what a replica does that cannot become leader because the server is full, when nobody leads.
func (s *Sweeper) sweepOnce(ctx context.Context, epoch int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	started := time.Now()
	sweep := func() error {
		swept, err := s.cfg.Store.Sweep(ctx, cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: epoch}, Limit: s.cfg.Batch})
		s.tell(swept, time.Since(started))
		return err
	}
	err := sweep()
	if fence, isFenced := highestFence(err); isFenced { // a failover has rolled the stored epoch back, and nobody can take a new one
		epoch = fence
		err = sweep()
	}
	if s.cfg.EmergencyAbove < 0 {
		return err
	}
	return errors.Join(err, s.relieve(ctx, func(ctx context.Context, do func(context.Context, cluster.Cleanup) error) error {
		return do(ctx, cluster.Cleanup{Epoch: epoch})
	}))
}

// tell passes on what a sweep did.
func (s *Sweeper) tell(swept cluster.Swept, took time.Duration) {
	s.observer.Swept(len(swept.Expired), len(swept.Purged), took)
	s.tellMended(swept.Repairs)
	s.trail.Ended(cluster.ActorSweeper, "past its end", swept.Expired...)
	s.trail.Purged(cluster.ActorSweeper, "past its retention", swept.Purged...)
	if s.cfg.Expired != nil && len(swept.Expired) > 0 {
		s.cfg.Expired(swept.Expired)
	}
}

// jittered is an interval, give or take a fifth: what starts together must not stay together.
func jittered(interval time.Duration) time.Duration {
	return interval - interval/5 + rand.N(2*interval/5+1) //nolint:gosec // spreads load, hides nothing
}
