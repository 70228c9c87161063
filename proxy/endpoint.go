package proxy

import (
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// unhealthyAfter is how many connections in a row must fail until an endpoint is passed over. One is no sign: a
	// connection that was kept may just have been closed by the other side.
	unhealthyAfter = 2
	// firstPause is for how long it is passed over at first; each further failure doubles that, up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
	// tallySpan is how long a session that was pinned to an endpoint counts at least when the next one is; at most twice
	// that.
	tallySpan = 5 * time.Minute
	// maxEndpointName bounds what a session's record holds of its endpoint, in bytes.
	maxEndpointName = 256
)

// endpoint is one concrete address of an upstream, shared by all requests that go there. It is an http.RoundTripper for
// requests whose URL is [endpoint.target]'s and whose Host is its host.
type endpoint struct {
	// name is what a session's record holds: host:port, or where the endpoints of an upstream differ in more, the URL
	// without its query. At most maxEndpointName bytes.
	name      string
	url       url.URL // what is dialled; its query may be secret
	host      string  // the Host header: the upstream's own, whatever the address
	transport http.RoundTripper
	log       *slog.Logger

	ailing atomic.Bool // there are failures; spares a healthy endpoint the lock

	mu             sync.Mutex
	failures       int           // in a row
	pause          time.Duration // the latest
	unhealthyUntil time.Time
	pins           tally

	// unlisted is when its upstream's name was last seen to have other addresses only, zero while it has this one.
	// Guarded by the upstream's mu.
	unlisted time.Time
}

// target is the endpoint's URL with query added to its own.
func (e *endpoint) target(query string) *url.URL {
	target := e.url
	if target.RawQuery != "" && query != "" {
		target.RawQuery += "&"
	}
	target.RawQuery += query
	return &target
}

// RoundTrip sends one request, and takes note of whether the endpoint answered. A caller that gave up proves nothing.
func (e *endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := e.transport.RoundTrip(req)
	if err != nil {
		if req.Context().Err() == nil {
			e.failed()
		}
		return nil, &discreetError{err}
	}
	e.succeeded()
	res.Body = discreetBody{res.Body}
	return res, nil
}

// failed takes note of a connection that could not be made, or broke before the answer's header.
func (e *endpoint) failed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if now.Before(e.unhealthyUntil) {
		return // it is known, and many requests may have been on their way
	}
	e.ailing.Store(true)
	e.failures++
	if e.failures < unhealthyAfter {
		return
	}
	if e.pause == 0 {
		e.log.Warn("upstream endpoint fails; it is passed over for a while", "endpoint", e.name)
	}
	e.pause = min(max(2*e.pause, firstPause), longestPause)
	e.unhealthyUntil = now.Add(e.pause)
}

// succeeded takes note of an answer, whatever it says.
func (e *endpoint) succeeded() {
	if !e.ailing.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pause > 0 {
		e.log.Info("upstream endpoint is back", "endpoint", e.name)
	}
	e.failures, e.pause, e.unhealthyUntil = 0, 0, time.Time{}
	e.ailing.Store(false)
}

// healthy reports whether the endpoint should be given new sessions.
func (e *endpoint) healthy() bool {
	if !e.ailing.Load() {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return !time.Now().Before(e.unhealthyUntil)
}

// pin counts a session that is pinned to the endpoint.
func (e *endpoint) pin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pins.add(time.Now())
}

// sessions is how many sessions this replica has pinned to the endpoint in the last five to ten minutes. That is what it
// knows: which sessions live, only the cluster does. It is enough to spread sessions evenly, and to give an endpoint that
// has just come the larger share for a while.
func (e *endpoint) sessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pins.count(time.Now())
}

// tally counts what happened lately, in two spans of time: the one that began at since, and the one before it.
type tally struct {
	since       time.Time
	now, before int
}

func (t *tally) add(at time.Time) {
	t.turn(at)
	t.now++
}

func (t *tally) count(at time.Time) int {
	t.turn(at)
	return t.before + t.now
}

// turn begins a new span when the latest has passed.
func (t *tally) turn(at time.Time) {
	age := at.Sub(t.since)
	if age < tallySpan {
		return
	}
	if t.before = t.now; age >= 2*tallySpan {
		t.before = 0
	}
	t.since, t.now = at, 0
}
