package integration_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// settledSessions spread over all partitions.
	settledSessions = 48
	loadWorkers     = 8
	// loadPause is what a worker leaves to the servers, and to other tests, after about twenty calls.
	loadPause = 5 * time.Millisecond
	// failurePause follows each call that failed: those that are refused at once would fill all the time there is.
	failurePause = 10 * time.Millisecond
)

// knownSession is a session that the test knows, with what its client shows.
type knownSession struct {
	cluster.Session
	token cluster.Token
}

func (k knownSession) lease() cluster.LeaseCall {
	return cluster.LeaseCall{ID: k.ID, Digest: k.token.Digest(), Upstream: "u", Want: 1}
}

// newActive creates and activates a session.
func newActive(ctx context.Context, store cluster.Store) (knownSession, error) {
	created, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "u", ClientName: "load"}})
	if err != nil {
		return knownSession{}, fmt.Errorf("create: %w", err)
	}
	active, err := store.Update(ctx, cluster.Change{
		ID: created.Session.ID, ExpectedVersion: created.Session.Version, Writer: "load", Activation: cluster.Activation{UpstreamSession: "upstream"},
	})
	if err != nil {
		return knownSession{}, fmt.Errorf("update: %w", err)
	}
	return knownSession{Session: active, token: created.Token}, nil
}

// newSettled creates active sessions that the load will use and never end.
func newSettled(t *testing.T, store cluster.Store) []knownSession {
	t.Helper()
	settled := make([]knownSession, settledSessions)
	for i := range settled {
		var err error
		if settled[i], err = newActive(t.Context(), store); err != nil {
			t.Fatal(err)
		}
	}
	return settled
}

// load is workers that use a store as replicas do, all the time: settled sessions are leased, reported, checked and read,
// and others go through their whole life.
type load struct {
	store   *redisstore.Store
	options redisstore.Options // of the store; its timeout is that of each call
	settled []knownSession
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu   sync.Mutex
	seen outcome
}

// outcome is what a load has seen so far.
type outcome struct {
	calls   int
	failed  int
	last    time.Time // of the last failure
	errs    []loadError
	slowest time.Duration
}

// loadError is a call that failed.
type loadError struct {
	call    string
	settled cluster.ID // the settled session it was about; zero for others
	err     error
}

func (e loadError) String() string { return fmt.Sprintf("%s: %v", e.call, e.err) }

// startLoad starts a load that ends with the test, if it is not ended before.
func startLoad(t *testing.T, store *redisstore.Store, options redisstore.Options, settled []knownSession) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{store: store, options: options, settled: settled, stop: stop}
	for range loadWorkers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.useSettled(ctx)
				l.wholeLife(ctx)
				pause(ctx, loadPause)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end waits for the workers. The load may be asked for its outcome afterwards.
func (l *load) end() {
	l.stop()
	l.workers.Wait()
}

// call makes one call of the store and remembers how it went.
func (l *load) call(ctx context.Context, name string, settled cluster.ID, do func(context.Context) error) bool {
	limited, cancel := context.WithTimeout(ctx, l.options.Config.StoreTimeout)
	defer cancel()
	start := time.Now()
	err := do(limited)
	if ctx.Err() != nil {
		return false // it was cut short by the end of the load
	}
	l.record(loadError{call: name, settled: settled, err: err}, time.Since(start))
	if err != nil {
		pause(ctx, failurePause)
	}
	return err == nil
}

// pause waits, and less when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

func (l *load) record(e loadError, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen.calls++
	l.seen.slowest = max(l.seen.slowest, took)
	if e.err != nil {
		l.seen.failed++
		l.seen.last = time.Now()
		l.seen.errs = append(l.seen.errs, e)
	}
}

func (l *load) useSettled(ctx context.Context) {
	k := l.settled[rand.IntN(len(l.settled))]
	l.call(ctx, "lease", k.ID, func(ctx context.Context) error {
		_, err := l.store.Lease(ctx, k.lease())
		return err
	})
	l.call(ctx, "get", k.ID, func(ctx context.Context) error {
		_, err := l.store.Get(ctx, k.ID)
		return err
	})
	reports := make([]cluster.Report, 0, 10)
	for range cap(reports) {
		reports = append(reports, cluster.Report{ID: l.settled[rand.IntN(len(l.settled))].ID, Requests: 1})
	}
	var renewals []cluster.Renewal
	l.call(ctx, "reports", cluster.ID{}, func(ctx context.Context) error {
		renewals = l.store.Report(ctx, reports)
		return nil
	})
	for i, r := range renewals {
		l.call(ctx, "report", reports[i].ID, func(context.Context) error { return r.Err })
	}
	l.call(ctx, "check", k.ID, func(ctx context.Context) error {
		return l.store.Check(ctx, []cluster.ID{k.ID})[0]
	})
}

func (l *load) wholeLife(ctx context.Context) {
	var k knownSession
	lives := l.call(ctx, "begin", cluster.ID{}, func(ctx context.Context) (err error) {
		k, err = newActive(ctx, l.store)
		return err
	})
	if !lives {
		return
	}
	l.call(ctx, "lease of a young session", cluster.ID{}, func(ctx context.Context) error {
		_, err := l.store.Lease(ctx, k.lease())
		return err
	})
	l.call(ctx, "terminate", cluster.ID{}, func(ctx context.Context) error {
		_, err := l.store.Terminate(ctx, k.ID, cluster.StatusClosed)
		return err
	})
}

// outcome may be asked for at any time.
func (l *load) outcome() outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	seen.errs = slices.Clip(seen.errs) // what is appended later goes elsewhere
	return seen
}

// waitForCalls waits until the load has made n more calls.
func (l *load) waitForCalls(t *testing.T, n int) {
	t.Helper()
	before := l.outcome().calls
	eventually(t, recovery, func(context.Context) error {
		if l.outcome().calls < before+n {
			return errNotYet
		}
		return nil
	})
}

// waitForCalm waits until no call has failed for a while, at most recovery, and returns how long after begin one last did.
func (l *load) waitForCalm(t *testing.T, begin time.Time, calm time.Duration) time.Duration {
	t.Helper()
	var outage time.Duration
	eventually(t, recovery, func(context.Context) error {
		quietSince := begin
		if last := l.outcome().last; last.After(begin) {
			quietSince = last
		}
		outage = quietSince.Sub(begin)
		if time.Since(quietSince) < calm {
			return errors.New("calls still fail")
		}
		return nil
	})
	return outage
}

// checkErrors fails the test for errors that a fault of the store does not excuse. A settled session may never be missing;
// a young one only if mayForget, because a failover may lose what was not replicated yet.
func (o outcome) checkErrors(t *testing.T, mayForget bool) {
	t.Helper()
	for _, e := range o.errs {
		if errors.Is(e.err, cluster.ErrStoreUnavailable) && !errors.Is(e.err, cluster.ErrNotFound) {
			continue
		}
		if mayForget && e.settled == (cluster.ID{}) && errors.Is(e.err, cluster.ErrNotFound) {
			continue
		}
		t.Errorf("%s, want ErrStoreUnavailable or none", e)
	}
}

// checkOnly fails the test when a call for a settled session failed that is none of those.
func (o outcome) checkOnly(t *testing.T, those map[string]bool) {
	t.Helper()
	for _, e := range o.errs {
		if e.settled != (cluster.ID{}) && !those[e.settled.String()] {
			t.Errorf("a session that the fault does not touch: %s", e)
		}
	}
}
