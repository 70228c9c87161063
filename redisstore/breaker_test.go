package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// flaky is a store in a bubble whose server may become silent, refuse connections or answer with an error.
type flaky struct {
	*redisstore.Store
	t        *testing.T
	server   *miniredis.Miniredis
	isSilent atomic.Bool
	refuses  atomic.Bool
	closes   atomic.Bool

	mu       sync.Mutex
	holds    func(p []byte) bool // what is written is kept until deliver is called
	held     []func()
	unclosed []net.Conn
	sent     atomic.Int32 // writes to the server
	cfg      cluster.Config
}

const flakyTimeout = 250 * time.Millisecond

func inFlaky(t *testing.T, test func(*testing.T, *flaky)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{t: t, server: miniredis.NewMiniRedis(), cfg: cluster.DefaultConfig()}
		f.server.ClockTTL(true)
		t.Cleanup(func() {
			synctest.Wait() // for clients that dial in the background
			f.server.Close()
		})
		client := redis.NewClient(&redis.Options{
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				if f.refuses.Load() {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
				}
				conn, err := f.server.Dial()
				return &flakyConn{Conn: buffer(conn), f: f}, err
			},
			MaxRetries:               -1,
			DialerRetries:            1,
			ReadTimeout:              flakyTimeout,
			ContextTimeoutEnabled:    true,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		t.Cleanup(func() { _ = client.Close() })
		f.cfg.StoreTimeout = flakyTimeout
		var err error
		if f.Store, err = redisstore.New(client, redisstore.Options{Config: f.cfg}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		test(t, f)
	})
}

// flakyConn loses what is written to it while its server is silent.
type flakyConn struct {
	net.Conn
	f *flaky
}

func (c *flakyConn) Write(p []byte) (int, error) {
	c.f.sent.Add(1)
	if c.f.closes.Load() {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.holds != nil && c.f.holds(p) {
		p = bytes.Clone(p)
		c.f.held = append(c.f.held, func() {
			_ = c.Conn.SetDeadline(time.Time{})
			_, _ = c.Conn.Write(p)
		})
		return len(p), nil
	}
	if c.f.isSilent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Close lets go of the connection, but not of what is still under way on it.
func (c *flakyConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.holds != nil {
		c.f.unclosed = append(c.f.unclosed, c.Conn)
		return nil
	}
	return c.Conn.Close()
}

// hold keeps what is written, if it is so, on its way.
func (f *flaky) hold(which func(p []byte) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds = which
}

// deliver lets arrive what is under way.
func (f *flaky) deliver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds = nil
	for _, send := range f.held {
		send()
	}
	synctest.Wait()
	for _, conn := range f.unclosed {
		_ = conn.Close()
	}
}

// lease asks for a session that is not there, and tells how long that took.
func (f *flaky) lease(ctx context.Context) (took time.Duration, err error) {
	begun := time.Now()
	_, err = f.Lease(ctx, cluster.LeaseCall{ID: cluster.ID{15: 1}})
	return time.Since(begun), err
}

// trip makes calls until the store does not ask any more.
func (f *flaky) trip() {
	f.t.Helper()
	for calls := 0; calls < 4 && f.Breakers().Open == 0; calls++ { // the first may find that its connection is dead
		if err := f.Beat(f.t.Context(), "a/1"); !errors.Is(err, cluster.ErrStoreUnavailable) {
			f.t.Fatalf("the store is there: %v", err)
		}
	}
	if told := f.Breakers(); told.Open != 1 || told.Trips != 1 {
		f.t.Fatalf("after three failed calls: %+v; want one open breaker", told)
	}
}

func (f *flaky) wantThere(when string) {
	f.t.Helper()
	if _, err := f.lease(f.t.Context()); !errors.Is(err, cluster.ErrNotFound) {
		f.t.Errorf("%s: %v, want an answer", when, err)
	}
	if told := f.Breakers(); told.Open != 0 {
		f.t.Errorf("%s: %+v; want none open", when, told)
	}
}

// faults are the ways to be away, each with how to come back.
var faults = map[string]struct{ begin, end func(*flaky) }{
	"silent":  {func(f *flaky) { f.isSilent.Store(true) }, func(f *flaky) { f.isSilent.Store(false) }},
	"loading": replies("LOADING Redis is loading the dataset in memory"),
	"demoted": {func(f *flaky) {
		f.server.Server().SetPreHook(func(peer *server.Peer, command string, _ ...string) bool {
			if command != "PING" {
				peer.WriteError("READONLY You can't write against a read only replica.")
			}
			return command != "PING"
		})
	}, func(f *flaky) { f.server.Server().SetPreHook(nil) }},
	"closing": {func(f *flaky) { f.closes.Store(true) }, func(f *flaky) { f.closes.Store(false) }},
	"torn":    replies("CLUSTERDOWN The cluster is down"),
	"orphan":  replies("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
	"gone": {func(f *flaky) {
		f.refuses.Store(true)
		f.server.Close()
	}, func(f *flaky) {
		f.server = miniredis.NewMiniRedis()
		f.t.Cleanup(f.server.Close)
		f.refuses.Store(false)
	}},
}

func replies(text string) struct{ begin, end func(*flaky) } {
	return struct{ begin, end func(*flaky) }{func(f *flaky) { f.server.SetError(text) }, func(f *flaky) { f.server.SetError("") }}
}

func TestNobodyWaitsForAStoreThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inFlaky(t, func(t *testing.T, f *flaky) {
				f.wantThere("at first")
				fault.begin(f)
				f.trip()
				for range 1000 {
					took, err := f.lease(t.Context())
					if took > 0 || !errors.Is(err, cluster.ErrNotSent) || !errors.Is(err, cluster.ErrStoreUnavailable) || !strings.Contains(err.Error(), "every call has failed for") {
						t.Fatalf("after %s: %v; want a refusal at once", took, err)
					}
					<-time.After(7 * time.Millisecond)
				}
				fault.end(f)
				_, _ = f.lease(t.Context()) // somebody asks, and it is probed
				<-time.After(500*time.Millisecond + flakyTimeout)
				_, _ = f.lease(t.Context())
				synctest.Wait()
				f.wantThere("when it was back for one probe")
			})
		})
	}
}

func TestASilentStoreIsProbedTwiceASecond(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		f.wantThere("at first")
		f.isSilent.Store(true)
		f.trip()
		before := f.server.TotalConnectionCount()
		for range 100 {
			_, _ = f.lease(t.Context())
			_ = f.Ping(t.Context()) // asks for itself
			<-time.After(100 * time.Millisecond)
		}
		// Each probe and each ping ran into a timeout, which costs its connection.
		if probes := f.server.TotalConnectionCount() - before - 100; probes > 36*2 || probes < 30 {
			t.Errorf("%d probes in 35 seconds", probes)
		}
	})
}

func TestAnAnswerIsNoFault(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		for _, text := range []string{"", "OOM command not allowed when used memory > 'maxmemory'.", "NOPERM no", "ERR broken script", "MISCONF no"} {
			f.server.SetError(text)
			for range 10 {
				_, _ = f.lease(t.Context())
				_ = f.Check(t.Context(), []cluster.ID{{}})
				_ = f.Beat(t.Context(), "a/1")
			}
			if told := f.Breakers(); told.Open != 0 || told.Trips != 0 {
				t.Errorf("after answers %q: %+v", text, told)
			}
		}
	})
}

func TestACallerInAHurryIsNoFaultOfTheStore(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		f.wantThere("at first")
		f.isSilent.Store(true)
		for range 10 {
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			_, _ = f.lease(canceled)
			hasty, cancelHasty := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, _ = f.lease(hasty)
			_ = f.Beat(hasty, "a/1")
			cancelHasty()
		}
		if told := f.Breakers(); told.Open != 0 || told.Trips != 0 {
			t.Errorf("after callers have left: %+v", told)
		}
	})
}

func TestAnAnswerInBetweenKeepsTheBreakerClosed(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		for range 5 {
			f.isSilent.Store(true)
			_, _ = f.lease(t.Context())
			_, _ = f.lease(t.Context())
			f.isSilent.Store(false)
			f.wantThere("after two failed calls")
		}
	})
}

// A call that was begun during an outage may end after it.
func TestWhatAnOutageLeavesBehindDoesNotOpenTheBreakerAnew(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		f.isSilent.Store(true)
		done := make(chan struct{})
		for range 10 {
			go func() {
				_, _ = f.lease(t.Context())
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		<-time.After(flakyTimeout / 2)
		f.isSilent.Store(false)
		f.wantThere("when it is back")
		for range 10 {
			<-done
		}
		f.wantThere("when all that was under way has failed")
		if told := f.Breakers(); told.Trips != 0 {
			t.Errorf("%+v; want no trip", told)
		}
	})
}

func TestElectionAndCleanupGoOnTrying(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		f.server.SetError("LOADING")
		f.trip()
		f.server.SetError("")
		if _, err := f.TakeEpoch(t.Context(), 0); err != nil {
			t.Errorf("an epoch, while the breaker is open: %v", err)
		}
		f.wantThere("after that")
		f.server.SetError("LOADING")
		for range 3 {
			_, _ = f.lease(t.Context())
		}
		f.server.SetError("")
		if _, err := f.Sweep(t.Context(), cluster.SweepCall{Limit: 1}); err != nil {
			t.Errorf("a sweep, while the breaker is open: %v", err)
		}
		f.wantThere("after that")
	})
}

func TestClosingAStoreEndsItsProbes(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		f.wantThere("at first")
		f.isSilent.Store(true)
		f.trip()
		<-time.After(time.Second)
		_, _ = f.lease(t.Context())
		begun := time.Now()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		before := f.sent.Load()
		<-time.After(time.Second)
		if took := time.Since(begun); took > time.Second+flakyTimeout {
			t.Errorf("closing took %s", took-time.Second)
		}
		if _, err := f.lease(t.Context()); !errors.Is(err, cluster.ErrNotSent) || f.sent.Load() != before {
			t.Errorf("after Close: %v, and something was sent", err)
		}
	})
}
