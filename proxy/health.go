package proxy

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// unhealthyAfter is how many failures in a row it takes until an endpoint is passed over. One is no sign: a
	// connection that was kept may just have been closed by the other side, and one request may upset a server.
	unhealthyAfter = 2
	// deadAfter is how many checks in a row must go unanswered until sessions leave an endpoint, and with them what its server has kept for
	// them. It is what Kubernetes allows a liveness probe by default.
	deadAfter = 3
	// firstPause is for how long an endpoint is passed over at first; each further failure doubles that, up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// Why an endpoint ails, as logs have it.
const (
	ailsUnreachable = "connections fail"
	ailsRefusing    = "initialize is not answered, or with a server error"
	ailsSilent      = "checks are not answered"
)

// health is what this replica has seen of an endpoint. The kinds of trouble are apart because what ends one does not end another: a server
// whose initialize hangs may well answer everything else.
type health struct {
	name string // the endpoint's
	log  *slog.Logger

	ailing atomic.Bool // there are failures; spares a healthy endpoint the lock
	dead   atomic.Bool // it has not answered deadAfter checks in a row, nor anything else since

	mu          sync.Mutex
	unreachable trouble              // a connection could not be made, or broke before the answer's header
	refusing    trouble              // an initialize was not answered in time, or with a server error
	missed      int                  // checks in a row
	said        bool                 // that it ails was logged
	onDying     map[*func()]struct{} // what is called when it is found dead
}

// failed takes note of a connection that could not be made, or broke before the answer's header.
func (h *health) failed() {
	h.note(ailsUnreachable, func(now time.Time) { h.unreachable.add(1, now) })
}

// succeeded takes note of an answer, whatever it says.
func (h *health) succeeded() {
	if !h.ailing.Load() {
		return
	}
	h.note("", func(time.Time) {
		h.unreachable, h.missed = trouble{}, 0
		h.dead.Store(false)
	})
}

// missedCheck takes note of a check that was not answered.
func (h *health) missedCheck() {
	h.note(ailsSilent, func(time.Time) {
		if h.missed++; h.missed < deadAfter || h.dead.Swap(true) {
			return
		}
		for do := range h.onDying {
			(*do)()
		}
		clear(h.onDying)
	})
}

// onDeath has do called, which must not block, when checks find the endpoint dead from now on, until forget is called.
func (h *health) onDeath(do func()) (forget func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onDying == nil {
		h.onDying = make(map[*func()]struct{})
	}
	h.onDying[&do] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.onDying, &do)
	}
}

// opened takes note of an initialize that was answered by other than a server error.
func (h *health) opened() {
	if h.ailing.Load() {
		h.note("", func(time.Time) { h.refusing = trouble{} })
	}
}

// refused takes note of an initialize that was answered with a server error.
func (h *health) refused() {
	h.note(ailsRefusing, func(now time.Time) { h.refusing.add(1, now) })
}

// unopened takes note of an initialize that was not answered in time. One is enough: a client has waited that long for nothing.
func (h *health) unopened() {
	h.note(ailsRefusing, func(now time.Time) { h.refusing.add(unhealthyAfter, now) })
}

// chosen takes note of a new session that is to be opened there. Of those that come after a pause one finds out whether the endpoint is
// well; the others pass it over meanwhile, for it may take that one long.
func (h *health) chosen() {
	if h.ailing.Load() {
		h.note("", func(now time.Time) {
			h.unreachable.attempt(now)
			h.refusing.attempt(now)
		})
	}
}

// note changes what is known, and logs when the endpoint begins to ail and when it is well again.
func (h *health) note(why string, change func(now time.Time)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(time.Now())
	ails := h.dead.Load() || h.unreachable.pause > 0 || h.refusing.pause > 0
	h.ailing.Store(ails || h.unreachable.failures+h.refusing.failures+h.missed > 0)
	switch {
	case ails && !h.said:
		h.log.Warn("upstream endpoint ails; it is passed over until it is well", "endpoint", h.name, "reason", why)
	case !ails && h.said:
		h.log.Info("upstream endpoint is well again", "endpoint", h.name)
	}
	h.said = ails
}

// healthy reports whether the endpoint should be given new sessions.
func (h *health) healthy() bool {
	if !h.ailing.Load() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	return !h.dead.Load() && !now.Before(h.unreachable.until) && !now.Before(h.refusing.until)
}

// trouble is failures of one kind in a row.
type trouble struct {
	failures int
	pause    time.Duration // the latest; 0: there were too few failures
	until    time.Time     // the pause's end
}

func (t *trouble) add(failures int, now time.Time) {
	if now.Before(t.until) {
		return // it is known, and many requests may have been on their way
	}
	if t.failures += failures; t.failures >= unhealthyAfter {
		t.rest(now)
	}
}

// attempt begins the next pause ahead of the failure that may come of an attempt.
func (t *trouble) attempt(now time.Time) {
	if t.pause > 0 && !now.Before(t.until) {
		t.rest(now)
	}
}

func (t *trouble) rest(now time.Time) {
	t.pause = min(max(2*t.pause, firstPause), longestPause)
	t.until = now.Add(t.pause)
}
