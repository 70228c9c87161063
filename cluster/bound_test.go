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
	Rate, Burst     int
	Interval, Lease time.Duration
	Replicas        int
	Steps           []step
}

func (p plan) apply(c *cluster.Config) {
	c.RequestRate, c.RequestBurst, c.ReportInterval, c.Lease = p.Rate, p.Burst, p.Interval, p.Lease
	c.OutageGrace = 0 // what replicas let through by themselves is bounded by another rule
}

// step is one thing that happens, at one replica or to it.
type step struct {
	Do      action
	Replica int // modulo how many there are
	N       int // requests
	Rounds  int
	For     time.Duration
	Link    linkState
}

func (s step) String() string {
	switch s.Do {
	case pass, turnBack:
		return fmt.Sprintf("%s %v", s.Do, s.For)
	case flow:
		return fmt.Sprintf("%s %d times %d, %v between", s.Do, s.Rounds, s.N, s.For)
	case change:
		return fmt.Sprintf("%s %d: %s", s.Do, s.Replica, s.Link)
	case send, batch, storm:
		return fmt.Sprintf("%s %d to %d", s.Do, s.N, s.Replica)
	default:
		return fmt.Sprintf("%s %d", s.Do, s.Replica)
	}
}

type action string

const (
	send     action = "send"      // N requests, one after the other
	storm    action = "storm"     // N requests at once, over all replicas
	batch    action = "batch"     // N requests as one
	flow     action = "flow"      // N requests at each replica, then time goes by, so many Rounds
	drain    action = "drain"     // all that one replica lets through
	pass     action = "pass"      // time goes by
	change   action = "change"    // a replica's way to the store becomes another
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
func (f *fleet) request(r *running, n int) (served bool) {
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
	return err == nil
}

func (f *fleet) do(s step) {
	i := s.Replica % len(f.replicas)
	r := f.replicas[i]
	switch s.Do {
	case send, storm, batch, flow, drain:
		f.use(s, r)
	case pass:
		f.pass(s.For)
	case change:
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

func (f *fleet) use(s step, r *running) {
	switch s.Do {
	case send:
		for range s.N {
			f.request(r, 1)
		}
	case batch:
		f.request(r, s.N)
	case storm:
		var wg sync.WaitGroup
		for first := range stormy {
			wg.Go(func() {
				for n := first; n < s.N; n += stormy {
					f.request(f.replicas[n%len(f.replicas)], 1)
				}
			})
		}
		wg.Wait()
	case flow:
		for range s.Rounds {
			for _, r := range f.replicas {
				for n := 0; n < s.N && f.request(r, 1); n++ { //nolint:revive // until one is refused
				}
			}
			f.pass(s.For)
		}
	case drain:
		for n := 0; n < 3*f.cfg.RequestBurst && f.request(r, 1); n++ { //nolint:revive // until one is refused
		}
	default:
	}
}

const (
	maxReplicas = 6
	// stormy is how many requests are under way at once. With the reports there are no more calls than the client has
	// connections: those that wait for one share timers, which must not leave their bubble.
	stormy = 4
)

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
	at := func(s float64, n int) admission {
		return admission{begin.Add(time.Duration(s * float64(time.Second))), n}
	}
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

// drawConfig draws the limits of a plan.
func drawConfig(t *rapid.T) plan {
	interval := rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second}).Draw(t, "report_interval")
	return plan{
		Rate:     rapid.SampledFrom([]int{1, 1, 3, 10, 50}).Draw(t, "rate"),
		Burst:    rapid.SampledFrom([]int{1, 4, 20, 20, 50}).Draw(t, "burst"),
		Interval: interval,
		Lease:    rapid.SampledFrom([]time.Duration{0, interval + time.Millisecond, interval * 3 / 2, interval * 3, interval * 10}).Draw(t, "lease"),
		Replicas: rapid.IntRange(1, maxReplicas).Draw(t, "replicas"),
	}
}

// drawFaulty draws a plan in which anything happens. It consists of episodes, because chance alone would seldom lead to what
// is dangerous: a replica gathers budget, something goes wrong, others take what is there, and then the rest turns up.
func drawFaulty(t *rapid.T) plan {
	p := drawConfig(t)
	for range rapid.IntRange(1, 3).Draw(t, "episodes") {
		one, other, third := drawReplica(t), drawReplica(t), drawReplica(t)
		for _, phase := range []struct {
			replica int
			actions []action
		}{
			{one, []action{send, send, send, batch, flow, storm}},
			{one, []action{"", change, change}},
			{one, []action{pass}},
			{one, []action{"", "", "", kill, leave, start, turnBack, change}},
			{other, []action{"", drain, drain, drain, batch, flow}},
			{one, []action{"", "", pass}},
			{one, []action{"", deliver, deliver, deliver, change, leave, turnBack}},
			{one, []action{"", "", pass}},
			{third, []action{"", drain, drain, storm}},
		} {
			if do := rapid.SampledFrom(phase.actions).Draw(t, "do"); do != "" {
				p.Steps = append(p.Steps, drawStep(t, p, do, phase.replica))
			}
		}
	}
	return p
}

func drawReplica(t *rapid.T) int {
	return rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5}).Draw(t, "replica")
}

func drawStep(t *rapid.T, p plan, do action, replica int) step {
	s := step{Do: do, Replica: replica}
	switch do {
	case send, storm, batch:
		s.N = rapid.SampledFrom([]int{1, 2, max(p.Burst/2, 1), max(p.Burst*3/4, 1), p.Burst, p.Burst + 2}).Draw(t, "n")
	case flow:
		s.N, s.Rounds = rapid.IntRange(1, max(p.Burst/5, 1)).Draw(t, "n"), rapid.IntRange(1, 8).Draw(t, "rounds")
		s.For = rapid.OneOf(ms(1, 300), rapid.Just(p.Interval), rapid.Just(p.Interval*2)).Draw(t, "for")
	case pass:
		full := time.Duration(p.Burst+1) * time.Second / time.Duration(p.Rate) // enough for a spent bucket
		s.For = rapid.SampledFrom([]time.Duration{
			time.Millisecond, p.Interval, p.Interval*2 - time.Millisecond, p.Interval * 3, p.Lease, full, full,
		}).Draw(t, "for")
	case turnBack:
		s.For = ms(1, 3000).Draw(t, "for")
	case change:
		s.Link = rapid.SampledFrom([]linkState{whole, away, lost, late, late, late}).Draw(t, "state")
	default:
	}
	return s
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
			rt.Fatalf("some window has %.1f requests too many: burst %d, rate %d/s, lease %v, report interval %v", over, p.Burst, p.Rate, p.Lease, p.Interval)
		}
	})
}

// A client that stays well under its rate is never refused while nothing fails, whichever replica its requests reach.
func TestClientUnderItsRateIsNeverRefused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawConfig(rt)
		atOnce := max(p.Burst/10, 1)
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
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
			rt.Fatalf("%d requests refused at half the rate: burst %d, rate %d/s, lease %v, report interval %v, %d replicas",
				refused, p.Burst, p.Rate, p.Lease, p.Interval, p.Replicas)
		}
	})
}
