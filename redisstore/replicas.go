package redisstore

import (
	"context"
	"time"
)

const (
	// ReplicaAlive is how long after its last sign of life a replica is taken to live. It gives one every second.
	ReplicaAlive = 5 * time.Second
	// replicaForgotten is how long after it a replica is forgotten.
	replicaForgotten = 10 * time.Minute
)

// Beat implements [cluster.ReplicaStore].
func (s *Store) Beat(ctx context.Context, incarnation string) error {
	_, _, err := s.repeat(ctx, call{
		script: replicaBeat, keys: []string{replicasKey(s.prefix)}, args: []any{incarnation, replicaForgotten.Milliseconds()},
	})
	return err
}

// Leave implements [cluster.ReplicaStore].
func (s *Store) Leave(ctx context.Context, incarnation string) error {
	if err := s.client.ZRem(ctx, replicasKey(s.prefix), incarnation).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// Replicas implements [cluster.ReplicaStore].
func (s *Store) Replicas(ctx context.Context) ([]string, error) {
	heard, err := s.heard(ctx, ReplicaAlive)
	if err != nil {
		return nil, err
	}
	alive := make([]string, len(heard))
	for i, h := range heard {
		alive[i] = h.incarnation
	}
	return alive, nil
}

// sign is a replica's last sign of life.
type sign struct {
	incarnation string
	age         time.Duration
}

// heard returns the replicas that have given a sign of life of late, those first that were silent the longest.
func (s *Store) heard(ctx context.Context, since time.Duration) ([]sign, error) {
	reply, _, err := s.repeat(ctx, call{script: replicasRead, keys: []string{replicasKey(s.prefix)}, args: []any{since.Milliseconds()}})
	if err != nil {
		return nil, err
	}
	if len(reply)%2 == 0 {
		return nil, unavailable(errMalformedReply)
	}
	var d decoder
	now := d.number(reply[0])
	signs := make([]sign, 0, len(reply)/2)
	for i := 1; i < len(reply); i += 2 {
		at := d.number(reply[i+1])
		signs = append(signs, sign{incarnation: d.text(reply[i]), age: duration(now-at, time.Millisecond)})
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	return signs, nil
}
