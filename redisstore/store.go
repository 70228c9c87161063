package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// backstop is how long a key outlives the moment by which a sweeper should have removed it.
const backstop = time.Hour

// Options configures a Store.
type Options struct {
	// Prefix begins every key. Default [DefaultPrefix].
	Prefix string
	// Config holds the session limits. All replicas of a cluster must use the same.
	Config cluster.Config
	// Partitions is the number of slices that the session space is cut into, 1 to [MaxPartitions]. All replicas must use
	// the same, for as long as the store holds sessions. Default 1, on a Redis Cluster [DefaultClusterPartitions].
	Partitions int
	// TLS names files for rediss…:// URLs. It is an error to name one with another URL. [New] ignores it.
	TLS TLSFiles
	// Passwords names files that hold what the URL would else. It is an error to give a password both ways. [New] ignores it.
	Passwords PasswordFiles
	// WaitReplicas is how many Redis replicas must have a session's creation, activation or end by Terminate, its events, notes and
	// claims, before they count (what cleanup ends does not wait), 0 to [MaxWaitReplicas]: then a failover to one of them forgets none of these. When fewer confirm in
	// time, the call is a [cluster.ErrStoreUnavailable]. Default 0: a failover may lose what was not replicated yet.
	WaitReplicas int
	// AuditStream is how many records an [AuditStream] keeps, about. Default 0: there is none.
	AuditStream int
	// Tracing is given spans of the commands that serve a span of the caller's, under that one. They hold no key and no argument. [New]
	// traces no commands: the client is the caller's. Default: nothing is traced.
	Tracing trace.TracerProvider
	// Logger default: discards.
	Logger *slog.Logger
}

// MaxWaitReplicas bounds Options.WaitReplicas.
const MaxWaitReplicas = 16

// Store keeps sessions in Redis. It is safe for concurrent use and implements [cluster.Store].
type Store struct {
	client     redis.UniversalClient
	cfg        cluster.Config
	log        *slog.Logger
	tracer     trace.Tracer // nil: nothing is traced
	prefix     string
	partitions []partition
	tls        bool // connections may be dead without the client's noticing
	// waitReplicas is Options.WaitReplicas.
	waitReplicas int
	auditStream  int                // how many records it keeps, 0: there is none; Adopt changes it
	onPurge      func([]cluster.ID) // may be nil
	observer     Observer
	breakers     breakers
	connections  *connections // nil: the client is the caller's
	close        func() error
}

var _ cluster.Store = (*Store)(nil)

// Open returns a store at a URL. It does not connect: a server that is away is noticed by the first call, or by
// [Store.Ping]. The caller closes the store.
//
// Errors: a malformed URL, a password or TLS file that cannot be read or does not fit, a bad prefix, bad limits, a number of
// partitions that does not fit them. No error holds the URL's password or what is in a file.
func Open(rawURL string, opts Options) (*Store, error) {
	if rawURL == EmbeddedURL {
		return openEmbedded(opts)
	}
	t, err := parseURL(rawURL, opts.Config.StoreTimeout)
	if err != nil {
		return nil, err
	}
	if err := t.secure(opts.TLS, opts.Logger); err != nil {
		return nil, err
	}
	if err := t.authenticate(opts.Passwords, opts.Logger); err != nil {
		return nil, err
	}
	opts.Partitions = cmp.Or(opts.Partitions, t.topology.defaultPartitions())
	known := newConnections()
	client := t.client(known)
	if opts.Tracing != nil {
		if err := traceCommands(client, opts.Tracing); err != nil {
			return nil, errors.Join(err, client.Close())
		}
	}
	s, err := New(client, opts)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	s.close, s.tls, s.connections = client.Close, t.options.TLSConfig != nil, known
	return s, nil
}

func openEmbedded(opts Options) (*Store, error) {
	if opts.Passwords != (PasswordFiles{}) {
		return nil, errPasswordEmbedded
	}
	server, err := StartEmbedded()
	if err != nil {
		return nil, err
	}
	s, err := Open(server.URL(), opts)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	closeClient := s.close
	s.close = func() error { return errors.Join(closeClient(), server.Close()) }
	return s, nil
}

// New returns a store on a client of the caller's, who also closes it. Commands that change something are never retried
// by the client, whatever its MaxRetries: after a lost reply a script would run twice. The client should have
// ContextTimeoutEnabled, or calls take as long as its own timeouts. Errors: as for [Open].
func New(client redis.UniversalClient, opts Options) (*Store, error) {
	prefix := cmp.Or(opts.Prefix, DefaultPrefix)
	partitions := cmp.Or(opts.Partitions, 1)
	if _, isCluster := client.(*redis.ClusterClient); isCluster && opts.Partitions == 0 {
		partitions = DefaultClusterPartitions
	}
	if err := errors.Join(checkPrefix(prefix), opts.Config.Validate(), checkPartitions(partitions, opts.Config), checkWait(client, opts.WaitReplicas)); err != nil {
		return nil, err
	}
	s := &Store{
		client:       client,
		cfg:          opts.Config,
		log:          cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)),
		prefix:       prefix,
		partitions:   makePartitions(prefix, partitions, opts.Config.MaxSessions),
		waitReplicas: opts.WaitReplicas,
		auditStream:  opts.AuditStream,
		observer:     noObserver{},
		close:        func() error { return nil },
	}
	if opts.Tracing != nil {
		s.tracer = opts.Tracing.Tracer(tracerName)
	}
	s.makeBreakers()
	return s, nil
}

func checkPartitions(n int, cfg cluster.Config) error {
	switch {
	case n < 1 || n > MaxPartitions:
		return fmt.Errorf("partitions: %d is not in 1 to %d partitions", n, MaxPartitions)
	case cfg.MaxSessions > 0 && cfg.MaxSessions < n:
		return fmt.Errorf("max_sessions: %d is less than partitions (%d), so some could hold no session", cfg.MaxSessions, n)
	}
	return nil
}

func checkWait(client redis.UniversalClient, n int) error {
	if n < 0 || n > MaxWaitReplicas {
		return fmt.Errorf("wait_replicas: %d is not in 0 to %d replicas of Redis", n, MaxWaitReplicas)
	}
	switch client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return nil
	default:
		if n > 0 {
			return fmt.Errorf("wait_replicas: not possible with a %T", client)
		}
		return nil
	}
}

// Ping asks the server, of a Redis Cluster one of them, for a sign of life. A single server that answers, but was away and is still being
// probed, is not back yet. The error is a [cluster.ErrStoreUnavailable].
func (s *Store) Ping(ctx context.Context) error {
	begun := time.Now()
	err := s.client.Ping(ctx).Err()
	if err != nil {
		err = unavailable(err)
	}
	if len(s.breakers.parts) > 1 {
		return err // which of them was it?
	}
	part := s.breakers.parts[0]
	if v := s.judge(err, time.Since(begun)); v == failed { // not the opposite: a server that takes no writes answers, too
		s.tell(part, v, err, begun)
	}
	if part.isOpen.Load() {
		now := time.Now()
		if s.startProbe(part, now); err == nil {
			return part.refusal(now) // it answers, but nothing else is asked of it yet
		}
	}
	return err
}

// MemoryPolicy returns the server's maxmemory-policy. Managed servers often refuse to tell: then the error says so.
func (s *Store) MemoryPolicy(ctx context.Context) (string, error) {
	values, err := s.client.ConfigGet(ctx, "maxmemory-policy").Result()
	if err != nil {
		return "", fmt.Errorf("reading maxmemory-policy: %w", err)
	}
	return values["maxmemory-policy"], nil
}

// Close releases the connections, but for those of a client that is the caller's.
func (s *Store) Close() error {
	s.endProbes()
	return s.close()
}

// idleMillis is the time from a session's last activity to its end; 0: never.
func (s *Store) idleMillis() int64 {
	if s.cfg.IdleTimeout == 0 {
		return 0
	}
	return (s.cfg.IdleTimeout + s.cfg.ReportSlack).Milliseconds()
}

// lifetimeMillis is the TTL of a live session's keys, in case nobody ever cleans up.
func (s *Store) lifetimeMillis() int64 {
	return (cmp.Or(s.cfg.MaxAge, cluster.MaxDuration) + s.cfg.Retention + backstop).Milliseconds()
}

// intervalMicros is the time between two of so many a second, rounded so that the rate is never exceeded; 0: no limit.
func intervalMicros(rate int) int64 {
	if rate == 0 {
		return 0
	}
	return (time.Second.Microseconds() + int64(rate) - 1) / int64(rate)
}
