package cluster

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// tooMany refuses a request that would be one too many in flight. The caller holds h.mu.
func (h *holding) tooMany(m *Manager, use Use) error {
	if m.cfg.MaxPending == 0 || use.PendingKey == "" || h.waiting+h.elsewhere+use.pending() <= m.cfg.MaxPending {
		return nil
	}
	return h.tooManyError(m)
}

func (h *holding) tooManyError(m *Manager) error {
	return &LimitError{Limit: "max_pending", RetryAfter: m.cfg.ReportInterval, Err: ErrPendingLimited}
}

// flight is one request in flight. Only requests that last get a name: most are over before the store hears of them.
type flight struct {
	key   string // what its lease was asked for with; a client may use an id again, here or at another replica
	since time.Time
	name  string // what the store calls it, and no other request; empty until it is told

	// All guarded by the holding's mu.
	reported bool // the store knows of it, or may know
	isNews   bool // the report on its way to the store is the first to tell it
	retell   bool // it is to be told again: what the store knows is uncertain
}

// nameOf makes the name of a request in flight that is told for the first time.
func (m *Manager) nameOf(f *flight) string {
	run := m.incarnation[strings.LastIndexByte(m.incarnation, '/')+1:]
	return f.key + " " + strconv.FormatInt(m.told.Add(1), 36) + "." + run
}

// Request returns the key that a request's lease was asked for with ([Use.PendingKey]). Others may have the same: a client may use an
// id again before the first request is answered, and the requests of a batch have one together.
func (p PendingRequest) Request() string {
	if i := strings.LastIndexByte(p.Key, ' '); i >= 0 {
		return p.Key[:i]
	}
	return p.Key
}

// takeOff registers what a lease has in flight. The caller holds h.mu.
func (h *holding) takeOff(l *Lease, key string, n int) {
	if h.pending == nil {
		h.pending, h.told = make(map[*flight]struct{}), make(map[string]*flight)
	}
	l.flights = l.one[:]
	if n > 1 {
		l.flights = make([]flight, n)
	}
	for i := range l.flights {
		l.flights[i] = flight{key: key, since: l.since}
		h.pending[&l.flights[i]] = struct{}{}
	}
}

// land says that what a lease had in flight is over. The caller holds h.mu.
func (h *holding) land(l *Lease) {
	for i := range l.flights {
		f := &l.flights[i]
		delete(h.pending, f)
		if f.reported {
			delete(h.told, f.name)
			h.finished = append(h.finished, f.name)
		}
	}
}

// newlyPending lists requests that have outlived one report interval and that the store does not know of. The caller
// holds h.mu.
func (h *holding) newlyPending(m *Manager, now time.Time) []PendingRequest {
	var started []PendingRequest
	for f := range h.pending {
		if len(started) == pendingBatch {
			break
		}
		if age := now.Sub(f.since); (!f.reported || f.retell) && age >= m.cfg.ReportInterval {
			if f.name == "" {
				f.name = m.nameOf(f)
			}
			f.isNews = !f.reported
			f.reported, f.retell = true, false
			h.told[f.name] = f
			started = append(started, PendingRequest{Key: f.name, Owner: m.incarnation, Age: age})
		}
	}
	return started
}

// takeBack makes a report's requests in flight, and those over, be told again. The caller holds h.mu.
func (h *holding) takeBack(r Report, isUnsent bool) {
	h.telling = 0
	names := r.Finished
	for _, p := range r.Started {
		if f := h.told[p.Key]; isUnsent && f != nil && f.isNews {
			f.reported = false
			delete(h.told, p.Key)
			continue
		}
		names = append(names, p.Key)
	}
	for _, name := range names {
		if f := h.told[name]; f != nil {
			f.retell = true
		} else if !slices.Contains(h.finished, name) {
			h.finished = append(h.finished, name) // over, but the store may not know, or may have been told that it is not
		}
	}
}

// known returns how many requests in flight the store has of this replica, as far as is known: those that are over, but may
// not be so there, included. The caller holds h.mu.
func (h *holding) known() int { return len(h.finished) + h.telling + len(h.told) }

// isOvercounted reports whether the store counts requests in flight that are over. Then only granted can tell whether one
// would be too many.
func (h *holding) isOvercounted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.finished)+h.telling > 0
}
