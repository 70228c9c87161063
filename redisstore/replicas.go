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
	reply, _, err := s.repeat(ctx, call{
		script: replicasRead, keys: []string{replicasKey(s.prefix)}, args: []any{ReplicaAlive.Milliseconds()},
	})
	if err != nil {
		return nil, err
	}
	var d decoder
	alive := make([]string, len(reply))
	for i, incarnation := range reply {
		alive[i] = d.text(incarnation)
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	return alive, nil
}
