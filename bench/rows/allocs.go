package rows

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// allocations measures how many allocations a request of a hot session makes beyond one without a session, and beyond one through a bare
// proxy. Clients, proxies and upstream are in this process: what the clients and the upstream allocate is the same for each, and drops out.
func allocations(p Plan) measure.Experiment {
	requests := 4000
	if p.Quick {
		requests = 500
	}
	a := &allocating{}
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "allocations", What: "allocations of a hot request beyond those of one without a session through the same proxy", Unit: "allocs", Goal: 12},
			{Name: "allocations-over-bare", What: "allocations of a hot request beyond those of one through a bare proxy", Unit: "allocs"},
		},
		Prepare: a.start,
		Pair: func(ctx context.Context, _ int) ([]measure.Sample, error) {
			var each [4]float64
			for i, kind := range []arm{a.bare, a.stateless, a.session, a.stateless} {
				var err error
				if each[i], err = allocsEach(ctx, kind, requests); err != nil {
					return nil, err
				}
			}
			stateless := (each[1] + each[3]) / 2
			return []measure.Sample{{Value: each[2] - stateless, Control: each[3] / each[1]}, {Value: each[2] - each[0]}}, nil
		},
		Close: a.close,
	}
}

// allocating is a proxy in this process, and a bare one, before the same upstream.
type allocating struct {
	side    *side
	proxy   *proxy.Proxy
	servers []*httptest.Server

	bare, stateless, session arm
}

func (a *allocating) start(ctx context.Context) (err error) {
	if a.side, err = newSide(ctx, world.Limits(), 1, 0); err != nil {
		return err
	}
	upstream := a.serve(world.Answer())
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	if a.proxy, err = proxy.New(a.side.fleet.managers[0], proxy.Config{Upstreams: []proxy.Upstream{{URL: target}}}); err != nil {
		return err
	}
	a.bare = arm{client: world.NewClient(a.serve(world.Bare(target)), 1), sessions: []string{world.UpstreamSession}}
	ours := a.serve(a.proxy) + "/mcp"
	a.stateless = arm{client: world.NewStatelessClient(ours, 1), sessions: []string{""}}
	a.session = arm{client: world.NewClient(ours, 1)}
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
	for _, kind := range []arm{a.bare, a.stateless, a.session} {
		if kind.client != nil {
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

// allocsEach sends requests, one after the other, and returns the allocations of each.
func allocsEach(ctx context.Context, kind arm, requests int) (float64, error) {
	if len(kind.sessions) == 0 {
		return 0, errors.New("there is no session")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range requests {
		if _, err := kind.client.Post(ctx, kind.sessions[0], world.Kind{}.Body()); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(requests), nil
}
