package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/replica"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/tracing"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func newServeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run one replica",
		Long: `Runs one replica of the proxy until SIGTERM or SIGINT. Then it drains, within --drain-timeout: /readyz says
no while it serves on for --drain-delay; then streams are told to come back, requests in flight are finished, and
those that take too long are told that they may have run. Exit status 0. A second signal ends it at once, by that
signal, unless it comes within half a second, as a repetition of the first. A store that is away at start is
waited for: /readyz says so.

Each setting is a flag, an environment variable and a YAML key: --max-sessions, SHADOWCAT_MAX_SESSIONS,
max_sessions. The flag wins over the environment, the environment over the file, the file over the default.`,
		Example: `  shadowcat-cluster serve --upstream http://127.0.0.1:9000/mcp
  shadowcat-cluster serve --redis rediss://redis.internal:6380 --upstream files=http://files:8080/mcp \
    --upstream search=http://search:8080/mcp --listen :8081
  shadowcat-cluster serve --upstream http://files-1:8080/mcp,http://files-2:8080/mcp
  shadowcat-cluster serve --upstream dns+http://files.default.svc.cluster.local:8080/mcp
  shadowcat-cluster serve --config shadowcat.yaml --log-level debug`,
		Args: noArgs,
	}
	load := addSettings(command, settings.ScopeServe)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		if err != nil {
			return err
		}
		if err := s.CheckServe(); err != nil {
			return usage(err)
		}
		level := new(slog.LevelVar)
		level.Set(s.LogLevel)
		return serve(command.Context(), s, newLogger(command.ErrOrStderr(), level, s.LogFormat), level)
	}
	return command
}

// serve runs one replica until a signal or the end of ctx. level is that of log, to be changed while it runs.
func serve(ctx context.Context, s settings.Settings, log *slog.Logger, level *slog.LevelVar) (err error) {
	if s.ReplicaID == "" {
		s.ReplicaID = newReplicaID()
	}
	spans, err := tracing.Start(ctx, tracing.Service{Version: version, Instance: s.ReplicaID}, log.With("replica", s.ReplicaID))
	if err != nil {
		return usage(err)
	}
	defer spans.Close()
	store, err := redisstore.Open(s.Redis, redisstore.Options{
		Prefix: s.Prefix, Partitions: s.Partitions, Config: s.Cluster, TLS: s.RedisTLS, Passwords: s.RedisPasswords,
		WaitReplicas: s.WaitReplicas, AuditStream: s.AuditStream,
		Tracing: spans.Provider(), Logger: log,
	})
	if err != nil {
		return usage(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	r, err := replica.New(replica.Config{
		ID:      s.ReplicaID,
		Store:   store,
		Cluster: s.Cluster,
		Proxy:   proxyConfig(s),
		Build:   build(),
		Logger:  log,
		Cleanup: cleanup(s),
		Auth:    s.Auth,
		Server: proxy.ServerLimits{
			HeaderTimeout: s.HeaderTimeout, IdleTimeout: s.ConnectionIdleTimeout, MaxHeader: int(s.MaxHeader),
		},
		Drain: replica.Drain{Delay: s.DrainDelay, Timeout: s.DrainTimeout},

		LogLevel:  level,
		Tracing:   spans.Provider(),
		Recording: replica.Recording{Mode: s.Recording, Redact: s.RecordingRedact, RedactHeaders: s.RecordingRedactHeaders},
	})
	if err != nil {
		return usage(err)
	}
	log = log.With("replica", s.ReplicaID)

	listener, err := listen(ctx, "listen", s.Listen)
	if err != nil {
		return err
	}
	defer listener.Close() // Run closes it too, but for errors before
	var adminListener net.Listener
	if s.AdminListen != "" {
		if adminListener, err = listen(ctx, "admin_listen", s.AdminListen); err != nil {
			return err
		}
		defer adminListener.Close()
	}
	logStart(log, s, listener, adminListener)
	warnIfOpen(log, s, listener)

	ctx, release := untilSignal(ctx, func() { log.Info("stopping: finishing requests in flight") })
	defer release()
	if err := r.Run(ctx, listener, adminListener); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// signalRepeats is for how long after the first signal others are taken for the same one. Terminals, shells and supervisors that
// signal a process as well as its group send two within milliseconds; a person who has had enough takes longer than that.
const signalRepeats = 500 * time.Millisecond

// untilSignal returns a context that ends at the first signal or with ctx, after announce has returned. From signalRepeats later on
// signals do what they do by default, so that a second one ends the process at once. release undoes it all.
func untilSignal(ctx context.Context, announce func()) (running context.Context, release func()) {
	signalled, restore := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(signalled, func() {
		time.AfterFunc(signalRepeats, restore) // once more after release does no harm
		announce()
		stop()
	})
	return running, func() {
		unhook()
		restore()
		stop()
	}
}

func proxyConfig(s settings.Settings) proxy.Config {
	cfg := proxy.Config{
		AllowedOrigins: s.AllowedOrigins,
		AllowedHosts:   s.AllowedHosts,
		Listen:         s.Listen,
		MaxBody:        s.MaxBody,
		BodyTimeout:    s.BodyTimeout,
		Capacity:       proxy.Capacity{Requests: s.ReplicaMaxRequests, Bytes: s.ReplicaMaxBytes, Streams: s.ReplicaMaxStreams},

		InitializeTimeout: s.Cluster.InitializeTimeout,

		CheckInterval:  s.UpstreamCheckInterval,
		NoRecover:      !s.Recover,
		FollowInterval: s.FollowInterval,
		KeepAlive:      s.StreamKeepAlive,
		NoKeepAlive:    s.StreamKeepAlive == 0,
	}
	for _, u := range s.Upstreams {
		cfg.Upstreams = append(cfg.Upstreams, proxy.Upstream{Name: u.Name, URL: u.URL, More: u.More})
	}
	return cfg
}

func cleanup(s settings.Settings) replica.Cleanup {
	c := replica.Cleanup{
		Off:      !s.Sweeper,
		Interval: s.SweepInterval,
		Batch:    s.SweepBatch,
		LockTTL:  s.LeaderTTL,

		EmergencyAbove: float64(s.EmergencyPercent) / 100,
	}
	if s.EmergencyPercent == 0 {
		c.EmergencyAbove = -1 // never
	}
	return c
}

// listen names the setting in its error.
func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return listener, nil
}

// logStart says, once, where everything is.
func logStart(log *slog.Logger, s settings.Settings, listener, adminListener net.Listener) {
	adminAddress := "off"
	if adminListener != nil {
		adminAddress = adminListener.Addr().String()
	}
	upstreams := make([]any, 0, len(s.Upstreams))
	for _, u := range s.Upstreams {
		endpoints := []string{withoutSecrets(u.URL)}
		for _, more := range u.More {
			endpoints = append(endpoints, withoutSecrets(more))
		}
		upstreams = append(upstreams, slog.String(proxy.Upstream{Name: u.Name}.Path(), strings.Join(endpoints, ",")))
	}
	log.Info("listening",
		"address", listener.Addr().String(),
		"admin", adminAddress,
		"redis", redisstore.RedactURL(s.Redis),
		"prefix", s.Prefix,
		"auth", s.Auth.Mode,
		slog.Group("upstreams", upstreams...),
		"version", version,
	)
}

// warnIfOpen warns where whoever reaches this machine is let in.
func warnIfOpen(log *slog.Logger, s settings.Settings, listener net.Listener) {
	address, isTCP := listener.Addr().(*net.TCPAddr)
	if s.Auth.Mode == auth.ModeNone && isTCP && !address.IP.IsLoopback() {
		log.Warn("whoever reaches this address is let in, because auth.mode is none: set it, or make sure that only those reach it who may",
			"address", address.String())
	}
}

// withoutSecrets is an upstream's URL as it may be logged: a query may hold an API key.
func withoutSecrets(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// newReplicaID names this replica after its host. The random part tells apart replicas on one host, and a pod from the
// one before.
func newReplicaID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "replica"
	}
	return host + "-" + strings.ToLower(rand.Text()[:6])
}
