package sweeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// mendLoop walks through everything the store holds, slowly, and mends what has drifted apart, again and again.
func (s *Sweeper) mendLoop(ctx context.Context, term *Term) error {
	// After an outage every replica that lives must have had the time to say so, or what it has in flight would be taken for
	// abandoned.
	pause(ctx, redisstore.ReplicaAlive)
	complaint := cluster.NewComplaint(s.cfg.InOutage)
	for ctx.Err() == nil {
		begun := time.Now()
		rest := s.cfg.MendInterval
		err := s.walk(ctx, term)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, cluster.ErrFenced):
			return fmt.Errorf("reconciling: %w", err)
		case err != nil:
			rest = min(rest, mendAgain*s.cfg.Interval)
			level, _ := complaint.Failed(err, begun)
			s.log.Log(ctx, level, "the reconciler's walk could not see everything; the next one begins anew", "in", rest.String(), "error", err)
		default:
			complaint.Worked()
		}
		pause(ctx, jittered(rest))
	}
	return nil
}

// walk is one walk through everything that can be reached. The error is the first of what cannot.
func (s *Sweeper) walk(ctx context.Context, term *Term) error {
	var failure error
	for cursor, first := "", true; (first || cursor != "") && ctx.Err() == nil; first = false {
		var mended cluster.Mended
		err := s.call(ctx, term, func(ctx context.Context, who cluster.Cleanup) (err error) {
			mended, err = s.cfg.Store.Mend(ctx, cluster.MendCall{Cleanup: who, Cursor: cursor, Limit: mendBatch})
			s.tellMended(mended.Repairs)
			return err
		})
		if failure = cmp.Or(failure, err); err != nil && (mended.Next == "" || errors.Is(err, cluster.ErrFenced)) {
			return failure
		}
		cursor = mended.Next // with an error, too: where a part of the store is away, the others are mended
		pause(ctx, mendPace)
	}
	return cmp.Or(ctx.Err(), failure)
}

// tellMended passes on what was mended, by one step of a walk or because it was in the way.
func (s *Sweeper) tellMended(repairs []cluster.Repair) {
	for _, repair := range repairs {
		s.observer.Mended(repair.Kind)
		s.log.Warn("mended drift", "kind", repair.Kind, "session", repair.ID)
	}
}
