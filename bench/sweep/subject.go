package main

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by it
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/lua"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

const (
	// writers make sessions at once; more do not make a server of one thread any faster.
	writers = 64
	// leasedSessions are those that callers use.
	leasedSessions = 1000
	// sweepTimeout bounds a sweep; one that takes so long does not work.
	sweepTimeout = time.Minute
)

// subject is a server, its sessions, and who uses them.
type subject struct {
	server *redisserver.Server
	store  *redisstore.Store // patient, with many connections
	hasty  *redisstore.Store // what it leases is due at once
	leased []cluster.LeaseCall
	doomed []cluster.LeaseCall // of all rounds to come
}

// newSubject fills a server. The caller must close what it returns, with an error, too.
func newSubject(ctx context.Context, p plan, sessions int) (*subject, error) {
	s := &subject{}
	var err error
	if s.server, err = redisserver.Start(ctx, redisserver.Options{}); err != nil {
		return s, err
	}
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.CreateRate, cfg.RequestRate, cfg.IdleTimeout, cfg.StoreTimeout = 0, 0, 0, cfg.MaxAge, 10*time.Second
	url := s.server.URL() + "?pool_size=" + strconv.Itoa(writers+p.callers)
	if s.store, err = redisstore.Open(url, redisstore.Options{Config: cfg}); err != nil {
		return s, err
	}
	cfg.Lease, cfg.IdleTimeout = 0, time.Millisecond
	cfg.ReportInterval, cfg.ReportSlack = 10*time.Millisecond, 10*time.Millisecond
	if s.hasty, err = redisstore.Open(url, redisstore.Options{Config: cfg}); err != nil {
		return s, err
	}
	s.doomed, s.leased = make([]cluster.LeaseCall, p.due*p.rounds), make([]cluster.LeaseCall, leasedSessions)
	err = inParallel(ctx, sessions+len(s.doomed), func(ctx context.Context, i int) error {
		made, err := s.newSession(ctx)
		switch nth := i - sessions; {
		case nth >= 0:
			s.doomed[nth] = made
		case i < leasedSessions:
			s.leased[i] = made
		}
		return err
	})
	if err != nil {
		return s, err
	}
	// The slow log tells what each script of cleanup took. The threshold keeps most of the callers' out of it; a batch of
	// cleanup that ends more than a few sessions takes longer.
	client := s.server.Client()
	err = errors.Join(client.ConfigSet(ctx, "slowlog-max-len", "100000").Err(), client.ConfigSet(ctx, "slowlog-log-slower-than", "60").Err())
	return s, errors.Join(err, client.Close())
}

// newSession makes an active session, and returns the call that leases it.
func (s *subject) newSession(ctx context.Context) (cluster.LeaseCall, error) {
	created, err := s.store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{
		Upstream: "files", Endpoint: "10.20.30.40:8080", ClientName: "mcp-inspector", ClientVersion: "0.17.2",
	}})
	if err != nil {
		return cluster.LeaseCall{}, err
	}
	_, err = s.store.Update(ctx, cluster.Change{
		ID: created.Session.ID, ExpectedVersion: created.Session.Version, Writer: "ABCDEFGHIJKLM",
		Activation: cluster.Activation{UpstreamSession: "0123456789ABCDEFGHIJKLMNOP", Revision: "2025-11-25"},
	})
	return cluster.LeaseCall{ID: created.Session.ID, Digest: created.Token.Digest(), Upstream: "files", Need: 1, Want: 1}, err
}

// inParallel calls do for 0 to n-1, many at a time.
func inParallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for writer := range writers {
		group.Go(func() error {
			for i := writer; i < n; i += writers {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *subject) close() error {
	var errs []error
	for _, store := range []*redisstore.Store{s.store, s.hasty} {
		if store != nil {
			errs = append(errs, store.Close())
		}
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}

// round lets sessions come due, and times callers before, while and after they are swept.
func (s *subject) round(ctx context.Context, p plan, f *figures) error {
	due := s.doomed[:p.due]
	s.doomed = s.doomed[p.due:]
	err := inParallel(ctx, len(due), func(ctx context.Context, i int) error {
		_, err := s.hasty.Lease(ctx, due[i])
		return err
	})
	if err != nil {
		return err
	}
	before, err := s.call(ctx, p, func(ctx context.Context) error { return wait(ctx, p.idle) })
	if err != nil {
		return err
	}
	var swept time.Duration
	during, err := s.call(ctx, p, func(ctx context.Context) (err error) {
		swept, err = s.sweep(ctx, p.due)
		return err
	})
	if err != nil {
		return err
	}
	after, err := s.call(ctx, p, func(ctx context.Context) error { return wait(ctx, p.idle) })
	if err != nil {
		return err
	}
	base := quantile(before, 0.99)
	f.sweeps = append(f.sweeps, swept)
	f.before = append(f.before, base)
	f.during = append(f.during, quantile(during, 0.99).Seconds()/base.Seconds())
	f.after = append(f.after, quantile(after, 0.99).Seconds()/base.Seconds())
	scripts, err := s.scripts(ctx)
	f.scripts = append(f.scripts, scripts...)
	return err
}

// call leases sessions while work is done, and returns how long each call took.
func (s *subject) call(ctx context.Context, p plan, work func(context.Context) error) ([]time.Duration, error) {
	callers, callCtx := errgroup.WithContext(ctx)
	var isDone atomic.Bool
	took := make([][]time.Duration, p.callers)
	for caller := range p.callers {
		callers.Go(func() error { // ends when the work has
			for i := caller; !isDone.Load(); i += p.callers {
				begun := time.Now()
				if _, err := s.store.Lease(callCtx, s.leased[i%len(s.leased)]); err != nil {
					return err
				}
				took[caller] = append(took[caller], time.Since(begun))
				if p.pause > 0 {
					if err := wait(callCtx, p.pause); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	err := work(callCtx)
	isDone.Store(true)
	err = errors.Join(callers.Wait(), err)
	var all []time.Duration
	for _, some := range took {
		all = append(all, some...)
	}
	if err == nil && len(all) == 0 {
		err = errors.New("there was no time for a single call")
	}
	return all, err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sweep runs a sweeper until it has ended all that is due, and returns how long it took from its first script to its last. It goes
// by the limits under which sessions came due, or its reconciler would give them the time that they have lost.
func (s *subject) sweep(ctx context.Context, due int) (time.Duration, error) {
	ctx, stop := context.WithTimeoutCause(ctx, sweepTimeout, fmt.Errorf("the sweep of %d sessions takes over %s", due, sweepTimeout))
	defer stop()
	done := &progress{due: due, all: make(chan struct{})}
	w, err := sweeper.New(sweeper.Config{
		Store: s.hasty, Incarnation: "bench", Slack: time.Millisecond, LockTTL: sweeper.MinTTL, Observer: done, EmergencyAbove: -1,
	})
	if err != nil {
		return 0, err
	}
	running := make(chan error, 1)
	swept, end := context.WithCancel(ctx)
	go func() { running <- w.Run(swept) }() // ends below
	select {
	case <-done.all:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	end()
	return done.took(), errors.Join(err, <-running)
}

// scripts returns what the server says that scripts of cleanup took since it was last asked.
func (s *subject) scripts(ctx context.Context) ([]time.Duration, error) {
	client := s.server.Client()
	defer func() { _ = client.Close() }()
	entries, err := client.SlowLogGet(ctx, -1).Result()
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(lua.SessionsSweep)) //nolint:gosec // what the protocol says
	digest := hex.EncodeToString(sum[:])
	var took []time.Duration
	for _, e := range entries {
		if len(e.Args) > 1 && e.Args[1] == digest {
			took = append(took, e.Duration)
		}
	}
	if len(took) == 0 {
		err = errors.New("the server tells of no script of cleanup")
	}
	return took, cmp.Or(err, client.Do(ctx, "slowlog", "reset").Err())
}

// progress is told of what a sweeper has done. What else it is told, it does not heed.
type progress struct {
	due int
	all chan struct{} // closed when all that was due is gone

	mu          sync.Mutex
	expired     int
	begun, last time.Time
}

// Swept counts.
func (p *progress) Swept(expired, _ int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.begun.IsZero() {
		p.begun = now.Add(-took)
	}
	if p.expired >= p.due {
		return
	}
	if p.expired += expired; p.expired >= p.due {
		p.last = now
		close(p.all)
	}
}

func (p *progress) took() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last.Sub(p.begun)
}

// LeaderChanged does nothing.
func (*progress) LeaderChanged(bool, sweeper.Reason) {}

// Renewed does nothing.
func (*progress) Renewed(time.Duration, error) {}

// Panicked does nothing.
func (*progress) Panicked(string) {}

// SweepFailed does nothing.
func (*progress) SweepFailed() {}

// Fenced does nothing.
func (*progress) Fenced() {}

// Mended does nothing.
func (*progress) Mended(cluster.RepairKind) {}

// Relieved does nothing.
func (*progress) Relieved(int, int, float64) {}
