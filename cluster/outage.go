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

	over time.Time // when the last one was declared to be over

	answered  time.Time // when the latest call was made that was answered
	confirmed time.Time // when the latest call was made that has confirmed a session
	weakest   time.Time // when the session was confirmed that is the first of those in constant use to be refused; zero: nobody has asked yet
}

// heard takes in the outcome of a call that was made at the moment sent.
func (o *outage) heard(err error, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		o.answered = later(o.answered, sent)
		if !o.current.Since.IsZero() && o.back.IsZero() {
			o.back = now
		}
	case o.current.Since.IsZero():
		o.current, o.last, o.back, o.err = Outage{Since: sent}, now, time.Time{}, err
	default:
		o.last, o.back = now, time.Time{}
	}
}

// confirms takes in that a call that was made at the moment sent has confirmed a session.
func (o *outage) confirms(sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirmed = later(o.confirmed, sent)
}

// isInGrace reports whether a session may be served without the store that has confirmed it at the moment checked.
func (o *outage) isInGrace(cfg Config, checked, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isLate(cfg, checked) && (o.weakest.IsZero() || checked.Before(o.weakest)) {
		o.weakest = checked
	}
	return cfg.isInGrace(checked, now)
}

// trustedSince is from when on the grace of the whole replica counts: as that of the first session in constant use that will be refused,
// or where nobody has asked for one yet, of the last. Where none was in use, the store's last answer counts. The caller holds o.mu.
func (o *outage) trustedSince(cfg Config) time.Time {
	switch {
	case !o.weakest.IsZero():
		return o.weakest
	case o.isLate(cfg, o.confirmed):
		return o.confirmed
	default:
		return o.answered
	}
}

// isLate reports whether the moment checked is so late before the store went away as those are at which it confirms sessions that have
// a request in every report interval. The caller holds o.mu.
func (o *outage) isLate(cfg Config, checked time.Time) bool {
	return o.answered.Sub(checked) < cfg.ReportInterval+cfg.StoreTimeout
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
func (o *outage) look(quiet time.Duration, cfg Config) (change outageChange, told Outage, length time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current.Since.IsZero() {
		return noChange, Outage{}, 0, nil
	}
	told, err = o.current, o.err
	switch now := time.Now(); {
	case now.Sub(o.last) >= quiet:
		if o.isDeclared {
			change, o.over = outageEnded, now
		}
		length = o.last.Sub(told.Since)
		if !o.back.IsZero() {
			length = o.back.Sub(told.Since)
		}
		o.current, o.weakest, o.isDeclared, o.isSpent = Outage{}, time.Time{}, false, false
	case !o.isDeclared && o.last.Sub(told.Since) >= beatInterval:
		o.isDeclared, o.isSpent = true, cfg.OutageGrace == 0 // without a grace the beginning says it all
		change = outageBegan
	case o.isDeclared && !o.isSpent && o.back.IsZero() && !cfg.isInGrace(o.trustedSince(cfg), now):
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

// InOutage reports whether a call of the store that was made at the moment sent, and has failed, may have failed for want of a store
// that is away, or was then: who runs the replica is told of that once for all. Unlike [Manager.Outage] it counts an outage from the
// first call of this Manager that fails. It is an [InOutage].
func (m *Manager) InOutage(sent time.Time) bool {
	m.outage.mu.Lock()
	defer m.outage.mu.Unlock()
	return !m.outage.current.Since.IsZero() || sent.Before(m.outage.over)
}

// InGrace reports whether this replica serves the sessions that it knows while the store is away. It is false from the moment on in
// which [Manager.Lease] would refuse, for the end of Config.OutageGrace, a session with a request in every report interval, the first
// of those that were asked for. A session that was used less often was confirmed by the store earlier, and is refused earlier.
func (m *Manager) InGrace() bool {
	m.outage.mu.Lock()
	defer m.outage.mu.Unlock()
	return m.cfg.isInGrace(m.outage.trustedSince(m.cfg), time.Now())
}

// isInGrace reports whether what the store said at a moment may be relied on without it.
func (c Config) isInGrace(said, now time.Time) bool { return now.Sub(said) < c.OutageGrace }

// lookAtOutage says once that the store is away, once that this has lasted for too long, and once that it is back.
func (m *Manager) lookAtOutage() {
	change, o, length, err := m.outage.look(max(outageQuiet, 2*m.cfg.ReportInterval), m.cfg)
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
