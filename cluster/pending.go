package cluster

import "slices"

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

// name gives a request its key. A client may use an id again, of a request that is in flight or that was over a moment ago:
// the key is the later request's then, and so is what the store knows of it. The caller holds h.mu.
func (h *holding) name(l *Lease) {
	if h.pending == nil {
		h.pending = make(map[string]*Lease)
	}
	before, i := h.pending[l.pendingKey], slices.Index(h.finished, l.pendingKey)
	if i >= 0 {
		h.finished = slices.Delete(h.finished, i, i+1)
	}
	if i >= 0 || (before != nil && before.reported) {
		l.reported, l.retell = true, true
	}
	h.pending[l.pendingKey] = l
}

// known returns how many requests in flight the store has of this replica, as far as is known: those that are over, but may
// not be so there, included. The caller holds h.mu.
func (h *holding) known() int {
	n := len(h.finished) + h.telling
	for _, l := range h.pending {
		if l.reported {
			n++
		}
	}
	return n
}

// isOvercounted reports whether the store counts requests in flight that are over. Then only granted can tell whether one
// would be too many.
func (h *holding) isOvercounted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.finished)+h.telling > 0
}
