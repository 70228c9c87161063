package redisstore_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// cutOff is a fault of the network: commands whose first key it matches are not sent.
type cutOff struct {
	key atomic.Pointer[string]
	// answer says of which first keys the reply is lost, and the connection with it. Nil: of none.
	answer func(key string) bool
}

var errCutOff = errors.New("cut off")

func (c *cutOff) set(part string) { c.key.Store(&part) }

func (c *cutOff) hits(cmd redis.Cmder) bool {
	part := c.key.Load()
	return part != nil && *part != "" && strings.Contains(firstKey(cmd), *part)
}

// DialHook and the others make it a hook of the client.
func (c *cutOff) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *cutOff) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if c.hits(cmd) {
			cmd.SetErr(errCutOff)
			return errCutOff
		}
		err := next(ctx, cmd)
		if c.answer != nil && c.answer(firstKey(cmd)) {
			err = io.EOF
			cmd.SetErr(err)
		}
		return err
	}
}

// firstKey returns the first key of a script's run.
func firstKey(cmd redis.Cmder) string {
	if len(cmd.Args()) < 4 {
		return ""
	}
	key, _ := cmd.Args()[3].(string)
	return key
}

func (c *cutOff) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if c.hits(cmd) {
				cmd.SetErr(errCutOff)
				return errCutOff
			}
		}
		return next(ctx, cmds)
	}
}

// principals is a store whose clock and faults the test controls.
type principals struct {
	t      *testing.T
	store  *redisstore.Store
	cut    cutOff
	now    time.Time
	server *miniredis.Miniredis
}

func newPrincipals(t *testing.T, partitions int, change func(*cluster.Config)) *principals {
	t.Helper()
	p := &principals{t: t, server: miniredis.RunT(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p.server.ClockTTL(true)
	p.server.SetTime(p.now)
	client := redis.NewClient(&redis.Options{Addr: p.server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	client.AddHook(&p.cut)
	t.Cleanup(func() { _ = client.Close() })
	cfg := cluster.DefaultConfig()
	cfg.CreateRate, cfg.CreateRatePerPrincipal = 0, 0
	cfg.StoreTimeout = 10 * time.Second
	change(&cfg)
	store, err := redisstore.New(client, redisstore.Options{Config: cfg, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	p.store = store
	return p
}

func (p *principals) advance(d time.Duration) {
	p.now = p.now.Add(d)
	p.server.SetTime(p.now)
}

func (p *principals) create(principal cluster.Principal) (cluster.Created, error) {
	return p.store.Create(p.t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u", Principal: principal}})
}

// abandon leaves the place of a replica that dies between reserving it and making the session.
func (p *principals) abandon(principal cluster.Principal) {
	p.t.Helper()
	p.cut.set(":session:")
	defer p.cut.set("")
	if _, err := p.create(principal); !errors.Is(err, cluster.ErrStoreUnavailable) {
		p.t.Fatalf("create cut off from the session's key: %v, want ErrStoreUnavailable", err)
	}
}

func (p *principals) wantFull(when string) {
	p.t.Helper()
	_, err := p.create("p")
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || limit.Limit != "max_sessions_per_principal" || !errors.Is(err, cluster.ErrPrincipalCapacity) {
		p.t.Fatalf("%s: %v, want ErrPrincipalCapacity by max_sessions_per_principal", when, err)
	}
}

func (p *principals) violations() int {
	p.t.Helper()
	found, err := p.store.Violations(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return len(found)
}

func TestPlaceOfADeadCreatorIsClearedWhenItIsNeeded(t *testing.T) {
	t.Parallel()
	p := newPrincipals(t, 1, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 2 })
	if _, err := p.create("p"); err != nil {
		t.Fatal(err)
	}
	p.abandon("p")
	if p.violations() != 1 {
		t.Error("a place without a session is no violation")
	}
	p.wantFull("at once") // the creator may still be about to make it
	p.advance(5*time.Second - time.Millisecond)
	p.wantFull("just before the place is settled")
	p.advance(time.Millisecond)
	if _, err := p.create("p"); err != nil {
		t.Errorf("after 5s: %v", err)
	}
	p.wantFull("with two live sessions")
	if n := p.violations(); n != 0 {
		t.Errorf("%d violations when the place was cleared", n)
	}
}

func TestPlacesOfManyDeadCreatorsAreCleared(t *testing.T) {
	t.Parallel()
	const most = 50 // more than are looked at in one round
	p := newPrincipals(t, 4, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = most })
	for range most {
		p.abandon("p")
	}
	p.wantFull("at once")
	p.advance(5 * time.Second)
	for range most {
		if _, err := p.create("p"); err != nil {
			t.Fatal(err)
		}
	}
	p.wantFull("with as many live sessions")
	if n := p.violations(); n != 0 {
		t.Errorf("%d violations", n)
	}
}

func TestPlaceThatCouldNotBeGivenBackIsCleared(t *testing.T) {
	t.Parallel()
	p := newPrincipals(t, 1, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 1 })
	created, err := p.create("p")
	if err != nil {
		t.Fatal(err)
	}
	p.cut.set(":principal:")
	if _, err := p.store.Terminate(t.Context(), created.Session.ID, cluster.StatusClosed); err != nil {
		t.Fatalf("terminate without the principal's key: %v", err)
	}
	p.cut.set("")
	page, err := p.store.List(t.Context(), cluster.Query{Principal: "p", Limit: 10})
	if err != nil || len(page.Sessions) != 0 {
		t.Errorf("an ended session is listed among the principal's live ones: %+v, %v", page.Sessions, err)
	}
	p.advance(5 * time.Second)
	if _, err := p.create("p"); err != nil {
		t.Errorf("after 5s: %v", err)
	}
}

func TestPrincipalIsNotRefusedForSessionsThatAreDue(t *testing.T) {
	t.Parallel()
	p := newPrincipals(t, 4, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 3 })
	for range 3 {
		if _, err := p.create("p"); err != nil {
			t.Fatal(err)
		}
	}
	p.wantFull("while they live")
	p.advance(cluster.DefaultConfig().InitializeTimeout) // nobody sweeps
	for range 3 {
		if _, err := p.create("p"); err != nil {
			t.Fatal(err)
		}
	}
	p.wantFull("with three new ones")
	if n := p.violations(); n != 0 {
		t.Errorf("%d violations", n)
	}
}

func TestPrincipalWhoseSessionsCannotBeAskedAboutKeepsItsPlaces(t *testing.T) {
	t.Parallel()
	p := newPrincipals(t, 1, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 1 })
	created, err := p.create("p")
	if err != nil {
		t.Fatal(err)
	}
	p.advance(5 * time.Second)
	p.cut.set(":session:")
	if _, err := p.create("p"); !errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("create while sessions cannot be read: %v, want ErrStoreUnavailable", err)
	}
	p.cut.set("")
	p.wantFull("when they can be read again")
	if got, err := p.store.Get(t.Context(), created.Session.ID); err != nil || !got.Status.Live() {
		t.Errorf("the session is %s, %v", got.Status, err)
	}
}

// One principal, 64 creators at once, places coming and going, 16 partitions: at no moment are there more than the cap.
func TestPrincipalCapHoldsWhileSessionsComeAndGo(t *testing.T) {
	t.Parallel()
	const most, creators, each = 5, 64, 8
	p := newPrincipals(t, 16, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = most })
	var (
		live, highest, made atomic.Int64
		wg                  sync.WaitGroup
	)
	for range creators {
		wg.Go(func() {
			for range each {
				created, err := p.create("p")
				if errors.Is(err, cluster.ErrPrincipalCapacity) {
					continue
				}
				if err != nil {
					t.Errorf("create: %v", err)
					return
				}
				made.Add(1)
				for now := live.Add(1); ; {
					before := highest.Load()
					if now <= before || highest.CompareAndSwap(before, now) {
						break
					}
				}
				live.Add(-1) // before it ends: never more are counted than there are
				if _, err := p.store.Terminate(t.Context(), created.Session.ID, cluster.StatusClosed); err != nil {
					t.Errorf("terminate: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if highest.Load() > most || made.Load() < most {
		t.Errorf("%d sessions at once, %d in all; the cap is %d", highest.Load(), made.Load(), most)
	}
	if n := p.violations(); n != 0 {
		t.Errorf("%d violations", n)
	}
}
