package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// ModelBackend makes the stores that are compared with the model. They have one partition.
type ModelBackend struct {
	// Open returns an empty store with the given limits. It is called once before each check, and once before all of them;
	// what the store before holds may be removed.
	Open func(cfg cluster.Config) (cluster.Store, error)
	// Set sets the clock of the store last opened, which stands still in between.
	Set func(now time.Time) error
	// GoesBack says that the clock may be set to a time that is past, and that what expires goes by the clock even then.
	GoesBack bool
	// Violations describes where the indexes, counts and records of the store last opened disagree, and each session that
	// has a place among its principal's and does not live, or the other way round, by its ID.
	Violations func(ctx context.Context) ([]string, error)
	// Lose lets the reply of the nth exchange between the store and its server be lost, from now on; 0: none. The server
	// has done by then what it was asked to. See [LossyDialer].
	Lose func(nth int)
}

// CheckModel drives stores and a model of them side by side, by random operations, time that passes in small steps and in
// jumps, and lost replies, and compares everything that can be observed after each step. How often, the flag -rapid.checks
// says, and -rapid.steps, of how many steps on average.
func CheckModel(t *testing.T, b ModelBackend) {
	t.Helper()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := warmUp(t.Context(), b, start); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		start = start.Add(time.Hour) // a clock that went back over another check's time would find its leftovers
		m := newMachine(t, b, start)
		for range rapid.IntRange(0, 4).Draw(t, "sessions at first") {
			m.start()
		}
		t.Repeat(m.actions())
		start = m.latest
	})
}

// warmUp has everything done once that stores do, so that no later reply is a server's request for a script.
func warmUp(ctx context.Context, b ModelBackend, now time.Time) error {
	cfg := limits()
	cfg.CreateRate, cfg.CreateRatePerPrincipal = 1, 1
	store, err := b.Open(cfg)
	if err != nil {
		return err
	}
	if err := b.Set(now); err != nil {
		return err
	}
	made, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Principal: "warm"}})
	if err != nil {
		return err
	}
	id := made.Session.ID
	_, errUpdate := store.Update(ctx, cluster.Change{ID: id, ExpectedVersion: 1, Writer: "w"})
	_, errLease := store.Lease(ctx, cluster.LeaseCall{ID: id, Digest: made.Token.Digest(), Principal: "warm", Need: 1})
	_, errPrune := store.Prune(ctx, id, []string{"dead"})
	_, errAppend := store.AppendEvents(ctx, cluster.EventAppend{ID: id, Stream: "s", First: 1, Events: [][]byte{{1}}})
	errFrames := store.AppendFrames(ctx, id, []cluster.Frame{{}})
	_, errRead := store.ReadFrames(ctx, cluster.FrameQuery{ID: id, Limit: 1})
	_, errList := store.List(ctx, cluster.Query{Limit: 1})
	_, errStats := store.Stats(ctx)
	_, errSweep := store.Sweep(ctx, sweep)
	errReport := store.Report(ctx, []cluster.Report{{ID: id}})[0].Err
	errCheck := store.Check(ctx, []cluster.ID{id})[0]
	errEvents := store.ReadEvents(ctx, []cluster.EventQuery{{ID: id, Stream: "s", Limit: 1}})[0].Err
	_, errTerminate := store.Terminate(ctx, id, cluster.StatusClosed)
	return errors.Join(errUpdate, errLease, errPrune, errAppend, errFrames, errRead, errList, errStats, errSweep, errReport,
		errCheck, errEvents, errTerminate)
}

// machine drives a store and the model side by side.
type machine struct {
	t       *rapid.T
	b       ModelBackend
	store   cluster.Store
	model   *model
	tokens  []cluster.Token // of all sessions, in the order of their creation
	latest  time.Time       // the clock has been there
	sweptAt time.Time       // when all was swept that was due
}

func newMachine(t *rapid.T, b ModelBackend, start time.Time) *machine {
	t.Helper()
	cfg := drawConfig(t)
	store, err := b.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, b: b, store: store, model: newModel(cfg, start), latest: start, sweptAt: start}
	m.set(start)
	return m
}

// drawConfig draws limits so small that they are reached.
func drawConfig(t *rapid.T) cluster.Config {
	t.Helper()
	number := func(name string, of ...int) int { return rapid.SampledFrom(of).Draw(t, name) }
	seconds := func(name string, of ...int) time.Duration { return time.Duration(number(name, of...)) * time.Second }
	cfg := limits()
	cfg.MaxSessions = number("max_sessions", 2, 1, 3, 4, 5, 6, 0)
	cfg.EvictMinIdle = seconds("evict_min_idle s", 0, 0, 2, 60)
	cfg.InitializeTimeout = 10 * time.Second
	cfg.IdleTimeout = seconds("idle_timeout s", 30, 30, 30, 0)
	cfg.MaxAge = seconds("max_age s", 40, 40, 40, 0)
	cfg.Retention = seconds("retention s", 40, 40, 3, 0)
	cfg.RequestRate, cfg.RequestBurst = number("request_rate", 3, 3, 2, 0), number("request_burst", 5, 40)
	cfg.MaxPending = number("max_pending", 1, 3, 0)
	cfg.CreateRate = number("create_rate", 0, 0, 3)
	cfg.CreateRatePerPrincipal = number("create_rate_per_principal", 0, 2, 1)
	cfg.MaxSessionsPerPrincipal = number("max_sessions_per_principal", 0, 1, 2)
	cfg.EventsCount, cfg.EventsBytes = number("events_count", 4, 6, 6, 0), number("events_bytes", 30, 15, 2)
	cfg.EventsAge = seconds("events_age s", 1, 1, 3, 300)
	cfg.FramesCount, cfg.FramesBytes = number("frames_count", 3, 5, 0), number("frames_bytes", 250, 400)
	return cfg
}

// actions are what may happen at each step, the frequent ones several times.
func (m *machine) actions() map[string]func(*rapid.T) {
	actions := make(map[string]func(*rapid.T))
	add := func(times int, name string, action func()) {
		for i := range times {
			actions[name+string(rune('0'+i))] = func(t *rapid.T) { m.t = t; action() }
		}
	}
	add(3, "start", m.losing(5, m.start))
	add(2, "create", m.losing(5, m.create))
	add(2, "update", m.losing(1, m.update))
	add(4, "lease", m.losing(1, m.lease))
	add(3, "report", m.losing(1, m.report))
	add(2, "terminate", m.losing(2, m.terminate))
	add(1, "sweep", m.losing(2, m.sweep))
	add(1, "prune", m.losing(1, m.prune))
	add(3, "append events", m.losing(1, m.appendEvents))
	add(1, "read events", m.losing(1, m.readEvents))
	add(2, "append frames", m.losing(1, m.appendFrames))
	add(1, "read frames", m.losing(1, m.readFrames))
	add(1, "read", m.losing(2, m.read))
	add(2, "list", m.losing(5, m.list))
	add(4, "time passes", m.pass)
	if m.b.GoesBack {
		add(2, "clock goes back", m.goBack)
	}
	actions[""] = func(t *rapid.T) { m.t = t; m.observe() }
	return actions
}

// losing returns an action that may lose the reply of one of its first exchanges with the server.
func (m *machine) losing(exchanges int, action func()) func() {
	return func() {
		if m.rarely("a reply is lost", 6) {
			m.model.lose = m.number("of exchange", 1, exchanges)
		}
		m.b.Lose(m.model.lose)
		defer func() { // an action may be skipped, or have fewer exchanges
			m.b.Lose(0)
			m.model.lose = 0
		}()
		action()
	}
}

// pass moves the clock forward, by ms or by hours. Somebody sweeps often enough: what lies around for an hour is gone, and
// what lies around with it then is not what the store guarantees.
func (m *machine) pass() {
	step := time.Duration(rapid.SampledFrom([]int{
		1, 3, 40, 250, 333, 999, 1000, 1000, 2000, 4500, 5000, 20_000, 33_000, 400_000, 7_200_000,
	}).Draw(m.t, "ms")) * time.Millisecond
	if rapid.IntRange(0, 2).Draw(m.t, "not whole") == 0 {
		step += time.Duration(rapid.IntRange(1, 999).Draw(m.t, "us")) * time.Microsecond
	}
	const atLeastEvery = 30 * time.Minute
	for step > 0 {
		part := min(step, atLeastEvery)
		if m.model.now.Add(part).Sub(m.sweptAt) > atLeastEvery {
			m.sweep()
			m.sweptAt = m.model.now
		}
		m.set(m.model.now.Add(part))
		step -= part
	}
}

// goBack moves the clock back a little, but never over a moment at which the server forgets something: whether it has done
// so already is its own affair.
func (m *machine) goBack() {
	to := m.model.now.Add(-time.Duration(rapid.IntRange(1, 5_000_000).Draw(m.t, "back us")) * time.Microsecond)
	for _, moment := range m.model.forgotten() {
		if !moment.After(m.latest) {
			to = later(to, moment)
		}
	}
	if to.Before(m.model.now) {
		m.set(to)
	}
}

// set sets the clock, but not to the very millisecond at which the server forgets something: some do so before it is over,
// some after it.
func (m *machine) set(now time.Time) {
	m.t.Helper()
	for slices.ContainsFunc(m.model.forgotten(), func(moment time.Time) bool {
		return moment.Equal(now.Truncate(time.Millisecond))
	}) {
		now = now.Add(time.Millisecond)
	}
	m.model.now, m.latest = now, later(now, m.latest)
	if err := m.b.Set(now); err != nil {
		m.t.Fatal(err)
	}
}
