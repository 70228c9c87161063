package redisstore

import (
	"context"
	"errors"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// sweepBatch is how many sessions of each kind one run of sessions_sweep takes: 0.2 ms of the server's time, measured.
const sweepBatch = 100

// Sweep implements [cluster.CleanupStore].
func (s *Store) Sweep(ctx context.Context) (cluster.Swept, error) {
	calls := make([]call, len(s.partitions))
	for i, p := range s.partitions {
		calls[i] = call{
			script: sessionsSweep,
			keys:   []string{p.lru(), p.deadlines(), p.ended(), p.counts()},
			args:   append(s.finishArgs(p), sweepBatch),
		}
	}
	var swept cluster.Swept
	var errs []error
	for _, result := range s.pipeline(ctx, calls) {
		if result.err != nil {
			errs = append(errs, result.err)
			continue
		}
		one, err := decodeSwept(result.reply)
		if err != nil {
			errs = append(errs, unavailable(err))
			continue
		}
		swept.Expired = append(swept.Expired, one.Expired...)
		swept.Purged += one.Purged
		swept.More = swept.More || one.More
	}
	s.releaseAll(ctx, swept.Expired)
	return swept, errors.Join(errs...)
}

// decodeSwept reads one partition's reply of sessions_sweep.
func decodeSwept(reply []any) (cluster.Swept, error) {
	if len(reply) < 2 {
		return cluster.Swept{}, errMalformedReply
	}
	var d decoder
	expired, purged := int(d.number(reply[0])), int(d.number(reply[1]))
	ended, err := decodeEnded(reply[2:])
	return cluster.Swept{Expired: ended, Purged: purged, More: expired == sweepBatch || purged == sweepBatch}, errors.Join(err, d.err)
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
