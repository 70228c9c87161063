package storetest

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// stats counts.
func (m *model) stats() cluster.Stats {
	stats := cluster.Stats{ByStatus: make(map[cluster.Status]int64), Created: m.created, Ended: make(map[cluster.Status]int64)}
	for _, status := range cluster.Statuses() {
		stats.ByStatus[status] = 0
		if status.Ended() {
			stats.Ended[status] = m.ended[status]
		}
	}
	for _, s := range m.sessions {
		stats.ByStatus[s.Status]++
		if m.due(s) {
			stats.Due++
		}
		if !s.DeadlineAt.IsZero() {
			stats.Lag = max(stats.Lag, m.at().Sub(s.DeadlineAt))
		}
	}
	return stats
}

// list is all that a query selects, in order.
func (m *model) list(q cluster.Query) []cluster.Session {
	by := byActivity
	if q.Ended {
		by = byEnd
	} else if q.Principal != "" {
		by = func(s *modelled) time.Time { return s.CreatedAt }
	}
	var selected []cluster.Session
	for _, s := range m.ordered(!q.Ended, by) {
		seen := m.seen(s)
		if (q.Status == "" || q.Status == seen.Status) && (q.Principal == "" || m.isListed(s, q)) &&
			(q.IdleFor == 0 || m.now.Sub(s.LastActivityAt) >= q.IdleFor) && (q.OlderThan == 0 || m.now.Sub(s.CreatedAt) >= q.OlderThan) {
			selected = append(selected, seen)
		}
	}
	return selected
}

// isListed reports whether a session is among its principal's: a live one that has a place, an ended one always.
func (m *model) isListed(s *modelled, q cluster.Query) bool {
	return s.Principal == q.Principal && (q.Ended || m.placesOf(q.Principal).has(s.ID))
}
