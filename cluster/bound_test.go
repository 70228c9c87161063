package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A plan is drawn before its bubble begins, because rapid stops a test by a panic, which must not leave the bubble's
// goroutine. What happens in the bubble is collected and judged outside.
type plan struct {
	Rate, Burst int
	Lease       time.Duration
	Replicas    int
	Steps       []step
}

func (p plan) apply(c *cluster.Config) {
	c.RequestRate, c.RequestBurst, c.Lease = p.Rate, p.Burst, p.Lease
}

// step is one thing that happens, at one replica or to it.
type step struct {
	Do      action
	Replica int // modulo how many there are
	N       int // requests
	For     time.Duration
	Link    linkState
}

func (s step) String() string {
	switch s.Do {
	case pass, turnBack:
		return fmt.Sprintf("%s %v", s.Do, s.For)
	case linkUp:
		return fmt.Sprintf("link %d %s", s.Replica, s.Link)
	default:
		return fmt.Sprintf("%s %d×%d", s.Do, s.Replica, s.N)
	}
}

type action string

const (
	send     action = "send"      // N requests, one after the other
	storm    action = "storm"     // N requests at once, over all replicas
	batch    action = "batch"     // N requests as one
	pass     action = "pass"      // time goes by
	linkUp   action = "link"      // the way to the store becomes another
	deliver  action = "deliver"   // what is under way to the store arrives
	kill     action = "kill"      // a replica is gone, without a last report
	leave    action = "leave"     // a replica stops cleanly
	start    action = "start"     // a new replica
	turnBack action = "turn back" // the store's clock
)

// linkState is what happens to calls of the store on their way.
type linkState string

const (
	whole linkState = "whole"
	away  linkState = "away" // no call arrives
	lost  linkState = "lost" // calls take effect, their answers are lost
	late  linkState = "late" // calls take effect later, when nobody waits for the answer
)

// link is one replica's way to the store.
type link struct {
	cluster.Store
	clock *storeClock

	mu    sync.Mutex
	state linkState
	kept  []func() // calls under way
}

func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
}

// send makes one call, and reports whether its answer arrives.
func (l *link) send(call func()) bool {
	l.mu.Lock()
	state := l.state
	if state == late {
		l.kept = append(l.kept, call)
	}
	l.mu.Unlock()
	if state == whole || state == lost {
		l.clock.tick()
		call()
	}
	return state == whole
}

// deliver lets arrive what is under way.
func (l *link) deliver() {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	l.clock.tick()
	for _, call := range kept {
		call()
	}
}

func (l *link) Lease(ctx context.Context, c cluster.LeaseCall) (grant cluster.Grant, err error) {
	if !l.send(func() { grant, err = l.Store.Lease(context.WithoutCancel(ctx), c) }) {
		return cluster.Grant{}, cluster.ErrStoreUnavailable
	}
	return grant, err
}

func (l *link) Report(ctx context.Context, reports []cluster.Report) (renewals []cluster.Renewal) {
	if l.send(func() { renewals = l.Store.Report(context.WithoutCancel(ctx), reports) }) {
		return renewals
	}
	renewals = make([]cluster.Renewal, len(reports))
	for i := range renewals {
		renewals[i].Err = cluster.ErrStoreUnavailable
	}
	return renewals
}

func (l *link) Sweep(ctx context.Context) (swept cluster.Swept, err error) {
	l.clock.tick()
	return l.Store.Sweep(ctx)
}

// storeClock is the store's, which may be behind the bubble's.
type storeClock struct {
	server *miniredis.Miniredis
	mu     sync.Mutex
	behind time.Duration
}

func (c *storeClock) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server.SetTime(time.Now().Add(-c.behind))
}

func (c *storeClock) turnBack(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind += d
}

// fleet is some replicas that serve one session.
type fleet struct {
	*world
	clock    *storeClock
	token    cluster.Token
	replicas []*running
	links    []*link // those of dead replicas, too: what is under way still arrives

	mu       sync.Mutex
	admitted []admission
	refused  int
}

type running struct {
	*cluster.Manager
	link *link
	stop func()
}

// admission is n requests let through at once.
type admission struct {
	at time.Time
	n  int
}

func (w *world) fleet(replicas int) *fleet {
	w.t.Helper()
	f := &fleet{world: w, clock: &storeClock{server: w.server}}
	for range replicas {
		f.start()
	}
	f.clock.tick()
	_, f.token = w.session(f.replicas[0].Manager)
	return f
}

func (f *fleet) start() {
	f.t.Helper()
	l := &link{Store: f.store.Store, clock: f.clock, state: whole}
	m, err := cluster.NewManager(l, f.cfg, cluster.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.links = append(f.links, l)
	f.replicas = append(f.replicas, &running{Manager: m, link: l, stop: f.run(m)})
}

// run runs a manager until the returned function is called, or the test is over.
func (f *fleet) run(m *cluster.Manager) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	f.t.Cleanup(stop)
	return stop
}

// remove stops a replica, unless it is the last one.
func (f *fleet) remove(i int, last linkState) {
	if len(f.replicas) == 1 {
		return
	}
	r := f.replicas[i]
	if last != "" {
		r.link.set(last)
	}
	r.stop()
	f.replicas = append(f.replicas[:i:i], f.replicas[i+1:]...)
}

// request asks a replica for n requests at once, and notes what became of them.
func (f *fleet) request(r *running, n int) {
	l, err := r.Lease(f.t.Context(), f.token, cluster.Use{Upstream: "u", Requests: n})
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.admitted = append(f.admitted, admission{time.Now(), n})
		l.Release()
	case errors.Is(err, cluster.ErrRateLimited):
		f.refused++
	case !errors.Is(err, cluster.ErrStoreUnavailable):
		f.t.Errorf("Lease: %v", err)
	}
}

func (f *fleet) do(s step) {
	i := s.Replica % len(f.replicas)
	r := f.replicas[i]
	switch s.Do {
	case send:
		for range s.N {
			f.request(r, 1)
		}
	case storm:
		var wg sync.WaitGroup
		for n := range s.N {
			wg.Go(func() { f.request(f.replicas[n%len(f.replicas)], 1) })
		}
		wg.Wait()
	case batch:
		f.request(r, s.N)
	case pass:
		f.pass(s.For)
	case linkUp:
		r.link.set(s.Link)
	case deliver:
		for _, l := range f.links {
			l.deliver()
		}
	case kill:
		f.remove(i, away)
	case leave:
		f.remove(i, "")
	case start:
		if len(f.replicas) < maxReplicas {
			f.start()
		}
	case turnBack:
		f.clock.turnBack(s.For)
	}
}

const maxReplicas = 6

// excess returns by how much the worst window exceeds burst + rate × (window + lease), in requests. It looks at every
// window from one admission to another: of all that end at one moment the worst is the one that began with the least
// admitted before it, less what the rate allows until then.
func excess(p plan, admitted []admission) float64 {
	worst, least, total := math.Inf(-1), math.Inf(1), 0
	for _, a := range admitted {
		allowed := float64(p.Rate) * a.at.Sub(admitted[0].at).Seconds()
		least = min(least, float64(total)-allowed)
		total += a.n
		worst = max(worst, float64(total)-allowed-least)
	}
	return worst - float64(p.Burst) - float64(p.Rate)*p.Lease.Seconds()
}

func TestExcessIsThatOfTheWorstWindow(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s float64, n int) admission { return admission{begin.Add(time.Duration(s * float64(time.Second))), n} }
	for name, test := range map[string]struct {
		admitted []admission
		want     float64
	}{
		"a burst":                {[]admission{at(0, 5)}, 0},
		"more than a burst":      {[]admission{at(0, 4), at(0, 3)}, 2},
		"a burst and what flows": {[]admission{at(0, 5), at(0.5, 5), at(1, 5), at(1.5, 5)}, 0},
		"a burst after a pause":  {[]admission{at(0, 5), at(60, 5), at(60.5, 6)}, 1},
		"one before the burst":   {[]admission{at(0, 1), at(1, 6)}, 1},
	} {
		if got := excess(plan{Rate: 10, Burst: 5}, test.admitted); math.Abs(got-test.want) > 1e-6 {
			t.Errorf("%s: %v too many, want %v", name, got, test.want)
		}
	}
}

func ms(from, to int) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.IntRange(from, to), func(n int) time.Duration { return time.Duration(n) * time.Millisecond })
}

// drawFaulty draws a plan in which anything happens.
func drawFaulty(t *rapid.T) plan {
	p := plan{
		Rate:     rapid.SampledFrom([]int{1, 3, 10, 50, 200}).Draw(t, "rate"),
		Burst:    rapid.SampledFrom([]int{1, 2, 5, 20, 40}).Draw(t, "burst"),
		Lease:    time.Duration(rapid.SampledFrom([]int{0, 1500, 3000, 10_000}).Draw(t, "lease ms")) * time.Millisecond,
		Replicas: rapid.IntRange(1, maxReplicas).Draw(t, "replicas"),
	}
	actions := []action{send, send, send, storm, batch, pass, pass, pass, linkUp, linkUp, deliver, kill, leave, start, turnBack}
	p.Steps = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		s := step{Do: rapid.SampledFrom(actions).Draw(t, "do"), Replica: rapid.IntRange(0, maxReplicas-1).Draw(t, "replica")}
		switch s.Do {
		case send, storm, batch:
			s.N = rapid.IntRange(1, p.Burst+2).Draw(t, "n")
		case pass:
			s.For = rapid.OneOf(ms(0, 500), ms(900, 1100), ms(1, 5000), ms(1, 20_000)).Draw(t, "for")
		case turnBack:
			s.For = ms(1, 3000).Draw(t, "for")
		case linkUp:
			s.Link = rapid.SampledFrom([]linkState{whole, whole, away, lost, late}).Draw(t, "state")
		default:
		}
		return s
	}), 5, 40).Draw(t, "steps")
	return p
}

// What package cluster promises: in any window w at most burst + rate × (w + lease) requests of a session, over all
// replicas, whatever happens to replicas, reports and the store's clock.
func TestNoWindowHasMoreRequestsThanPromised(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawFaulty(rt)
		var got []admission
		inWorld(t, p.apply, func(_ *testing.T, w *world) {
			f := w.fleet(p.Replicas)
			for _, s := range p.Steps {
				f.do(s)
			}
			got = f.admitted
		})
		if len(got) == 0 {
			return
		}
		if over := excess(p, got); over > 1e-6 {
			rt.Fatalf("some window has %.1f requests too many: burst %d, rate %d/s, lease %v", over, p.Burst, p.Rate, p.Lease)
		}
	})
}

// A client that stays well under its rate is never refused while nothing fails, whichever replica its requests reach.
func TestClientUnderItsRateIsNeverRefused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := plan{
			Rate:     rapid.SampledFrom([]int{2, 10, 50, 200}).Draw(rt, "rate"),
			Burst:    rapid.SampledFrom([]int{1, 2, 4, 8, 40, 100}).Draw(rt, "burst"),
			Lease:    time.Duration(rapid.SampledFrom([]int{0, 1500, 3000}).Draw(rt, "lease ms")) * time.Millisecond,
			Replicas: rapid.IntRange(1, maxReplicas).Draw(rt, "replicas"),
		}
		atOnce := max(p.Burst/10, 1)
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			n := rapid.IntRange(1, atOnce).Draw(rt, "n")
			fill := time.Duration(2*n) * time.Second / time.Duration(p.Rate) // half the rate
			p.Steps = append(p.Steps,
				step{Do: send, Replica: rapid.IntRange(0, maxReplicas-1).Draw(rt, "replica"), N: n},
				step{Do: pass, For: fill + rapid.OneOf(rapid.Just(time.Duration(0)), ms(0, 1500)).Draw(rt, "for")})
		}
		refused := 0
		inWorld(t, p.apply, func(_ *testing.T, w *world) {
			f := w.fleet(p.Replicas)
			for _, s := range p.Steps {
				f.do(s)
			}
			refused = f.refused
		})
		if refused > 0 {
			rt.Fatalf("%d requests refused at half the rate: burst %d, rate %d/s, lease %v, %d replicas", refused, p.Burst, p.Rate, p.Lease, p.Replicas)
		}
	})
}
