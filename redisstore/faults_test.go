package redisstore_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// newStore returns a store on an embedded Redis whose replies can be lost: dropReplies closes the connection after so
// many further commands were run, before the client hears of it.
func newStore(t *testing.T) (store *redisstore.Store, client *redis.Client, dropReplies *atomic.Int32) {
	t.Helper()
	server := miniredis.RunT(t)
	dropReplies = new(atomic.Int32)
	client = redis.NewClient(&redis.Options{
		Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true, PoolSize: 2,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &lossyConn{Conn: conn, drop: dropReplies}, nil
		},
	})
	t.Cleanup(func() { _ = client.Close() })
	cfg := cluster.DefaultConfig()
	store, err := redisstore.New(client, redisstore.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return store, client, dropReplies
}

// lossyConn reads a reply and throws it away with the connection, as often as drop says.
type lossyConn struct {
	net.Conn
	drop *atomic.Int32
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.drop.Load() > 0 {
		c.drop.Add(-1)
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func newCreation(t *testing.T) cluster.Creation {
	t.Helper()
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Creation{Token: token, NewSession: cluster.NewSession{Upstream: "u"}}
}

func TestLostReplyTakesEffectOnce(t *testing.T) {
	t.Parallel()
	store, _, drop := newStore(t)
	ctx := t.Context()
	if _, err := store.Create(ctx, newCreation(t)); err != nil { // loads the script, opens the connection
		t.Fatal(err)
	}
	creation := newCreation(t)
	drop.Store(1)
	created, err := store.Create(ctx, creation)
	made := created.Session
	if err != nil {
		t.Fatalf("create after a lost reply: %v", err)
	}
	change := cluster.Change{ID: made.ID, ExpectedVersion: 1, Writer: "w", Activation: cluster.Activation{Revision: "2025-11-25"}}
	drop.Store(1)
	active, err := store.Update(ctx, change)
	if err != nil || active.Version != 2 {
		t.Fatalf("update after a lost reply: version %d, %v; want 2", active.Version, err)
	}
	drop.Store(1)
	ended, err := store.Terminate(ctx, made.ID, cluster.StatusClosed)
	if err != nil || ended.Status != cluster.StatusClosed {
		t.Fatalf("terminate after a lost reply: %s, %v; want closed", ended.Status, err)
	}
	stats, err := store.Stats(ctx)
	if err != nil || stats.Created != 2 || stats.Ended[cluster.StatusClosed] != 1 {
		t.Errorf("%d created, %d closed, %v; want 2, 1", stats.Created, stats.Ended[cluster.StatusClosed], err)
	}
}

func TestLostReplyOfAnAppendStoresNothingTwice(t *testing.T) {
	t.Parallel()
	store, _, drop := newStore(t)
	ctx := t.Context()
	created, err := store.Create(ctx, newCreation(t))
	if err != nil {
		t.Fatal(err)
	}
	id := created.Session.ID
	events := cluster.EventAppend{ID: id, Stream: "s", First: 1, Events: [][]byte{[]byte("one"), []byte("two")}}
	frames := []cluster.Frame{{Method: "one"}, {Method: "two"}}
	for range 3 { // the script's text, then its digest, then as before
		drop.Store(1)
		if _, err := store.AppendEvents(ctx, events); err != nil {
			t.Fatalf("append after a lost reply: %v", err)
		}
	}
	page := store.ReadEvents(ctx, []cluster.EventQuery{{ID: id, Stream: "s", Limit: 10}})[0]
	if page.Err != nil || page.Last != 2 || len(page.Events) != 2 {
		t.Errorf("events %q, last %d, %v; want two", page.Events, page.Last, page.Err)
	}
	if err := store.AppendFrames(ctx, id, frames); err != nil { // loads the script
		t.Fatal(err)
	}
	drop.Store(1)
	if err := store.AppendFrames(ctx, id, frames); !errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("frames whose reply was lost: %v, want ErrStoreUnavailable: they cannot be recognized", err)
	}
	if page, err := store.ReadFrames(ctx, cluster.FrameQuery{ID: id, Limit: 10}); err != nil || page.Last != 4 {
		t.Errorf("last frame %d, %v; want 4", page.Last, err)
	}
	violations, err := store.Violations(ctx)
	if err != nil || len(violations) > 0 {
		t.Errorf("violations: %v, %v", violations, err)
	}
}

func TestLostReplyOfAReservationTakesOnePlace(t *testing.T) {
	t.Parallel()
	p := newPrincipals(t, 1, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 2; c.CreateRatePerPrincipal = 2 })
	for range 2 {
		var lost atomic.Bool
		p.cut.answer = func(key string) bool { return strings.Contains(key, ":principal:") && !lost.Swap(true) }
		if _, err := p.create("p"); err != nil {
			t.Fatalf("create whose reservation's reply was lost: %v", err)
		}
	}
	p.wantFull("with two sessions")
	if n := p.violations(); n != 0 {
		t.Errorf("%d violations", n)
	}
}

func TestLeaseIsNotRepeatedAfterALostReply(t *testing.T) {
	t.Parallel()
	store, _, drop := newStore(t)
	creation := newCreation(t)
	created, err := store.Create(t.Context(), creation)
	made := created.Session
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Update(t.Context(), cluster.Change{ID: made.ID, ExpectedVersion: 1, Writer: "w"}); err != nil {
		t.Fatal(err)
	}
	call := cluster.LeaseCall{ID: made.ID, Digest: creation.Token.Digest(), Upstream: "u", Want: 1}
	if _, err := store.Lease(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	drop.Store(1)
	if _, err := store.Lease(t.Context(), call); !errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("lease whose reply was lost: %v, want ErrStoreUnavailable", err)
	}
	got, err := store.Get(t.Context(), made.ID)
	if err != nil || got.Requests != 2 {
		t.Errorf("%d requests counted, %v; want 2: one answered, one lost", got.Requests, err)
	}
}

func TestScriptsLostByTheServerAreSentAgain(t *testing.T) {
	t.Parallel()
	store, client, _ := newStore(t)
	creation := newCreation(t)
	forget := func() {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	created, err := store.Create(t.Context(), creation)
	made := created.Session
	if err != nil {
		t.Fatal(err)
	}
	forget()
	if _, err := store.Update(t.Context(), cluster.Change{ID: made.ID, ExpectedVersion: 1, Writer: "w"}); err != nil {
		t.Fatal(err)
	}
	forget()
	reports := make([]cluster.Report, 60) // three scripts in one pipeline
	for i := range reports {
		reports[i] = cluster.Report{ID: made.ID, Idle: 0, Requests: 1}
	}
	for i, r := range store.Report(t.Context(), reports) {
		if r.Err != nil {
			t.Fatalf("report %d: %v", i, r.Err)
		}
	}
	forget()
	for _, err := range store.Check(t.Context(), []cluster.ID{made.ID}) {
		if err != nil {
			t.Errorf("check: %v", err)
		}
	}
	forget()
	page, err := store.List(t.Context(), cluster.Query{Limit: 10})
	if err != nil || len(page.Sessions) != 1 || page.Sessions[0].Requests != 60 {
		t.Errorf("list: %+v, %v; want one session with 60 requests", page.Sessions, err)
	}
}

func TestServerAwayIsUnavailableInTime(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	cfg := cluster.DefaultConfig()
	store, err := redisstore.Open("redis://"+server.Addr(), redisstore.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	creation := newCreation(t)
	if _, err := store.Create(t.Context(), creation); err != nil {
		t.Fatal(err)
	}
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, errCreate := store.Create(ctx, newCreation(t))
	_, errGet := store.Get(ctx, creation.Token.ID)
	_, errLease := store.Lease(ctx, cluster.LeaseCall{ID: creation.Token.ID, Want: 1})
	_, errTerminate := store.Terminate(ctx, creation.Token.ID, cluster.StatusClosed)
	_, errList := store.List(ctx, cluster.Query{Limit: 1})
	_, errStats := store.Stats(ctx)
	errs := append(store.Check(ctx, []cluster.ID{creation.Token.ID}),
		errCreate, errGet, errLease, errTerminate, errList, errStats, store.Ping(ctx),
		store.Report(ctx, []cluster.Report{{ID: creation.Token.ID}})[0].Err)
	for i, err := range errs {
		if !errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("call %d: %v, want ErrStoreUnavailable and nothing else", i, err)
		}
	}
	if ctx.Err() != nil {
		t.Error("calls of a dead server did not return in time")
	}
}
