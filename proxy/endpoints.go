package proxy

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// checksAtOnce is how many endpoints of an upstream are checked at the same time.
const checksAtOnce = 16

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
				p.unlessItPanics(ctx, "checks of upstreams", func(ctx context.Context) { u.check(ctx, p.cfg.CheckInterval, p.cfg.DialTimeout) })
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

// check connects to every endpoint, again and again until ctx is done. It sees that something listens there, no more, but
// without waiting for a client's request to find out.
func (u *upstream) check(ctx context.Context, interval, timeout time.Duration) {
	dialer := net.Dialer{Timeout: timeout}
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
				conn, err := dialer.DialContext(ctx, "tcp", hostPort(&e.url))
				switch {
				case err == nil:
					_ = conn.Close() // nothing was sent
					e.succeeded()
				case ctx.Err() == nil:
					e.failed()
				}
			})
		}
		checks.Wait()
	}
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
