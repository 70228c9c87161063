package integration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// refusals is how often the servers have answered with an error that begins with code.
func refusals(t *testing.T, at server, code string) int {
	t.Helper()
	total := 0
	for _, s := range at.Servers() {
		client := s.Client()
		text, err := client.Info(t.Context(), "errorstats").Result()
		if err = errors.Join(err, client.Close()); err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(text, "errorstat_"+code+":count=")
		if !found {
			continue
		}
		count, _, _ := strings.Cut(rest, "\r\n")
		n, err := strconv.Atoi(count)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// moveSlot moves the slot of a key to another primary, with all that is in it.
func moveSlot(t *testing.T, at *rediscluster.Topology, key string) {
	t.Helper()
	migration, err := at.Migrate(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		if more, err = migration.Step(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	if err := migration.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A store that has not heard that a slot has moved is told by the old primary, and asks the new one.
func TestASlotThatMovedUnnoticedIsFollowed(t *testing.T) {
	t.Parallel()
	at := newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Partitions: 1}
	options.Config.StoreTimeout = patientTimeout
	store := openStore(t, at.URL(storeUser), options)
	useAll(t, store)
	k := mustUsed(t, store)
	before, moves, key := refusals(t, at, "MOVED"), 0, options.Prefix+":{0}:lru"
	for _, c := range everyCall(store, k) {
		if c.name == "ping" || c.name == "claim" { // about nothing that is in the slot
			continue
		}
		eventually(t, recovery, func(ctx context.Context) error { return at.Agreed(ctx, key) })
		if _, err := store.Get(t.Context(), k.ID); err != nil { // so that the client knows where it is
			t.Errorf("get: %v", err)
		}
		moveSlot(t, at, key)
		moves++
		if err := c.do(t.Context()); err != nil {
			t.Errorf("%s, after the slot has moved: %v", c.name, err)
		}
	}
	if got := refusals(t, at, "MOVED") - before; got < moves {
		t.Errorf("%d calls were told that the slot has moved %d times, %d times: the store knew before", moves, moves, got)
	}
	session, err := store.Get(t.Context(), k.ID)
	if err != nil || session.Status != cluster.StatusClosed || session.Requests != 2 || session.Recoveries() != 1 {
		t.Errorf("%+v, %v; want a closed session with 2 requests and one update more", session, err)
	}
	checkViolations(t, at, options)
}

// While a slot moves, calls are redirected to its new primary (ASK), or refused when it has one part of the keys and the old
// one the other (TRYAGAIN). What is refused has not happened, nor has any part of it.
func TestASlotThatIsMovingServesOrRefusesAndNothingBetween(t *testing.T) {
	t.Parallel()
	at := newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Partitions: 1}
	options.Config.StoreTimeout = patientTimeout
	options.Config.Retention = 0 // few keys to move
	store := openStore(t, at.URL(storeUser), options)
	useAll(t, store)
	sessions := []knownSession{mustUsed(t, store), mustUsed(t, store)}
	statsBefore, asked, again := mustStats(t, store), refusals(t, at, "ASK"), refusals(t, at, "TRYAGAIN")

	want := make(map[string]int) // what has happened, by call
	migration, err := at.Migrate(t.Context(), options.Prefix+":{0}:lru")
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		for _, k := range sessions {
			for name := range callDuringMigration(t, store, k) {
				want[name]++
			}
		}
		if more, err = migration.Step(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := migration.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if refusals(t, at, "ASK") == asked || refusals(t, at, "TRYAGAIN") == again {
		t.Error("no call was redirected, or none refused")
	}
	t.Logf("during the migration %v went well; %d ASK, %d TRYAGAIN", want, refusals(t, at, "ASK")-asked, refusals(t, at, "TRYAGAIN")-again)
	requests := int(requestsOf(t, store, sessions[0].ID) + requestsOf(t, store, sessions[1].ID))
	if requests != want["lease"]+want["report"] {
		t.Errorf("%d requests are counted, want %d leased and %d reported", requests, want["lease"], want["report"])
	}
	stats := mustStats(t, store)
	if created := int(stats.Created - statsBefore.Created); created != want["create"] {
		t.Errorf("%d sessions were created, want %d", created, want["create"])
	}
	if ended := int(stats.Ended[cluster.StatusClosed] - statsBefore.Ended[cluster.StatusClosed]); ended != want["terminate"] {
		t.Errorf("%d sessions were closed, want %d", ended, want["terminate"])
	}
	checkEveryCallWorks(t, store)
	checkViolations(t, at, options)
	checkRefusals(t, at)
}

// callDuringMigration makes calls that a migration may hinder, and returns those that went well.
func callDuringMigration(t *testing.T, store *redisstore.Store, k knownSession) map[string]bool {
	t.Helper()
	well := make(map[string]bool)
	call := func(name string, err error) {
		if err != nil && !errors.Is(err, cluster.ErrStoreUnavailable) {
			t.Errorf("%s: %v, want ErrStoreUnavailable or none", name, err)
		}
		well[name] = err == nil
	}
	created, err := store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
	call("create", err)
	if err == nil {
		_, err = store.Terminate(t.Context(), created.Session.ID, cluster.StatusClosed)
		call("terminate", err)
	}
	_, err = store.Lease(t.Context(), k.lease())
	call("lease", err)
	call("report", store.Report(t.Context(), []cluster.Report{{ID: k.ID, Requests: 1}})[0].Err)
	call("check", store.Check(t.Context(), []cluster.ID{k.ID})[0])
	_, err = store.Get(t.Context(), k.ID)
	call("get", err)
	for name, isWell := range well {
		if !isWell {
			delete(well, name)
		}
	}
	return well
}

// When a shard is gone, its sessions are unavailable. The others go on, unless Redis is told to serve all or nothing.
func TestAShardThatIsGone(t *testing.T) {
	for name, fullCoverage := range map[string]bool{"the others go on": false, "full coverage": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := newRedisCluster(t, rediscluster.Options{FullCoverage: fullCoverage})
			options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
			options.Config.StoreTimeout = time.Second
			store := openStore(t, at.URL(storeUser), options)
			settled := newSettled(t, store)
			gone := killShard(t, at, options.Prefix)
			if fullCoverage {
				others := slices.DeleteFunc(slices.Clone(settled), func(k knownSession) bool { return gone[k.ID.String()] })
				eventually(t, recovery, func(ctx context.Context) error { return allRefuse(ctx, store, others) })
				checkAllIsRefused(t, store, others[0], options.Config.StoreTimeout)
			} else {
				checkOthersGoOn(t, store, settled, gone)
			}
			if err := at.Restore(t.Context()); err != nil { // empty
				t.Fatal(err)
			}
			eventually(t, recovery, func(ctx context.Context) error {
				for _, k := range settled {
					_, err := store.Lease(ctx, k.lease())
					if isGone := gone[k.ID.String()]; isGone != errors.Is(err, cluster.ErrNotFound) || !isGone && err != nil {
						return fmt.Errorf("lease of a session, gone: %v: %w", isGone, err)
					}
				}
				return nil
			})
			checkEveryCallWorks(t, store)
			checkViolations(t, at, options)
		})
	}
}

// killShard kills all nodes that have partition 0, and returns the ids of the sessions that are lost with them.
func killShard(t *testing.T, at *rediscluster.Topology, prefix string) map[string]bool {
	t.Helper()
	shard, err := at.Shard(t.Context(), prefix+":{0}:lru")
	if err != nil {
		t.Fatal(err)
	}
	if len(shard) < 2 {
		t.Fatalf("the shard has %d nodes, want a primary and a replica", len(shard))
	}
	gone := sessionsOn(t, shard[0], prefix)
	for _, s := range slices.Backward(shard) { // the primary last, or its replica would take over
		s.Kill()
	}
	return gone
}

// allRefuse looks whether every session is refused, by nodes that could serve it.
func allRefuse(ctx context.Context, store *redisstore.Store, sessions []knownSession) error {
	for _, k := range sessions {
		if _, err := store.Get(ctx, k.ID); err == nil || !strings.Contains(err.Error(), "CLUSTERDOWN") {
			return fmt.Errorf("get: %w, want CLUSTERDOWN", err)
		}
	}
	return nil
}

func checkAllIsRefused(t *testing.T, store *redisstore.Store, k knownSession, timeout time.Duration) {
	t.Helper()
	for _, c := range everyCall(store, k) {
		switch c.name {
		case "ping": // any node answers it
		case "create", "claim", "list", "stats": // they ask the dead, too
			c.checkRefused(t, timeout, "")
		default:
			c.checkRefused(t, timeout, "CLUSTERDOWN")
		}
	}
}

// checkOthersGoOn fails the test unless the sessions that are not gone are served, again and again, and the others are
// unavailable.
func checkOthersGoOn(t *testing.T, store *redisstore.Store, sessions []knownSession, gone map[string]bool) {
	t.Helper()
	check := func(call string, k knownSession, err error) {
		t.Helper()
		if gone[k.ID.String()] != errors.Is(err, cluster.ErrStoreUnavailable) || !gone[k.ID.String()] && err != nil {
			t.Errorf("%s of a session, gone: %v: %v", call, gone[k.ID.String()], err)
		}
	}
	reports := make([]cluster.Report, len(sessions))
	ids := make([]cluster.ID, len(sessions))
	for i, k := range sessions {
		ids[i], reports[i] = k.ID, cluster.Report{ID: k.ID, Requests: 1}
	}
	for range 3 {
		for i, r := range store.Report(t.Context(), reports) {
			check("report", sessions[i], r.Err)
		}
		for i, err := range store.Check(t.Context(), ids) {
			check("check", sessions[i], err)
		}
		for _, k := range sessions {
			_, err := store.Lease(t.Context(), k.lease())
			check("lease", k, err)
		}
	}
	created := 0
	for range 20 {
		_, err := store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
		if err == nil {
			created++
		} else if !errors.Is(err, cluster.ErrStoreUnavailable) {
			t.Errorf("create: %v, want ErrStoreUnavailable or none", err)
		}
	}
	t.Logf("%d of 20 sessions were created while a third of the partitions was away", created)
	if created == 0 {
		t.Error("no session was created")
	}
}

// Cleaning up takes sessions that the caller does not name, whose keys may have moved already. Each of them is cleaned up
// whole or not at all.
func TestASlotThatIsMovingIsNotCleanedUpByHalves(t *testing.T) {
	t.Parallel()
	const sessions = 8
	at := newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Partitions: 1}
	options.Config.StoreTimeout = patientTimeout
	store := openStore(t, at.URL(storeUser), options)
	crowded := options // every session it ends makes it purge others
	crowded.Config.MaxSessions = 1
	purger := openStore(t, at.URL(storeUser), crowded)
	var living []knownSession
	for range sessions {
		living = append(living, mustUsed(t, store))
		ended := mustUsed(t, store)
		if _, err := store.Terminate(t.Context(), ended.ID, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
	}
	makeDue(t, at, options, store, sessions)

	migration, err := at.Migrate(t.Context(), options.Prefix+":{0}:lru")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for more, i := true, 0; more; i++ {
		if more, err = migration.Step(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		_, errSweep := store.Sweep(t.Context(), cluster.SweepCall{Limit: 100})
		_, errTerminate := purger.Terminate(t.Context(), living[i%len(living)].ID, cluster.StatusTerminated)
		if errSweep != nil && !errors.Is(errSweep, cluster.ErrStoreUnavailable) {
			t.Errorf("sweep: %v, want ErrStoreUnavailable or none", errSweep)
		}
		if errors.Is(errTerminate, cluster.ErrStoreUnavailable) {
			refused++
		}
	}
	if err := migration.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if refused == 0 {
		t.Error("the migration hindered nobody")
	}
	checkViolations(t, at, options)
	if _, err := store.Sweep(t.Context(), cluster.SweepCall{Limit: 100}); err != nil {
		t.Errorf("sweep, after the migration: %v", err)
	}
	if due := mustStats(t, store).Due; due != 0 {
		t.Errorf("%d sessions are due after a sweep", due)
	}
	checkEveryCallWorks(t, store)
	checkViolations(t, at, options)
}
