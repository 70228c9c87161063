package redisstore

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Backlog is what a sweep would find.
type Backlog struct {
	Due  int64 // live sessions that are past their end
	Over int64 // records of ended sessions that are past their retention
	// Oldest are those of both that have waited the longest.
	Oldest []cluster.Session
	Now    time.Time // by the store's clock
}

// Backlog tells what is due, and names the oldest n of it, 0 to 100. It costs the same however many sessions there are.
// Errors: [cluster.ErrStoreUnavailable].
func (s *Store) Backlog(ctx context.Context, n int) (Backlog, error) {
	n = min(max(n, 0), maxPreview)
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return Backlog{}, unavailable(err)
	}
	b := Backlog{Now: now.UTC()}
	most := strconv.FormatInt(now.UnixMilli(), 10)
	for _, waiting := range []struct {
		index func(partition) string
		count *int64
	}{{partition.deadlines, &b.Due}, {partition.ended, &b.Over}} {
		if *waiting.count, err = s.countUpTo(ctx, s.partitions, waiting.index, most); err != nil {
			return Backlog{}, err
		}
		some, err := s.firstOf(ctx, waiting.index, most, n)
		if err != nil {
			return Backlog{}, err
		}
		b.Oldest = append(b.Oldest, some...)
	}
	slices.SortFunc(b.Oldest, func(x, y cluster.Session) int { return x.DeadlineAt.Compare(y.DeadlineAt) })
	b.Oldest = b.Oldest[:min(len(b.Oldest), n)]
	return b, nil
}

// maxPreview bounds how many sessions Backlog names.
const maxPreview = 100

// firstOf reads the records of the first n members of all partitions' sorted sets, by score, up to one.
func (s *Store) firstOf(ctx context.Context, index func(partition) string, most string, n int) ([]cluster.Session, error) {
	if n == 0 {
		return nil, nil
	}
	l := &listing{after: position{score: -1}} // scores are times
	for _, p := range s.partitions {
		l.indexes = append(l.indexes, index(p))
	}
	members, _, err := s.nextMembers(ctx, l, most, n)
	if err != nil {
		return nil, unavailable(err)
	}
	sessions, err := s.readAll(ctx, members)
	if err != nil {
		return nil, unavailable(err)
	}
	return slices.DeleteFunc(sessions, func(session cluster.Session) bool { return session.Status == "" }), nil
}

// CountIdle counts the live sessions whose last activity was at least so long ago. It reads no record. Errors:
// [cluster.ErrStoreUnavailable].
func (s *Store) CountIdle(ctx context.Context, idleFor time.Duration) (int64, error) {
	return s.countIdle(ctx, s.partitions, idleFor)
}

func (s *Store) countIdle(ctx context.Context, partitions []partition, idleFor time.Duration) (int64, error) {
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return 0, unavailable(err)
	}
	return s.countUpTo(ctx, partitions, partition.lru, strconv.FormatInt(now.Add(-idleFor).UnixMilli(), 10))
}

// countUpTo counts the members of some partitions' sorted sets up to a score.
func (s *Store) countUpTo(ctx context.Context, partitions []partition, index func(partition) string, most string) (int64, error) {
	pipe := s.client.Pipeline()
	counts := make([]*redis.IntCmd, len(partitions))
	for i, p := range partitions {
		counts[i] = pipe.ZCount(ctx, index(p), "-inf", most)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, unavailable(err)
	}
	var sum int64
	for _, count := range counts {
		sum += count.Val()
	}
	return sum, nil
}

// Pressure is how far the store's servers are from their memory limits, and what [Store.Relieve] may let go.
type Pressure struct {
	// Usage is the highest share of a memory limit in use; 0 when no server has a limit.
	Usage float64
	// Ended are the records of ended sessions, Idle the live sessions that were idle for long enough, on servers that are
	// above the share asked for. Some of the idle ones may have requests in flight.
	Ended int64
	Idle  int64
}

// Pressure tells what a RelieveCall with the same values would find. It reads no record. Errors: [cluster.ErrStoreUnavailable].
func (s *Store) Pressure(ctx context.Context, above float64, idleFor time.Duration) (Pressure, error) {
	full, usage, err := s.partitionsAbove(ctx, above)
	p := Pressure{Usage: usage}
	if err != nil || len(full) == 0 { // what cannot be told is not guessed
		return p, err
	}
	if p.Ended, err = s.countUpTo(ctx, full, partition.ended, "+inf"); err != nil {
		return Pressure{}, err
	}
	if p.Idle, err = s.countIdle(ctx, full, idleFor); err != nil {
		return Pressure{}, err
	}
	return p, nil
}
