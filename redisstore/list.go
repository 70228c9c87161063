package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// maxPage is the largest page of a listing.
	maxPage = 1000
	// maxExamined bounds how many sessions one page looks at, of which not all need fit the query.
	maxExamined = 2000
)

// List implements [cluster.ListStore]. It walks through sorted sets, so a page costs the same wherever it starts.
func (s *Store) List(ctx context.Context, q cluster.Query) (cluster.Page, error) {
	l, err := newListing(s, q)
	if err != nil {
		return cluster.Page{}, err
	}
	page := cluster.Page{}
	if page.Now, err = s.client.Time(ctx).Result(); err != nil {
		return cluster.Page{}, unavailable(err)
	}
	page.Now = page.Now.UTC()
	most := "+inf"
	if l.byActivity && q.IdleFor > 0 {
		most = strconv.FormatInt(page.Now.Add(-q.IdleFor).UnixMilli(), 10)
	}
	for examined := 0; examined < maxExamined; {
		members, more, err := s.nextMembers(ctx, l, most, q.Limit-len(page.Sessions))
		if err != nil {
			return cluster.Page{}, unavailable(err)
		}
		sessions, err := s.readAll(ctx, members)
		if err != nil {
			return cluster.Page{}, unavailable(err)
		}
		for _, session := range sessions {
			if selects(q, session, page.Now) {
				page.Sessions = append(page.Sessions, session)
			}
		}
		if !more {
			return page, nil
		}
		examined += len(members)
		l.after = members[len(members)-1]
		if len(page.Sessions) == q.Limit {
			break
		}
	}
	page.Next = l.cursor()
	return page, nil
}

// selects reports whether a query selects a session.
func selects(q cluster.Query, session cluster.Session, now time.Time) bool {
	return (q.Status == "" || q.Status == session.Status) &&
		(q.Principal == "" || q.Principal == session.Principal) &&
		now.Sub(session.LastActivityAt) >= q.IdleFor && now.Sub(session.CreatedAt) >= q.OlderThan
}

// listing is a walk through sorted sets, all of them at once in the order of their scores.
type listing struct {
	name       string // cursors begin with it
	indexes    []string
	byActivity bool     // the scores are times of last activity
	after      position // where the walk goes on
}

func newListing(s *Store, q cluster.Query) (*listing, error) {
	if q.Limit < 1 || q.Limit > maxPage {
		return nil, fmt.Errorf("%w: limit: %d is not in 1 to %d", cluster.ErrInvalidQuery, q.Limit, maxPage)
	}
	if q.IdleFor < 0 || q.OlderThan < 0 {
		return nil, fmt.Errorf("%w: a time must not be negative", cluster.ErrInvalidQuery)
	}
	if q.Status != "" && (!q.Status.Valid() || !q.Ended && q.Status.Ended() && q.Status != cluster.StatusExpired || q.Ended && q.Status.Live()) {
		return nil, fmt.Errorf("%w: no %s session is among those", cluster.ErrInvalidQuery, q.Status)
	}
	l := &listing{name: "live", byActivity: true}
	switch {
	case q.Ended:
		l.name, l.byActivity = "ended", false
		for _, p := range s.partitions {
			l.indexes = append(l.indexes, p.ended())
		}
	case q.Principal != "":
		l.name, l.byActivity = "principal", false
		l.indexes = []string{principalKey(s.prefix, q.Principal)}
	default:
		for _, p := range s.partitions {
			l.indexes = append(l.indexes, p.lru())
		}
	}
	return l, l.goOn(q.Cursor)
}

// position is a place in a sorted set: members are ordered by score, then by name.
type position struct {
	score int64
	id    string
}

// cursor is a text from which another call goes on.
func (l *listing) cursor() string { return fmt.Sprintf("%s.%d.%s", l.name, l.after.score, l.after.id) }

// goOn sets the listing to where a cursor was taken, to the begin when that is empty.
func (l *listing) goOn(cursor string) error {
	if cursor == "" {
		l.after = position{score: math.MinInt64}
		return nil
	}
	parts := strings.Split(cursor, ".")
	if len(parts) != 3 || parts[0] != l.name {
		return cluster.ErrInvalidCursor
	}
	score, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return cluster.ErrInvalidCursor
	}
	id, err := cluster.ParseID(parts[2])
	if err != nil {
		return cluster.ErrInvalidCursor
	}
	l.after = position{score: score, id: id.String()}
	return nil
}

// nextMembers reads the next n members of a listing, and whether there are more.
func (s *Store) nextMembers(ctx context.Context, l *listing, most string, n int) (members []position, more bool, err error) {
	for _, index := range l.indexes {
		some, err := s.membersAfter(ctx, index, l.after, most, n+1)
		if err != nil {
			return nil, false, err
		}
		members = append(members, some...)
	}
	slices.SortFunc(members, func(a, b position) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.id, b.id)) })
	if len(members) > n {
		return members[:n], true, nil
	}
	return members, false, nil
}

// membersAfter reads up to n members of one sorted set behind a position, with scores up to most.
func (s *Store) membersAfter(ctx context.Context, index string, after position, most string, n int) ([]position, error) {
	least := "-inf"
	if after.id != "" {
		least = strconv.FormatInt(after.score, 10)
	}
	var found []position
	// Members with the position's own score are read again and passed over; a further round is needed only when there
	// are more of them than a page.
	for offset := int64(0); ; offset += int64(n) {
		batch, err := s.client.ZRangeByScoreWithScores(ctx, index, &redis.ZRangeBy{
			Min: least, Max: most, Offset: offset, Count: int64(n),
		}).Result()
		if err != nil {
			return nil, err
		}
		for _, z := range batch {
			p := position{score: int64(z.Score), id: fmt.Sprint(z.Member)}
			if p.score > after.score || p.id > after.id {
				found = append(found, p)
			}
			if len(found) == n {
				return found, nil
			}
		}
		if len(batch) < n {
			return found, nil
		}
	}
}

// readAll reads the records of members in one round trip. Sessions that are gone by now are left out.
func (s *Store) readAll(ctx context.Context, members []position) ([]cluster.Session, error) {
	ids := make([]cluster.ID, len(members))
	for i, m := range members {
		id, err := cluster.ParseID(m.id)
		if err != nil {
			return nil, fmt.Errorf("%w: an index holds a member that is no session id", errMalformedReply)
		}
		ids[i] = id
	}
	sessions := make([]cluster.Session, 0, len(members))
	for i, result := range s.pipeline(ctx, s.getCalls(ids)) {
		if errors.Is(result.err, cluster.ErrNotFound) {
			continue
		}
		if result.err != nil {
			return nil, result.err
		}
		session, at, err := decodeAnswer(ids[i], result.reply)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, asSeenAt(session, at))
	}
	return sessions, nil
}

// getCalls are the calls that read some sessions.
func (s *Store) getCalls(ids []cluster.ID) []call {
	calls := make([]call, len(ids))
	for i, id := range ids {
		calls[i] = s.getCall(id)
	}
	return calls
}

// asSeenAt shows a session that is past its end, but not swept yet, as what it is: readers and sweeper go by one rule.
func asSeenAt(session cluster.Session, now time.Time) cluster.Session {
	if session.Status.Live() && session.EndedAtOrBefore(now) {
		session.Status = cluster.StatusExpired
	}
	return session
}
