package redisstore

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Tally counts the sessions that a query selects, by status as [Store.List] would show it, and returns the store's clock by
// which it did. Limit and Cursor of the query do not matter. It looks at every session that might be selected, but only at
// what the query asks for: several times as fast as listing them. progress, if there is one, is told how many it has looked
// at, again and again. Errors: those of List.
func (s *Store) Tally(ctx context.Context, q cluster.Query, progress func(looked int)) (map[cluster.Status]int64, time.Time, error) {
	q.Limit, q.Cursor = maxPage, ""
	all, err := newListing(s, q)
	if err != nil {
		return nil, time.Time{}, err
	}
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return nil, time.Time{}, unavailable(err)
	}
	due, err := s.dueAt(ctx, now, q.Ended)
	if err != nil {
		return nil, time.Time{}, unavailable(err)
	}
	most := "+inf"
	if all.byActivity { // what is touched from now on is at the end again and again: without a bound the walk might never end
		most = strconv.FormatInt(now.Add(-q.IdleFor).UnixMilli(), 10)
	}
	counts := make(map[cluster.Status]int64)
	count := func(members []position) error {
		sessions, err := s.readOutlines(ctx, members)
		for _, session := range sessions {
			if due[session.ID] && session.Status.Live() {
				session.Status = cluster.StatusExpired
			}
			if selects(q, session, now) {
				counts[session.Status]++
			}
		}
		if progress != nil {
			progress(len(members))
		}
		return err
	}
	for _, index := range all.indexes { // one after another: the order between them does not matter
		if err := s.eachPage(ctx, index, most, count); err != nil {
			return nil, time.Time{}, unavailable(err)
		}
	}
	return counts, now.UTC(), nil
}

// dueAt returns the live sessions that are past their end. Usually there are few.
func (s *Store) dueAt(ctx context.Context, now time.Time, ended bool) (map[cluster.ID]bool, error) {
	due := make(map[cluster.ID]bool)
	if ended {
		return due, nil
	}
	for _, p := range s.partitions {
		err := s.eachPage(ctx, p.deadlines(), strconv.FormatInt(now.UnixMilli(), 10), func(members []position) error {
			for _, m := range members {
				if id, err := cluster.ParseID(m.id); err == nil {
					due[id] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return due, nil
}

// eachPage walks through a sorted set up to a score.
func (s *Store) eachPage(ctx context.Context, index, most string, visit func([]position) error) error {
	l := &listing{indexes: []string{index}, after: position{score: -1}}
	for {
		members, more, err := s.nextMembers(ctx, l, most, maxPage)
		if err != nil {
			return err
		}
		if err := visit(members); err != nil || !more {
			return err
		}
		l.after = members[len(members)-1]
	}
}

// outline are the fields by which queries select, in the order of readOutlines.
var outline = []string{"s", "p", "c", "a", "z"}

// readOutlines reads of each member's record only what queries select by. Those that are gone by now, or are broken, have no
// status.
func (s *Store) readOutlines(ctx context.Context, members []position) ([]cluster.Session, error) {
	ids, err := idsOf(slices.DeleteFunc(slices.Clone(members), func(m position) bool { return !isID(m) }))
	if err != nil {
		return nil, err
	}
	pipe := s.client.Pipeline()
	replies := make([]*redis.SliceCmd, len(ids))
	for i, id := range ids {
		replies[i] = pipe.HMGet(ctx, s.partitionOf(id).session(id), outline...)
	}
	if _, err := pipe.Exec(ctx); err != nil && len(ids) > 0 && !isReply(err) {
		return nil, err
	}
	sessions := make([]cluster.Session, len(ids))
	for i, reply := range replies {
		d := decoder{tolerant: true}
		if isBroken(reply.Err()) {
			continue
		}
		if reply.Err() != nil {
			return nil, reply.Err()
		}
		fields := reply.Val()
		if len(fields) != len(outline) {
			return nil, errMalformedReply
		}
		sessions[i] = cluster.Session{
			ID:             ids[i],
			Status:         statusByCode[d.text(fields[0])],
			Principal:      cluster.Principal(d.text(fields[1])),
			CreatedAt:      d.moment(fields[2]),
			LastActivityAt: d.moment(fields[3]),
			EndedAt:        d.moment(fields[4]),
		}
		if d.err != nil {
			return nil, d.err
		}
	}
	return sessions, nil
}
