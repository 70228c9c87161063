// Package replica wires one proxy replica together: store, session manager, proxy and admin port. The serve command runs
// one, the demo several in one process, so there is no state outside a [Replica].
package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// Config is what a replica is made of. ID, Store and Proxy.Upstreams are required.
type Config struct {
	ID string
	// Store stays the caller's, who closes it after Run has returned.
	Store   *redisstore.Store
	Cluster cluster.Config
	// Proxy's Auth, InOutage, Logger, Observer, Recorder, ReplicaID and Tracing are set by New.
	Proxy proxy.Config
	Build admin.Build
	// Auth says how clients prove who they are; its Paths and Logger are set by New. Default: not at all.
	Auth auth.Config
	// Logger is given the replica's id. Default: discards.
	Logger *slog.Logger
	// Tracing is given spans of requests and of cleanup; what they ask of the store is traced if Store does it. Default: nothing is.
	Tracing trace.TracerProvider
	// LogLevel is the Logger's, to be changed at the admin port. Default: it cannot be.
	LogLevel *slog.LevelVar
	// Cleanup says whether and how this replica cleans up when it leads.
	Cleanup Cleanup
	// Recording says what is recorded of the messages of sessions.
	Recording Recording
	// RequestDone is told of each finished request, as [proxy.Observer] says. Default: nobody is.
	RequestDone func(proxy.RequestInfo)
	// Server bounds connections of clients.
	Server proxy.ServerLimits
	// Drain says how the replica stops.
	Drain Drain
}

// Replica is one replica.
type Replica struct {
	log          *slog.Logger
	store        *redisstore.Store
	storeTimeout time.Duration
	manager      *cluster.Manager
	admin        *admin.Admin
	metrics      *admin.Metrics
	proxy        *proxy.Proxy
	lookout      *lookout // where there is no sweeper
	roster       *roster
	gate         *auth.Gate
	recorder     *record.Recorder        // nil: nothing is recorded
	sweeper      *sweeper.Sweeper        // nil: this replica never leads
	audit        *redisstore.AuditStream // nil: no stream
	handler      http.Handler
	limits       proxy.ServerLimits
	timing       Drain
	stopping     atomic.Bool
}

// New returns a replica that has not started. Its errors are mistakes in cfg.
func New(cfg Config) (*Replica, error) {
	logger := cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	log := logger.With("replica", cfg.ID)
	metrics := admin.NewMetrics(cfg.Build)
	r := &Replica{log: log, store: cfg.Store, storeTimeout: cfg.Cluster.StoreTimeout, metrics: metrics, limits: cfg.Server, timing: cfg.Drain}
	options := cluster.Options{ReplicaID: cfg.ID, Logger: log, Observer: metrics, Ended: r.endUpstream}
	if cfg.Store.AuditRecords() > 0 {
		r.audit = cfg.Store.NewAuditStream(r.inOutage)
		options.Auditor = r.audit
	}
	cfg.Store.Observe(metrics)
	manager, err := cluster.NewManager(cfg.Store, cfg.Cluster, options)
	if err != nil {
		return nil, err
	}
	r.manager = manager
	trail := cluster.Trail{Log: log, Auditor: options.Auditor, Actor: cluster.ActorReplica, By: manager.Incarnation()}
	cfg.Store.OnPurge(func(ids []cluster.ID) {
		trail.Purged(cluster.ActorReplica, "on the way: past its retention, or too many are kept", ids...)
	})
	if err := r.addSweeper(cfg, options.Auditor); err != nil {
		return nil, err
	}
	proxyConfig := cfg.Proxy
	proxyConfig.ReplicaID = cfg.ID
	proxyConfig.MaxHeader = cfg.Server.MaxHeader
	proxyConfig.Logger = logger // it adds the id itself
	proxyConfig.Tracing = cfg.Tracing
	proxyConfig.InOutage = r.inOutage
	proxyConfig.Observer = proxyObserver{metrics: metrics, requestDone: cfg.RequestDone}
	if r.recorder, err = r.newRecorder(cfg); err != nil {
		return nil, err
	}
	proxyConfig.Recorder = r.recorder
	if r.gate, err = newGate(cfg, log); err != nil {
		return nil, err
	}
	proxyConfig.Auth = r.gate
	if r.proxy, err = proxy.New(manager, proxyConfig); err != nil {
		return nil, err
	}
	health, err := admin.New(admin.Config{
		ReplicaID:    cfg.ID,
		Store:        cfg.Store,
		Sessions:     manager,
		Metrics:      metrics,
		StoreTimeout: cfg.Cluster.StoreTimeout,
		InGrace:      manager.InGrace,
		Breakers:     cfg.Store.Breakers,
		AuditDropped: r.auditDropped(),
		Logger:       log,
		LogLevel:     cfg.LogLevel,
		MaxSessions:  cfg.Cluster.MaxSessions,
		Streams:      func() admin.Streams { return admin.Streams(r.proxy.Streams()) },
		InFlight:     func() admin.InFlight { return admin.InFlight(r.proxy.InFlight()) },
		Keys:         r.keys(),

		SweepInterval: cfg.Cleanup.Interval,
		Leadership:    r.leadership(),
	})
	if err != nil {
		return nil, err
	}
	r.admin = health
	r.roster = r.newRoster(cfg)
	r.handler = r.closeWhenStopping(r.proxy)
	return r, nil
}

// Handler serves MCP clients. It works while Run does.
func (r *Replica) Handler() http.Handler { return r.handler }

// Run serves clients on listener, and the admin port on adminListener unless that is nil, until ctx ends. Then it stops
// in order, within Config.Drain's Timeout: not ready, but serving on; then no new connections, streams told to come back (to
// another replica), requests in flight finished or, shortly before the end, cut off; the leader resigns, a last report to
// the store. It closes the listeners, and returns nil after such an end. Any other end is an error, and ends all parts. Run
// may be called once.
func (r *Replica) Run(ctx context.Context, listener, adminListener net.Listener) error {
	late := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx, listener, adminListener, func() { close(late) }) }()
	select {
	case err := <-ended:
		r.proxy.Close()
		return err
	case <-late:
		// Nobody waits for it any longer; what it holds goes with the process.
		r.log.Warn("the replica ends before all of its parts have")
		return nil
	}
}

// inOutage is the manager's, for what is made before it.
func (r *Replica) inOutage(sent time.Time) bool { return r.manager.InOutage(sent) }

// auditDropped tells how many audit records the stream has lost; it is nil where there is no stream.
func (r *Replica) auditDropped() func() int64 {
	if r.audit == nil {
		return nil
	}
	return r.audit.Dropped
}

// run is Run without its bound. It has late called when that is reached.
func (r *Replica) run(ctx context.Context, listener, adminListener net.Listener, late func()) error {
	// Before the first request, if the store is there: nothing must be written into a layout that is not ours.
	if err := r.claimLayout(ctx); errors.Is(err, redisstore.ErrLayout) {
		return err
	}
	// What the requests in flight need (the report loop, the probe, the admin port) outlives ctx until they are done.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	parts, failed := errgroup.WithContext(background)
	run := func(name string, part func(context.Context) error) {
		parts.Go(func() error { return r.guarded(failed, name, part) })
	}

	server := proxy.NewServer(r.handler, r.limits)
	server.ErrorLog = slog.NewLogLogger(r.log.Handler(), slog.LevelWarn)
	loop := func(name string, part func(context.Context) error) {
		run(name, func(ctx context.Context) error { return sweeper.Supervise(ctx, name, r.log, r.metrics, part) })
	}
	loop("report loop", r.manager.Run)
	loop("store probe", r.admin.Run)
	loop("store layout", r.keepLayout)
	loop("memory policy check", r.checkMemoryPolicy)
	loop("cleanup watch", r.admin.Watch)
	loop("roster", r.roster.run)
	loop("upstreams' endpoints", r.proxy.RunEndpoints)
	loop("streams", r.proxy.RunStreams)
	loop("farewells to upstreams", r.proxy.RunFarewells)
	loop("authentication", r.gate.Run)
	if r.sweeper != nil {
		loop("sweeper", r.sweeper.Run)
	} else {
		loop("leader lookout", r.lookout.run)
	}
	if r.recorder != nil {
		loop("recorder", r.recorder.Run)
	}
	if r.audit != nil {
		loop("audit stream", r.audit.Run)
	}
	front := newFront(server, listener)
	run("proxy", func(context.Context) error {
		if err := front.serve(); !r.stopping.Load() {
			return err
		}
		return nil // its listener was closed
	})
	if adminListener != nil {
		adminServer := newAdminServer(r.admin.Handler())
		run("admin port", func(context.Context) error { return serve(adminServer, adminListener) })
		run("admin port's end", func(ctx context.Context) error {
			<-ctx.Done()
			return adminServer.Close()
		})
	}
	unbound := func() bool { return true }
	run("shutdown", func(failed context.Context) error {
		select {
		case <-ctx.Done():
		case <-failed.Done():
		}
		s := r.timing.schedule(time.Now())
		unbound = time.AfterFunc(time.Until(s.end), late).Stop
		r.drain(failed, front, s)
		stopBackground()
		return nil
	})
	r.admin.SetServing(true)
	err := parts.Wait()
	unbound()
	return err
}

// guarded runs a part. A panic in it is logged with its stack and becomes an error, so that the replica stops in order and
// says why, instead of going on without the part or taking the process down in the middle of other requests.
func (r *Replica) guarded(ctx context.Context, name string, part func(context.Context) error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			r.log.ErrorContext(ctx, "panic: the replica stops", "part", name, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: panic: %v", name, panicked)
		}
	}()
	if err := part(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// serve serves until the server is shut down.
func serve(server *http.Server, listener net.Listener) error {
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newAdminServer returns a server for short requests from machines: everything about it is bounded.
func newAdminServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}
