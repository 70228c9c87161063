package cluster

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// outageNotice is after how long a store that is away is known to be: a replica says every second that it lives, and may wait for the
// store before.
const outageNotice = 3 * time.Second

// InOutage tells of a call of the store that was made at a moment, and has failed, whether that was in an outage, which whoever runs
// the replica is told of anyway. [Manager.InOutage] is one. Nil: there is never one.
type InOutage func(sent time.Time) bool

// Level is at which level to log that a call made at a moment has failed: warn, or debug when it failed for want of the store in an
// outage.
func (in InOutage) Level(err error, sent time.Time) slog.Level {
	if in != nil && errors.Is(err, ErrStoreUnavailable) && in(sent) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// Complaint is what somebody who asks the store again and again has to say when that fails. An outage is no news to anybody: what fails
// because of it is for who debugs. It is safe for concurrent use.
type Complaint struct {
	inOutage InOutage

	mu        sync.Mutex
	isFailing bool
	isTold    bool      // as a warning
	since     time.Time // when the first call in a row was made that failed for want of the store, and in no outage; zero: none
}

// NewComplaint returns one of somebody whose calls have not failed.
func NewComplaint(inOutage InOutage) *Complaint { return &Complaint{inOutage: inOutage} }

// Failed takes in that a call has failed that was made at the moment sent, and returns at which level to say so: warn, or debug in an
// outage. An outage is not known at once: a fault that may be the beginning of one is worth a warning when it has lasted for three
// seconds. isNews says that nothing has been said at that level since calls last worked.
func (c *Complaint) Failed(err error, sent time.Time) (level slog.Level, isNews bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	level = c.inOutage.Level(err, sent)
	switch {
	case level == slog.LevelDebug:
		c.since = time.Time{}
	case c.inOutage == nil || !errors.Is(err, ErrStoreUnavailable):
	case c.since.IsZero():
		c.since = sent
		level = slog.LevelDebug
	case sent.Sub(c.since) < outageNotice:
		level = slog.LevelDebug
	}
	isNews = !c.isFailing || (level == slog.LevelWarn && !c.isTold)
	c.isFailing, c.isTold = true, c.isTold || level == slog.LevelWarn
	return level, isNews
}

// Worked takes in that a call has worked, and returns at which level to say so, where that is news because one had failed: info after a
// warning, debug otherwise.
func (c *Complaint) Worked() (level slog.Level, isNews bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	level, isNews = slog.LevelDebug, c.isFailing
	if c.isTold {
		level = slog.LevelInfo
	}
	c.isFailing, c.isTold, c.since = false, false, time.Time{}
	return level, isNews
}
