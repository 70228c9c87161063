package sweeper_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
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
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ttl    = sweeper.DefaultTTL
	tick   = ttl / 5
	window = ttl - ttl/10 // of trust
	soon   = time.Second  // what a handover may take
)

// electorate is a store and its replicas inside a synctest bubble: time passes only when everybody waits, and the store's
// clock is everybody's.
type electorate struct {
	t      *testing.T
	server *miniredis.Miniredis
	keys   *redisstore.Store // for names of keys, and for looking

	mu     sync.Mutex
	reigns []reign
}

// reign is one term as the leader's work sees it: from its call until its context is done.
type reign struct {
	who        string
	epoch      int64
	begun, end time.Time // end is zero while it lasts
	cause      error
}

// inElectorate runs a test in a bubble, with a store that is reached without a network.
func inElectorate(t *testing.T, test func(*testing.T, *electorate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newElectorate(t)
		test(t, w)
		for _, fault := range w.overlaps() {
			t.Error(fault)
		}
	})
}

// newElectorate starts a store in a bubble.
func newElectorate(t *testing.T) *electorate {
	t.Helper()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	t.Cleanup(func() {
		synctest.Wait() // for clients that dial in the background
		server.Close()
	})
	w := &electorate{t: t, server: server}
	w.keys = w.store(&link{})
	if err := w.keys.Ping(t.Context()); err != nil { // starts the server
		t.Fatal(err)
	}
	return w
}

// store is a replica's own way to the server.
func (w *electorate) store(l *link) *redisstore.Store {
	w.t.Helper()
	client := redis.NewClient(&redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			if l.isCut() {
				return nil, errCut
			}
			return l.dialed(w.server.Dial())
		},
		MaxRetries:               -1,
		DialerRetries:            1,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	client.AddHook(l)
	w.t.Cleanup(func() {
		l.underWay.Wait()
		_ = client.Close()
	})
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = time.Hour // so that the election's own bounds are what is seen
	store, err := redisstore.New(client, redisstore.Options{Config: cfg})
	if err != nil {
		w.t.Fatal(err)
	}
	return store
}

// pass lets time go by.
func (w *electorate) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// leaders are those who say that they lead.
func leaders(all []*candidate) []*candidate {
	return slices.DeleteFunc(slices.Clone(all), func(c *candidate) bool { return !c.election.Status().IsLeader })
}

// awaitLeader waits until one of them leads.
func (w *electorate) awaitLeader(atMost time.Duration, all ...*candidate) *candidate {
	w.t.Helper()
	for begun := time.Now(); ; w.pass(5 * time.Millisecond) {
		switch found := leaders(all); {
		case len(found) > 1:
			w.t.Fatalf("%d leaders", len(found))
		case len(found) == 1:
			return found[0]
		case time.Since(begun) > atMost:
			w.t.Fatalf("nobody leads after %v", time.Since(begun))
		}
	}
}

// history is what reigns there were.
func (w *electorate) history() []reign {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reigns)
}

// overlaps names any two reigns that were trusted at one instant, and epochs that did not grow.
func (w *electorate) overlaps() []string {
	var found []string
	all := w.history()
	for i, later := range all {
		for _, earlier := range all[:i] {
			if earlier.end.IsZero() || earlier.end.After(later.begun) {
				found = append(found, later.who+" leads from "+later.begun.String()+", and "+earlier.who+" until "+earlier.end.String())
			}
			if later.epoch <= earlier.epoch {
				found = append(found, later.who+" leads under epoch "+strconv.FormatInt(later.epoch, 10)+" after "+strconv.FormatInt(earlier.epoch, 10))
			}
		}
	}
	return found
}

// work is what leaders do: nothing, until the term ends.
func (w *electorate) work(who string) func(context.Context, *sweeper.Term) error {
	return func(ctx context.Context, term *sweeper.Term) error {
		w.mu.Lock()
		n := len(w.reigns)
		w.reigns = append(w.reigns, reign{who: who, epoch: term.Epoch(), begun: time.Now()})
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reigns[n].end, w.reigns[n].cause = time.Now(), context.Cause(ctx)
		return nil
	}
}

// candidate is one replica that stands for election.
type candidate struct {
	t        *testing.T
	link     *link
	election *sweeper.Election
	seen     *witness
	log      *journal
	work     func(context.Context, *sweeper.Term) error
	fail     chan struct{} // makes its work fail, where that can
	cancel   context.CancelFunc
	done     chan error
}

// candidate makes a replica that has not started.
func (w *electorate) candidate(name string, change ...func(*sweeper.ElectionConfig)) *candidate {
	w.t.Helper()
	c := &candidate{t: w.t, link: &link{}, seen: &witness{t: w.t}, log: &journal{}, work: w.work(name)}
	cfg := sweeper.ElectionConfig{Store: w.store(c.link), Incarnation: name, Logger: slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Observer: c.seen}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if c.election, err = sweeper.NewElection(cfg); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (c *candidate) start() *candidate {
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(c.t.Context())
	c.done = make(chan error, 1)
	go func() { c.done <- c.election.Run(ctx, c.work) }()
	c.t.Cleanup(c.stop)
	return c
}

// stop ends it cleanly.
func (c *candidate) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	if err := <-c.done; err != nil {
		c.t.Errorf("Run: %v", err)
	}
	c.cancel = nil
}

// kill ends it without a word to the store.
func (c *candidate) kill() {
	c.link.set(cut)
	c.stop()
}

// linkState is what happens to calls on their way to the store.
type linkState string

const (
	whole   linkState = ""
	cut     linkState = "cut"     // they fail at once
	hanging linkState = "hanging" // they never arrive, and their callers wait until their deadline
	tardy   linkState = "tardy"   // they take effect at once, and the answer takes the delay
	deaf    linkState = "deaf"    // they take the delay, whatever their deadline
	lost    linkState = "lost"    // they take effect, and their callers wait for the answer until their deadline
	late    linkState = "late"    // they take effect after the delay, when nobody may be waiting any more
)

var errCut = errors.New("the link is cut")

// link is a replica's way to the store. It notices no cancellation, only deadlines, as the client does.
type link struct {
	mu    sync.Mutex
	state linkState
	delay time.Duration    // half of it on the way there, half on the way back, unless the state says otherwise
	fails map[string]error // by command
	loses string           // the command whose answers are lost, all others arriving
	calls map[string]int
	conns []net.Conn
	// underWay are calls that nobody waits for but the end of the test.
	underWay sync.WaitGroup
}

// dialed remembers a connection.
func (l *link) dialed(conn net.Conn, err error) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return conn, err
}

// sever breaks all connections. New ones can be made.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

func (l *link) set(state linkState) { l.change(state, 0) }

func (l *link) change(state linkState, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.delay = state, delay
}

// fail makes one command fail, or work again.
func (l *link) fail(command string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails == nil {
		l.fails = make(map[string]error)
	}
	l.fails[command] = err
}

func (l *link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == cut || l.state == hanging
}

// called tells how many calls of a command there were.
func (l *link) called(command string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[command]
}

func (l *link) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *link) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "hello" { // the beginning of a connection is no call of the election
			return next(ctx, cmd)
		}
		err := l.send(ctx, cmd.Name(), func() error { return next(ctx, cmd) }, func() {
			_ = next(context.WithoutCancel(ctx), redis.NewCmd(ctx, cmd.Args()...))
		})
		if err != nil {
			cmd.SetErr(err)
		}
		return err
	}
}

func (l *link) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() != "get" { // the only pipeline of the election looks who leads
			return next(ctx, cmds)
		}
		err := l.send(ctx, "pipeline", func() error { return next(ctx, cmds) }, func() {})
		if err != nil {
			for _, cmd := range cmds {
				if cmd.Err() == nil {
					cmd.SetErr(err)
				}
			}
		}
		return err
	}
}

// send makes one call, as the link's state has it.
func (l *link) send(ctx context.Context, name string, call func() error, unheard func()) error {
	l.mu.Lock()
	state, delay, fails := l.state, l.delay, l.fails[name]
	if l.calls == nil {
		l.calls = make(map[string]int)
	}
	l.calls[name]++
	if l.loses == name {
		state = lost
	}
	l.mu.Unlock()
	switch {
	case fails != nil:
		return fails
	case state == cut:
		return errCut
	case state == hanging:
		return wait(ctx, time.Hour)
	case state == lost:
		_ = call()
		return wait(ctx, time.Hour)
	case state == late:
		l.underWay.Go(func() {
			<-time.After(delay)
			unheard()
		})
		return wait(ctx, time.Hour)
	}
	there := delay / 2
	switch state {
	case tardy:
		there = 0
	case deaf:
		ctx = context.WithoutCancel(ctx)
	}
	if err := wait(ctx, there); err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	return wait(ctx, delay-there)
}

// wait waits, but not past a deadline.
func wait(ctx context.Context, d time.Duration) error {
	deadline, ok := ctx.Deadline()
	if left := time.Until(deadline); ok && left < d {
		<-time.After(left)
		return context.DeadlineExceeded
	}
	if d > 0 {
		<-time.After(d)
	}
	return nil
}

// witness is an Observer that remembers.
type witness struct {
	sweeper.Observer // panics, should a method be called that an election has no business with

	t        *testing.T
	mu       sync.Mutex
	isLeader bool
	reasons  []sweeper.Reason
	counts   counts
}

// counts is what a witness has counted.
type counts struct {
	renewed, failed int
	panicked        []string // where
}

func (o *witness) LeaderChanged(isLeader bool, reason sweeper.Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if isLeader == o.isLeader {
		o.t.Errorf("leader %v twice in a row, the second time because %s", isLeader, reason)
	}
	o.isLeader = isLeader
	o.reasons = append(o.reasons, reason)
}

func (o *witness) Renewed(_ time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.renewed++
	if err != nil {
		o.counts.failed++
	}
}

func (o *witness) Panicked(loop string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.panicked = append(o.counts.panicked, loop)
}

// told returns the reasons of all changes so far.
func (o *witness) told() []sweeper.Reason {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.reasons)
}

func (o *witness) count() counts {
	o.mu.Lock()
	defer o.mu.Unlock()
	return counts{o.counts.renewed, o.counts.failed, slices.Clone(o.counts.panicked)}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(words string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), words)
}
