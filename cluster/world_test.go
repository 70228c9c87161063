package cluster_test

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store and replicas over it, inside a synctest bubble: time passes only when everything waits.
type world struct {
	t      *testing.T
	server *miniredis.Miniredis
	store  *faultyStore
	cfg    cluster.Config
}

// inWorld runs a test in a bubble with a real store on an embedded Redis, reached without a network.
func inWorld(t *testing.T, change func(*cluster.Config), test func(*testing.T, *world)) {
	t.Helper()
	cfg := cluster.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	synctest.Test(t, func(t *testing.T) {
		server := miniredis.NewMiniRedis()
		server.ClockTTL(true)
		t.Cleanup(func() {
			synctest.Wait() // the client dials in the background, also when nobody waits for the connection any more
			server.Close()
		})
		client := redis.NewClient(&redis.Options{
			Dialer:                   func(context.Context, string, string) (net.Conn, error) { return server.Dial() },
			MaxRetries:               -1,
			ContextTimeoutEnabled:    true,
			DisableIdentity:          true,
			PoolSize:                 1000, // who waits for a connection does so with a timer that other bubbles may have used
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		t.Cleanup(func() { _ = client.Close() })
		store, err := redisstore.New(client, redisstore.Options{Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		test(t, &world{t: t, server: server, store: &faultyStore{Store: store}, cfg: cfg})
	})
}

// faultyStore is the real store, counted, and cut off on demand.
type faultyStore struct {
	cluster.Store
	mu      sync.Mutex
	away    bool
	notSent bool // while it is away, the store knows that it was not even asked
	lost    bool // calls happen, their replies are lost
	late    bool // reports are kept and their senders give up
	kept    []cluster.Report
	delay   time.Duration // of a lease, each way, and of a grant
	leases  int
	told    int // of the leases, those that were told the record
	grants  int
	reports []cluster.Report
	checks  int
}

func (f *faultyStore) set(away, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.lost = away, lost
}

// fault is what a call fails with before it is made, nil when it is made.
func (f *faultyStore) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.away:
		return nil
	case f.notSent:
		return cluster.ErrNotSent
	default:
		return cluster.ErrStoreUnavailable
	}
}

func (f *faultyStore) Beat(ctx context.Context, incarnation string) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Store.Beat(ctx, incarnation)
}

func (f *faultyStore) Lease(ctx context.Context, c cluster.LeaseCall) (cluster.Grant, error) {
	f.mu.Lock()
	f.leases++
	f.mu.Unlock()
	if err := f.fault(); err != nil {
		return cluster.Grant{}, err
	}
	<-time.After(f.delay)
	grant, err := f.Store.Lease(ctx, c)
	<-time.After(f.delay)
	if err == nil && !grant.IsKnown {
		f.mu.Lock()
		f.told++
		f.mu.Unlock()
	}
	return grant, err
}

func (f *faultyStore) Report(ctx context.Context, reports []cluster.Report) []cluster.Renewal {
	f.mu.Lock()
	f.reports = append(f.reports, reports...)
	if f.late {
		f.kept = append(f.kept, reports...)
	}
	late, lost := f.late || ctx.Err() != nil, f.lost
	f.mu.Unlock()
	fault := f.fault()
	var renewals []cluster.Renewal
	if fault == nil && !late {
		renewals = f.Store.Report(ctx, reports)
	}
	if fault != nil || late || lost {
		renewals = make([]cluster.Renewal, len(reports))
		for i := range renewals {
			renewals[i].Err = cmp.Or(fault, cluster.ErrStoreUnavailable)
		}
	}
	return renewals
}

func (f *faultyStore) Check(ctx context.Context, ids []cluster.ID) []error {
	f.mu.Lock()
	f.checks += len(ids)
	f.mu.Unlock()
	if err := f.fault(); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return f.Store.Check(ctx, ids)
}

func (f *faultyStore) OpenStream(ctx context.Context, o cluster.OpenStream, most int, superseded time.Duration) ([]cluster.OpenStream, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.Store.OpenStream(ctx, o, most, superseded)
}

func (f *faultyStore) CloseStreams(ctx context.Context, closed []cluster.OpenStream) []error {
	if err := f.fault(); err != nil {
		return slices.Repeat([]error{err}, len(closed))
	}
	return f.Store.CloseStreams(ctx, closed)
}

func (f *faultyStore) GrantRequests(ctx context.Context, p cluster.Principal, want int) (int, error) {
	f.mu.Lock()
	f.grants++
	f.mu.Unlock()
	<-time.After(f.delay)
	if err := f.fault(); err != nil {
		return 0, err
	}
	return f.Store.GrantRequests(ctx, p, want)
}

func (f *faultyStore) counted() (leases, reports, checks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leases, len(f.reports), f.checks
}

// replica starts a Manager with its report loop; stop ends it cleanly.
func (w *world) replica() (m *cluster.Manager, stop func()) {
	w.t.Helper()
	return w.replicaWith(cluster.Options{})
}

func (w *world) replicaWith(options cluster.Options) (m *cluster.Manager, stop func()) {
	w.t.Helper()
	m, err := cluster.NewManager(w.store, w.cfg, options)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return m, stop
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (w *world) session(m *cluster.Manager) (cluster.Session, cluster.Token) {
	w.t.Helper()
	s, token, err := m.Create(w.t.Context(), cluster.NewSession{Upstream: "u"})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err = m.Activate(w.t.Context(), s, cluster.Activation{UpstreamSession: "x", Revision: "2025-11-25"})
	if err != nil {
		w.t.Fatal(err)
	}
	return s, token
}

var use = cluster.Use{Upstream: "u"}

func (w *world) serve(m *cluster.Manager, token cluster.Token) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, use)
	if err != nil {
		w.t.Fatalf("Lease: %v", err)
	}
	l.Release()
}
