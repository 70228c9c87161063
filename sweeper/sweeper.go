package sweeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// Config is what a Sweeper is made of. Store and Incarnation are required; the zero value of all else is its default.
type Config struct {
	Store *redisstore.Store
	// Incarnation names this run of this replica.
	Incarnation string
	// Interval is how often the leader sweeps, give or take a fifth. Default 5s.
	Interval time.Duration
	// Batch is how many sessions of each kind one script takes at most: 1 to 1000. Default 100. The sweeper takes fewer, so
	// that a script takes mostly under a fifth of a millisecond of the server's time.
	Batch int
	// Slack is how long a new leader waits before its first sweep, so that activity that replicas have not reported yet
	// arrives before. Default 2s.
	Slack time.Duration
	// CallTimeout bounds each call of the store. Default 2s.
	CallTimeout time.Duration
	// LockTTL is how long a leader that dies goes on being one: see [ElectionConfig]. Default 10s.
	LockTTL time.Duration
	// MendInterval is the pause between two walks of the reconciler, at most: after one that could not see everything it is no
	// longer than 12 times Interval. Default 5m.
	MendInterval time.Duration
	// EmergencyAbove is the share of a server's memory limit above which sessions must go before their time. Default 0.9;
	// negative: never.
	EmergencyAbove float64
	// EvictMinIdle protects sessions that were active more recently from that.
	EvictMinIdle time.Duration
	// Expired is told of sessions that the sweeper has ended, so that their upstream sessions may be ended, too. It must return at once.
	Expired func([]cluster.Session)
	// InOutage tells which faults of the store are an outage, of which whoever runs the replica is told without the Sweeper: they are
	// logged at debug, and so is the end of a term for want of the store. Default: none are.
	InOutage cluster.InOutage
	// Logger default: discards.
	Logger *slog.Logger
	// Auditor is told of every session that was ended or purged, beside the log. Default: none.
	Auditor cluster.Auditor
	// Tracing is given a span of each sweep and of each look at the servers' memory. Default: nothing is traced.
	Tracing trace.TracerProvider
	// Observer default: none.
	Observer CleanupObserver
}

// CleanupObserver is told what a Sweeper does, for metrics. Like those of [Observer], its methods must return at once.
type CleanupObserver interface {
	Observer
	// Swept is called after each sweep: how many sessions it ended and purged, and how long the store took.
	Swept(expired, purged int, took time.Duration)
	// SweepFailed is called when a sweep did not work.
	SweepFailed()
	// Fenced is called when a later leader's fence refused a call.
	Fenced()
	// Mended is called for each piece of drift that was mended, with its kind.
	Mended(kind cluster.RepairKind)
	// Relieved is called after each look at the servers' memory: how many sessions had to go, and the highest share of a
	// memory limit in use.
	Relieved(purged, evicted int, usage float64)
}

type noCleanupObserver struct{ noObserver }

func (noCleanupObserver) Swept(int, int, time.Duration) {}
func (noCleanupObserver) SweepFailed()                  {}
func (noCleanupObserver) Fenced()                       {}
func (noCleanupObserver) Mended(cluster.RepairKind)     {}
func (noCleanupObserver) Relieved(int, int, float64)    {}

// How long everybody else has the server to themselves between two scripts.
const (
	pace      = 5 * time.Millisecond
	mendPace  = 100 * time.Millisecond
	mendBatch = 100
	// mendAgain is after how many intervals a walk that could not see everything is followed by the next.
	mendAgain = 12
	// relieveBatch is how many sessions of each slice of the session space emergency cleanup lets go at once: about half a
	// millisecond of the server's time, and so some 5,000 a second.
	relieveBatch = 30
	// givenUp is after how many intervals without one good sweep a leader resigns: another replica may reach what it cannot.
	givenUp = 3
)

// Sweeper cleans up, while its replica leads.
type Sweeper struct {
	cfg      Config
	log      *slog.Logger
	tracer   trace.Tracer
	observer CleanupObserver
	trail    cluster.Trail
	election *Election
}

// New returns a sweeper that has not started.
func New(cfg Config) (*Sweeper, error) {
	cfg.Interval = cmp.Or(cfg.Interval, 5*time.Second)
	cfg.Batch = cmp.Or(cfg.Batch, 100)
	cfg.Slack = cmp.Or(cfg.Slack, 2*time.Second)
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, 2*time.Second)
	cfg.MendInterval = cmp.Or(cfg.MendInterval, 5*time.Minute)
	cfg.EmergencyAbove = cmp.Or(cfg.EmergencyAbove, 0.9)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sweeper{cfg: cfg, log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)), observer: cfg.Observer}
	if s.observer == nil {
		s.observer = noCleanupObserver{}
	}
	if cfg.Tracing == nil {
		cfg.Tracing = noop.NewTracerProvider()
	}
	s.tracer = cfg.Tracing.Tracer(tracerName)
	s.trail = cluster.Trail{Log: s.log, Auditor: cfg.Auditor, Actor: cluster.ActorSweeper, By: cfg.Incarnation}
	var err error
	s.election, err = NewElection(ElectionConfig{
		Store: cfg.Store, Incarnation: cfg.Incarnation, TTL: cfg.LockTTL, Logger: s.log, Observer: s.observer, Caretaker: s.sweepOnce,
		InOutage: cfg.InOutage,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c Config) validate() error {
	var errs []error
	fails := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fails(c.Interval < 10*time.Millisecond || c.Interval > time.Hour, "sweep_interval: %s is not in 10ms to 1h", c.Interval)
	fails(c.Batch < 1 || c.Batch > redisstore.MaxSweepBatch, "sweep_batch: %d is not in 1 to %d sessions", c.Batch, redisstore.MaxSweepBatch)
	return errors.Join(errs...)
}

// Run stands for election, and cleans up while this replica leads, until ctx ends. Then another replica takes over at once.
func (s *Sweeper) Run(ctx context.Context) error { return s.election.Run(ctx, s.lead) }

// Status tells whether this replica leads, and whom it last saw leading.
func (s *Sweeper) Status() Status { return s.election.Status() }

// lead is one term. It ends with an error when this replica cannot clean up: then another should try.
func (s *Sweeper) lead(ctx context.Context, term *Term) error {
	if !pause(ctx, s.cfg.Slack) {
		return nil
	}
	loops, ctx := errgroup.WithContext(ctx)
	for _, l := range []struct {
		name string
		run  func(context.Context, *Term) error
	}{{"sweep", s.sweepLoop}, {"reconciler", s.mendLoop}, {"emergency cleanup", s.relieveLoop}} {
		// Each loop is started here, once a term, and ends with the term: lead waits for all of them.
		loops.Go(func() error {
			return Supervise(ctx, l.name, s.log, s.observer, func(ctx context.Context) error { return l.run(ctx, term) })
		})
	}
	return loops.Wait()
}

// call makes one call of the store under the term's epoch. A leader that is refused by a later epoch though its own term is not
// over, because a failover has made the store forget, takes a later one and goes on.
func (s *Sweeper) call(ctx context.Context, term *Term, do func(context.Context, cluster.Cleanup) error) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	err := do(bounded, cluster.Cleanup{Epoch: term.Epoch(), Leader: true})
	fence, isFenced := highestFence(err)
	if !isFenced {
		return err
	}
	s.observer.Fenced()
	s.log.Warn("refused by a later leader's fence", "epoch", term.Epoch(), "fence", fence)
	if err := term.Raise(bounded, fence); err != nil {
		return fmt.Errorf("taking a later epoch: %w", err)
	}
	return do(bounded, cluster.Cleanup{Epoch: term.Epoch(), Leader: true})
}

// highestFence returns the greatest epoch that a call was refused by: the slices of the session space have a fence each.
func highestFence(err error) (epoch int64, isFenced bool) {
	switch err := err.(type) { //nolint:errorlint // each level of the tree is looked at
	case *cluster.FencedError:
		return err.Epoch, true
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			fence, found := highestFence(one)
			epoch, isFenced = max(epoch, fence), isFenced || found
		}
		return epoch, isFenced
	case interface{ Unwrap() error }:
		return highestFence(err.Unwrap())
	default:
		return 0, false
	}
}

// pause waits, and reports whether it was for as long as it should.
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
