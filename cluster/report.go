package cluster

import (
	"context"
	"errors"
	"time"
)

const (
	// reportBatch is how many sessions one call of Store.Report takes. It bounds what a single slow call can hold up;
	// the store splits it further.
	reportBatch = 100
	// pendingBatch is how many started and finished requests of one session one report tells; the rest waits.
	pendingBatch = 100
	// checkBatch is how many sessions one call of Store.Check takes.
	checkBatch = 1000
	// watchCheck is how often it is asked at least whether a session lives that is only watched: no client waits for it here.
	watchCheck = 10 * time.Second
	// beatInterval is how often a replica says that it lives: several times before it is taken for dead.
	beatInterval = time.Second
)

// Run writes back what happened to the sessions this replica holds, once every Config.ReportInterval, until ctx is done.
// Then it reports a last time, so that a clean stop loses nothing, and returns nil. Every second it also says in the
// store that this replica lives. The caller owns the goroutine; Run must be called once.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(m.cfg.ReportInterval)
	defer tick.Stop()
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	m.beat(ctx)
	for {
		select {
		case <-tick.C:
			m.reportAll(context.WithoutCancel(ctx), false) // what is taken out to be said must be said
			m.closeStreams(ctx)
			m.checkStreams(ctx)
			m.cutStreams(time.Now())
			m.forgetIdle(time.Now())
			m.allowances.forget(time.Now())
		case <-m.streams.news:
			m.closeStreams(ctx)
		case <-beat.C:
			m.beat(ctx)
			m.lookAtOutage()
		case <-ctx.Done():
			m.reportAll(context.WithoutCancel(ctx), true)
			m.closeStreams(context.WithoutCancel(ctx))
			m.leave(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// beat says in the store that this replica lives, so that what it has in flight is known to be in good hands.
func (m *Manager) beat(ctx context.Context) {
	bounded, cancel := m.storeContext(ctx)
	defer cancel()
	sent := time.Now()
	err := m.store.Beat(bounded, m.incarnation)
	if err != nil {
		m.log.Debug("saying that this replica lives", "error", err)
	}
	if ctx.Err() == nil {
		m.outage.heard(err, sent)
	}
}

// leave says that this replica ends in order.
func (m *Manager) leave(ctx context.Context) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	if err := m.store.Leave(ctx, m.incarnation); err != nil {
		m.log.Debug("saying that this replica ends", "error", err)
	}
}

// reportAll sends one report for each session with something to say. After a fault of the store that took its time it stops:
// what was not sent is said in the next round, so a dead store costs one timeout a round, not one a batch. What has to wait is
// kept in the holdings, of which there is one for each session leased of late: an outage adds none.
func (m *Manager) reportAll(ctx context.Context, last bool) {
	var (
		batch   []Report
		holders []*holding
	)
	flush := func() bool {
		if len(batch) == 0 {
			return true
		}
		ok := m.sendReports(ctx, batch, holders)
		batch, holders = nil, nil
		return ok
	}
	for _, h := range m.holdings() {
		if r, ok := h.takeReport(m, time.Now(), last); ok {
			batch = append(batch, r)
			holders = append(holders, h)
		}
		if len(batch) == reportBatch && !flush() {
			return
		}
	}
	flush()
}

// sendReports sends one batch and takes in the answers. It reports whether it makes sense to go on: either the store was there,
// or finding that it is not took no time.
func (m *Manager) sendReports(ctx context.Context, batch []Report, holders []*holding) bool {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	sent := time.Now()
	renewals := m.store.Report(ctx, batch)
	unconfirmed, unsent := 0, 0
	var fault error
	for i, r := range renewals {
		switch {
		case errors.Is(r.Err, ErrNotFound):
			m.drop(batch[i].ID)
		case errors.Is(r.Err, ErrNotSent):
			unsent, fault = unsent+1, r.Err
			holders[i].unsent(batch[i])
		case r.Err != nil:
			unconfirmed, fault = unconfirmed+1, r.Err
			holders[i].unreported(batch[i])
		default:
			holders[i].reported(m, batch[i], r, sent)
		}
	}
	m.outage.heard(fault, sent)
	m.observer.ReportDone(len(batch), unsent, unconfirmed, time.Since(sent))
	return unconfirmed == 0
}

// checkStreams asks which of the sessions that someone still waits for have ended elsewhere. Reports tell that of busy
// sessions; silent streams are asked about twice per lease validity, which touches nothing. Whoever looks at their states more often
// (see [Manager.StreamStates]) has asked already.
func (m *Manager) checkStreams(ctx context.Context) {
	every := max(m.cfg.Lease-m.cfg.ReportInterval-m.cfg.StoreTimeout, 0)
	var ids []ID
	for _, h := range m.holdings() {
		if h.needsCheck(time.Now(), every) {
			ids = append(ids, h.id)
		}
	}
	for len(ids) > 0 {
		n := min(len(ids), checkBatch)
		if !m.check(ctx, ids[:n]) {
			return
		}
		ids = ids[n:]
	}
}

// check asks about one batch. It reports whether it makes sense to go on.
func (m *Manager) check(ctx context.Context, ids []ID) bool {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	sent, there := time.Now(), true
	var fault error
	for i, err := range m.store.Check(ctx, ids) {
		switch {
		case errors.Is(err, ErrNotFound):
			m.drop(ids[i])
		case err != nil:
			fault = err
			there = there && errors.Is(err, ErrNotSent)
		default:
			if h := m.holding(ids[i]); h != nil {
				h.checked(m, sent)
			}
		}
	}
	m.outage.heard(fault, sent)
	return there
}

// forgetIdle drops what nobody uses any more, so that a replica holds no more than it serves.
func (m *Manager) forgetIdle(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, h := range m.held {
		if h.asking == 0 && h.retire(m.cfg, now) {
			delete(m.held, id)
		}
	}
}

// holdings returns a snapshot of everything held.
func (m *Manager) holdings() []*holding {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*holding, 0, len(m.held))
	for _, h := range m.held {
		all = append(all, h)
	}
	return all
}

// takeReport takes out what the store should hear, or says that there is nothing. A last report leaves nothing behind:
// all activity is sent, and all budget given back.
func (h *holding) takeReport(m *Manager, now time.Time, last bool) (Report, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isOver || !h.isGranted {
		return Report{}, false
	}
	if h.inFlight > 0 {
		h.touchedAt = later(h.touchedAt, now)
	}
	r := Report{ID: h.id, Idle: -1, Requests: h.requests}
	if h.touchedAt.After(h.recordedAt) {
		r.Idle = max(now.Sub(h.touchedAt), 0)
	}
	// Activity within one interval of what the store knows can wait: a sparse session costs one call a request.
	news := r.Idle >= 0 && (last || h.touchedAt.Sub(h.recordedAt) >= m.cfg.ReportInterval)
	keep := h.streams > 0 && !h.endsAt.IsZero() && h.endsAt.Sub(now) < m.cfg.IdleTimeout/2

	if last {
		h.aging.add(h.fresh.n, h.fresh.at, h.fresh.since, m.cfg.Lease)
		h.fresh = budget{}
	}
	if h.aging.n > 0 {
		r.Unspent, r.UnspentSince = h.aging.n, h.aging.since
	}
	h.aging, h.fresh = h.fresh, budget{}
	if !last && m.cfg.Lease > 0 && m.cfg.RequestRate > 0 {
		r.Want = max(min(2*h.spent, m.cfg.RequestBurst)-h.aging.n, 0)
	}
	r.Started = h.newlyPending(m, now)
	some := len(h.finished)
	if !last { // the last report has no next one
		some = min(some, pendingBatch)
	}
	r.Finished, h.finished, h.telling = h.finished[:some:some], h.finished[some:], some
	h.requests, h.spent = 0, 0

	return r, news || keep || r.Requests > 0 || r.Unspent > 0 || len(r.Started) > 0 || len(r.Finished) > 0
}

// reported takes in the store's answer to a report sent at the moment sent.
func (h *holding) reported(m *Manager, r Report, renewal Renewal, sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Idle >= 0 {
		h.recordedAt = later(h.recordedAt, sent.Add(-r.Idle))
	}
	h.telling = 0
	h.elsewhere = max(renewal.Pending-h.known(), 0)
	h.fresh.add(renewal.Budget, sent, renewal.At, m.cfg.Lease)
	h.renewed(m, renewal.EndsIn, renewal.At, sent)
	h.left = renewal.Left
	if renewal.Version != h.session.Version {
		h.validUntil = time.Time{} // the record has changed: the next request reads it
	}
}

// unreported takes back what may be said twice. Counters and given-back budget may not: if the lost report was taken
// after all, saying them again would count double, so the limit errs on the safe side.
func (h *holding) unreported(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.takeBack(r, false)
}

// unsent takes back a report that has certainly not been taken: nothing of it is lost but the budget that it gives back.
func (h *holding) unsent(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests += r.Requests
	h.takeBack(r, true)
}

// needsCheck reports whether somebody waits for the session and the store has not confirmed it for that long.
func (h *holding) needsCheck(now time.Time, every time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	isServed := h.streams+h.inFlight+h.abandoned > 0
	if !isServed {
		every = max(every, watchCheck)
	}
	return !h.isOver && (isServed || h.watchers > 0) && now.Sub(h.checkedAt) >= every
}

// checked takes in that a call made at the moment sent has told that the session lives.
func (h *holding) checked(m *Manager, sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.confirmed(m, sent)
}

// confirmed is checked for callers that hold h.mu.
func (h *holding) confirmed(m *Manager, sent time.Time) {
	h.checkedAt = later(h.checkedAt, sent)
	m.outage.confirms(sent)
}

// retire reports whether there is nothing left to serve, with the store or without it, to spend or to say; from then on nothing
// is served from h, not even for a caller that found it, and looked at the clock, before.
func (h *holding) retire(cfg Config, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	idle := h.inFlight == 0 && h.streams == 0 && h.abandoned == 0 && h.watchers == 0 && !now.Before(h.validUntil) &&
		h.requests == 0 && len(h.finished) == 0 && h.aging.n == 0 && h.fresh.n == 0 &&
		h.touchedAt.Sub(h.recordedAt) < cfg.ReportInterval && !cfg.isInGrace(h.checkedAt, now)
	h.isGranted = h.isGranted && !idle
	return idle
}
