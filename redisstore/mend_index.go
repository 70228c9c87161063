package redisstore

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// walked are the indexes of a partition, in the order of the reconciler's walk.
var walked = []func(partition) string{partition.lru, partition.deadlines, partition.ended}

func indexCursor(partition, index int, after position) string {
	return fmt.Sprintf("index|%d|%d|%d|%s", partition, index, after.score, after.id)
}

// mendIndex looks at the sessions of a piece of one index.
func (s *Store) mendIndex(ctx context.Context, c cluster.MendCall, at string) (cluster.Mended, error) {
	parts := strings.Split(at, "|")
	if len(parts) != 4 {
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	p, errP := strconv.Atoi(parts[0])
	index, errIndex := strconv.Atoi(parts[1])
	score, errScore := strconv.ParseInt(parts[2], 10, 64)
	if errP != nil || errIndex != nil || errScore != nil || p < 0 || index < 0 || index >= len(walked) {
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	if p >= len(s.partitions) {
		return cluster.Mended{}, nil
	}
	l := &listing{indexes: []string{walked[index](s.partitions[p])}, after: position{score: score, id: parts[3]}}
	members, more, err := s.nextMembers(ctx, l, "+inf", c.Limit)
	if err != nil {
		return cluster.Mended{}, unavailable(err)
	}
	ids, err := idsOf(members)
	if err != nil {
		return cluster.Mended{}, unavailable(err)
	}
	mended, err := s.mendSessions(ctx, c.Cleanup, ids)
	if err != nil {
		return cluster.Mended{}, err
	}
	if index == 0 {
		repairs, err := s.givePlaces(ctx, s.partitions[p], ids)
		if err != nil {
			return cluster.Mended{}, err
		}
		mended.Repairs = append(mended.Repairs, repairs...)
	}
	switch {
	case more:
		mended.Next = indexCursor(p, index, members[len(members)-1])
	case index+1 < len(walked):
		mended.Next = indexCursor(p, index+1, position{score: math.MinInt64})
	default:
		mended.Next = fmt.Sprintf("counts|%d", p)
	}
	return mended, nil
}

// givePlaces gives live sessions that have lost their places among their principals' new ones.
func (s *Store) givePlaces(ctx context.Context, p partition, ids []cluster.ID) ([]cluster.Repair, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	pipe := s.client.Pipeline()
	records := make([]*redis.SliceCmd, len(ids))
	for i, id := range ids {
		records[i] = pipe.HMGet(ctx, p.session(id), "s", "p", "c")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(err)
	}
	pipe = s.client.Pipeline()
	places := make(map[cluster.ID]*redis.IntCmd)
	var d decoder
	for i, id := range ids {
		record := records[i].Val()
		principal := d.text(record[1])
		if principal == "" || !statusByCode[d.text(record[0])].Live() {
			continue
		}
		place := redis.Z{Score: float64(d.number(record[2])), Member: id.String()}
		places[id] = pipe.ZAddNX(ctx, principalKey(s.prefix, cluster.Principal(principal)), place)
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	if len(places) == 0 {
		return nil, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(err)
	}
	var repairs []cluster.Repair
	for id, added := range places {
		if added.Val() > 0 {
			repairs = append(repairs, cluster.Repair{ID: id, Kind: cluster.RepairPlaceWrong})
		}
	}
	return repairs, nil
}
