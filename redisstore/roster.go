package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// About is what a replica tells of itself, beside that it lives.
type About struct {
	Version string `json:"version"`
	// Limits are those that all replicas must have in common.
	Limits cluster.SharedLimits `json:"limits"`
	// Sessions are those that it has served of late, Streams those that clients have open to it.
	Sessions int64 `json:"sessions"`
	Streams  int64 `json:"streams"`
}

// RosterEntry is a replica that has given a sign of life in the last ten minutes, and has not left in order since.
type RosterEntry struct {
	Incarnation string
	Silent      time.Duration // since its last sign of life, by the store's clock; 0 or more
	IsAlive     bool          // it was silent for no longer than [ReplicaAlive]
	About       *About        // nil: it has not told
}

// Tell writes down what a replica tells of itself; it is kept for ten minutes. Errors: [cluster.ErrStoreUnavailable].
func (s *Store) Tell(ctx context.Context, incarnation string, about About) error {
	text, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("telling of replica %s: %w", incarnation, err)
	}
	if err := s.client.Set(ctx, replicaKey(s.prefix, incarnation), text, replicaForgotten).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// Roster returns the replicas that are known, those first that were silent the longest. It costs two round trips, however many there
// are. Errors: [cluster.ErrStoreUnavailable].
func (s *Store) Roster(ctx context.Context) ([]RosterEntry, error) {
	heard, err := s.heard(ctx, replicaForgotten)
	if err != nil {
		return nil, err
	}
	roster := make([]RosterEntry, len(heard))
	told := make([]*redis.StringCmd, len(heard))
	pipe := s.client.Pipeline()
	for i, h := range heard {
		roster[i] = RosterEntry{Incarnation: h.incarnation, Silent: h.age, IsAlive: h.age <= ReplicaAlive}
		told[i] = pipe.Get(ctx, replicaKey(s.prefix, h.incarnation))
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, cmd := range told {
		text, err := cmd.Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, unavailable(err)
		}
		about := new(About)
		if json.Unmarshal(text, about) == nil { // else it is of a program that tells in another way
			roster[i].About = about
		}
	}
	return roster, nil
}
