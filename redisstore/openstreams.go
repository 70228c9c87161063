package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// maxTold is how many of a session's open streams are told at most, so that a replica can tell which of them nobody holds any more.
const maxTold = 100

// openStreamParts is how many parts stream_open answers for each.
const openStreamParts = 2

// OpenStream implements [cluster.StreamStore].
func (s *Store) OpenStream(ctx context.Context, o cluster.OpenStream, most int, superseded time.Duration) ([]cluster.OpenStream, error) {
	if o.Owner == "" || len(o.Owner) > maxOwner || o.Key == "" || len(o.Key) > maxOwner {
		return nil, fmt.Errorf("stream of session %s: its key and its owner's name have %d and %d bytes, want 1 to %d", o.ID, len(o.Key), len(o.Owner), maxOwner)
	}
	p := s.partitionOf(o.ID)
	reply, _, err := s.repeat(ctx, call{
		script: streamOpen,
		keys:   []string{p.session(o.ID), p.deadlines(), p.more(o.ID)},
		args: []any{
			o.ID.String(), string(o.Kind), o.Key, o.Owner, most, superseded.Milliseconds(), maxTold,
			s.lifetimeMillis(), s.leewayMillis(), s.cfg.MaxAge.Milliseconds(),
		},
	})
	if err != nil {
		return nil, err
	}
	if len(reply)%openStreamParts != 0 {
		return nil, unavailable(errMalformedReply)
	}
	var (
		d    decoder
		open []cluster.OpenStream
	)
	for parts := reply; len(parts) > 0; parts = parts[openStreamParts:] {
		open = append(open, cluster.OpenStream{ID: o.ID, Kind: o.Kind, Key: d.text(parts[0]), Owner: d.text(parts[1])})
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	return open, nil
}

// CloseStreams implements [cluster.StreamStore].
func (s *Store) CloseStreams(ctx context.Context, closed []cluster.OpenStream) []error {
	calls := make([]call, len(closed))
	for i, o := range closed {
		calls[i] = call{script: streamClose, keys: []string{s.partitionOf(o.ID).more(o.ID)}, args: []any{string(o.Kind), o.Key}}
	}
	errs := make([]error, len(closed))
	for i, result := range s.pipeline(ctx, calls) {
		errs[i] = result.err
	}
	return errs
}
