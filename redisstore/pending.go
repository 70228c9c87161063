package redisstore

import (
	"cmp"
	"context"
	"slices"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// maxPendingRead is how many requests in flight of a session are told.
	maxPendingRead = 1000
	// pendingParts is how many parts pending_read answers for each.
	pendingParts = 3
)

// ReadPending implements [cluster.ListStore].
func (s *Store) ReadPending(ctx context.Context, id cluster.ID) ([]cluster.PendingRequest, error) {
	p := s.partitionOf(id)
	reply, _, err := s.repeat(ctx, call{script: pendingRead, keys: []string{p.session(id), p.pending(id)}, args: []any{maxPendingRead}})
	if err != nil {
		return nil, err
	}
	return decodePending(reply)
}

// decodePending reads the reply of pending_read.
func decodePending(reply []any) ([]cluster.PendingRequest, error) {
	if len(reply)%pendingParts != 0 {
		return nil, unavailable(errMalformedReply)
	}
	var d decoder
	all := make([]cluster.PendingRequest, 0, len(reply)/pendingParts)
	for parts := reply; len(parts) > 0; parts = parts[pendingParts:] {
		all = append(all, cluster.PendingRequest{Key: d.text(parts[0]), Owner: d.text(parts[1]), Age: d.millis(parts[2])})
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	slices.SortFunc(all, func(a, b cluster.PendingRequest) int {
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.Key, b.Key))
	})
	return all, nil
}
