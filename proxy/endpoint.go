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

// open sends an initialize request, and takes note of whether the endpoint opens sessions. When no header of an answer comes in time, the
// error is [errInitializeTimeout]: by the deadline, for which the request's context may end, too. With others that could be tried then it is
// half of what is left, or until checks find the endpoint dead, so that one that hangs does not cost a client its session.
func (e *endpoint) open(req *http.Request, deadline time.Time, others bool) (*http.Response, error) {
	res, err := e.sendUnless(req, errInitializeTimeout, func(giveUp func()) func() {
		limit := time.Until(deadline)
		if !others {
			timer := time.AfterFunc(limit, giveUp)
			return func() { timer.Stop() }
		}
		timer, noMore := time.AfterFunc(limit/2, giveUp), e.onDeath(giveUp)
		return func() { timer.Stop(); noMore() }
	})
	switch {
	case errors.Is(err, errInitializeTimeout):
		e.unopened()
	case err != nil:
	case res.StatusCode >= http.StatusInternalServerError:
		e.refused()
	default:
		e.opened()
	}
	return res, err
}

// errDied is the error of a request whose endpoint was found dead while it waited.
var errDied = errors.New("the endpoint answers no checks")

// ask sends a request that may as well be sent elsewhere. The error is errDied when checks find the endpoint dead before the header of an
// answer has come.
func (e *endpoint) ask(req *http.Request) (*http.Response, error) {
	return e.sendUnless(req, errDied, e.onDeath)
}

// sendUnless sends a request. What watch is given makes reason its error, until what watch returns is called: once there is a header.
func (e *endpoint) sendUnless(req *http.Request, reason error, watch func(giveUp func()) (forget func())) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context()) // lasts as long as the answer's body, which the caller's bounds
	forget := watch(func() { cancel(reason) })
	res, err := e.RoundTrip(req.WithContext(ctx))
	forget()
	if errors.Is(context.Cause(ctx), reason) {
		if err == nil {
			_ = res.Body.Close() // it came too late to be read
		}
		return nil, reason
	}
	if err != nil {
		cancel(nil)
	}
	return res, err
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
