package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// MaxSweepBatch bounds [cluster.SweepCall]'s Limit: a hundred take about 1.5 ms of the server's time.
const MaxSweepBatch = 1000

// Sweep implements [cluster.CleanupStore].
func (s *Store) Sweep(ctx context.Context, c cluster.SweepCall) (cluster.Swept, error) {
	limit := min(max(c.Limit, 1), MaxSweepBatch)
	clocks, leeway := s.clocks(ctx), s.leewayMillis()
	calls, asked := make([]call, 0, len(s.partitions)), make([]partition, 0, len(s.partitions))
	var swept cluster.Swept
	errs := make([]error, 0, len(s.partitions))
	for i, p := range s.partitions {
		now, err := decodeClock(clocks[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		calls = append(calls, call{
			script: sessionsSweep,
			keys:   []string{p.lru(), p.deadlines(), p.ended(), p.counts(), p.fence()},
			args:   append(append(s.finishArgs(p), cleanupArgs(c.Cleanup)...), limit, now-leeway),
		})
		asked = append(asked, p)
	}
	for i, result := range s.pipeline(ctx, calls) {
		one, err := decodeSwept(result)
		if isBroken(err) { // a script looks at no more than this before it writes
			one.Repairs, err = s.mendBrokenOf(ctx, c.Cleanup, asked[i:i+1], 3*limit, err)
			one.More = len(one.Repairs) > 0
		}
		swept.Expired = append(swept.Expired, one.Expired...)
		swept.Purged = append(swept.Purged, one.Purged...)
		swept.Repairs = append(swept.Repairs, one.Repairs...)
		swept.More = swept.More || one.More
		swept.Took = max(swept.Took, one.Took)
		errs = append(errs, err)
	}
	s.releaseAll(ctx, swept.Expired)
	return swept, errors.Join(errs...)
}

// clocks asks each partition for its time. A partition that does not tell is not swept.
func (s *Store) clocks(ctx context.Context) []pipelined {
	calls := make([]call, len(s.partitions))
	for i, p := range s.partitions {
		calls[i] = call{script: clockRead, keys: []string{p.lru()}}
	}
	return s.pipeline(ctx, calls)
}

// decodeClock reads the reply of clock_read, in ms since 1970.
func decodeClock(result pipelined) (now int64, err error) {
	if result.err != nil {
		return 0, result.err
	}
	var d decoder
	if len(result.reply) > 0 {
		now = d.number(result.reply[0])
	}
	if d.err != nil || now <= 0 {
		return 0, unavailable(errMalformedReply)
	}
	return now, nil
}

// decodeSwept reads one partition's reply of sessions_sweep.
func decodeSwept(result pipelined) (cluster.Swept, error) {
	if result.err != nil {
		return cluster.Swept{}, result.err
	}
	if len(result.reply) != 4 {
		return cluster.Swept{}, unavailable(errMalformedReply)
	}
	var d decoder
	took, more := d.number(result.reply[0]), d.number(result.reply[1])
	purgedIDs, okPurged := result.reply[2].([]any)
	gone, okGone := result.reply[3].([]any)
	if d.err != nil || !okPurged || !okGone {
		return cluster.Swept{}, unavailable(errMalformedReply)
	}
	purged, err := decodeIDs(purgedIDs)
	if err != nil {
		return cluster.Swept{}, err
	}
	expired, err := decodeEnded(gone)
	if err != nil {
		return cluster.Swept{}, unavailable(err)
	}
	return cluster.Swept{Expired: expired, Purged: purged, More: more == 1, Took: time.Duration(took) * time.Microsecond}, nil
}

// Prune implements [cluster.CleanupStore].
func (s *Store) Prune(ctx context.Context, id cluster.ID, dead []string) (int, error) {
	if len(dead) == 0 {
		return 0, nil
	}
	c := call{script: pendingPrune, keys: []string{s.partitionOf(id).pending(id)}}
	for _, incarnation := range dead {
		c.args = append(c.args, incarnation)
	}
	reply, _, err := s.repeat(ctx, c)
	if err != nil {
		return 0, err
	}
	return decodeNumber(reply)
}
