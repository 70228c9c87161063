package redisstore

import (
	"context"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// recountMost is how many records a partition may have for its sessions to be counted one by one. Of more, only the
	// sums are compared: live and ended sessions against the sizes of their indexes.
	recountMost = 10_000
	// recountTries is how often a partition is counted anew because a session changed its status meanwhile.
	recountTries = 5
)

// mendCounts compares the counts of one partition with a recount, and ends the walk after the last one.
func (s *Store) mendCounts(ctx context.Context, c cluster.MendCall, at string) (cluster.Mended, error) {
	p, err := strconv.Atoi(at)
	if err != nil || p < 0 || p >= len(s.partitions) {
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	mended := cluster.Mended{Looked: 1}
	wrong, err := s.correctCounts(ctx, c.Cleanup, s.partitions[p])
	if isBroken(err) {
		if mended.Repairs, err = s.mendShapes(ctx, c.Cleanup, s.partitions[p]); err == nil {
			wrong, err = s.correctCounts(ctx, c.Cleanup, s.partitions[p])
		}
	}
	if err != nil {
		return mended, err
	}
	if wrong {
		mended.Repairs = append(mended.Repairs, cluster.Repair{Kind: cluster.RepairCountWrong})
	}
	if p+1 < len(s.partitions) {
		mended.Next = indexCursor(p+1, 0, position{score: math.MinInt64})
	}
	return mended, nil
}

// correctCounts reports whether the counts of a partition were wrong. They are left alone when sessions change so often that
// no recount comes through: the next walk tries again.
func (s *Store) correctCounts(ctx context.Context, who cluster.Cleanup, p partition) (bool, error) {
	for range recountTries {
		pipe := s.client.Pipeline()
		counted, live, ended := pipe.HGetAll(ctx, p.counts()), pipe.ZCard(ctx, p.lru()), pipe.ZCard(ctx, p.ended())
		if _, err := pipe.Exec(ctx); err != nil {
			return false, unavailable(err)
		}
		right, err := s.recount(ctx, p, counted.Val(), live.Val(), ended.Val())
		if err != nil {
			return false, err
		}
		if !differs(counted.Val(), right) {
			return false, nil
		}
		c := call{script: countsMend, keys: []string{p.counts(), p.fence()}, args: append(cleanupArgs(who), len(counted.Val()))}
		for _, name := range slices.Sorted(maps.Keys(counted.Val())) {
			c.args = append(c.args, name, counted.Val()[name])
		}
		for code, n := range right {
			c.args = append(c.args, code, n)
		}
		reply, _, err := s.repeat(ctx, c)
		if err != nil {
			return false, err
		}
		if done, err := decodeNumber(reply); err != nil || done == 1 {
			return err == nil, err
		}
	}
	return false, nil
}

// recount returns what the counts of a partition should be, by status code.
func (s *Store) recount(ctx context.Context, p partition, counted map[string]string, live, ended int64) (map[string]int64, error) {
	if live+ended <= recountMost {
		return s.countEach(ctx, p)
	}
	var sumLive, sumEnded int64
	right := make(map[string]int64, len(statusByCode))
	most := statusCodes[cluster.StatusExpired]
	for code, status := range statusByCode {
		n, _ := strconv.ParseInt(counted[code], 10, 64) // what is no number is as good as nothing
		right[code] = n
		if status.Live() {
			sumLive += n
			continue
		}
		sumEnded += n
		if n > right[most] {
			most = code
		}
	}
	// What is missing or too much is put down to the status that most have.
	right[statusCodes[cluster.StatusActive]] += live - sumLive
	right[most] += ended - sumEnded
	return right, nil
}

// countEach counts the records of a partition by their status.
func (s *Store) countEach(ctx context.Context, p partition) (map[string]int64, error) {
	right := make(map[string]int64, len(statusByCode))
	for code := range statusByCode {
		right[code] = 0
	}
	for _, index := range []string{p.lru(), p.ended()} {
		l := &listing{indexes: []string{index}, after: position{score: math.MinInt64}}
		for more := true; more; {
			var members []position
			var err error
			if members, more, err = s.nextMembers(ctx, l, "+inf", maxPage); err != nil {
				return nil, unavailable(err)
			}
			if len(members) == 0 {
				break
			}
			l.after = members[len(members)-1]
			ids, err := idsOf(slices.DeleteFunc(members, func(m position) bool { return !isID(m) }))
			if err != nil {
				return nil, unavailable(err)
			}
			owned, err := s.owners(ctx, ids)
			if err != nil {
				return nil, err
			}
			for _, o := range owned {
				if code, known := statusCodes[o.status]; known {
					right[code]++
				}
			}
		}
	}
	return right, nil
}

// differs reports whether counts are not what they should be. One that is not there stands for 0.
func differs(counted map[string]string, right map[string]int64) bool {
	for code, n := range right {
		if text := counted[code]; text != strconv.FormatInt(n, 10) && (text != "" || n != 0) {
			return true
		}
	}
	return false
}
