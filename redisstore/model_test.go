package redisstore_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// model is what a store must behave like: plain Go, one thing at a time, no indexes that could drift.
type model struct {
	cfg      cluster.Config
	now      time.Time
	sessions map[cluster.ID]*modelled
	created  int64
	ended    map[cluster.Status]int64
}

type modelled struct {
	cluster.Session
	digest  cluster.Digest
	writer  string
	purgeAt time.Time
	arrival int64 // us, of the request rate
}

func (m *model) live() []*modelled {
	var live []*modelled
	for _, s := range m.sessions {
		if s.Status.Live() {
			live = append(live, s)
		}
	}
	return live
}

func (m *model) due(s *modelled) bool { return !s.DeadlineAt.IsZero() && !m.now.Before(s.DeadlineAt) }

func (m *model) finish(s *modelled, status cluster.Status) {
	s.Status, s.EndedAt, s.Pending = status, m.now, 0
	s.Version++
	s.DeadlineAt = m.now.Add(m.cfg.Retention)
	s.purgeAt = s.DeadlineAt
	m.ended[status]++
	for range 2 {
		var kept []*modelled
		for _, s := range m.sessions {
			if !s.Status.Live() {
				kept = append(kept, s)
			}
		}
		if len(kept) == 0 {
			return
		}
		oldest := slices.MinFunc(kept, func(a, b *modelled) int {
			return cmp.Or(a.purgeAt.Compare(b.purgeAt), cmp.Compare(a.ID.String(), b.ID.String()))
		})
		if !m.now.Before(oldest.purgeAt) || len(kept) > m.cfg.MaxSessions {
			delete(m.sessions, oldest.ID)
		}
	}
}

func (m *model) create(c cluster.Creation) (*modelled, error) {
	if known := m.sessions[c.Token.ID]; known != nil {
		return known, nil
	}
	oldest := func(by func(*modelled) time.Time) *modelled {
		return slices.MinFunc(m.live(), func(a, b *modelled) int {
			return cmp.Or(by(a).Compare(by(b)), cmp.Compare(a.ID.String(), b.ID.String()))
		})
	}
	for range 2 {
		live := m.live()
		if len(live) == 0 {
			break
		}
		if first := oldest(func(s *modelled) time.Time { return s.DeadlineAt }); m.due(first) {
			m.finish(first, cluster.StatusExpired)
		} else if len(live) >= m.cfg.MaxSessions {
			if lru := oldest(func(s *modelled) time.Time { return s.LastActivityAt }); m.now.Sub(lru.LastActivityAt) >= m.cfg.EvictMinIdle {
				m.finish(lru, cluster.StatusEvicted)
			}
		}
	}
	if len(m.live()) >= m.cfg.MaxSessions {
		return nil, cluster.ErrCapacity
	}
	s := &modelled{digest: c.Token.Digest(), Session: cluster.Session{
		ID: c.Token.ID, Status: cluster.StatusInitializing, Version: 1, Upstream: c.Upstream,
		CreatedAt: m.now, LastActivityAt: m.now, DeadlineAt: m.now.Add(m.cfg.InitializeTimeout),
	}}
	m.sessions[c.Token.ID] = s
	m.created++
	return s, nil
}

// touch moves a session's end after activity at a moment.
func (m *model) touch(s *modelled, at time.Time) {
	if at.After(s.LastActivityAt) {
		s.LastActivityAt = at
	}
	s.DeadlineAt = m.endAfter(s, s.LastActivityAt)
}

func (m *model) endAfter(s *modelled, activity time.Time) time.Time {
	end := activity.Add(m.cfg.IdleTimeout + m.cfg.ReportSlack)
	if old := s.CreatedAt.Add(m.cfg.MaxAge); old.Before(end) {
		end = old
	}
	return end
}

func (m *model) interval() int64 { return 1_000_000 / int64(m.cfg.RequestRate) }

// take takes what is needed from a session's bucket, or nothing, and up to want if a quarter of the rest allows.
func (m *model) take(s *modelled, need, want int) int {
	from := max(s.arrival, m.now.UnixMicro())
	room := (m.now.UnixMicro() + int64(m.cfg.RequestBurst)*m.interval() - from) / m.interval()
	if room < int64(need) {
		return 0
	}
	granted := int64(need) + min(int64(want-need), (room-int64(need))/4)
	if granted > 0 {
		s.arrival = from + granted*m.interval()
	}
	return int(granted)
}

// machine drives a store and the model side by side.
type machine struct {
	t      *rapid.T
	server *miniredis.Miniredis
	store  *redisstore.Store
	model  model
	tokens []cluster.Token
}

func (m *machine) pick() cluster.Token {
	if len(m.tokens) == 0 {
		m.t.Skip("no session yet")
	}
	// Most operations hit one of the last few: older ones are gone.
	first := max(len(m.tokens)-12, 0)
	return m.tokens[rapid.IntRange(first, len(m.tokens)-1).Draw(m.t, "session")]
}

func (m *machine) wantError(got, want error, operation string) bool {
	m.t.Helper()
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		m.t.Fatalf("%s: %v, want %v", operation, got, want)
	}
	return got == nil
}

func (m *machine) create() {
	token, err := cluster.NewToken()
	if err != nil {
		m.t.Fatal(err)
	}
	if rapid.IntRange(0, 5).Draw(m.t, "repeat") == 0 && len(m.tokens) > 0 {
		token = m.pick()
		if m.model.sessions[token.ID] == nil {
			m.t.Skip("purged: an id is made once")
		}
	}
	creation := cluster.Creation{Token: token, NewSession: cluster.NewSession{Upstream: "u"}}
	_, got := m.store.Create(m.t.Context(), creation)
	_, want := m.model.create(creation)
	if m.wantError(got, want, "create") && !slices.Contains(m.tokens, token) {
		m.tokens = append(m.tokens, token)
	}
}

func (m *machine) update() {
	token := m.pick()
	s := m.model.sessions[token.ID]
	c := cluster.Change{
		ID: token.ID, Writer: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(m.t, "writer"),
		Activation: cluster.Activation{UpstreamSession: "x", Revision: "2025-11-25"},
	}
	c.ExpectedVersion = int64(rapid.IntRange(1, 3).Draw(m.t, "version"))
	var want error
	switch {
	case s == nil:
		want = cluster.ErrNotFound
	case !s.Status.Live() || m.model.due(s):
		want = cluster.ErrIllegalTransition
	case s.writer == c.Writer:
	case s.Version != c.ExpectedVersion:
		want = cluster.ErrConflict
	default:
		s.Status, s.writer, s.UpstreamSession, s.Revision = cluster.StatusActive, c.Writer, "x", "2025-11-25"
		s.Version++
		m.model.touch(s, m.model.now)
	}
	_, got := m.store.Update(m.t.Context(), c)
	m.wantError(got, want, "update")
}

func (m *machine) lease() {
	token := m.pick()
	s := m.model.sessions[token.ID]
	need := rapid.IntRange(1, 3).Draw(m.t, "need")
	wanted := need + rapid.IntRange(0, 7).Draw(m.t, "more")
	granted, want := 0, error(nil)
	if s == nil || s.Status != cluster.StatusActive || m.model.due(s) {
		want = cluster.ErrNotFound
	} else if granted = m.model.take(s, need, wanted); granted == 0 {
		want = cluster.ErrRateLimited
	} else {
		s.Requests += int64(need)
		m.model.touch(s, m.model.now)
	}
	grant, got := m.store.Lease(m.t.Context(), cluster.LeaseCall{ID: token.ID, Digest: token.Digest(), Upstream: "u", Need: need, Want: wanted})
	if m.wantError(got, want, "lease") && (grant.Budget != granted || grant.EndsIn != s.DeadlineAt.Sub(m.model.now)) {
		m.t.Fatalf("granted %d until %v, want %d until %v", grant.Budget, grant.EndsIn, granted, s.DeadlineAt.Sub(m.model.now))
	}
}

func (m *machine) report() {
	token := m.pick()
	s := m.model.sessions[token.ID]
	r := cluster.Report{
		ID:           token.ID,
		Idle:         time.Duration(rapid.IntRange(-1, 3000).Draw(m.t, "idle ms")) * time.Millisecond,
		Requests:     rapid.IntRange(0, 5).Draw(m.t, "requests"),
		Unspent:      rapid.IntRange(0, 4).Draw(m.t, "unspent"),
		UnspentSince: m.model.now.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(m.t, "age ms")) * time.Millisecond),
		Want:         rapid.IntRange(0, 4).Draw(m.t, "want"),
	}
	got := m.store.Report(m.t.Context(), []cluster.Report{r})[0]
	if s == nil || s.Status != cluster.StatusActive || m.model.due(s) {
		m.wantError(got.Err, cluster.ErrNotFound, "report")
		return
	}
	m.wantError(got.Err, nil, "report")
	before := s.DeadlineAt
	if r.Idle >= 0 {
		m.model.touch(s, m.model.now.Add(-r.Idle))
	} else {
		s.DeadlineAt = m.model.endAfter(s, m.model.now)
	}
	if before.After(s.DeadlineAt) {
		s.DeadlineAt = before
	}
	s.Requests += int64(r.Requests)
	s.arrival -= max(int64(r.Unspent)*m.model.interval()-m.model.now.Sub(r.UnspentSince).Microseconds(), 0)
	want := cluster.Renewal{Version: s.Version, Budget: m.model.take(s, 0, r.Want), EndsIn: s.DeadlineAt.Sub(m.model.now), At: m.model.now}
	if got != want {
		m.t.Fatalf("renewal %+v, want %+v", got, want)
	}
}

func (m *machine) terminate() {
	token := m.pick()
	s := m.model.sessions[token.ID]
	status := rapid.SampledFrom([]cluster.Status{cluster.StatusClosed, cluster.StatusTerminated, cluster.StatusFailed}).Draw(m.t, "status")
	var want error
	switch {
	case s == nil:
		want = cluster.ErrNotFound
	case !s.Status.Live():
		want = cluster.ErrIllegalTransition
	case m.model.due(s):
		want = cluster.ErrIllegalTransition
		m.model.finish(s, cluster.StatusExpired)
	default:
		m.model.finish(s, status)
	}
	_, got := m.store.Terminate(m.t.Context(), token.ID, status)
	m.wantError(got, want, "terminate")
}

func (m *machine) sweep() {
	expired, purged := 0, 0
	for id, s := range m.model.sessions { // all of one kind, then all of the other, as the store does
		if !s.Status.Live() && !m.model.now.Before(s.purgeAt) {
			delete(m.model.sessions, id)
			purged++
		}
	}
	due := m.model.live()
	slices.SortFunc(due, func(a, b *modelled) int {
		return cmp.Or(a.DeadlineAt.Compare(b.DeadlineAt), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	for _, s := range due {
		if m.model.due(s) {
			m.model.finish(s, cluster.StatusExpired)
			expired++
		}
	}
	if got, err := m.store.Sweep(m.t.Context()); err != nil || len(got.Expired) != expired || got.Purged != purged {
		m.t.Fatalf("sweep: %+v, %v; want %d expired, %d purged", got, err, expired, purged)
	}
}

func (m *machine) pass() {
	step := time.Duration(rapid.SampledFrom([]int{1, 3, 40, 250, 999, 1000, 5000, 20_000, 33_000}).Draw(m.t, "ms")) * time.Millisecond
	m.model.now = m.model.now.Add(step)
	m.server.SetTime(m.model.now)
}

// check compares everything observable.
func (m *machine) check() {
	ctx := m.t.Context()
	violations, err := m.store.Violations(ctx)
	if err != nil || len(violations) > 0 {
		m.t.Fatalf("the store disagrees with itself: %v %v", violations, err)
	}
	byStatus, due := make(map[cluster.Status]int64), int64(0)
	for id, s := range m.model.sessions {
		byStatus[s.Status]++
		want := s.Session
		if s.Status.Live() && m.model.due(s) {
			due++
			want.Status = cluster.StatusExpired
		}
		got, err := m.store.Get(ctx, id)
		if err != nil || got != want {
			m.t.Fatalf("session %s:\n got %+v, %v\nwant %+v", id, got, err, want)
		}
	}
	stats, err := m.store.Stats(ctx)
	if err != nil || stats.Due != due || stats.Created != m.model.created {
		m.t.Fatalf("stats %+v, %v; want %d due, %d created", stats, err, due, m.model.created)
	}
	for _, status := range cluster.Statuses() {
		if stats.ByStatus[status] != byStatus[status] || stats.Ended[status] != m.model.ended[status] {
			m.t.Fatalf("stats count %d %s records, %d ended so; want %d, %d",
				stats.ByStatus[status], status, stats.Ended[status], byStatus[status], m.model.ended[status])
		}
	}
	if n := len(m.model.live()); n > m.model.cfg.MaxSessions {
		m.t.Fatalf("%d live sessions over a cap of %d", n, m.model.cfg.MaxSessions)
	}
	m.checkOrder()
}

func (m *machine) checkOrder() {
	page, err := m.store.List(m.t.Context(), cluster.Query{Limit: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	want := m.model.live()
	slices.SortFunc(want, func(a, b *modelled) int {
		return cmp.Or(a.LastActivityAt.Compare(b.LastActivityAt), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	if len(page.Sessions) != len(want) {
		m.t.Fatalf("%d sessions listed, want %d", len(page.Sessions), len(want))
	}
	for i, s := range page.Sessions {
		if s.ID != want[i].ID {
			m.t.Fatalf("session %d of the listing is %s, want %s", i, s.ID, want[i].ID)
		}
	}
}

func TestStoreBehavesLikeItsModel(t *testing.T) {
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	now, runs := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 0
	rapid.Check(t, func(t *rapid.T) {
		cfg := cluster.DefaultConfig()
		cfg.MaxSessions = rapid.IntRange(1, 5).Draw(t, "max_sessions")
		cfg.EvictMinIdle = time.Duration(rapid.SampledFrom([]int{0, 0, 2, 60}).Draw(t, "evict_min_idle s")) * time.Second
		cfg.IdleTimeout, cfg.MaxAge, cfg.Retention = 30*time.Second, 40*time.Second, 40*time.Second
		cfg.RequestRate, cfg.RequestBurst, cfg.CreateRate = 4, 8, 0
		server.FlushAll()
		now = now.Add(time.Hour)
		server.SetTime(now)
		runs++
		store, err := redisstore.New(client, redisstore.Options{Config: cfg, Prefix: fmt.Sprintf("run-%d", runs)})
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{t: t, server: server, store: store, model: model{
			cfg: cfg, now: now, sessions: make(map[cluster.ID]*modelled), ended: make(map[cluster.Status]int64),
		}}
		actions := map[string]func(*rapid.T){}
		for name, action := range map[string]func(){
			"create": m.create, "create again": m.create, "update": m.update, "update again": m.update, "lease": m.lease,
			"lease again": m.lease, "report": m.report, "terminate": m.terminate, "sweep": m.sweep, "time passes": m.pass,
		} {
			actions[name] = func(t *rapid.T) { m.t = t; action() }
		}
		actions[""] = func(t *rapid.T) { m.t = t; m.check() }
		t.Repeat(maps.Clone(actions))
		now = m.model.now
	})
}
