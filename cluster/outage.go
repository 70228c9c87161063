package cluster

import (
	"fmt"
	"sync"
	"time"
)

// ErrNotSent means that the store was not even asked, because it cannot be reached or has not answered of late: nothing of
// what was to be asked has happened. It is also an [ErrStoreUnavailable].
var ErrNotSent = fmt.Errorf("%w: it was not asked", ErrStoreUnavailable)

// outageQuiet is how long no call may fail before an outage counts as over, unless two report intervals are longer: what
// could not be reported is tried again in each of them. A store of several servers may be there for some sessions only.
const outageQuiet = 2 * time.Second

// Outage is a time in which a replica could not ask the store.
type Outage struct {
	// Since is when the first call was made that failed.
	Since time.Time
	// Sessions and Requests were served without the store so far.
	Sessions, Requests int
}

// outage knows whether the store is away. One failed call is no outage: calls must fail for a second or longer.
type outage struct {
	mu         sync.Mutex
	current    Outage // Since is zero: no call has failed of late
	last       time.Time
	back       time.Time // of the first call after last that was answered; zero: none was yet
	err        error     // of the first call that failed
	isDeclared bool
	isSpent    bool // it has lasted for Config.OutageGrace
}

// heard takes in the outcome of a call that was made at the moment sent.
func (o *outage) heard(err error, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil && o.current.Since.IsZero():
		o.current, o.last, o.back, o.err = Outage{Since: sent}, now, time.Time{}, err
	case err != nil:
		o.last, o.back = now, time.Time{}
	case !o.current.Since.IsZero() && o.back.IsZero():
		o.back = now
	}
}

// served counts a request that was served without the store.
func (o *outage) served(isFirst bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current.Requests++
	if isFirst {
		o.current.Sessions++
	}
}

// outageChange is what one look at an outage has found.
type outageChange int

const (
	noChange outageChange = iota
	outageBegan
	graceEnded
	outageEnded
)

// look declares an outage, the end of what is served in spite of it, or its own end, and tells how long it was.
func (o *outage) look(quiet, grace time.Duration) (change outageChange, told Outage, length time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current.Since.IsZero() {
		return noChange, Outage{}, 0, nil
	}
	told, err = o.current, o.err
	switch now := time.Now(); {
	case now.Sub(o.last) >= quiet:
		if o.isDeclared {
			change = outageEnded
		}
		length = o.last.Sub(told.Since)
		if !o.back.IsZero() {
			length = o.back.Sub(told.Since)
		}
		o.current, o.isDeclared, o.isSpent = Outage{}, false, false
	case !o.isDeclared && o.last.Sub(told.Since) >= beatInterval:
		o.isDeclared, o.isSpent = true, grace == 0 // without a grace the beginning says it all
		change = outageBegan
	case o.isDeclared && !o.isSpent && o.back.IsZero() && now.Sub(told.Since) >= grace:
		o.isSpent = true
		change = graceEnded
	}
	return change, told, length, err
}

// Outage tells whether this replica finds the store away, and what it has served without it since. A store that has just come
// back counts as away for two seconds or so. While [Manager.Run] does not run, nothing is noticed.
func (m *Manager) Outage() (o Outage, isAway bool) {
	m.outage.mu.Lock()
	defer m.outage.mu.Unlock()
	return m.outage.current, m.outage.isDeclared
}

// lookAtOutage says once that the store is away, once that this has lasted for too long, and once that it is back.
func (m *Manager) lookAtOutage() {
	change, o, length, err := m.outage.look(max(outageQuiet, 2*m.cfg.ReportInterval), m.cfg.OutageGrace)
	switch change {
	case outageBegan:
		log := m.log.With("since", o.Since.UTC(), "outage_grace", text(m.cfg.OutageGrace), "error", err)
		if m.cfg.OutageGrace == 0 {
			log.Warn("the store is away: sessions are refused until it answers again")
		} else {
			log.Warn("the store is away: sessions that this replica knows are served without it, for a time; no new ones")
		}
		m.observer.OutageBegan()
	case graceEnded:
		m.log.Warn("outage_grace is over: every session is refused until the store answers again",
			"since", o.Since.UTC(), "outage_grace", text(m.cfg.OutageGrace), "sessions", o.Sessions, "requests", o.Requests)
	case outageEnded:
		m.log.Info("the store is back: what was served without it has been reported",
			"away", length.Round(time.Millisecond).String(), "sessions", o.Sessions, "requests", o.Requests)
		m.observer.OutageEnded(length)
	case noChange:
	}
}
