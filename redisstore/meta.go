package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// schemaVersion is the version of keys, records and scripts. It changes when replicas of two versions could not work on
// the same data.
const schemaVersion = "1"

// ErrLayout means that the store's data is laid out in another way than this program would.
var ErrLayout = errors.New("the store is laid out differently")

// Claim says in the store how this program lays it out, or finds that it is laid out so already. A replica calls it
// before it serves, and again from time to time, because a store that was emptied forgets it.
//
// Errors: [ErrLayout] when it is laid out differently: then nothing of this Store may be used. A fault of the store is
// [cluster.ErrStoreUnavailable].
func (s *Store) Claim(ctx context.Context) error {
	known, err := s.meta(ctx, schemaVersion, strconv.Itoa(len(s.partitions)))
	if err != nil {
		return err
	}
	if err := known.check(); err != nil {
		return err
	}
	if known.partitions != strconv.Itoa(len(s.partitions)) {
		return fmt.Errorf("%w: it has %s partitions, this replica is configured for %d; set partitions to %s, or use another prefix",
			ErrLayout, known.partitions, len(s.partitions), known.partitions)
	}
	return nil
}

// Adopt takes over the layout that the replicas have given the store, and the settings that matter when a session is ended:
// max_sessions, retention and audit_stream. Where no replica has said so, the Store's own stay. Commands that look at a running cluster
// call it before anything else: it must not run concurrently with other calls. Errors: as for [Store.Claim].
func (s *Store) Adopt(ctx context.Context) error {
	known, err := s.meta(ctx, "", "")
	if err != nil || known.schema == "" {
		return err
	}
	if err := known.check(); err != nil {
		return err
	}
	n, errN := strconv.Atoi(known.partitions)
	maxSessions, errCap := strconv.Atoi(known.maxSessions)
	retention, errRetention := strconv.ParseInt(known.retention, 10, 64)
	if errors.Join(errN, errCap, errRetention) != nil || n < 1 || n > MaxPartitions {
		return fmt.Errorf("%w: what it says about itself makes no sense", ErrLayout)
	}
	s.cfg.MaxSessions, s.cfg.Retention = maxSessions, time.Duration(retention)*time.Millisecond
	s.partitions = makePartitions(s.prefix, n, maxSessions)
	if known.auditStream == "" { // replicas of an earlier version do not say
		return nil
	}
	if s.auditStream, err = strconv.Atoi(known.auditStream); err != nil || s.auditStream < 0 {
		return fmt.Errorf("%w: its audit_stream makes no sense", ErrLayout)
	}
	return nil
}

// layout is what the store says about itself; all empty when nobody has told it.
type layout struct{ schema, partitions, maxSessions, retention, auditStream string }

func (l layout) check() error {
	if l.schema != schemaVersion {
		return fmt.Errorf("%w: its schema has version %q, this program knows %s; use a program of the same version as the replicas",
			ErrLayout, l.schema, schemaVersion)
	}
	return nil
}

func (s *Store) meta(ctx context.Context, schema, partitions string) (layout, error) {
	reply, _, err := s.repeat(ctx, call{
		script: metaClaim,
		keys:   []string{metaKey(s.prefix)},
		args:   []any{schema, partitions, s.cfg.MaxSessions, s.cfg.Retention.Milliseconds(), s.auditStream},
	})
	if err != nil {
		return layout{}, err
	}
	return decodeLayout(reply)
}

// decodeLayout reads the reply of meta_claim.
func decodeLayout(reply []any) (layout, error) {
	if len(reply) != 5 {
		return layout{}, unavailable(errMalformedReply)
	}
	var d decoder
	known := layout{
		schema: d.text(reply[0]), partitions: d.text(reply[1]),
		maxSessions: d.text(reply[2]), retention: d.text(reply[3]), auditStream: d.text(reply[4]),
	}
	if d.err != nil {
		return layout{}, unavailable(d.err)
	}
	return known, nil
}
