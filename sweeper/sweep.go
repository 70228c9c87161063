package sweeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// sweepLoop sweeps once an interval. It fails when that has not worked for several intervals in most of the store.
func (s *Sweeper) sweepLoop(ctx context.Context, term *Term) error {
	b := newBatch(s.cfg.Batch)
	lastGood := time.Now()
	complaint := cluster.NewComplaint(s.cfg.InOutage)
	for wasAway := false; ctx.Err() == nil; {
		var err error
		begun := time.Now()
		if wasAway {
			err = s.awaitReports(ctx)
		}
		if err == nil {
			err = s.sweep(ctx, term, &b)
		}
		partly, isPartly := errors.AsType[*partlySweptError](err)
		wasAway = err != nil && (!isPartly || !partly.mostly())
		if !wasAway {
			lastGood = time.Now()
		}
		switch away := time.Since(lastGood); {
		case ctx.Err() != nil:
		case errors.Is(err, cluster.ErrFenced):
			return fmt.Errorf("sweeping failed: %w", err)
		case wasAway && away > givenUp*s.cfg.Interval:
			s.observer.SweepFailed()
			return fmt.Errorf("sweeping has not worked for %s: %w", away.Round(time.Millisecond), err)
		case err != nil:
			s.observer.SweepFailed()
			level, _ := complaint.Failed(err, begun)
			s.log.Log(ctx, level, "sweeping failed; it is tried again", "error", err)
		default:
			complaint.Worked()
		}
		pause(ctx, jittered(s.cfg.Interval))
	}
	return nil
}

// partlySweptError is what became of a sweep that worked in a part of the store.
type partlySweptError struct {
	away, slices int // slices of the session space that could not be swept, of so many
	err          error
}

// Error tells how much could not be swept, and why.
func (e *partlySweptError) Error() string {
	return fmt.Sprintf("%d of %d slices of the session space could not be swept: %v", e.away, e.slices, e.err)
}

// Unwrap returns why.
func (e *partlySweptError) Unwrap() error { return e.err }

// mostly reports whether most was swept: another leader would hardly do better.
func (e *partlySweptError) mostly() bool { return 2*e.away < e.slices }

// awaitReports waits one slack when most of the store is back, and fails when it is not: activity that replicas could not
// report meanwhile must land before anybody is ended for want of it. A part of the store that comes back later gives its own
// sessions longer.
func (s *Sweeper) awaitReports(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	if answering, slices, err := s.cfg.Store.Reach(bounded); 2*answering <= slices {
		return err
	}
	pause(ctx, s.cfg.Slack)
	return ctx.Err()
}

// sweep ends what is past its end and purges what is past its retention, until nothing is due. Slices of the session space that
// fail are left to the next sweep, and the others swept to the end; then the error is a [partlySweptError].
func (s *Sweeper) sweep(ctx context.Context, term *Term, b *batch) (err error) {
	ctx, p := s.beginPass(ctx, "sweep")
	defer func() { p.end(err) }()
	var gap time.Duration
	var partly partlySweptError
	var without []int
	for ctx.Err() == nil {
		var swept cluster.Swept
		begun := time.Now()
		err := s.call(ctx, term, func(ctx context.Context, who cluster.Cleanup) (err error) {
			started := time.Now()
			swept, err = s.cfg.Store.Sweep(ctx, cluster.SweepCall{Cleanup: who, Limit: b.size, Without: without})
			s.tell(swept, time.Since(started)) // what was done beside a refusal, too
			p.did(len(swept.Expired), len(swept.Purged))
			return err
		})
		b.took(swept, gap)
		if _, isFenced := highestFence(err); err != nil && (isFenced || len(swept.Away) == 0 || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			without = append(without, swept.Away...)
			partly = partlySweptError{len(without), swept.Slices, errors.Join(partly.err, err)}
		}
		if !swept.More {
			break
		}
		pause(ctx, pace)
		gap = time.Since(begun)
	}
	if partly.err != nil {
		return &partly
	}
	return nil
}

// sweepOnce is what a replica does that cannot become leader because the server is full, when nobody leads.
func (s *Sweeper) sweepOnce(ctx context.Context, epoch int64) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	ctx, p := s.beginPass(ctx, "sweep")
	defer func() { p.end(err) }()
	started := time.Now()
	sweep := func() error {
		swept, err := s.cfg.Store.Sweep(ctx, cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: epoch}, Limit: s.cfg.Batch})
		s.tell(swept, time.Since(started))
		p.did(len(swept.Expired), len(swept.Purged))
		return err
	}
	err = sweep()
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
