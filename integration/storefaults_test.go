package integration_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// patientTimeout is a store_timeout that no healthy server exceeds, however busy the machine.
	patientTimeout = 5 * time.Second
	// failoverBound is how long calls may fail after the death of a primary. Measured on an idle machine with servers that
	// count as down after 1 s: 2 to 3 s with Sentinel, 2 to 3 s on a Redis Cluster.
	failoverBound = 9 * time.Second
)

func TestScriptsFlushedUnderLoad(t *testing.T) {
	t.Parallel()
	const flushes = 100
	at := newStandalone(t)
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = patientTimeout
	store := openStore(t, at.URL(storeUser), options)
	l := startLoad(t, store, options, newSettled(t, store))
	client := at.Client()
	defer client.Close()
	for range flushes {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		l.waitForCalls(t, 20)
	}
	l.end()
	got := l.outcome()
	for _, e := range got.errs {
		t.Error(e)
	}
	t.Logf("%d calls, the slowest took %s", got.calls, got.slowest)
	checkViolations(t, at, options)
}

// replicated is a topology that survives the death of a primary.
type replicated interface {
	server
	WaitReplicated(ctx context.Context) error
	WaitHealthy(ctx context.Context) error
	Restore(ctx context.Context) error
}

// primaryFinder names the primary of a key now.
type primaryFinder func(key string) (*redisserver.Server, error)

// startReplicated starts the topologies that survive the death of a primary, by name.
var startReplicated = map[string]func(*testing.T) (replicated, primaryFinder){
	"Sentinel": func(t *testing.T) (replicated, primaryFinder) {
		t.Helper()
		topology := newSentinel(t, sentinel.Options{})
		return topology, func(string) (*redisserver.Server, error) { return topology.Primary(t.Context()) }
	},
	"Cluster": func(t *testing.T) (replicated, primaryFinder) {
		t.Helper()
		topology := newRedisCluster(t, rediscluster.Options{})
		return topology, func(key string) (*redisserver.Server, error) { return topology.Primary(t.Context(), key) }
	},
}

func TestPrimaryKilledUnderLoad(t *testing.T) {
	for name, start := range startReplicated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, primaryOf := start(t)
			var dead map[string]bool
			l := losePrimaryUnderLoad(t, at, primaryOf, func(primary *redisserver.Server, holds map[string]bool) {
				dead = holds
				primary.Kill()
			})
			l.outcome().checkOnly(t, dead)
			checkViolations(t, at, l.options)
			if err := at.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A primary that hangs is replaced, too, and comes back with the belief that it is one.
func TestPrimaryHangsUnderLoad(t *testing.T) {
	for name, start := range startReplicated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, primaryOf := start(t)
			var hung *redisserver.Server
			var held map[string]bool
			l := losePrimaryUnderLoad(t, at, primaryOf, func(primary *redisserver.Server, holds map[string]bool) {
				hung, held = primary, holds
				if err := hung.Suspend(); err != nil {
					t.Fatal(err)
				}
			})
			l.outcome().checkOnly(t, held)
			again := startLoad(t, l.store, l.options, l.settled)
			if err := hung.Resume(); err != nil {
				t.Fatal(err)
			}
			if err := at.WaitHealthy(t.Context()); err != nil {
				t.Fatal(err)
			}
			again.end()
			got := again.outcome()
			t.Logf("%d calls, %d failed while the old primary came back", got.calls, got.failed)
			got.checkErrors(t, true)
			checkViolations(t, at, l.options)
		})
	}
}

// losePrimaryUnderLoad lets lose take a primary away, of which it tells the ids of the sessions, and waits until all calls
// work again. The load it returns has ended.
func losePrimaryUnderLoad(t *testing.T, at replicated, primaryOf primaryFinder, lose func(primary *redisserver.Server, holds map[string]bool)) *load {
	t.Helper()
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = time.Second
	store := openStore(t, at.URL(storeUser), options)
	settled := newSettled(t, store)
	if err := at.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, store, options, settled)
	l.waitForCalls(t, 1000)
	if errs := l.outcome().errs; len(errs) > 0 {
		t.Fatalf("before the loss: %s", errs[0])
	}
	primary, err := primaryOf(options.Prefix + ":{0}:lru")
	if err != nil {
		t.Fatal(err)
	}
	lose(primary, sessionsOn(t, primary, options.Prefix))
	outage := l.waitForCalm(t, time.Now(), 2*options.Config.StoreTimeout)
	l.end()
	got := l.outcome()
	t.Logf("%d calls, %d failed, the last one %s after the loss; the slowest took %s",
		got.calls, got.failed, outage.Round(time.Millisecond), got.slowest.Round(time.Millisecond))
	if got.failed == 0 {
		t.Error("nothing failed: the loss hit nobody")
	}
	if outage > failoverBound {
		t.Errorf("calls failed for %s, want at most %s", outage, failoverBound)
	}
	if limit := options.Config.StoreTimeout + time.Second; got.slowest > limit {
		t.Errorf("a call took %s, want at most %s", got.slowest, limit)
	}
	got.checkErrors(t, true)
	for _, k := range settled {
		if _, err := store.Lease(t.Context(), k.lease()); err != nil {
			t.Errorf("after the failover: %v", err)
		}
	}
	return l
}

// sessionsOn returns the ids of the sessions that a server holds in keys that begin with the prefix.
func sessionsOn(t *testing.T, at *redisserver.Server, prefix string) map[string]bool {
	t.Helper()
	keys, err := at.Keys(t.Context(), prefix+":*session:*")
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool, len(keys))
	for _, key := range keys {
		ids[key[strings.LastIndex(key, ":")+1:]] = true
	}
	return ids
}

// While a slot moves to another primary, its partition may be away, and nothing is left half done.
func TestSlotMigratedUnderLoad(t *testing.T) {
	t.Parallel()
	at := newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = time.Second
	store := openStore(t, at.URL(storeUser), options)
	settled := newSettled(t, store)
	key := options.Prefix + ":{0}:lru"
	primary, err := at.Primary(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	moving := sessionsOn(t, primary, options.Prefix+":{0}")
	l := startLoad(t, store, options, settled)
	l.waitForCalls(t, 500)
	migration, err := at.Migrate(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		if more, err = migration.Step(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		l.waitForCalls(t, 50)
	}
	if err := migration.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := l.waitForCalm(t, time.Now(), time.Second)
	l.end()
	got := l.outcome()
	t.Logf("%d calls, %d failed, the last one %s after the migration; the slowest took %s",
		got.calls, got.failed, after.Round(time.Millisecond), got.slowest.Round(time.Millisecond))
	if got.failed == 0 {
		t.Error("nothing failed: the migration hit nobody")
	}
	if after > time.Second {
		t.Errorf("calls failed for %s after the migration", after)
	}
	got.checkErrors(t, false)
	got.checkOnly(t, moving)
	checkViolations(t, at, options)
	checkRefusals(t, at)
}

func TestStoreThatStallsUnderLoad(t *testing.T) {
	t.Parallel()
	const stall = 2 * time.Second
	at := newStandalone(t)
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	store := openStore(t, at.URL(storeUser), options)
	l := startLoad(t, store, options, newSettled(t, store))
	l.waitForCalls(t, 100)
	before := l.outcome().failed
	if err := at.Suspend(); err != nil {
		t.Fatal(err)
	}
	stalled := time.NewTimer(stall)
	defer stalled.Stop()
	<-stalled.C
	if err := at.Resume(); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	after := l.waitForCalm(t, resumed, 500*time.Millisecond)
	l.end()
	got := l.outcome()
	t.Logf("%d calls, %d failed, the last one %s after the stall; the slowest took %s",
		got.calls, got.failed, after.Round(time.Millisecond), got.slowest.Round(time.Millisecond))
	if got.failed == before {
		t.Error("nothing failed: the stall hit nobody")
	}
	// What is more than the timeout is a busy machine.
	if limit := 3 * options.Config.StoreTimeout; got.slowest > limit {
		t.Errorf("a call took %s, want about %s", got.slowest, options.Config.StoreTimeout)
	}
	if after > time.Second {
		t.Errorf("calls failed for %s after the stall", after)
	}
	got.checkErrors(t, false)
	checkViolations(t, at, options)
}

// notedKey is that of a note that the sessions have when the server fills up.
const notedKey = "noted"

func TestAFullServerRefusesNewSessionsAndServesTheOthers(t *testing.T) {
	t.Parallel()
	at := newStandalone(t)
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = patientTimeout
	store := openStore(t, at.URL(storeUser), options)
	settled := newSettled(t, store)
	created, err := store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
	young := created.Session
	if err != nil {
		t.Fatal(err)
	}
	setMaxMemory := func(limit string) {
		t.Helper()
		client := at.Client()
		defer client.Close()
		if err := client.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range settled {
		if err := store.Note(t.Context(), cluster.Note{ID: k.ID, Key: notedKey, Message: []byte("note")}); err != nil {
			t.Fatal(err)
		}
	}
	setMaxMemory("1mb") // less than is in use
	_, err = store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
	if !errors.Is(err, cluster.ErrStoreUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("create: %v, want ErrStoreUnavailable that says OOM", err)
	}
	// At the cap a create ends somebody first, which a full server permits: it must not open the door to the rest.
	options.Config.MaxSessions, options.Config.EvictMinIdle = 1, 0
	_, err = openStore(t, at.URL(storeUser), options).Create(t.Context(), cluster.Creation{})
	if !errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("create at the cap: %v, want ErrStoreUnavailable", err)
	}
	if stats, err := store.Stats(t.Context()); err != nil || stats.Ended[cluster.StatusEvicted] != 0 {
		t.Errorf("a create that was refused evicted %d sessions, %v", stats.Ended[cluster.StatusEvicted], err)
	}
	if _, err := store.Update(t.Context(), cluster.Change{ID: young.ID, ExpectedVersion: young.Version, Writer: "w"}); err != nil {
		t.Errorf("update: %v", err)
	}
	for i, k := range settled {
		if _, err := store.Lease(t.Context(), k.lease()); err != nil {
			t.Errorf("lease: %v", err)
		}
		pending := cluster.PendingRequest{Key: "c1", Owner: "replica", Age: time.Second}
		report := cluster.Report{ID: k.ID, Requests: 1, Started: []cluster.PendingRequest{pending}}
		if r := store.Report(t.Context(), []cluster.Report{report})[0]; r.Err != nil {
			t.Errorf("report: %v", r.Err)
		}
		checkStreamsOnFullServer(t, store, k)
		if i%2 == 0 {
			if _, err := store.Terminate(t.Context(), k.ID, cluster.StatusClosed); err != nil {
				t.Errorf("terminate: %v", err)
			}
		}
	}
	if _, err := store.List(t.Context(), cluster.Query{Limit: 10}); err != nil {
		t.Errorf("list: %v", err)
	}
	if _, err := store.Stats(t.Context()); err != nil {
		t.Errorf("stats: %v", err)
	}
	checkViolations(t, at, options)
	setMaxMemory("0")
	if _, err := newActive(t.Context(), store); err != nil {
		t.Errorf("create with memory again: %v", err)
	}
}

// checkStreamsOnFullServer fails the test unless a full server lets a session's stream and its recovery change hands, and
// refuses what would add to it.
func checkStreamsOnFullServer(t *testing.T, store *redisstore.Store, k knownSession) {
	t.Helper()
	state, errClaim := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true, Listen: true})
	_, errAppend := store.AppendEvents(t.Context(), cluster.EventAppend{
		ID: k.ID, Stream: cluster.OwnStream, First: 1, Claim: state.Claim, Events: [][]byte{{'e'}},
	})
	errNote := store.Note(t.Context(), cluster.Note{ID: k.ID, Key: "k", Message: []byte("note")})
	for call, err := range map[string]error{"append": errAppend, "note": errNote} {
		if !errors.Is(err, cluster.ErrStoreUnavailable) || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("%s: %v, want ErrStoreUnavailable that says OOM", call, err)
		}
	}
	_, errRecovery := store.ClaimRecovery(t.Context(), cluster.RecoveryClaim{ID: k.ID, ExpectedVersion: k.Version, Writer: "w", For: time.Second})
	o := cluster.OpenStream{ID: k.ID, Kind: cluster.StreamListening, Key: "k", Owner: "a/1"}
	_, errOpen := store.OpenStream(t.Context(), o, 8, 0)
	_, errGrant := store.GrantRequests(t.Context(), "alice", 1)
	for call, err := range map[string]error{
		"claim": errClaim, "recovery": errRecovery, "open": errOpen, "grant": errGrant,
		"close":           store.CloseStreams(t.Context(), []cluster.OpenStream{o})[0],
		"forget a note":   store.Note(t.Context(), cluster.Note{ID: k.ID, Key: "k"}),
		"forget the note": store.Note(t.Context(), cluster.Note{ID: k.ID, Key: notedKey}),
		"release":         store.ReleaseStream(t.Context(), k.ID, state.Claim),
	} {
		if err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
	if page := store.ReadEvents(t.Context(), []cluster.EventQuery{{ID: k.ID, Stream: cluster.OwnStream, Limit: 1}})[0]; page.Err != nil || page.Last != 0 || page.Listener != 1 {
		t.Errorf("the stream after a refused append: %+v; want nothing, and one listener", page)
	}
}
