package integration_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// storeCall is one call of a store.
type storeCall struct {
	name   string
	writes bool
	do     func(context.Context) error
}

// pendingRequest is in flight at a replica that is dead.
var pendingRequest = cluster.PendingRequest{Key: "c1", Owner: "dead", Age: time.Second}

// mustUsed makes a session for everyCall: active, with a request in flight and a reader of its stream.
func mustUsed(t *testing.T, store *redisstore.Store) knownSession {
	t.Helper()
	k := mustActive(t, store)
	if r := store.Report(t.Context(), []cluster.Report{{ID: k.ID, Started: []cluster.PendingRequest{pendingRequest}}})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	if _, err := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true}); err != nil {
		t.Fatal(err)
	}
	return k
}

// everyCall is one of each, about a session that the last of them ends.
func everyCall(store *redisstore.Store, k knownSession) []storeCall {
	return slices.Concat(everyChange(store, k), everyLook(store, k), []storeCall{{"terminate", true, func(ctx context.Context) error {
		_, err := store.Terminate(ctx, k.ID, cluster.StatusClosed)
		return err
	}}})
}

// everyChange is one of each that changes something, but leaves the session alive.
func everyChange(store *redisstore.Store, k knownSession) []storeCall {
	return []storeCall{
		{"create", true, func(ctx context.Context) error {
			_, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
			return err
		}},
		{"claim recovery", true, func(ctx context.Context) error {
			_, err := store.ClaimRecovery(ctx, cluster.RecoveryClaim{ID: k.ID, ExpectedVersion: k.Version, Writer: "w", For: time.Second})
			return err
		}},
		{"update", true, func(ctx context.Context) error {
			_, err := store.Update(ctx, cluster.Change{ID: k.ID, ExpectedVersion: k.Version, Writer: "everyCall"})
			return err
		}},
		{"lease", true, func(ctx context.Context) error {
			_, err := store.Lease(ctx, k.lease())
			return err
		}},
		{"report", true, func(ctx context.Context) error {
			return store.Report(ctx, []cluster.Report{{ID: k.ID, Requests: 1}})[0].Err
		}},
		{"append events", true, func(ctx context.Context) error {
			_, err := store.AppendEvents(ctx, cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{{'e'}}})
			return err
		}},
		{"append frames", true, func(ctx context.Context) error {
			return store.AppendFrames(ctx, k.ID, []cluster.Frame{{Direction: cluster.FromClient}})
		}},
		{"claim stream", true, func(ctx context.Context) error {
			_, err := store.ClaimStream(ctx, cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true})
			return err
		}},
		{"append own events", true, func(ctx context.Context) error {
			_, err := store.AppendEvents(ctx, cluster.EventAppend{ID: k.ID, Stream: cluster.OwnStream, Claim: 1, First: 1, Events: [][]byte{{'e'}}})
			return err
		}},
		{"grant", true, func(ctx context.Context) error {
			_, err := store.GrantRequests(ctx, "alice", 1)
			return err
		}},
		{"open stream", true, func(ctx context.Context) error {
			_, err := store.OpenStream(ctx, cluster.OpenStream{ID: k.ID, Kind: cluster.StreamListening, Key: "k", Owner: "a/1"}, 8, 0)
			return err
		}},
		{"close stream", true, func(ctx context.Context) error {
			return store.CloseStreams(ctx, []cluster.OpenStream{{ID: k.ID, Kind: cluster.StreamListening, Key: "k", Owner: "a/1"}})[0]
		}},
		{"release stream", true, func(ctx context.Context) error { return store.ReleaseStream(ctx, k.ID, 1) }},
		{"note", true, func(ctx context.Context) error {
			return store.Note(ctx, cluster.Note{ID: k.ID, Key: "k", Message: []byte{'n'}})
		}},
		{"prune", true, func(ctx context.Context) error {
			_, err := store.Prune(ctx, k.ID, []string{"dead"})
			return err
		}},
		{"claim", true, store.Claim},
	}
}

// everyLook is one of each that only reads.
func everyLook(store *redisstore.Store, k knownSession) []storeCall {
	return []storeCall{
		{"ping", false, store.Ping},
		{"get", false, func(ctx context.Context) error {
			_, err := store.Get(ctx, k.ID)
			return err
		}},
		{"check", false, func(ctx context.Context) error { return store.Check(ctx, []cluster.ID{k.ID})[0] }},
		{"stream states", false, func(ctx context.Context) error { return store.StreamStates(ctx, []cluster.ID{k.ID})[0].Err }},
		{"read events", false, func(ctx context.Context) error {
			return store.ReadEvents(ctx, []cluster.EventQuery{{ID: k.ID, Stream: "s", Limit: 1}})[0].Err
		}},
		{"read frames", false, func(ctx context.Context) error {
			_, err := store.ReadFrames(ctx, cluster.FrameQuery{ID: k.ID, Limit: 1})
			return err
		}},
		{"list", false, func(ctx context.Context) error {
			_, err := store.List(ctx, cluster.Query{Limit: 10})
			return err
		}},
		{"stats", false, func(ctx context.Context) error {
			_, err := store.Stats(ctx)
			return err
		}},
	}
}

// checkEveryCallWorks makes one of each call, about a new session.
func checkEveryCallWorks(t *testing.T, store *redisstore.Store) {
	t.Helper()
	for _, c := range everyCall(store, mustUsed(t, store)) {
		if err := c.do(t.Context()); err != nil {
			t.Errorf("%s, after the fault: %v", c.name, err)
		}
	}
}

// checkRefused fails the test unless a call is refused in time, for the reason that the server gives.
func (c storeCall) checkRefused(t *testing.T, timeout time.Duration, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	start := time.Now()
	err := c.do(ctx)
	if !errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrNotFound) || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v, want ErrStoreUnavailable that says %s", c.name, err, reason)
	}
	if took := time.Since(start); took > timeout+time.Second {
		t.Errorf("%s took %s, want at most %s", c.name, took, timeout)
	}
}

// A store that is pointed at a replica, or whose primary was demoted, reads and does not write.
func TestAReplicaRefusesWhatWrites(t *testing.T) {
	t.Parallel()
	primary, replica := newStandalone(t), newStandalone(t)
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = patientTimeout
	k := mustUsed(t, openStore(t, primary.URL(storeUser), options))
	if err := replica.Replicate(t.Context(), primary.Server); err != nil {
		t.Fatal(err)
	}
	eventually(t, recovery, func(ctx context.Context) error { return primary.CheckPrimary(ctx, 1) })
	if err := primary.WaitReplicated(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	store, reader := openStore(t, replica.URL(storeUser), options), openStore(t, replica.URL(storeUser), options)
	before := mustStats(t, store)
	for _, c := range everyCall(store, k) {
		if c.writes {
			c.checkRefused(t, options.Config.StoreTimeout, "READONLY")
		}
	}
	for _, c := range everyCall(reader, k) { // by another client: one that has tried to write in vain does not ask any more
		if !c.writes {
			if err := c.do(t.Context()); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	if after := mustStats(t, store); after.Created != before.Created || after.ByStatus[cluster.StatusActive] != 1 {
		t.Errorf("%+v after calls that were refused, want %+v", after, before)
	}
	checkViolations(t, replica, options)
	promote(t, replica.Server)
	awaitProbe(t, store)
	checkEveryCallWorks(t, store)
	checkViolations(t, replica, options)
}

// awaitProbe waits until a store has found out that its server is back.
func awaitProbe(t *testing.T, store *redisstore.Store) {
	t.Helper()
	took := eventually(t, recovery, func(ctx context.Context) error {
		if err := store.Ping(ctx); err != nil {
			return err
		}
		if store.Breakers().Open > 0 {
			return errNotYet
		}
		return nil
	})
	t.Logf("asked again after %s", took.Round(time.Millisecond))
}

func promote(t *testing.T, replica *redisserver.Server) {
	t.Helper()
	client := replica.Client()
	defer client.Close()
	if err := client.ReplicaOf(t.Context(), "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
}

// While it loads, a server looks for requests every loadInterval bytes, which is the least it accepts. Each key takes it
// loadDelay.
const (
	loadKeys     = 250
	loadDelay    = 10 * time.Millisecond
	loadInterval = 1024
)

// A server that is starting answers, but only that it is loading its data.
func TestALoadingServerIsUnavailable(t *testing.T) {
	t.Parallel()
	at := aStandalone{newRedis(t, redisserver.Options{Users: storeUsers(), Args: []string{
		"--key-load-delay", strconv.FormatInt(loadDelay.Microseconds(), 10),
		"--loading-process-events-interval-bytes", strconv.Itoa(loadInterval),
	}})}
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	store := openStore(t, at.URL(storeUser), options)
	settled := []knownSession{mustUsed(t, store), mustUsed(t, store)}
	client := at.Client()
	defer client.Close()
	filler := make([]byte, loadInterval) // after each of which the server looks around
	for i := range loadKeys {
		_, _ = rand.Read(filler) // so that it cannot be compressed; it never fails
		if err := client.Set(t.Context(), strconv.Itoa(i), filler, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	at.Kill()
	started := make(chan error, 1)
	go func() { started <- at.Start(t.Context()) }() // returns when the data is loaded
	eventually(t, recovery, func(ctx context.Context) error {
		if err := client.Ping(ctx).Err(); !redis.HasErrorPrefix(err, "LOADING") {
			return fmt.Errorf("not loading: %w", err)
		}
		return nil
	})
	for _, c := range everyCall(store, settled[0]) {
		c.checkRefused(t, options.Config.StoreTimeout, "LOADING")
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	awaitProbe(t, store)
	for _, k := range settled {
		if _, err := store.Lease(t.Context(), k.lease()); err != nil {
			t.Errorf("lease of a session that was loaded: %v", err)
		}
	}
	checkEveryCallWorks(t, store)
	checkViolations(t, at, options)
}

// A script of somebody else's that does not end holds everybody up. Redis says so once it has run for a while.
func TestABusyServerIsUnavailable(t *testing.T) {
	t.Parallel()
	at := aStandalone{newRedis(t, redisserver.Options{Users: storeUsers(), Args: []string{"--busy-reply-threshold", "50"}})}
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	store := openStore(t, at.URL(storeUser), options)
	k := mustUsed(t, store)
	useAll(t, store)
	before := mustStats(t, store)
	client := at.Client()
	defer client.Close()
	ended := make(chan error, 1)
	go func() { ended <- client.Eval(t.Context(), "while true do end", nil).Err() }() // ends with SCRIPT KILL
	eventually(t, recovery, func(ctx context.Context) error {
		if err := client.Ping(ctx).Err(); !redis.HasErrorPrefix(err, "BUSY") {
			return fmt.Errorf("not busy: %w", err)
		}
		return nil
	})
	for _, c := range everyCall(store, k) {
		c.checkRefused(t, options.Config.StoreTimeout, "BUSY")
	}
	if err := client.ScriptKill(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the endless script ended by itself")
	}
	if after := mustStats(t, store); after.Created != before.Created || requestsOf(t, store, k.ID) != 0 {
		t.Errorf("%+v and %d requests after calls that were refused, want %+v and none", after, requestsOf(t, store, k.ID), before)
	}
	checkEveryCallWorks(t, store)
	checkViolations(t, at, options)
}
