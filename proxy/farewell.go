package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// farewellQueue is how many upstream sessions wait to be ended at most; more are left to the upstreams' own timeouts.
	farewellQueue = 1000
	// farewellWorkers end them.
	farewellWorkers = 4
	// mostLeaving is how many upstream sessions that a recovery has left are ended at the same time at most; more are left as above.
	mostLeaving = 1000
	// leaveAfter is for how long an upstream session that its session has moved away from is left alone: the other replicas hear of that with
	// their next reports, and most requests that are in flight there are answered.
	leaveAfter = 2 * time.Second
)

// EndUpstream asks upstreams, in the background, to forget the sessions that belong to sessions which have ended here without
// their client: expired or evicted ones. It is good manners only, bounded, and returns at once. [Proxy.RunFarewells] does it.
func (p *Proxy) EndUpstream(sessions []cluster.Session) {
	for _, s := range sessions {
		if s.UpstreamSession == "" {
			continue
		}
		select {
		case p.farewells <- s:
		default:
			p.log.Debug("too many upstream sessions wait to be ended; this one is left to its upstream", "session", s.ID)
		}
	}
}

// RunFarewells ends the upstream sessions that [Proxy.EndUpstream] was told of, until ctx is done. The caller owns the goroutine.
func (p *Proxy) RunFarewells(ctx context.Context) error {
	var workers sync.WaitGroup
	for range farewellWorkers {
		workers.Go(func() {
			for {
				select {
				case s := <-p.farewells:
					p.farewell(ctx, s)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// leaveUpstream asks an endpoint once, in the background, to forget an upstream session that nobody will use any more: after a while, or when
// this replica stops. It returns at once.
func (p *Proxy) leaveUpstream(c *upstreamCall, endpoint string, left cluster.Activation, after time.Duration) {
	if left.UpstreamSession == "" {
		return
	}
	select {
	case p.leaving <- struct{}{}:
	default:
		c.log().Debug("too many upstream sessions are being ended; this one is left to its upstream")
		return
	}
	p.running.Go(func() {
		defer func() { <-p.leaving }()
		defer p.recovered("farewells to upstreams")
		select {
		case <-time.After(after):
		case <-p.draining:
		case <-p.background.Done():
			return
		}
		p.sendDelete(p.background, c.upstream, parting{
			request: c.origin, session: c.current().ID.String(), endpoint: endpoint, upstreamSession: left.UpstreamSession, revision: left.Revision,
			credential: p.cfg.Auth.Credential(c.header),
		})
	})
}

func (p *Proxy) farewell(ctx context.Context, s cluster.Session) {
	defer p.recovered("farewells to upstreams") // it is good manners, and no more
	for _, upstream := range p.upstreams {
		if upstream.Name == s.Upstream {
			p.sendDelete(ctx, upstream, parting{
				session: s.ID.String(), endpoint: s.Endpoint, upstreamSession: s.UpstreamSession, revision: s.Revision,
			})
			return
		}
	}
}

// recovered, deferred, keeps a panic from ending more than the piece of work that it is in.
func (p *Proxy) recovered(loop string) {
	if panicked := recover(); panicked != nil {
		p.log.Error("recovered from a panic", "loop", loop, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
	}
}
