package sweeper_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

const (
	interval = 5 * time.Second // of sweeps, the default
	slack    = 2 * time.Second // the default
)

// cleaner is a replica's sweeper inside a synctest bubble.
type cleaner struct {
	t       *testing.T
	w       *electorate
	store   *redisstore.Store // its own way to the server
	gate    *gate
	seen    *cleanupWitness
	log     *journal
	auditor *auditor
	sweeper *sweeper.Sweeper
	cancel  context.CancelFunc
	done    chan error
}

// cleaner starts a sweeper.
func (w *electorate) cleaner(name string, change ...func(*sweeper.Config)) *cleaner {
	w.t.Helper()
	c := &cleaner{t: w.t, w: w, gate: &gate{}, seen: &cleanupWitness{witness: &witness{t: w.t}}, log: &journal{}, auditor: &auditor{}}
	c.store = w.store(&link{})
	c.store.Client().AddHook(c.gate)
	cfg := sweeper.Config{
		Store: c.store, Incarnation: name, Observer: c.seen, Auditor: c.auditor,
		Logger: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if c.sweeper, err = sweeper.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(w.t.Context())
	c.done = make(chan error, 1)
	go func() { c.done <- c.sweeper.Run(ctx) }()
	w.t.Cleanup(c.stop)
	return c
}

func (c *cleaner) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	if err := <-c.done; err != nil {
		c.t.Errorf("Run: %v", err)
	}
	c.cancel = nil
}

// elected waits until it leads, and returns since when.
func (c *cleaner) elected() time.Time {
	c.t.Helper()
	for range 10_000 {
		if s := c.sweeper.Status(); s.IsLeader {
			return c.seen.ledSince()
		}
		c.w.pass(5 * time.Millisecond)
	}
	c.t.Fatal("it is not elected")
	return time.Time{}
}

// sessions makes sessions that are due after the initialize timeout.
func (w *electorate) sessions(n int) []cluster.ID {
	w.t.Helper()
	// Not the electorate's own store: its limits on creations would do.
	cfg := cluster.DefaultConfig()
	cfg.CreateRate, cfg.MaxSessions = 0, 0
	store, err := redisstore.New(w.keys.Client(), redisstore.Options{Config: cfg})
	if err != nil {
		w.t.Fatal(err)
	}
	ids := make([]cluster.ID, n)
	for i := range ids {
		created, err := store.Create(w.t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
		if err != nil {
			w.t.Fatal(err)
		}
		ids[i] = created.Session.ID
	}
	return ids
}

// due makes sessions that are due now.
func (w *electorate) due(n int) []cluster.ID {
	w.t.Helper()
	ids := w.sessions(n)
	w.pass(cluster.DefaultConfig().InitializeTimeout)
	return ids
}

func (w *electorate) stats() cluster.Stats {
	w.t.Helper()
	stats, err := w.keys.Stats(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return stats
}

var errGate = errors.New("the gate is closed")

// gate lets no script through that works on partitions, while it is closed. The lock is behind no gate.
type gate struct {
	mu     sync.Mutex
	closed bool
}

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
}

func (g *gate) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errGate
	}
	return nil
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := g.err(); err != nil && (cmds[0].Name() == "evalsha" || cmds[0].Name() == "eval") {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

// swept is one sweep as an observer hears of it.
type swept struct {
	at              time.Time
	expired, purged int
}

// cleanupWitness is a CleanupObserver that remembers.
type cleanupWitness struct {
	*witness

	more   sync.Mutex
	since  time.Time
	sweeps []swept
	failed int
	fenced int
	mended []cluster.RepairKind
	begun  time.Time // of the first walk that mended
	looks  int       // at memory
}

func (o *cleanupWitness) LeaderChanged(isLeader bool, reason sweeper.Reason) {
	o.witness.LeaderChanged(isLeader, reason)
	o.more.Lock()
	defer o.more.Unlock()
	if isLeader {
		o.since = time.Now()
	}
}

func (o *cleanupWitness) ledSince() time.Time {
	o.more.Lock()
	defer o.more.Unlock()
	return o.since
}

func (o *cleanupWitness) Swept(expired, purged int, _ time.Duration) {
	o.more.Lock()
	defer o.more.Unlock()
	o.sweeps = append(o.sweeps, swept{time.Now(), expired, purged})
}

func (o *cleanupWitness) SweepFailed() {
	o.more.Lock()
	defer o.more.Unlock()
	o.failed++
}

func (o *cleanupWitness) Fenced() {
	o.more.Lock()
	defer o.more.Unlock()
	o.fenced++
}

func (o *cleanupWitness) Mended(kind cluster.RepairKind) {
	o.more.Lock()
	defer o.more.Unlock()
	if len(o.mended) == 0 {
		o.begun = time.Now()
	}
	o.mended = append(o.mended, kind)
}

func (o *cleanupWitness) Relieved(int, int, float64) {
	o.more.Lock()
	defer o.more.Unlock()
	o.looks++
}

// cleanup is a snapshot.
func (o *cleanupWitness) cleanup() (sweeps []swept, failed, fenced, looks int, mended []cluster.RepairKind) {
	o.more.Lock()
	defer o.more.Unlock()
	return slices.Clone(o.sweeps), o.failed, o.fenced, o.looks, slices.Clone(o.mended)
}

// busy are the sweeps that did something.
func (o *cleanupWitness) busy() []swept {
	all, _, _, _, _ := o.cleanup()
	return slices.DeleteFunc(all, func(s swept) bool { return s.expired+s.purged == 0 })
}

// auditor remembers audit records.
type auditor struct {
	mu      sync.Mutex
	records []cluster.Audit
}

func (a *auditor) Audited(record cluster.Audit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.records = append(a.records, record)
}

func (a *auditor) all() []cluster.Audit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.records)
}

// sweepsThatWorked tells how many sweeps did not fail.
func (o *cleanupWitness) sweepsThatWorked() int {
	all, failed, _, _, _ := o.cleanup()
	return len(all) - failed
}
