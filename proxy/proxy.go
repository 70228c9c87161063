package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/singleflight"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Sessions is what the proxy needs of a [cluster.Manager], which see.
type Sessions interface {
	Create(ctx context.Context, n cluster.NewSession) (cluster.Session, cluster.Token, error)
	Activate(ctx context.Context, s cluster.Session, a cluster.Activation) (cluster.Session, error)
	Lease(ctx context.Context, token cluster.Token, use cluster.Use) (*cluster.Lease, error)
	Admit(ctx context.Context, p cluster.Principal) error
	Terminate(ctx context.Context, id cluster.ID, status cluster.Status) (cluster.Session, error)
	Get(ctx context.Context, id cluster.ID) (cluster.Session, error)

	ClaimRecovery(ctx context.Context, id cluster.ID, version int64, writer string, d time.Duration) (cluster.Recovery, error)
	Remap(ctx context.Context, s cluster.Session, writer, endpoint string, a cluster.Activation) (cluster.Session, error)
	Note(ctx context.Context, n cluster.Note) error

	Append(ctx context.Context, a cluster.EventAppend) (cluster.Appended, error)
	Events(ctx context.Context, queries []cluster.EventQuery) []cluster.EventPage
	ClaimStream(ctx context.Context, c cluster.StreamClaim) (cluster.StreamState, error)
	ReleaseStream(ctx context.Context, id cluster.ID, claim int64) error
	OpenStream(ctx context.Context, l *cluster.Lease, kind cluster.StreamKind) error
	StreamStates(ctx context.Context, ids []cluster.ID) []cluster.StreamState

	Incarnation() string
	Alive(ctx context.Context, owner string) (bool, error)
}

var _ Sessions = (*cluster.Manager)(nil)

// Proxy serves MCP upstreams. It is an http.Handler, to be run by a server like [NewServer]'s.
type Proxy struct {
	sessions  Sessions
	cfg       Config
	log       *slog.Logger
	tracer    trace.Tracer         // nil: nothing is traced
	upstreams map[string]*upstream // by path
	policy    policy
	buffers   sync.Pool // of *[]byte, each of copyBufferSize
	farewells chan cluster.Session
	leaving   chan struct{} // a place is taken by each farewell outside of them

	incarnation string
	owner       string // its random part
	answers     atomic.Int64
	answering   answerStreams
	own         *ownReaders
	follower    *follower
	streams     openStreams
	load        load
	suspecting  singleflight.Group
	recovering  singleflight.Group

	background context.Context // of what goes on without a client; ends with Close
	end        context.CancelFunc
	cut        context.Context // of what waits for an upstream; ends with Cut
	cutNow     context.CancelCauseFunc
	draining   chan struct{}
	running    sync.WaitGroup // all goroutines that outlive a request
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
		leaving:   make(chan struct{}, mostLeaving),
	}
	if cfg.Tracing != nil {
		p.tracer = cfg.Tracing.Tracer(tracerName)
	}
	p.incarnation, p.owner = sessions.Incarnation(), ownerOf(sessions.Incarnation())
	p.answering = answerStreams{p: p, all: make(map[*answerStream]struct{})}
	p.own = newOwnReaders()
	p.follower = newFollower(p)
	p.load.most, p.load.share, p.load.of = cfg.Capacity, cfg.Capacity.half(cfg.MaxBody), make(map[cluster.Principal]burden)
	p.background, p.end = context.WithCancel(context.Background())
	p.cut, p.cutNow = context.WithCancelCause(p.background)
	p.draining = make(chan struct{})
	for _, u := range cfg.Upstreams {
		p.upstreams[u.Path()] = newUpstream(u, cfg)
	}
	return p, nil
}

// Close ends all that goes on in the background, waits for it, and closes idle connections to upstreams. Requests in flight are cut.
func (p *Proxy) Close() {
	p.end()
	p.follower.close()
	p.running.Wait()
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
	if x.p.cfg.Auth.ServeMetadata(x.w, x.r) {
		return
	}
	if !x.checkOrigin() {
		return
	}
	upstream, ok := x.p.upstreams[x.r.URL.Path]
	if !ok {
		x.refuse(refusal{status: http.StatusNotFound, message: "no MCP server is served at this path; check the upstream's name in the URL"})
		return
	}
	x.upstream = upstream
	if !x.checkHeader() {
		return
	}
	var serve func()
	switch x.r.Method {
	case http.MethodPost:
		serve = x.post
	case http.MethodGet:
		serve = x.get
	case http.MethodDelete:
		serve = x.delete
	case http.MethodOptions:
		x.options()
		return
	default:
		x.refuse(methodNotAllowed("POST, GET, DELETE", "this path takes POST, GET and DELETE"))
		return
	}
	if x.authenticate() {
		serve()
	}
}

// eraOfHeader tells the era of a request without a body.
func (x *exchange) eraOfHeader() mcp.Era {
	x.era = mcp.EraOf(x.protocolVersion(), "")
	return x.era
}
