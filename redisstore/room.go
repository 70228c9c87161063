package redisstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// roomTries is how many partitions are tried after the first one was full: those that may have room, as one look at all of them
// tells.
const roomTries = 3

// room is what one look tells of a partition.
type room struct {
	index  int
	free   int64     // sessions below its share; what is due or may be evicted makes room, too
	oldest time.Time // last activity of the session that goes next
}

// mayHaveRoom returns partitions that may take another session, but for the one that could not: those below their share first,
// the emptiest of them, then those whose least recently used session may go, the longest idle.
func (s *Store) mayHaveRoom(ctx context.Context, full int) ([]int, error) {
	if len(s.partitions) == 1 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	sizes, heads, ends := make([]*redis.IntCmd, len(s.partitions)), make([]*redis.ZSliceCmd, len(s.partitions)), make([]*redis.ZSliceCmd, len(s.partitions))
	now := pipe.Time(ctx)
	for i, p := range s.partitions {
		if s.checkKey(p.lru()) != nil {
			continue
		}
		first := &redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: 1}
		sizes[i] = pipe.ZCard(ctx, p.lru())
		heads[i], ends[i] = pipe.ZRangeByScoreWithScores(ctx, p.lru(), first), pipe.ZRangeByScoreWithScores(ctx, p.deadlines(), first)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error: a partition that is away has no room
	if now.Err() != nil {
		return nil, unavailable(now.Err())
	}
	var rooms []room
	for i, p := range s.partitions {
		if i == full || sizes[i] == nil || sizes[i].Err() != nil || heads[i].Err() != nil || ends[i].Err() != nil {
			continue
		}
		r := room{index: i, free: int64(p.cap) - sizes[i].Val(), oldest: headTime(heads[i])}
		isDue := !headTime(ends[i]).IsZero() && !now.Val().Before(headTime(ends[i]))
		mayEvict := !r.oldest.IsZero() && now.Val().Sub(r.oldest) >= s.cfg.EvictMinIdle
		if r.free > 0 || isDue || mayEvict {
			rooms = append(rooms, r)
		}
	}
	slices.SortFunc(rooms, func(a, b room) int {
		return cmp.Or(cmp.Compare(max(b.free, 0), max(a.free, 0)), a.oldest.Compare(b.oldest))
	})
	others := make([]int, 0, roomTries)
	for _, r := range rooms[:min(len(rooms), roomTries)] {
		others = append(others, r.index)
	}
	return others, nil
}

// headTime is the score of a sorted set's first member as a time, zero when there is none.
func headTime(head *redis.ZSliceCmd) time.Time {
	if len(head.Val()) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(head.Val()[0].Score))
}
