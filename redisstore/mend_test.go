package redisstore_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// drifted is a store with some sessions, whose keys somebody else has touched.
type drifted struct {
	t       *testing.T
	store   *redisstore.Store
	client  redis.UniversalClient
	servers []*miniredis.Miniredis
	now     time.Time

	partitions int

	live, other, ended cluster.Session
}

// owner is whose the sessions are.
const owner cluster.Principal = "ann"

// setups are the kinds of stores, each with as many servers and partitions.
var setups = map[string]struct{ servers, partitions int }{
	"one server":                   {1, 1},
	"one server, 16 partitions":    {1, 16},
	"two servers, 1 partition":     {2, 1},
	"three servers, 16 partitions": {3, 16},
}

func newDrifted(t *testing.T, servers, partitions int) *drifted {
	t.Helper()
	w := &drifted{t: t, partitions: partitions, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for range servers {
		server := miniredis.RunT(t)
		server.ClockTTL(true)
		server.SetTime(w.now)
		w.servers = append(w.servers, server)
	}
	if servers == 1 {
		w.client = redis.NewClient(&redis.Options{Addr: w.servers[0].Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	} else {
		w.client = redis.NewClusterClient(&redis.ClusterOptions{ClusterSlots: w.slots, MaxRedirects: -1, ContextTimeoutEnabled: true, DisableIdentity: true})
	}
	t.Cleanup(func() { _ = w.client.Close() })
	cfg := cluster.DefaultConfig()
	cfg.CreateRate, cfg.CreateRatePerPrincipal, cfg.StoreTimeout = 0, 0, 10*time.Second
	var err error
	if w.store, err = redisstore.New(w.client, redisstore.Options{Config: cfg, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	w.ended, w.live, w.other = w.session(), w.session(), w.session()
	if w.ended, err = w.store.Terminate(t.Context(), w.ended.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute) // nothing is young
	if err := w.store.Beat(t.Context(), "alive/1"); err != nil {
		t.Fatal(err)
	}
	return w
}

// slots shares the slots out among the servers, which know nothing of it.
func (w *drifted) slots(context.Context) ([]redis.ClusterSlot, error) {
	var slots []redis.ClusterSlot
	for i, server := range w.servers {
		slots = append(slots, redis.ClusterSlot{
			Start: i * 16384 / len(w.servers), End: (i+1)*16384/len(w.servers) - 1, Nodes: []redis.ClusterNode{{Addr: server.Addr()}},
		})
	}
	return slots, nil
}

func (w *drifted) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, server := range w.servers {
		server.SetTime(w.now)
	}
}

// session makes an active session that has every kind of key.
func (w *drifted) session() cluster.Session {
	w.t.Helper()
	ctx := w.t.Context()
	created, err := w.store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{
		Upstream: "u", Principal: owner, ClientName: strings.Repeat("long ", 20), Initialize: []byte("{}"),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	id := created.Session.ID
	made, err := w.store.Update(ctx, cluster.Change{ID: id, ExpectedVersion: 1, Writer: "w", Activation: cluster.Activation{UpstreamSession: "x"}})
	if err != nil {
		w.t.Fatal(err)
	}
	report := cluster.Report{ID: id, Started: []cluster.PendingRequest{{Key: "c:1", Owner: "alive/1", Age: time.Second}}}
	if r := w.store.Report(ctx, []cluster.Report{report}); r[0].Err != nil {
		w.t.Fatal(r[0].Err)
	}
	if _, err := w.store.AppendEvents(ctx, cluster.EventAppend{ID: id, Stream: "s", First: 1, Events: [][]byte{[]byte("e")}}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.AppendFrames(ctx, id, []cluster.Frame{{Direction: cluster.FromClient, Method: "m"}}); err != nil {
		w.t.Fatal(err)
	}
	return made
}

// prefix begins the keys of a session's partition.
func (w *drifted) prefix(id cluster.ID) string {
	w.t.Helper()
	for _, server := range w.servers {
		for _, key := range server.Keys() {
			if prefix, found := strings.CutSuffix(key, "session:"+id.String()); found {
				return prefix
			}
		}
	}
	w.t.Fatalf("session %s has no record", id)
	return ""
}

// key is one of a session's own keys, or an index of its partition.
func (w *drifted) key(id cluster.ID, kind string) string {
	w.t.Helper()
	switch kind {
	case "lru", "deadlines", "ended", "counts":
		return w.prefix(id) + kind
	default:
		return w.prefix(id) + kind + ":" + id.String()
	}
}

// places is the key of the owner's places.
func places(of cluster.Principal) string { return "shadowcat:principal:{" + string(of) + "}" }

// do sends one command.
func (w *drifted) do(args ...any) {
	w.t.Helper()
	if err := w.client.Do(w.t.Context(), args...).Err(); err != nil {
		w.t.Fatalf("%v: %v", args, err)
	}
}

// stranger is the id of a session that was never made, in the same partition as another one, or in another.
func (w *drifted) stranger(of cluster.ID, samePartition bool) cluster.ID {
	w.t.Helper()
	slice := func(id cluster.ID) uint64 { return binary.BigEndian.Uint64(id[8:]) % uint64(w.partitions) } // as the store does it
	for {
		token, err := cluster.NewToken()
		if err != nil {
			w.t.Fatal(err)
		}
		if (slice(token.ID) == slice(of)) == samePartition {
			return token.ID
		}
	}
}

// walk makes one walk, and counts what it mends.
func (w *drifted) walk() map[cluster.Repair]int {
	w.t.Helper()
	repairs := make(map[cluster.Repair]int)
	for call := (cluster.MendCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 3}); ; {
		mended, err := w.store.Mend(w.t.Context(), call)
		if err != nil {
			w.t.Fatalf("at %q: %v", call.Cursor, err)
		}
		for _, repair := range mended.Repairs {
			repairs[repair]++
		}
		if call.Cursor = mended.Next; call.Cursor == "" {
			return repairs
		}
	}
}

// ofOne are repairs of one session.
func ofOne(id cluster.ID, kinds ...cluster.RepairKind) map[cluster.Repair]int {
	repairs := make(map[cluster.Repair]int)
	for _, kind := range kinds {
		repairs[cluster.Repair{ID: id, Kind: kind}]++
	}
	return repairs
}

// merged adds repairs of several sessions.
func merged(all ...map[cluster.Repair]int) map[cluster.Repair]int {
	sum := make(map[cluster.Repair]int)
	for _, repairs := range all {
		for repair, n := range repairs {
			sum[repair] += n
		}
	}
	return sum
}

// nobody is whose repair it is when it is of no session.
var nobody cluster.ID

// A drift is something that somebody else has done to a store's keys, and what a walk must find of it.
type drift func(w *drifted) (want map[cluster.Repair]int)

// drifts of records and keys.
var driftsOfKeys = map[string]drift{
	"nothing": func(*drifted) map[cluster.Repair]int { return nil },
	"the record of a live session is gone": func(w *drifted) map[cluster.Repair]int {
		w.do("DEL", w.key(w.live.ID, "session"))
		return merged(ofOne(w.live.ID, cluster.RepairRecordMissing, cluster.RepairKeysOrphaned, cluster.RepairPlaceWrong), ofOne(nobody, cluster.RepairCountWrong))
	},
	"all keys of a live session are gone": func(w *drifted) map[cluster.Repair]int {
		for _, kind := range []string{"more", "pending", "events", "heads", "frames", "session"} {
			w.do("DEL", w.key(w.live.ID, kind))
		}
		return merged(ofOne(w.live.ID, cluster.RepairRecordMissing, cluster.RepairPlaceWrong), ofOne(nobody, cluster.RepairCountWrong))
	},
	"the record of an ended session is gone": func(w *drifted) map[cluster.Repair]int {
		w.do("DEL", w.key(w.ended.ID, "session"))
		return merged(ofOne(w.ended.ID, cluster.RepairRecordMissing, cluster.RepairKeysOrphaned), ofOne(nobody, cluster.RepairCountWrong))
	},
	"a record without a status": func(w *drifted) map[cluster.Repair]int {
		w.do("HDEL", w.key(w.live.ID, "session"), "s")
		return merged(ofOne(w.live.ID, cluster.RepairRecordMissing, cluster.RepairKeysOrphaned, cluster.RepairPlaceWrong), ofOne(nobody, cluster.RepairCountWrong))
	},
	"keys of one that never was": func(w *drifted) map[cluster.Repair]int {
		prefix, want := w.prefix(w.live.ID), make(map[cluster.Repair]int)
		for _, kind := range []string{"more", "pending", "events", "heads", "frames"} {
			id := w.stranger(w.live.ID, true)
			if kind == "events" || kind == "frames" {
				w.do("XADD", prefix+kind+":"+id.String(), "*", "a", "b")
			} else {
				w.do("HSET", prefix+kind+":"+id.String(), "a", "b")
			}
			want = merged(want, ofOne(id, cluster.RepairKeysOrphaned))
		}
		return want
	},
	"keys of a live session that has ended": func(w *drifted) map[cluster.Repair]int {
		w.do("HSET", w.key(w.ended.ID, "pending"), "c:1", "0 alive/1")
		w.do("HSET", w.key(w.ended.ID, "heads"), "s", "1")
		return ofOne(w.ended.ID, cluster.RepairKeysOrphaned)
	},
	"a live session's keys have no TTL": func(w *drifted) map[cluster.Repair]int {
		w.do("PERSIST", w.key(w.live.ID, "session"))
		for _, kind := range []string{"more", "pending", "events", "heads", "frames"} {
			w.do("PERSIST", w.key(w.other.ID, kind))
		}
		return merged(ofOne(w.live.ID, cluster.RepairTTLMissing), ofOne(w.other.ID, cluster.RepairTTLMissing))
	},
	"an ended session's keys have no TTL": func(w *drifted) map[cluster.Repair]int {
		for _, kind := range []string{"session", "more", "frames"} {
			w.do("PERSIST", w.key(w.ended.ID, kind))
		}
		return ofOne(w.ended.ID, cluster.RepairTTLMissing)
	},
}

// driftsOfIndexes are those of the sorted sets of sessions, and of the counts.
var driftsOfIndexes = map[string]drift{
	"a live session is in no index": func(w *drifted) map[cluster.Repair]int {
		w.do("ZREM", w.key(w.live.ID, "lru"), w.live.ID.String())
		w.do("ZREM", w.key(w.live.ID, "deadlines"), w.live.ID.String())
		return ofOne(w.live.ID, cluster.RepairIndexMissing, cluster.RepairIndexMissing)
	},
	"a live session has no place in the order of eviction": func(w *drifted) map[cluster.Repair]int {
		w.do("ZREM", w.key(w.live.ID, "lru"), w.live.ID.String())
		return ofOne(w.live.ID, cluster.RepairIndexMissing)
	},
	"an ended session is in no index": func(w *drifted) map[cluster.Repair]int {
		w.do("ZREM", w.key(w.ended.ID, "ended"), w.ended.ID.String())
		return ofOne(w.ended.ID, cluster.RepairIndexMissing)
	},
	"an index is gone": func(w *drifted) map[cluster.Repair]int {
		w.do("DEL", w.key(w.ended.ID, "ended"))
		return ofOne(w.ended.ID, cluster.RepairIndexMissing)
	},
	"a live session among the ended": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", w.key(w.live.ID, "ended"), 1, w.live.ID.String())
		return ofOne(w.live.ID, cluster.RepairIndexWrong)
	},
	"an ended session among the live": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", w.key(w.ended.ID, "lru"), 1, w.ended.ID.String())
		w.do("ZADD", w.key(w.ended.ID, "deadlines"), 1, w.ended.ID.String())
		return ofOne(w.ended.ID, cluster.RepairIndexWrong)
	},
	"one that never was in each index": func(w *drifted) map[cluster.Repair]int {
		want := make(map[cluster.Repair]int)
		for _, index := range []string{"lru", "deadlines", "ended"} {
			id := w.stranger(w.live.ID, true)
			w.do("ZADD", w.key(w.live.ID, index), 1, id.String())
			want = merged(want, ofOne(id, cluster.RepairRecordMissing))
		}
		return want
	},
	"what is no session in each index": func(w *drifted) map[cluster.Repair]int {
		for _, index := range []string{"lru", "deadlines", "ended"} {
			for n, text := range []string{"", "x", "index|0|0", strings.ToUpper(w.live.ID.String())[:8], "y", "z"} {
				w.do("ZADD", w.key(w.live.ID, index), n*1_000_000_000_000, text)
			}
		}
		return map[cluster.Repair]int{{Kind: cluster.RepairIndexWrong}: 18}
	},
	"counts that are wrong": func(w *drifted) map[cluster.Repair]int {
		w.do("HSET", w.key(w.live.ID, "counts"), "a", 99, "x", -3, "f", "many", "i", 2)
		return ofOne(nobody, cluster.RepairCountWrong)
	},
	"no counts": func(w *drifted) map[cluster.Repair]int {
		w.do("DEL", w.key(w.live.ID, "counts"))
		return ofOne(nobody, cluster.RepairCountWrong)
	},
}

// driftsOfPlaces are those of places and of requests in flight.
var driftsOfPlaces = map[string]drift{
	"a session has lost its place": func(w *drifted) map[cluster.Repair]int {
		w.do("ZREM", places(owner), w.live.ID.String())
		return ofOne(w.live.ID, cluster.RepairPlaceWrong)
	},
	"all places are gone": func(w *drifted) map[cluster.Repair]int {
		w.do("DEL", places(owner))
		return merged(ofOne(w.live.ID, cluster.RepairPlaceWrong), ofOne(w.other.ID, cluster.RepairPlaceWrong))
	},
	"a place of one that never was, and of one that has ended": func(w *drifted) map[cluster.Repair]int {
		id := w.stranger(w.live.ID, true)
		w.do("ZADD", places(owner), 1, id.String(), 2, w.ended.ID.String())
		return merged(ofOne(id, cluster.RepairPlaceWrong), ofOne(w.ended.ID, cluster.RepairPlaceWrong))
	},
	"a place of what is no session": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", places(owner), 1, "x", 1, "")
		return map[cluster.Repair]int{{Kind: cluster.RepairPlaceWrong}: 2}
	},
	"a place of another principal's session": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", places("bob"), 1, w.live.ID.String())
		w.do("EXPIRE", places("bob"), 100_000)
		return ofOne(w.live.ID, cluster.RepairPlaceWrong)
	},
	"places without a TTL": func(w *drifted) map[cluster.Repair]int {
		w.do("PERSIST", places(owner))
		return ofOne(nobody, cluster.RepairTTLMissing)
	},
	"requests in flight at the dead": func(w *drifted) map[cluster.Repair]int {
		old, young := w.now.Add(-30*time.Second).UnixMilli(), w.now.Add(-29*time.Second).UnixMilli()
		w.do("HSET", w.key(w.live.ID, "pending"), "c:2", fmt.Sprint(old, " dead/1"), "c:3", fmt.Sprint(young, " dead/1"),
			"c:4", "nonsense", "c:5", fmt.Sprint(old, " alive/2"))
		kind := cluster.RepairPendingAbandoned
		return ofOne(w.live.ID, kind, kind, kind)
	},
}

func TestOneWalkMendsAllDrift(t *testing.T) {
	t.Parallel()
	for setup, size := range setups {
		for _, drifts := range []map[string]drift{driftsOfKeys, driftsOfIndexes, driftsOfPlaces} {
			for name, drift := range drifts {
				t.Run(setup+"/"+name, func(t *testing.T) {
					t.Parallel()
					w := newDrifted(t, size.servers, size.partitions)
					w.wantMended(drift(w))
				})
			}
		}
	}
}

// wantMended makes a walk that must find just that, and another one that must find nothing.
func (w *drifted) wantMended(want map[cluster.Repair]int) {
	w.t.Helper()
	if diff := cmp.Diff(merged(want), w.walk()); diff != "" {
		w.t.Errorf("mended (-want +got):\n%s", diff)
	}
	if again := w.walk(); len(again) > 0 {
		w.t.Errorf("a second walk mended %v", again)
	}
	violations, err := w.store.Violations(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, violation := range violations {
		w.t.Error(violation)
	}
}

// Sessions of other partitions in an index are told from those that belong there.
func TestSessionsInAForeignPartitionAreMended(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 3, 16)
	id := w.stranger(w.live.ID, false)
	at := w.stranger(w.live.ID, true)
	for _, index := range []string{"lru", "deadlines", "ended"} {
		w.do("ZADD", w.key(w.live.ID, index), 1, id.String())
	}
	kind := cluster.RepairIndexWrong
	w.do("ZADD", w.key(w.live.ID, "lru"), 1, at.String())
	w.wantMended(merged(ofOne(id, kind, kind, kind), ofOne(at, cluster.RepairRecordMissing)))
}

func TestAllDriftAtOnceIsMendedInOneWalk(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 3, 16)
	for range 40 {
		w.session()
	}
	w.pass(time.Minute)
	if err := w.store.Beat(t.Context(), "alive/1"); err != nil {
		t.Fatal(err)
	}
	for _, drift := range driftsOfIndexes {
		drift(w)
	}
	for _, drift := range driftsOfPlaces {
		drift(w)
	}
	for name, drift := range driftsOfKeys {
		if !strings.Contains(name, "gone") && !strings.Contains(name, "status") { // the others need the records
			drift(w)
		}
	}
	w.do("DEL", w.key(w.live.ID, "session"))
	w.walk()
	w.wantMended(nil)
	page, err := w.store.List(t.Context(), cluster.Query{Principal: owner, Limit: 100})
	if err != nil || len(page.Sessions) != 41 {
		t.Errorf("%d sessions live, %v; want 41", len(page.Sessions), err)
	}
}

// A session that has lost its end is given one from which no open stream can suffer; its activity is what it was.
func TestAMendedIndexEndsNobodyEarly(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	w.pass(29 * time.Minute)
	report := cluster.Report{ID: w.live.ID, Idle: -1} // a silent stream
	if r := w.store.Report(t.Context(), []cluster.Report{report}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	w.pass(20 * time.Minute)
	before, err := w.store.Get(t.Context(), w.live.ID)
	if err != nil || before.Status != cluster.StatusActive {
		t.Fatalf("%+v, %v", before, err)
	}
	w.do("ZREM", w.key(w.live.ID, "deadlines"), w.live.ID.String())
	w.do("ZREM", w.key(w.live.ID, "lru"), w.live.ID.String())
	w.walk()
	after, err := w.store.Get(t.Context(), w.live.ID)
	if err != nil || after.Status != cluster.StatusActive || after.DeadlineAt.Before(before.DeadlineAt) || after.DeadlineAt.After(w.now.Add(31*time.Minute)) {
		t.Errorf("it ends at %v, %v; want between %v and half an hour from %v", after.DeadlineAt, err, before.DeadlineAt, w.now)
	}
	score, err := w.client.ZScore(t.Context(), w.key(w.live.ID, "lru"), w.live.ID.String()).Result()
	if err != nil || int64(score) != before.LastActivityAt.UnixMilli() {
		t.Errorf("its activity is at %s, %v; want %v", strconv.FormatFloat(score, 'f', -1, 64), err, before.LastActivityAt)
	}
}

// Sweeping looks at a session again: a wrong index entry ends and purges nobody.
func TestAWrongIndexEntryHarmsNobody(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	w.do("ZADD", w.key(w.live.ID, "ended"), 1, w.live.ID.String(), 1, "x")
	w.do("ZADD", w.key(w.ended.ID, "deadlines"), 1, w.ended.ID.String(), 1, "y")
	purged, err := w.store.Purge(t.Context(), cluster.Cleanup{}, []cluster.ID{w.other.ID})
	if err != nil || len(purged) > 0 {
		t.Errorf("purged %v, %v", purged, err)
	}
	swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Limit: 10})
	if err != nil || len(swept.Expired) > 0 || len(swept.Purged) > 0 {
		// "x" was in an index, and is told as purged by the script: it is no session.
		t.Errorf("swept %+v, %v; want nothing", swept, err)
	}
	if got, err := w.store.Get(t.Context(), w.live.ID); err != nil || got.Status != cluster.StatusActive {
		t.Errorf("the live session is %s, %v", got.Status, err)
	}
	if got, err := w.store.Get(t.Context(), w.ended.ID); err != nil || got.Status != cluster.StatusClosed || !got.EndedAt.Equal(w.ended.EndedAt) {
		t.Errorf("the ended session is %+v, %v", got, err)
	}
	w.wantMended(nil)
}

// A mended session that a fault has kept from being told is not forgotten: what was done is told with the error.
func TestAWalkTellsWhatItDidBeforeAFault(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	w.do("PERSIST", w.key(w.live.ID, "session"))
	w.servers[0].Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		isPlaces := strings.EqualFold(command, "pttl") && len(args) == 1 && args[0] == places(owner)
		if isPlaces {
			peer.WriteError("ERR told to fail")
		}
		return isPlaces
	})
	kinds := make(map[cluster.RepairKind]int)
	for cursor := ""; ; {
		mended, err := w.store.Mend(t.Context(), cluster.MendCall{Cursor: cursor, Limit: 100})
		for _, repair := range mended.Repairs {
			kinds[repair.Kind]++
		}
		if err != nil {
			break
		}
		if cursor = mended.Next; cursor == "" {
			t.Fatal("the walk has met no fault")
		}
	}
	if kinds[cluster.RepairTTLMissing] < 1 {
		t.Errorf("told %v; want the TTL that was mended", kinds)
	}
}
