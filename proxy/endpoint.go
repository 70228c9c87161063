package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// tallySpan is how long a session that was pinned to an endpoint counts at least when the next one is; at most twice
	// that.
	tallySpan = 5 * time.Minute
	// maxEndpointName bounds what a session's record holds of its endpoint, in bytes.
	maxEndpointName = 256
)

// endpoint is one concrete address of an upstream, shared by all requests that go there. It is an http.RoundTripper for
// requests whose URL is [endpoint.target]'s and whose Host is its host.
type endpoint struct {
	// health.name is what a session's record holds: host:port, or where the endpoints of an upstream differ in more, the URL
	// without its query. At most maxEndpointName bytes.
	health
	url       url.URL // what is dialled; its query may be secret
	host      string  // the Host header: the upstream's own, whatever the address
	transport http.RoundTripper

	pinning sync.Mutex
	pins    tally

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

// open sends an initialize request, and takes note of whether the endpoint opens sessions. When no header of an answer comes within limit,
// nor before the request's context ends for [errInitializeTimeout], that is the error.
func (e *endpoint) open(req *http.Request, limit time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context()) // lasts as long as the answer's body, which the caller's bounds
	timer := time.AfterFunc(limit, func() { cancel(errInitializeTimeout) })
	res, err := e.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	switch {
	case errors.Is(context.Cause(ctx), errInitializeTimeout):
		if err == nil {
			_ = res.Body.Close() // it came too late to be read
		}
		e.unopened()
		return nil, errInitializeTimeout
	case err != nil:
		cancel(nil)
		return nil, err
	case res.StatusCode >= http.StatusInternalServerError:
		e.refused()
	default:
		e.opened()
	}
	return res, nil
}

// openLimit is how long an endpoint may take for its answer to initialize: half of what is left when others can be tried then, so that one
// that hangs does not cost the client its session.
func openLimit(deadline time.Time, others bool) time.Duration {
	left := time.Until(deadline)
	if others {
		return left / 2
	}
	return left
}

// pin counts a session that is pinned to the endpoint.
func (e *endpoint) pin() {
	e.pinning.Lock()
	defer e.pinning.Unlock()
	e.pins.add(time.Now())
}

// unpin takes a session out of the count that this replica has seen end, or move away. It need not have been pinned here: that one is gone
// from the endpoint says as much about its load.
func (e *endpoint) unpin() {
	e.pinning.Lock()
	defer e.pinning.Unlock()
	e.pins.remove(time.Now())
}

// sessions is how many sessions this replica has pinned to the endpoint in the last five to ten minutes, without those that it has seen
// end since. That is what it knows: which sessions live, only the cluster does. It is enough to spread sessions evenly, and to give an endpoint that
// has just come the larger share for a while.
func (e *endpoint) sessions() int {
	e.pinning.Lock()
	defer e.pinning.Unlock()
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

func (t *tally) remove(at time.Time) {
	t.turn(at)
	if t.before > 0 {
		t.before--
	} else if t.now > 0 {
		t.now--
	}
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
