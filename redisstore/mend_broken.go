package redisstore

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// isBroken reports whether a command or a script failed because a key is of another type than it was made for. Servers and
// versions put that into different words, but all of them this one.
func isBroken(err error) bool {
	return err != nil && isReply(err) && strings.Contains(err.Error(), "WRONGTYPE")
}

// mendBroken mends what may keep the scripts of cleanup from running in a partition: keys of it that are of a wrong type, and
// sessions among the first n of each index that are broken.
func (s *Store) mendBroken(ctx context.Context, who cluster.Cleanup, p partition, n int) ([]cluster.Repair, error) {
	repairs, err := s.mendShapes(ctx, who, p)
	if err != nil {
		return repairs, err
	}
	for _, index := range walked {
		ids, err := s.heads(ctx, []partition{p}, index, "+inf", 0, n)
		if err != nil {
			return repairs, err
		}
		some, err := s.mendSessions(ctx, who, ids)
		repairs = append(repairs, some...)
		if err != nil {
			return repairs, err
		}
	}
	return repairs, nil
}

// mendShapes removes those keys of a partition that are of a wrong type. The walk makes them anew, as far as it can.
func (s *Store) mendShapes(ctx context.Context, who cluster.Cleanup, p partition) ([]cluster.Repair, error) {
	shapes := []struct{ key, want string }{
		{p.fence(), "string"}, {p.lru(), "zset"}, {p.deadlines(), "zset"}, {p.ended(), "zset"}, {p.counts(), "hash"},
	}
	pipe := s.client.Pipeline()
	types := make([]*redis.StatusCmd, len(shapes))
	for i, shape := range shapes {
		types[i] = pipe.Type(ctx, shape.key)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(err)
	}
	var repairs []cluster.Repair
	for i, shape := range shapes {
		if is := types[i].Val(); is == "none" || is == shape.want {
			continue
		}
		if shape.key != p.fence() {
			if err := s.checkFence(ctx, who, p); err != nil {
				return repairs, err
			}
		}
		if err := s.client.Unlink(ctx, shape.key).Err(); err != nil {
			return repairs, unavailable(err)
		}
		repairs = append(repairs, cluster.Repair{Kind: cluster.RepairRecordBroken})
	}
	return repairs, nil
}

// checkFence fails when a partition's fence refuses who cleans up. Nothing else is done.
func (s *Store) checkFence(ctx context.Context, who cluster.Cleanup, p partition) error {
	_, _, err := s.repeat(ctx, s.mendCall(p, who, nil, nil))
	return err
}

// mendBrokenOf is mendBroken for several partitions after a call for them has failed. It returns the call's error when there was
// nothing to mend.
func (s *Store) mendBrokenOf(ctx context.Context, who cluster.Cleanup, partitions []partition, n int, failure error) ([]cluster.Repair, error) {
	var repairs []cluster.Repair
	for _, p := range partitions {
		some, err := s.mendBroken(ctx, who, p, n)
		repairs = append(repairs, some...)
		if err != nil {
			return repairs, err
		}
	}
	if len(repairs) == 0 {
		return nil, failure
	}
	return slices.Clip(repairs), nil
}
