package sweeper

import (
	"strings"
	"time"
)

// Status is what one replica knows of leadership at one moment.
type Status struct {
	// Incarnation is this replica's.
	Incarnation string
	// IsLeader: this replica leads, and is inside its trust window.
	IsLeader bool
	// Since is when its term began, and TrustedUntil when it ends unless an extension succeeds before. Both are zero for
	// a follower.
	Since        time.Time
	TrustedUntil time.Time
	// Epoch is its term's; of a follower, the greatest that it has seen.
	Epoch int64
	// Leader is the incarnation that was last seen leading, perhaps its own; empty when nobody was.
	Leader string
	// SeenAt is when the store last said so; zero when it never did. A follower asks at its tick.
	SeenAt time.Time
}

// Status tells whether this replica leads, or whom it last saw leading. It does not ask the store.
func (e *Election) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Status{Incarnation: e.cfg.Incarnation, Epoch: e.epoch, Leader: e.leader, SeenAt: e.seenAt}
	if t := e.term; t != nil && t.Trusted() {
		s.IsLeader, s.Since, s.TrustedUntil, s.Epoch = true, t.since, t.TrustedUntil(), t.Epoch()
	}
	return s
}

// HolderIncarnation returns the incarnation in the value of the leader's lock, as [redisstore.Leadership] tells it; empty for
// an empty value.
func HolderIncarnation(holder string) string {
	incarnation, _, _ := strings.Cut(holder, " ")
	return incarnation
}
