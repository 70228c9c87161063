package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Sessions is what the proxy needs of a [cluster.Manager], which see.
type Sessions interface {
	Create(ctx context.Context, n cluster.NewSession) (cluster.Session, cluster.Token, error)
	Activate(ctx context.Context, s cluster.Session, a cluster.Activation) (cluster.Session, error)
	Lease(ctx context.Context, token cluster.Token, use cluster.Use) (*cluster.Lease, error)
	Terminate(ctx context.Context, id cluster.ID, status cluster.Status) (cluster.Session, error)
}

var _ Sessions = (*cluster.Manager)(nil)

// Proxy serves MCP upstreams. It is an http.Handler, to be run by a server like [NewServer]'s.
type Proxy struct {
	sessions  Sessions
	cfg       Config
	log       *slog.Logger
	upstreams map[string]*upstream // by path
	policy    policy
	buffers   sync.Pool // of *[]byte, each of copyBufferSize
	farewells chan cluster.Session
}

// New returns a proxy. The error says everything that is wrong with cfg. Close the proxy when it is no longer used.
func New(sessions Sessions, cfg Config) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	cfg = cfg.withDefaults()
	p := &Proxy{
		sessions:  sessions,
		cfg:       cfg,
		log:       cfg.Logger,
		upstreams: make(map[string]*upstream, len(cfg.Upstreams)),
		policy:    newPolicy(cfg),
		farewells: make(chan cluster.Session, farewellQueue),
	}
	for _, u := range cfg.Upstreams {
		p.upstreams[u.path()] = newUpstream(u, cfg)
	}
	return p, nil
}

// Close closes idle connections to upstreams. Requests in flight are not affected.
func (p *Proxy) Close() {
	for _, u := range p.upstreams {
		u.close()
	}
}

// ServeHTTP serves one request. Every answer that is not an upstream's has a JSON-RPC error as its body.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(p, w, r)
	defer x.finish()
	defer x.recoverPanic()
	x.serve()
}

// serve sends a request the way its path and method ask for.
func (x *exchange) serve() {
	x.limitBody()
	if !x.checkOrigin() {
		return
	}
	upstream, ok := x.p.upstreams[x.r.URL.Path]
	if !ok {
		x.refuse(refusal{status: http.StatusNotFound, message: "no MCP server is served at this path; check the upstream's name in the URL"})
		return
	}
	x.upstream = upstream
	switch x.r.Method {
	case http.MethodPost:
		x.post()
	case http.MethodGet:
		x.get()
	case http.MethodDelete:
		x.delete()
	case http.MethodOptions:
		x.options()
	default:
		x.refuse(methodNotAllowed("POST, GET, DELETE", "this path takes POST, GET and DELETE"))
	}
}

// eraOfHeader tells the era of a request without a body.
func (x *exchange) eraOfHeader() mcp.Era {
	x.era = mcp.EraOf(x.protocolVersion(), "")
	return x.era
}
