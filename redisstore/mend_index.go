package redisstore

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// walked are the indexes of a partition, in the order of the reconciler's walk.
var walked = []func(partition) string{partition.lru, partition.deadlines, partition.ended}

func indexCursor(partition, index int, after position) string {
	return fmt.Sprintf("index|%d|%d|%d|%s", partition, index, after.score, after.id)
}

// mendIndex looks at the sessions of a piece of one index.
func (s *Store) mendIndex(ctx context.Context, c cluster.MendCall, at string) (cluster.Mended, error) {
	p, index, after, err := s.parseIndexCursor(at)
	if err != nil {
		return cluster.Mended{}, err
	}
	l := &listing{indexes: []string{walked[index](s.partitions[p])}, after: after}
	members, more, err := s.nextMembers(ctx, l, "+inf", c.Limit)
	var mended cluster.Mended
	if isBroken(err) {
		mended.Repairs, err = s.mendShapes(ctx, c.Cleanup, s.partitions[p])
	}
	if err != nil {
		return mended, unavailable(err)
	}
	own, foreign := s.partMembers(members, p)
	mended.Looked = len(members)
	ids, err := idsOf(own)
	if err != nil {
		return mended, unavailable(err)
	}
	for _, mend := range []func() ([]cluster.Repair, error){
		func() ([]cluster.Repair, error) { return s.dropForeign(ctx, c.Cleanup, p, l.indexes[0], foreign) },
		func() ([]cluster.Repair, error) { return s.mendSessions(ctx, c.Cleanup, ids) },
	} {
		repairs, err := mend()
		mended.Repairs = append(mended.Repairs, repairs...)
		if err != nil {
			return mended, err
		}
	}
	var placesErr error // places are elsewhere
	if index == 0 {     // only the first index is of all live sessions
		var repairs []cluster.Repair
		repairs, placesErr = s.givePlaces(ctx, own)
		mended.Repairs = append(mended.Repairs, repairs...)
	}
	if len(own) > 0 {
		after = own[len(own)-1] // what was foreign behind it is gone
	}
	switch {
	case more:
		mended.Next = indexCursor(p, index, after)
	case index+1 < len(walked):
		mended.Next = indexCursor(p, index+1, position{score: math.MinInt64})
	default:
		mended.Next = fmt.Sprintf("counts|%d", p)
	}
	return mended, placesErr
}

// parseIndexCursor reads what indexCursor has made.
func (s *Store) parseIndexCursor(at string) (p, index int, after position, err error) {
	parts := strings.Split(at, "|")
	if len(parts) != 4 {
		return 0, 0, position{}, cluster.ErrInvalidCursor
	}
	p, errP := strconv.Atoi(parts[0])
	index, errIndex := strconv.Atoi(parts[1])
	score, errScore := strconv.ParseInt(parts[2], 10, 64)
	if errP != nil || errIndex != nil || errScore != nil || p < 0 || p >= len(s.partitions) || index < 0 || index >= len(walked) {
		return 0, 0, position{}, cluster.ErrInvalidCursor
	}
	if _, err := cluster.ParseID(parts[3]); err != nil && (parts[3] != "" || score != math.MinInt64) {
		return 0, 0, position{}, cluster.ErrInvalidCursor
	}
	return p, index, position{score: score, id: parts[3]}, nil
}

// partMembers tells members of a partition's index that are sessions of that partition from those that are not.
func (s *Store) partMembers(members []position, p int) (own, foreign []position) {
	for _, m := range members {
		if id, err := cluster.ParseID(m.id); err == nil && id.String() == m.id && s.indexOf(id) == p {
			own = append(own, m)
		} else {
			foreign = append(foreign, m)
		}
	}
	return own, foreign
}

// dropForeign removes what can be no session of a partition from one of its indexes.
func (s *Store) dropForeign(ctx context.Context, who cluster.Cleanup, p int, index string, foreign []position) ([]cluster.Repair, error) {
	if len(foreign) == 0 {
		return nil, nil
	}
	if err := s.checkFence(ctx, who, s.partitions[p]); err != nil {
		return nil, err
	}
	return s.dropMembers(ctx, index, foreign, cluster.RepairIndexWrong)
}

// dropMembers removes members from a sorted set.
func (s *Store) dropMembers(ctx context.Context, key string, members []position, kind cluster.RepairKind) ([]cluster.Repair, error) {
	names := make([]any, len(members))
	repairs := make([]cluster.Repair, len(members))
	for i, m := range members {
		names[i], repairs[i].Kind = m.id, kind
		repairs[i].ID, _ = cluster.ParseID(m.id) // the zero ID when it is none
	}
	if err := s.client.ZRem(ctx, key, names...).Err(); err != nil {
		return nil, unavailable(err)
	}
	return repairs, nil
}
