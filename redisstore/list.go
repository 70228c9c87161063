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
	// maxExamined bounds about how many sessions one page looks at, of which not all need fit the query.
	maxExamined = 2000
	// examinedAtOnce is how many of them it looks at in one go, once those that would fill the page did not all fit: a page
	// must take few round trips, however small it is.
	examinedAtOnce = 500
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
	n := q.Limit
	for examined := 0; examined < maxExamined && len(page.Sessions) < q.Limit; examined += n {
		if examined > 0 {
			n = examinedAtOnce
		}
		members, more, err := s.nextMembers(ctx, l, most, n)
		if err != nil {
			return cluster.Page{}, unavailable(err)
		}
		sessions, err := s.readAll(ctx, members)
		if err != nil {
			return cluster.Page{}, unavailable(err)
		}
		for i := range members {
			if len(page.Sessions) == q.Limit {
				more = true
				break
			}
			l.after = members[i]
			if selects(q, sessions[i], page.Now) {
				page.Sessions = append(page.Sessions, sessions[i])
			}
		}
		if !more {
			return page, nil
		}
	}
	page.Next = l.cursor()
	return page, nil
}

// selects reports whether a query selects a session. One that ended while it was looked up, or whose place among its
// principal's could not be given back, is in an index of live ones all the same.
func selects(q cluster.Query, session cluster.Session, now time.Time) bool {
	return session.Status != "" && session.EndedAt.IsZero() != q.Ended && (q.Status == "" || q.Status == session.Status) &&
		(q.Principal == "" || q.Principal == session.Principal) &&
		lasts(session.LastActivityAt, now, q.IdleFor) && lasts(session.CreatedAt, now, q.OlderThan)
}

// lasts reports whether something has lasted for so long; anything has for no time, also what began after the page did.
func lasts(since, now time.Time, least time.Duration) bool {
	return least == 0 || now.Sub(since) >= least
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
	if !q.Principal.Valid() {
		return nil, fmt.Errorf("%w: that is no principal", cluster.ErrInvalidQuery)
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
		l.name, l.byActivity = "principal-"+string(q.Principal), false
		l.indexes = []string{principalKey(s.prefix, q.Principal)}
	default:
		for _, p := range s.partitions {
			l.indexes = append(l.indexes, p.lru())
		}
	}
	err := l.goOn(q.Cursor)
	return l, err
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

// nextMembers reads the next n members of a listing with scores up to most, and whether there are more.
func (s *Store) nextMembers(ctx context.Context, l *listing, most string, n int) (members []position, more bool, err error) {
	least, count := "-inf", int64(n)+1
	if l.after.id != "" {
		least = strconv.FormatInt(l.after.score, 10)
	}
	found := make(map[string]int, len(l.indexes))
	// Members with the position's own score are read again and passed over; a further round is needed only when there
	// are more of them than a page, and it takes many.
	todo := l.indexes
	for offset := int64(0); len(todo) > 0; {
		pipe := s.client.Pipeline()
		batches := make([]*redis.ZSliceCmd, len(todo))
		for i, index := range todo {
			batches[i] = pipe.ZRangeByScoreWithScores(ctx, index, &redis.ZRangeBy{Min: least, Max: most, Offset: offset, Count: count})
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, false, err
		}
		var again []string
		for i, index := range todo {
			behind := l.behind(batches[i].Val())
			members = append(members, behind...)
			found[index] += len(behind)
			if len(batches[i].Val()) == int(count) && found[index] <= n {
				again = append(again, index)
			}
		}
		todo, offset, count = again, offset+count, max(count, examinedAtOnce)
	}
	slices.SortFunc(members, func(a, b position) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.id, b.id)) })
	if len(members) > n {
		return members[:n], true, nil
	}
	return members, false, nil
}

// behind returns those of some members that come after the listing's position.
func (l *listing) behind(members []redis.Z) []position {
	var behind []position
	for _, z := range members {
		p := position{score: wholeScore(z.Score), id: fmt.Sprint(z.Member)}
		if p.score > l.after.score || p.id > l.after.id {
			behind = append(behind, p)
		}
	}
	return behind
}

// wholeScore is a score as a number of ms: an infinite one is the least or the greatest, which no whole number that is a
// score can be.
func wholeScore(score float64) int64 {
	switch {
	case score >= math.MaxInt64:
		return math.MaxInt64
	case score <= math.MinInt64:
		return math.MinInt64
	default:
		return int64(score)
	}
}

// readAll reads the records of members in one round trip, in their order. Those that are gone by now, or are broken, which is
// for the reconciler, have no status.
func (s *Store) readAll(ctx context.Context, members []position) ([]cluster.Session, error) {
	ids, places := make([]cluster.ID, 0, len(members)), make([]int, 0, len(members))
	for i, m := range members {
		if id, err := cluster.ParseID(m.id); err == nil {
			ids, places = append(ids, id), append(places, i)
		}
	}
	sessions := make([]cluster.Session, len(members))
	for i, result := range s.pipeline(ctx, s.getCalls(ids)) {
		if errors.Is(result.err, cluster.ErrNotFound) || isBroken(result.err) {
			continue
		}
		if result.err != nil {
			return nil, result.err
		}
		session, at, err := decodeListed(ids[i], result.reply)
		if err != nil {
			return nil, err
		}
		sessions[places[i]] = asSeenAt(session, at)
	}
	return sessions, nil
}

func idsOf(members []position) ([]cluster.ID, error) {
	ids := make([]cluster.ID, len(members))
	for i, m := range members {
		id, err := cluster.ParseID(m.id)
		if err != nil {
			return nil, fmt.Errorf("%w: an index holds a member that is no session id", errMalformedReply)
		}
		ids[i] = id
	}
	return ids, nil
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
