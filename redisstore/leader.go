package redisstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Client returns the client that the store works with. It belongs to the store.
func (s *Store) Client() redis.UniversalClient { return s.client }

// LeaderKey is the key of the lock that makes a replica the leader.
func (s *Store) LeaderKey() string { return leaderKey(s.prefix) }

// ResignedChannel is the channel on which a leader says that it leads no more.
func (s *Store) ResignedChannel() string { return resignedChannel(s.prefix) }

// Leadership is what the store knows of the leader.
type Leadership struct {
	// Holder is the value of the lock, empty when nobody leads.
	Holder string
	// ExpiresIn is how long the lock lasts unless it is renewed.
	ExpiresIn time.Duration
	// Epoch is the last one taken, 0 for none.
	Epoch int64
}

// Leadership tells who leads. Errors: [cluster.ErrStoreUnavailable].
func (s *Store) Leadership(ctx context.Context) (Leadership, error) {
	pipe := s.client.Pipeline()
	holder, ttl, epoch := pipe.Get(ctx, leaderKey(s.prefix)), pipe.PTTL(ctx, leaderKey(s.prefix)), pipe.Get(ctx, epochKey(s.prefix))
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, err := range []error{holder.Err(), ttl.Err(), epoch.Err()} {
		if err != nil && !errors.Is(err, redis.Nil) {
			return Leadership{}, unavailable(err)
		}
	}
	l := Leadership{Holder: holder.Val(), ExpiresIn: max(ttl.Val(), 0)}
	if text := epoch.Val(); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Leadership{}, unavailable(errMalformedReply)
		}
		l.Epoch = n
	}
	return l, nil
}

// TakeEpoch takes a new epoch: greater than least and than every epoch before it, and at least the store's clock in ms, so
// that it stays greater when a failover makes the store forget. Errors: [cluster.ErrStoreUnavailable].
func (s *Store) TakeEpoch(ctx context.Context, least int64) (int64, error) {
	reply, _, err := s.repeat(ctx, call{script: epochTake, keys: []string{epochKey(s.prefix)}, args: []any{least}})
	if err != nil {
		return 0, err
	}
	n, err := decodeNumber(reply)
	return int64(n), err
}
