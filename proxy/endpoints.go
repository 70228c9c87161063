package proxy

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// checksAtOnce is how many endpoints of an upstream are checked at the same time.
const checksAtOnce = 16

// checkName is what an upstream sees of a check: its user agent and its session.
const checkName = "shadowcat-cluster-check"

// RunEndpoints keeps the endpoints of all upstreams up to date until ctx is done: it resolves names every five seconds or
// so, and checks endpoints every Config.CheckInterval. The caller owns the goroutine. Without it a proxy works, too, but its
// requests wait for resolutions.
func (p *Proxy) RunEndpoints(ctx context.Context) error {
	var loops sync.WaitGroup
	for _, u := range p.upstreams {
		if u.names != nil {
			loops.Go(func() { p.unlessItPanics(ctx, "resolution of upstreams", u.follow) })
		}
		if p.cfg.CheckInterval > 0 {
			loops.Go(func() {
				p.unlessItPanics(ctx, "checks of upstreams", func(ctx context.Context) { u.check(ctx, p.cfg.CheckInterval, p.cfg.CheckTimeout) })
			})
		}
	}
	<-ctx.Done()
	loops.Wait()
	return nil
}

// unlessItPanics runs a loop until ctx is done, again after a pause when it has panicked.
func (p *Proxy) unlessItPanics(ctx context.Context, name string, loop func(context.Context)) {
	for ctx.Err() == nil {
		func() {
			defer p.recovered(name)
			loop(ctx)
		}()
		pause(ctx, resolveInterval)
	}
}

// check asks every endpoint, again and again until ctx is done, without waiting for a client's request to find out.
func (u *upstream) check(ctx context.Context, interval, timeout time.Duration) {
	for pause(ctx, jittered(interval)) {
		u.mu.RLock()
		endpoints := u.listed
		u.mu.RUnlock()
		var checks sync.WaitGroup
		places := make(chan struct{}, checksAtOnce)
		for _, e := range endpoints {
			places <- struct{}{}
			checks.Go(func() {
				defer func() { <-places }()
				bounded, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				err := u.ask(bounded, e)
				switch {
				case err == nil:
					e.succeeded()
				case ctx.Err() == nil:
					e.missedCheck()
				}
			})
		}
		checks.Wait()
	}
}

// ask returns an error when an endpoint does not answer. That its port accepts connections says little: the kernel does that for a process
// that hangs, too. So it is asked over HTTP, on a connection of its own, and any answer will do: servers of the official SDKs say 405.
//
// It is asked for OPTIONS, which has no effect by its definition (RFC 9110, section 9.2.1), and which no MCP message is sent by: a ping
// would need a session, a GET may open a stream or be held open without a word, an initialize makes a session. The session id is nobody's:
// the Python SDK's server opens a session for any request that comes without one.
func (u *upstream) ask(ctx context.Context, e *endpoint) error {
	req := (&http.Request{Method: http.MethodOptions, URL: e.target(""), Host: e.host, Header: make(http.Header)}).WithContext(ctx)
	req.Header.Set(mcp.HeaderSessionID, checkName)
	req.Header.Set("User-Agent", checkName)
	res, err := u.transports.checks.RoundTrip(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// pause waits for d, and reports whether ctx lasted that long.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jittered is a duration, give or take a fifth, so that replicas do not ask in step.
func jittered(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1) //nolint:gosec // spreads load, hides nothing
}
