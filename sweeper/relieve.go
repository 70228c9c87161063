package sweeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// relieveLoop watches the servers' memory and lets sessions go before their time when it runs out: the records of ended ones
// first, then live ones that have been idle the longest, never one with a request in flight.
func (s *Sweeper) relieveLoop(ctx context.Context, term *Term) error {
	if s.cfg.EmergencyAbove < 0 {
		return nil
	}
	complaint := cluster.NewComplaint(s.cfg.InOutage)
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.relieve(ctx, func(ctx context.Context, do func(context.Context, cluster.Cleanup) error) error {
			return s.call(ctx, term, do)
		})
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, cluster.ErrFenced):
			return fmt.Errorf("emergency cleanup failed: %w", err)
		case err != nil:
			level, _ := complaint.Failed(err, begun)
			s.log.Log(ctx, level, "emergency cleanup failed; it is tried again", "error", err)
		default:
			complaint.Worked()
		}
		pause(ctx, jittered(s.cfg.Interval))
	}
	return nil
}

// relieve makes room until no server is above the threshold any more, or nothing is left that may go.
func (s *Sweeper) relieve(ctx context.Context, call func(context.Context, func(context.Context, cluster.Cleanup) error) error) (err error) {
	ctx, p := s.beginPass(ctx, "emergency cleanup")
	defer func() { p.end(err) }()
	for begun := false; ctx.Err() == nil; begun = true {
		var relieved cluster.Relieved
		err := call(ctx, func(ctx context.Context, who cluster.Cleanup) (err error) {
			relieved, err = s.cfg.Store.Relieve(ctx, cluster.RelieveCall{
				Cleanup: who, Above: s.cfg.EmergencyAbove, Limit: min(s.cfg.Batch, relieveBatch), IdleFor: s.cfg.EvictMinIdle,
			})
			s.tellRelieved(relieved)
			p.did(len(relieved.Evicted), len(relieved.Purged))
			return err
		})
		if err != nil {
			return err
		}
		if len(relieved.Purged)+len(relieved.Evicted)+len(relieved.Repairs) == 0 {
			if relieved.Spent {
				s.log.Error("the store's memory runs out, and no session may go", "usage", relieved.Usage)
			}
			return nil
		}
		if !begun {
			s.log.Warn("the store's memory runs out: sessions go before their time", "usage", relieved.Usage)
		}
		pause(ctx, pace)
	}
	return nil
}

// tellRelieved passes on what emergency cleanup did.
func (s *Sweeper) tellRelieved(relieved cluster.Relieved) {
	s.observer.Relieved(len(relieved.Purged), len(relieved.Evicted), relieved.Usage)
	s.tellMended(relieved.Repairs)
	s.trail.Purged(cluster.ActorSweeper, "memory runs out", relieved.Purged...)
	s.trail.Ended(cluster.ActorSweeper, "memory runs out", relieved.Evicted...)
	if s.cfg.Expired != nil && len(relieved.Evicted) > 0 {
		s.cfg.Expired(relieved.Evicted)
	}
}
