package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxRedirects bounds how often one call asks a Redis Cluster anew who serves its keys.
const maxRedirects = 3

// acknowledged is repeat for scripts whose effect the caller is told of. With Options.WaitReplicas it returns only when so
// many replicas have that effect, too; else the caller is told that the store is unavailable, though it may have happened.
func (s *Store) acknowledged(ctx context.Context, c call) (reply []any, repeated bool, err error) {
	if s.waitReplicas == 0 {
		return s.repeat(ctx, c)
	}
	return s.repeatWith(ctx, c, s.runAndWait)
}

// runAndWait runs a script once and waits, on the same connection: WAIT knows what that connection has written, and no other.
func (s *Store) runAndWait(ctx context.Context, c call) ([]any, error) {
	text := false
	var cmd, wait once
	for range maxRedirects {
		node, err := s.nodeOf(ctx, c.keys[0])
		if err != nil {
			return nil, unavailable(err)
		}
		cmd, wait = c.command(ctx, text), once{Cmd: redis.NewCmd(ctx, "wait", s.waitReplicas, s.waitMillis(ctx))}
		pipe := node.Pipeline()
		_ = pipe.Process(ctx, cmd)  // queues it
		_ = pipe.Process(ctx, wait) // as well
		_, _ = pipe.Exec(ctx)       // each command has its own error
		nodes, isCluster := s.client.(*redis.ClusterClient)
		switch {
		case redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT"):
			text = true
		case isCluster && redis.HasErrorPrefix(cmd.Err(), "MOVED"):
			nodes.ReloadState(ctx)
		default:
			return replicated(cmd, wait, s.waitReplicas)
		}
	}
	return replicated(cmd, wait, s.waitReplicas)
}

// tooFewError means that the server has answered, but not enough of its replicas.
type tooFewError struct{ have, want int }

// Error tells how many have.
func (e *tooFewError) Error() string {
	return fmt.Sprintf("written, but only %d of %d replicas have it in time (wait_replicas)", e.have, e.want)
}

// replicated returns the script's reply, if enough replicas have its effect.
func replicated(cmd, wait once, want int) ([]any, error) {
	reply, err := cmd.Slice()
	if err != nil {
		return nil, domainError(err)
	}
	n, err := wait.Int()
	if err != nil {
		return nil, unavailable(fmt.Errorf("waiting for replicas: %w", err))
	}
	if n < want {
		return nil, unavailable(&tooFewError{n, want})
	}
	return reply, nil
}

// nodeOf returns a client of the one server that a key is at.
func (s *Store) nodeOf(ctx context.Context, key string) (redis.Cmdable, error) {
	if nodes, ok := s.client.(*redis.ClusterClient); ok {
		return nodes.MasterForKey(ctx, key)
	}
	return s.client, nil
}

// waitMillis is how long replicas may take: most of the time that is left, so that there is an answer before it is over. It
// is never 0, which would be for ever.
func (s *Store) waitMillis(ctx context.Context) int64 {
	left := s.cfg.StoreTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	return max((left - left/4).Milliseconds(), 1)
}
