package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
	schema, partitions, err := s.meta(ctx, schemaVersion, strconv.Itoa(len(s.partitions)))
	if err != nil {
		return err
	}
	if err := checkSchema(schema); err != nil {
		return err
	}
	if partitions != strconv.Itoa(len(s.partitions)) {
		return fmt.Errorf("%w: it has %s partitions, this replica is configured for %d; set partitions to %s, or use another prefix",
			ErrLayout, partitions, len(s.partitions), partitions)
	}
	return nil
}

// Adopt takes over the layout that the replicas have given the store; without one the Store's own stays. Commands that
// look at a running cluster call it before anything else: it must not run concurrently with other calls. Errors: as for
// [Store.Claim].
func (s *Store) Adopt(ctx context.Context) error {
	schema, partitions, err := s.meta(ctx, "", "")
	if err != nil || schema == "" {
		return err
	}
	if err := checkSchema(schema); err != nil {
		return err
	}
	n, err := strconv.Atoi(partitions)
	if err != nil || n < 1 || n > MaxPartitions {
		return fmt.Errorf("%w: its number of partitions, %q, makes no sense", ErrLayout, partitions)
	}
	s.partitions = makePartitions(s.prefix, n, s.cfg.MaxSessions)
	return nil
}

func (s *Store) meta(ctx context.Context, schema, partitions string) (knownSchema, knownPartitions string, err error) {
	reply, _, err := s.repeat(ctx, call{
		script: metaClaim,
		keys:   []string{metaKey(s.prefix)},
		args:   []any{schema, partitions},
	})
	if err != nil {
		return "", "", err
	}
	if len(reply) != 2 {
		return "", "", unavailable(errMalformedReply)
	}
	var d decoder
	knownSchema, knownPartitions = d.text(reply[0]), d.text(reply[1])
	return knownSchema, knownPartitions, d.err
}

func checkSchema(schema string) error {
	if schema != schemaVersion {
		return fmt.Errorf("%w: its schema has version %q, this program knows %s; use a program of the same version as the replicas", ErrLayout, schema, schemaVersion)
	}
	return nil
}
