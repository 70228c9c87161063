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

const maxPage = 1000

// List implements [cluster.ListStore]. It pages through a sorted set, so a page costs the same wherever it starts.
func (s *Store) List(ctx context.Context, q cluster.Query) (cluster.Page, error) {
	if q.Limit < 1 || q.Limit > maxPage {
		return cluster.Page{}, fmt.Errorf("limit: %d is not in 1 to %d", q.Limit, maxPage)
	}
	after, err := parseCursor(q.Cursor, q.Ended)
	if err != nil {
		return cluster.Page{}, err
	}
	var members []position
	for _, p := range s.partitions {
		index := p.lru()
		if q.Ended {
			index = p.ended()
		}
		some, err := s.membersAfter(ctx, index, after, q.Limit+1)
		if err != nil {
			return cluster.Page{}, unavailable(err)
		}
		members = append(members, some...)
	}
	slices.SortFunc(members, func(a, b position) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.id, b.id)) })
	var page cluster.Page
	if len(members) > q.Limit {
		members = members[:q.Limit]
		page.Next = members[q.Limit-1].String(q.Ended)
	}
	if page.Sessions, page.Now, err = s.readAll(ctx, members); err != nil {
		return cluster.Page{}, unavailable(err)
	}
	return page, nil
}

// position is a place in a sorted set: members are ordered by score, then by name.
type position struct {
	score int64
	id    string
}

// String is the cursor that goes on after p. It begins with the listing it belongs to.
func (p position) String(ended bool) string {
	return fmt.Sprintf("%s.%d.%s", listingName(ended), p.score, p.id)
}

func listingName(ended bool) string {
	if ended {
		return "ended"
	}
	return "live"
}

func parseCursor(cursor string, ended bool) (position, error) {
	if cursor == "" {
		return position{score: math.MinInt64}, nil
	}
	parts := strings.Split(cursor, ".")
	if len(parts) != 3 || parts[0] != listingName(ended) {
		return position{}, cluster.ErrInvalidCursor
	}
	score, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return position{}, cluster.ErrInvalidCursor
	}
	id, err := cluster.ParseID(parts[2])
	if err != nil {
		return position{}, cluster.ErrInvalidCursor
	}
	return position{score: score, id: id.String()}, nil
}

// membersAfter reads up to n members behind a position.
func (s *Store) membersAfter(ctx context.Context, index string, after position, n int) ([]position, error) {
	least := "-inf"
	if after.id != "" {
		least = strconv.FormatInt(after.score, 10)
	}
	var found []position
	// Members with the position's own score are read again and passed over; a further round is needed only when there
	// are more of them than a page.
	for offset := int64(0); ; offset += int64(n) {
		batch, err := s.client.ZRangeByScoreWithScores(ctx, index, &redis.ZRangeBy{
			Min: least, Max: "+inf", Offset: offset, Count: int64(n),
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

// readAll reads the records of a page in one round trip. Sessions that are gone by now are left out.
func (s *Store) readAll(ctx context.Context, members []position) ([]cluster.Session, time.Time, error) {
	ids := make([]cluster.ID, 0, len(members))
	calls := make([]call, 0, len(members))
	for _, m := range members {
		id, err := cluster.ParseID(m.id)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("%w: an index holds a member that is no session id", errMalformedReply)
		}
		p := s.partitionOf(id)
		ids = append(ids, id)
		calls = append(calls, call{
			script: sessionGet,
			keys:   []string{p.session(id), p.more(id), p.pending(id), p.deadlines(), p.ended()},
			args:   []any{id.String()},
		})
	}
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return nil, time.Time{}, err
	}
	sessions := make([]cluster.Session, 0, len(members))
	for i, result := range s.pipeline(ctx, calls) {
		if errors.Is(result.err, cluster.ErrNotFound) {
			continue
		}
		if result.err != nil {
			return nil, time.Time{}, result.err
		}
		session, at, err := decodeAnswer(ids[i], result.reply)
		if err != nil {
			return nil, time.Time{}, err
		}
		now = at
		sessions = append(sessions, asSeenAt(session, at))
	}
	return sessions, now.UTC(), nil
}

// asSeenAt shows a session that is past its end, but not swept yet, as what it is: readers and sweeper go by one rule.
func asSeenAt(session cluster.Session, now time.Time) cluster.Session {
	if session.Status.Live() && session.EndedAtOrBefore(now) {
		session.Status = cluster.StatusExpired
	}
	return session
}

// Stats implements [cluster.ListStore].
func (s *Store) Stats(ctx context.Context) (cluster.Stats, error) {
	calls := make([]call, len(s.partitions))
	for i, p := range s.partitions {
		calls[i] = call{script: countsRead, keys: []string{p.counts(), p.deadlines()}}
	}
	stats := newStats()
	for _, result := range s.pipeline(ctx, calls) {
		if result.err != nil {
			return cluster.Stats{}, result.err
		}
		if err := addCounts(&stats, result.reply); err != nil {
			return cluster.Stats{}, unavailable(err)
		}
	}
	return stats, nil
}

func newStats() cluster.Stats {
	stats := cluster.Stats{ByStatus: make(map[cluster.Status]int64), Ended: make(map[cluster.Status]int64)}
	for _, status := range cluster.Statuses() {
		stats.ByStatus[status] = 0
		if status.Ended() {
			stats.Ended[status] = 0
		}
	}
	return stats
}

// addCounts adds one partition's reply of counts_read.
func addCounts(stats *cluster.Stats, reply []any) error {
	if len(reply)%2 != 1 {
		return errMalformedReply
	}
	var d decoder
	stats.Due += d.number(reply[0])
	for i := 1; i < len(reply); i += 2 {
		name, value := d.text(reply[i]), d.number(reply[i+1])
		if code, isTotal := strings.CutPrefix(name, "ended:"); isTotal {
			stats.Ended[statusByCode[code]] += value
		} else if name == "created" {
			stats.Created += value
		} else if status, known := statusByCode[name]; known {
			stats.ByStatus[status] += value
		}
	}
	return d.err
}
