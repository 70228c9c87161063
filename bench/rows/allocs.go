package rows

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/peers"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// allocations measures how many allocations the session layer makes for a hot request: to parse its token, and to take, touch and release a
// lease. And how many a hot request makes beyond one through a bare proxy, which is all that we do; there clients, proxies and upstream are
// in this process: what the clients and the upstream allocate is the same for both, and drops out.
func allocations(p Plan) measure.Experiment {
	requests := 4000
	if p.Quick {
		requests = 500
	}
	a := &allocating{}
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "allocations", What: "allocations of a hot request in the session layer: token, lease, touch, release", Unit: "allocs", Goal: 12},
			{Name: "allocations-over-bare", What: "allocations of a hot request through the proxy, beyond those through a bare one", Unit: "allocs"},
		},
		Prepare: a.start,
		Pair: func(ctx context.Context, _ int) ([]measure.Sample, error) {
			layered, plain := a.layer.Serve(nothing), a.layer.Request(ctx, 0)
			serve := func(h http.Handler) func() error {
				return func() error {
					w := peers.NewResponse()
					if h.ServeHTTP(w, plain); w.Status != 0 {
						return fmt.Errorf("the session layer answered with %d", w.Status)
					}
					return nil
				}
			}
			call := func(kind *arm) func() error {
				return func() error { return kind.client.Call(ctx, kind.sessions[0], world.Kind{}) }
			}
			var each [6]float64
			for i, do := range []func() error{serve(nothing), serve(layered), serve(layered), call(a.bare), call(a.session), call(a.session)} {
				var err error
				if each[i], err = allocsEach(requests, do); err != nil {
					return nil, err
				}
			}
			return []measure.Sample{
				{Value: each[1] - each[0], Control: each[2] / each[1]},
				{Value: each[4] - each[3], Control: each[5] / each[4]},
			}, nil
		},
		Close: a.close,
	}
}

// nothing is a handler that does nothing.
var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// allocating is a proxy in this process, and a bare one, before the same upstream.
type allocating struct {
	side    *side
	proxy   *proxy.Proxy
	servers []*httptest.Server

	layer         *peers.Shadowcat
	bare, session *arm
}

func (a *allocating) start(ctx context.Context) (err error) {
	if a.side, err = newSide(ctx, world.Limits(), 1, 1); err != nil {
		return err
	}
	a.layer = &peers.Shadowcat{Manager: a.side.fleet.managers[0], Upstream: world.Upstream, Tokens: a.side.fleet.tokens}
	upstream := a.serve(world.Answer())
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	if a.proxy, err = proxy.New(a.side.fleet.managers[0], proxy.Config{Upstreams: []proxy.Upstream{{URL: target}}}); err != nil {
		return err
	}
	a.bare = &arm{client: world.NewClient(a.serve(world.Bare(target)), 1), sessions: []string{world.UpstreamSession}}
	ours := a.serve(a.proxy) + "/mcp"
	a.session = &arm{client: world.NewClient(ours, 1)}
	a.session.sessions, err = a.session.client.Open(ctx, 1)
	return err
}

// serve starts a server and returns its URL.
func (a *allocating) serve(handler http.Handler) string {
	server := httptest.NewServer(handler)
	a.servers = append(a.servers, server)
	return server.URL
}

func (a *allocating) close() error {
	for _, kind := range []*arm{a.bare, a.session} {
		if kind != nil {
			kind.client.Close()
		}
	}
	for _, server := range a.servers {
		server.Close()
	}
	if a.proxy != nil {
		a.proxy.Close()
	}
	if a.side == nil {
		return nil
	}
	return a.side.close()
}

// allocsEach does something many times, one after the other, and returns the allocations of each time.
func allocsEach(times int, do func() error) (float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if err := do(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(times), nil
}
