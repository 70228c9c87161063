package redisstore

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// memory is a hook of the client that answers INFO memory in the server's place.
type memory struct {
	text string
	err  error
}

// DialHook and the others make it a hook of the client.
func (m *memory) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *memory) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		info, isString := cmd.(*redis.StringCmd)
		if cmd.Name() != "info" || !isString {
			return next(ctx, cmd)
		}
		info.SetVal(m.text)
		info.SetErr(m.err)
		return m.err
	}
}

func (m *memory) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// relieved is a store with a server whose memory is what the test says.
func relieved(t *testing.T, m *memory) (*Store, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	if m != nil {
		client.AddHook(m)
	}
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 10 * time.Second
	store, err := New(client, Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return store, server
}

func addSession(t *testing.T, store *Store) cluster.ID {
	t.Helper()
	created, err := store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
	if err != nil {
		t.Fatal(err)
	}
	return created.Session.ID
}

func TestNumbersAreReadFromINFO(t *testing.T) {
	t.Parallel()
	text := "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:2097152\r\nmaxmemory_policy:noeviction\r\nmem_fragmentation_ratio:1.25\r\nodd:x\r\n"
	for name, want := range map[string]float64{
		"used_memory": 1 << 20, "maxmemory": 2 << 20, "mem_fragmentation_ratio": 1.25, "odd": 0, "memory": 0, "used_memory_huma": 0, "": 0,
	} {
		if got := infoNumber(text, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := infoNumber("maxmemory:7", "maxmemory"); got != 7 {
		t.Errorf("without an end of line: %v, want 7", got)
	}
}

func TestMemoryUsageIsAShareOfTheLimit(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	for name, c := range map[string]struct {
		server memory
		want   float64
		fails  bool
	}{
		"three quarters":          {server: memory{text: "used_memory:75\r\nmaxmemory:100\r\n"}, want: .75},
		"over it":                 {server: memory{text: "used_memory:110\r\nmaxmemory:100\r\n"}, want: 1.1},
		"no limit":                {server: memory{text: "used_memory:75\r\nmaxmemory:0\r\n"}},
		"a limit below nothing":   {server: memory{text: "used_memory:75\r\nmaxmemory:-1\r\n"}},
		"it tells nothing":        {server: memory{}},
		"it refuses to tell":      {server: memory{err: redisError("NOPERM this user has no permissions to run the 'info' command")}},
		"it cannot be asked":      {server: memory{err: broken}, fails: true},
		"it does not answer soon": {server: memory{err: context.DeadlineExceeded}, fails: true},
	} {
		store, _ := relieved(t, &c.server)
		usage, err := memoryUsage(t.Context(), store.client)
		if usage != c.want || errors.Is(err, cluster.ErrStoreUnavailable) != c.fails || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v; want %v", name, usage, err, c.want)
		}
	}
}

// redisError is what a server says.
type redisError string

func (e redisError) Error() string { return string(e) }

// RedisError marks it as such.
func (redisError) RedisError() {}

// The embedded Redis does not tell its memory: nothing is done, and nothing fails.
func TestWithoutALimitNobodyGoes(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]*memory{
		"embedded": nil, "no limit": {text: "used_memory:75\r\nmaxmemory:0\r\n"}, "below": {text: "used_memory:90\r\nmaxmemory:100\r\n"},
	} {
		store, _ := relieved(t, server)
		live, gone := addSession(t, store), addSession(t, store)
		if _, err := store.Terminate(t.Context(), gone, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
		done, err := store.Relieve(t.Context(), cluster.RelieveCall{Above: .9, Limit: 10})
		if err != nil || len(done.Purged)+len(done.Evicted) > 0 || done.Spent {
			t.Errorf("%s: %+v, %v; want nothing", name, done, err)
		}
		for _, id := range []cluster.ID{live, gone} {
			if _, err := store.Get(t.Context(), id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// First the records of ended sessions go, then idle sessions, the longest idle first; in the end there is nobody who may.
func TestAFullServerIsRelievedInOrder(t *testing.T) {
	t.Parallel()
	store, server := relieved(t, &memory{text: "used_memory:95\r\nmaxmemory:100\r\n"})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pass := func(d time.Duration) { now = now.Add(d); server.SetTime(now) }
	pass(0)
	var ids []cluster.ID
	for range 4 {
		ids = append(ids, addSession(t, store))
		pass(time.Second)
	}
	gone, idle, busy, fresh := ids[0], ids[1], ids[2], ids[3]
	if _, err := store.Terminate(t.Context(), gone, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	s, err := store.Update(t.Context(), cluster.Change{ID: busy, ExpectedVersion: 1, Writer: "w"})
	if err != nil {
		t.Fatal(err)
	}
	started := []cluster.PendingRequest{{Key: "c:1", Owner: "a/1", Age: time.Second}}
	if r := store.Report(t.Context(), []cluster.Report{{ID: s.ID, Started: started}}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	for range 2 { // strangers in an index stop nobody
		store.client.ZAdd(t.Context(), store.partitions[0].lru(), redis.Z{Score: 1, Member: "x"})
		store.client.ZAdd(t.Context(), store.partitions[0].ended(), redis.Z{Score: 1, Member: "y"})
	}
	pass(10 * time.Second)
	call := cluster.RelieveCall{Above: .9, Limit: 10, IdleFor: 11500 * time.Millisecond}
	evict := func(id cluster.ID) [2][]cluster.ID { return [2][]cluster.ID{nil, {id}} }
	purge := func(id cluster.ID) [2][]cluster.ID { return [2][]cluster.ID{{id}, nil} }
	for step, want := range [][2][]cluster.ID{purge(gone), evict(idle), purge(idle), {}} {
		wantRelieved(t, store, call, step, want)
	}
	call.IdleFor = 0
	for step, want := range [][2][]cluster.ID{evict(fresh), purge(fresh), {}} {
		wantRelieved(t, store, call, step, want)
	}
	call.Force = true
	for step, want := range [][2][]cluster.ID{evict(busy), purge(busy), {}} {
		wantRelieved(t, store, call, step, want)
	}
}

// Who goes because memory runs out leaves a span of the cleanup.
func TestAnEvictionOfEmergencyCleanupIsASpanOfIt(t *testing.T) {
	t.Parallel()
	store, _ := relieved(t, &memory{text: "used_memory:95\r\nmaxmemory:100\r\n"})
	spans := tracetest.NewSpanRecorder()
	store.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer(tracerName)
	ids := []cluster.ID{addSession(t, store), addSession(t, store)}
	ctx, cleanup := store.tracer.Start(t.Context(), "emergency cleanup")
	defer cleanup.End()
	if done, err := store.Relieve(ctx, cluster.RelieveCall{Above: .9, Limit: 10, Force: true}); err != nil || len(done.Evicted) != len(ids) {
		t.Fatalf("%+v, %v; want both evicted", done, err)
	}
	for _, id := range ids {
		isOf := func(span sdktrace.ReadOnlySpan) bool {
			return span.Name() == "evict session" && span.Parent().SpanID() == cleanup.SpanContext().SpanID() &&
				slices.Contains(span.Attributes(), attribute.String("mcp.session.id", id.String()))
		}
		if !slices.ContainsFunc(spans.Ended(), isOf) {
			t.Errorf("no span under the cleanup tells of %s: %+v", id, tracetest.SpanStubsFromReadOnlySpans(spans.Ended()))
		}
	}
}

// wantRelieved makes one step: what it purges and evicts.
func wantRelieved(t *testing.T, store *Store, call cluster.RelieveCall, step int, want [2][]cluster.ID) {
	t.Helper()
	done, err := store.Relieve(t.Context(), call)
	var evicted []cluster.ID
	for _, s := range done.Evicted {
		evicted = append(evicted, s.ID)
		if s.Status != cluster.StatusEvicted {
			t.Errorf("step %d: %s is %s", step, s.ID, s.Status)
		}
	}
	nothing := len(want[0])+len(want[1]) == 0
	if err != nil || !slices.Equal(done.Purged, want[0]) || !slices.Equal(evicted, want[1]) || done.Spent != nothing || done.Usage != .95 {
		t.Errorf("step %d: purged %v, evicted %v, usage %v, spent %v, %v; want %v", step, done.Purged, evicted, done.Usage, done.Spent, err, want)
	}
}

func TestRelieveIsFenced(t *testing.T) {
	t.Parallel()
	store, _ := relieved(t, &memory{text: "used_memory:95\r\nmaxmemory:100\r\n"})
	id := addSession(t, store)
	if _, err := store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 7, Leader: true}, Limit: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a live one (forced: it has just been made), then an ended one
		call := cluster.RelieveCall{Cleanup: cluster.Cleanup{Epoch: 6, Leader: true}, Above: .9, Limit: 10, Force: true}
		done, err := store.Relieve(t.Context(), call)
		if fenced, ok := errors.AsType[*cluster.FencedError](err); !ok || fenced.Epoch != 7 || len(done.Evicted)+len(done.Purged) > 0 {
			t.Errorf("%+v, %v; want a FencedError of epoch 7", done, err)
		}
		if _, err := store.Terminate(t.Context(), id, cluster.StatusClosed); err != nil && !errors.Is(err, cluster.ErrIllegalTransition) {
			t.Fatal(err)
		}
	}
}
