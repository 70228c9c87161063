package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// cleanupBatch is how many sessions one run of sessions_end or sessions_purge takes at most.
const cleanupBatch = 100

// cleanupArgs are the arguments that say who cleans up.
func cleanupArgs(c cluster.Cleanup) []any {
	isLeader := 0
	if c.Leader {
		isLeader = 1
	}
	return []any{c.Epoch, isLeader}
}

// End implements [cluster.CleanupStore].
func (s *Store) End(ctx context.Context, c cluster.EndCall) ([]cluster.Session, error) {
	if !c.Status.Ended() {
		return nil, fmt.Errorf("%w: %q does not end a session", cluster.ErrIllegalTransition, c.Status)
	}
	was := ""
	if c.Was != "" {
		was = statusCodes[c.Was]
	}
	spare := 0
	if c.SpareBusy {
		spare = 1
	}
	groups := s.group(len(c.IDs), cleanupBatch, func(i int) cluster.ID { return c.IDs[i] })
	calls := make([]call, len(groups))
	for g, group := range groups {
		p := group.partition
		args := append(append(s.finishArgs(p), cleanupArgs(c.Cleanup)...),
			statusCodes[c.Status], was, c.IdleFor.Milliseconds(), c.OlderThan.Milliseconds(), spare)
		calls[g] = call{
			script: sessionsEnd,
			keys:   []string{p.lru(), p.deadlines(), p.ended(), p.counts(), p.fence()},
			args:   append(args, idArgs(pickAll(c.IDs, group.members))...),
		}
	}
	var ended []cluster.Session
	errs := make([]error, 0, len(calls))
	for _, result := range s.pipeline(ctx, calls) {
		some, purged, err := decodeEnding(result)
		s.tellPurged(purged)
		ended = append(ended, some...)
		errs = append(errs, err)
	}
	s.releaseAll(ctx, ended)
	return ended, errors.Join(errs...)
}

// decodeEnding reads the reply of sessions_end.
func decodeEnding(result pipelined) ([]cluster.Session, []cluster.ID, error) {
	if result.err != nil {
		return nil, nil, result.err
	}
	if len(result.reply) == 0 {
		return nil, nil, unavailable(errMalformedReply)
	}
	ended, purged, err := decodeGone(result.reply[1:])
	if err != nil {
		return nil, nil, unavailable(err)
	}
	return ended, purged, nil
}

// OnPurge has f told of the records that a creation or an end has removed on its way, because they were past their retention or
// more were kept than may be. What [Store.Sweep], [Store.Purge] and [Store.Relieve] purge themselves, they return. f must return at
// once and be safe for concurrent use. OnPurge must be called before the store is used.
func (s *Store) OnPurge(f func(ids []cluster.ID)) { s.onPurge = f }

func (s *Store) tellPurged(ids []cluster.ID) {
	if s.onPurge != nil && len(ids) > 0 {
		s.onPurge(ids)
	}
}

// Purge implements [cluster.CleanupStore].
func (s *Store) Purge(ctx context.Context, c cluster.Cleanup, ids []cluster.ID) ([]cluster.ID, error) {
	groups := s.group(len(ids), cleanupBatch, func(i int) cluster.ID { return ids[i] })
	calls := make([]call, len(groups))
	for g, group := range groups {
		p := group.partition
		calls[g] = call{
			script: sessionsPurge,
			keys:   []string{p.ended(), p.counts(), p.fence()},
			args:   append(append(s.finishArgs(p), cleanupArgs(c)...), idArgs(pickAll(ids, group.members))...),
		}
	}
	var purged []cluster.ID
	var errs []error
	for _, result := range s.pipeline(ctx, calls) {
		if result.err != nil {
			errs = append(errs, result.err)
			continue
		}
		some, err := decodeIDs(result.reply)
		purged = append(purged, some...)
		errs = append(errs, err)
	}
	return purged, errors.Join(errs...)
}

// decodeIDs reads a reply of session ids. What is no id is passed over: somebody has put it into an index.
func decodeIDs(reply []any) ([]cluster.ID, error) {
	var d decoder
	ids := make([]cluster.ID, 0, len(reply))
	for _, part := range reply {
		if id, err := cluster.ParseID(d.text(part)); err == nil {
			ids = append(ids, id)
		}
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	return ids, nil
}

func idArgs(ids []cluster.ID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id.String()
	}
	return args
}
