package cluster

import (
	"errors"
	"time"
)

// alone is the request limit of one session at a replica that cannot ask the store: the same rate and burst, for this replica
// by itself. It is one theoretical arrival time (GCRA). The zero value is not in use.
type alone struct{ arrival time.Time }

// take takes n requests out of what was left at a moment and has been refilled since, up to the burst; or tells how long it is
// until they are there.
func (a *alone) take(cfg Config, n, left int, at, now time.Time) (wait time.Duration) {
	interval := time.Second / time.Duration(cfg.RequestRate)
	burst := time.Duration(cfg.RequestBurst) * interval
	if a.arrival.IsZero() {
		a.arrival = at.Add(burst - time.Duration(left)*interval)
	}
	next := later(a.arrival, now).Add(time.Duration(n) * interval)
	if wait = next.Sub(now) - burst; wait > 0 {
		return wait
	}
	a.arrival = next
	return 0
}

// serveAlone serves one request although the store cannot be asked, if it has confirmed the session of late; fault is why it
// cannot. What is certain is said: a session past its maximum age is not found. That it idles out is not, because it may be
// busy at another replica: the caller is told the fault then.
func (h *holding) serveAlone(m *Manager, digest Digest, use Use, now time.Time, fault error) (*Lease, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.matches(digest, use) {
		return nil, fault
	}
	if h.isOver || h.isTooOld(now) {
		return nil, ErrNotFound
	}
	if !m.outage.isInGrace(m.cfg, h.checkedAt, now) || h.mayHaveIdledOut(m.cfg, now) {
		return nil, fault
	}
	if m.cfg.MaxPending > 0 && use.PendingKey != "" && h.waiting+use.pending() > m.cfg.MaxPending {
		return nil, h.tooManyError(m)
	}
	if err := h.takeAlone(m.cfg, use.Requests, now); err != nil {
		return nil, err
	}
	m.outage.served(!h.isAlone)
	h.isAlone = true
	h.requests += use.Requests
	h.touchedAt = later(h.touchedAt, now)
	l := h.open(use, now)
	l.isAlone = true
	return l, nil
}

// takeAlone takes n requests out of the limit that this replica applies by itself. It begins with what was left when the store
// was last heard of; what this replica had been granted then is forfeited. The caller holds h.mu.
func (h *holding) takeAlone(cfg Config, n int, now time.Time) error {
	if cfg.RequestRate == 0 {
		return nil
	}
	if n > cfg.RequestBurst {
		return &LimitError{Limit: "request_burst", RetryAfter: time.Second, Err: ErrRateLimited}
	}
	left, at := h.left, h.checkedAt
	if h.refusedUntil.After(at) { // all was spent
		left, at = 0, h.refusedUntil
	}
	if wait := h.alone.take(cfg, n, left, at, now); wait > 0 {
		return &LimitError{Limit: "request_rate", RetryAfter: max(wait, time.Millisecond), Err: ErrRateLimited}
	}
	return nil
}

// isTooOld reports whether the session is past its maximum age. The caller holds h.mu.
func (h *holding) isTooOld(now time.Time) bool { return !h.oldAt.IsZero() && !now.Before(h.oldAt) }

// mayHaveIdledOut reports whether the session is past its idle end as far as this replica knows. The caller holds h.mu.
func (h *holding) mayHaveIdledOut(cfg Config, now time.Time) bool {
	if cfg.IdleTimeout == 0 || h.endsAt.IsZero() || h.inFlight+h.streams > 0 {
		return false
	}
	return !now.Before(later(h.endsAt, h.touchedAt.Add(cfg.IdleTimeout+cfg.ReportSlack)))
}

// unverified reports whether the store has not confirmed the session for so long that its streams must not go on. The limit
// is never shorter than what a store that is there needs, checks that fail once included.
func (h *holding) unverified(cfg Config, now time.Time) bool {
	limit := max(cfg.OutageGrace, cfg.Lease+2*(cfg.ReportInterval+cfg.StoreTimeout))
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams > 0 && now.Sub(h.checkedAt) >= limit
}

// cut ends the open streams of a session of which it is not known whether it has ended.
func (h *holding) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isOver {
		h.streamsEnd.come()
		h.streamsEnd = newEnding()
	}
}

// cutStreams ends streams that may be those of sessions that have ended elsewhere.
func (m *Manager) cutStreams(now time.Time) {
	n := 0
	for _, h := range m.holdings() {
		if h.unverified(m.cfg, now) {
			h.cut()
			n++
		}
	}
	if n > 0 {
		m.log.Debug("streams of sessions that the store could not confirm have been ended", "sessions", n)
	}
}

// isUnavailable reports whether a call has failed because of the store, and not because its caller left.
func isUnavailable(err, callerGone error) bool {
	return callerGone == nil && errors.Is(err, ErrStoreUnavailable)
}
