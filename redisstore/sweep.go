package redisstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// MaxSweepBatch bounds [cluster.SweepCall]'s Limit: a hundred take about 1.5 ms of the server's time.
const MaxSweepBatch = 1000

// Sweep implements [cluster.CleanupStore]. Each partition is swept by itself: what ails one of them does not keep the others.
func (s *Store) Sweep(ctx context.Context, c cluster.SweepCall) (cluster.Swept, error) {
	limit := min(max(c.Limit, 1), MaxSweepBatch)
	swept := cluster.Swept{Slices: len(s.partitions)}
	var errs []error
	fails := func(slice int, err error) {
		swept.Away, errs = append(swept.Away, slice), append(errs, err)
	}
	clocks := s.clocks(ctx, c.Without)
	calls, asked := make([]call, 0, len(s.partitions)), make([]int, 0, len(s.partitions))
	for i, p := range s.partitions {
		if slices.Contains(c.Without, i) {
			continue
		}
		now, err := decodeClock(clocks[i])
		if err != nil {
			fails(i, err)
			continue
		}
		calls, asked = append(calls, call{
			script: sessionsSweep,
			keys:   []string{p.lru(), p.deadlines(), p.ended(), p.counts(), p.fence()},
			args:   append(append(s.finishArgs(p), cleanupArgs(c.Cleanup)...), limit, now-s.leewayOf(p)),
		}), append(asked, i)
	}
	for n, result := range s.pipeline(ctx, calls) {
		i := asked[n]
		one, err := decodeSwept(result)
		if isBroken(err) { // a script looks at no more than this before it writes
			one.Repairs, err = s.mendBrokenOf(ctx, c.Cleanup, s.partitions[i:i+1], 3*limit, err)
			one.More = len(one.Repairs) > 0
		}
		swept.Expired = append(swept.Expired, one.Expired...)
		swept.Purged = append(swept.Purged, one.Purged...)
		swept.Repairs = append(swept.Repairs, one.Repairs...)
		swept.More = swept.More || one.More
		swept.Took = max(swept.Took, one.Took)
		if err != nil {
			fails(i, err)
		}
	}
	s.releaseAll(ctx, swept.Expired)
	return swept, errors.Join(errs...)
}

// leewayOf is the leeway of one partition: an outage of another one kept no report from it.
func (s *Store) leewayOf(p partition) int64 {
	return s.breakerOf(p.lru()).leeway(time.Now()).Milliseconds()
}

// Reach tells how many of the session space's slices answer, and how many there are. The error tells why the others do not.
func (s *Store) Reach(ctx context.Context) (answering, slices int, err error) {
	errs := make([]error, 0, len(s.partitions))
	for _, clock := range s.clocks(ctx, nil) {
		_, err := decodeClock(clock)
		if err == nil {
			answering++
		}
		errs = append(errs, err)
	}
	return answering, len(s.partitions), errors.Join(errs...)
}

// clocks asks each partition but some for its time. A partition that does not tell is not swept. Where several parts of the
// store fail by themselves, those that did not answer of late are not asked: waiting for them would leave no time for the
// others. They are probed meanwhile.
func (s *Store) clocks(ctx context.Context, without []int) []pipelined {
	calls, asked := make([]call, 0, len(s.partitions)), make([]int, 0, len(s.partitions))
	clocks := make([]pipelined, len(s.partitions))
	for i, p := range s.partitions {
		if slices.Contains(without, i) {
			continue
		}
		if len(s.breakers.parts) > 1 {
			if clocks[i].err = s.checkKey(p.lru()); clocks[i].err != nil {
				continue
			}
		}
		calls, asked = append(calls, call{script: clockRead, keys: []string{p.lru()}}), append(asked, i)
	}
	for n, result := range s.pipeline(ctx, calls) {
		clocks[asked[n]] = result
	}
	return clocks
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
	if len(result.reply) != 3 {
		return cluster.Swept{}, unavailable(errMalformedReply)
	}
	var d decoder
	took, more := d.number(result.reply[0]), d.number(result.reply[1])
	gone, isList := result.reply[2].([]any)
	if d.err != nil || !isList {
		return cluster.Swept{}, unavailable(errMalformedReply)
	}
	expired, purged, err := decodeGone(gone)
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
