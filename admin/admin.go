package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// ProbeInterval is how often the store is probed: the longest that /readyz may lag behind, beside the timeout.
const ProbeInterval = 500 * time.Millisecond

// Scrapes are answered one after another beyond this many, and given up after this long.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// Config is what an [Admin] tells about. Store, Sessions and Metrics are required.
type Config struct {
	ReplicaID string
	// Store is probed. Its errors are shown by /readyz, so they must not hold credentials.
	Store Pinger
	// Sessions are counted at each scrape.
	Sessions Sessions
	// Metrics collects what the replica does. It belongs to this Admin alone.
	Metrics *Metrics
	// StoreTimeout bounds each probe and each count. Default 250ms.
	StoreTimeout time.Duration
	// InGrace tells whether the replica serves the sessions that it knows while the store is away, and so stays ready. Default: it does
	// not.
	InGrace func() bool
	// Breakers tells of which parts the store is not asked. Default: nothing is told.
	Breakers func() redisstore.Breakers
	// MaxSessions is the cap on live sessions, 0: none. It is only told.
	MaxSessions int
	// Streams tells how many streams are open. Default: nothing is told.
	Streams func() Streams
	// InFlight tells what the replica has in hand. Default: nothing is told.
	InFlight func() InFlight
	// Keys tells how the issuer's keys are, without which no token can be verified. Default: none are needed.
	Keys func() Keys
	// AuditDropped tells how many audit records could not be written to the store. Default: there is nothing to write them to.
	AuditDropped func() int64
	// SweepInterval is how often the leader cleans up: what is due for three times as long is told as left behind. Default 5s.
	SweepInterval time.Duration
	// Leadership tells what this replica knows of the leader. Default: nothing is told.
	Leadership func() Leadership
	// LogLevel is shown and changed at /loglevel. Default: there is no such path.
	LogLevel *slog.LevelVar
	// Logger is told that the store cannot be reached at first, and that it is reached then. That it goes away and comes back later
	// the Manager logs, who knows what that means to sessions. Default: discards.
	Logger *slog.Logger
}

// Pinger is a store that can be probed.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Sessions is a replica's view of the sessions. [cluster.Manager] is one.
type Sessions interface {
	Stats(ctx context.Context) (cluster.Stats, error)
	Held() int
}

// Admin answers for one replica.
type Admin struct {
	replicaID string
	probe     *probe
	watchdog  *watchdog
	leader    func() Leadership // may be nil
	keys      func() Keys       // may be nil
	serving   atomic.Bool
	handler   http.Handler
}

// New returns the admin side of one replica. It is not ready until [Admin.Run] has reached the store and
// [Admin.SetServing] was called.
func New(cfg Config) (*Admin, error) {
	if cfg.Store == nil || cfg.Sessions == nil || cfg.Metrics == nil {
		return nil, errors.New("admin: Store, Sessions and Metrics are required")
	}
	timeout := cmp.Or(cfg.StoreTimeout, 250*time.Millisecond)
	a := &Admin{
		replicaID: cfg.ReplicaID,
		probe: &probe{
			store:   cfg.Store,
			timeout: timeout,
			inGrace: cfg.InGrace,
			log:     cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		},
		watchdog: &watchdog{sessions: cfg.Sessions, timeout: timeout, interval: cmp.Or(cfg.SweepInterval, 5*time.Second)},
		leader:   cfg.Leadership,
		keys:     cfg.Keys,
	}
	shared := &sharedCollector{
		sessions: cfg.Sessions, timeout: timeout, maxSessions: cfg.MaxSessions, up: a.probe.up, breakers: cfg.Breakers,
		lag: a.watchdog.state, dropped: cfg.AuditDropped, streams: cfg.Streams, inFlight: cfg.InFlight, keys: cfg.Keys,
	}
	if err := cfg.Metrics.registry.Register(shared); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.serveHealth)
	mux.HandleFunc("GET /readyz", a.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics.registry, promhttp.HandlerOpts{
		Registry:            cfg.Metrics.registry,
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	}))
	if cfg.LogLevel != nil {
		l := &logLevel{level: cfg.LogLevel, log: a.probe.log}
		mux.HandleFunc("GET /loglevel", l.serve)
		mux.HandleFunc("PUT /loglevel", l.serve)
	}
	a.handler = mux
	return a, nil
}

// Handler serves the admin port.
func (a *Admin) Handler() http.Handler { return a.handler }

// Run probes the store until ctx ends, and then returns nil.
func (a *Admin) Run(ctx context.Context) error {
	a.probe.run(ctx)
	return nil
}

// Watch keeps an eye on the cleanup until ctx ends, and then returns nil.
func (a *Admin) Watch(ctx context.Context) error {
	a.watchdog.run(ctx)
	return nil
}

// SetServing says whether the replica accepts requests. A replica that does not is not ready.
func (a *Admin) SetServing(serving bool) { a.serving.Store(serving) }
