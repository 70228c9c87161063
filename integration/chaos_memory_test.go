package integration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// Taking the leader's lock needs memory, of which there is none.
func TestChaosAFullServerIsCleanedUpWithoutALeader(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), func(c *cluster.Config) { c.EvictMinIdle = time.Minute })
	due := w.mortals(t, dueSessions)
	w.close(t, w.mortals(t, dueSessions))
	replicas := w.replicas(t, 3)
	leader := w.awaitSweeper(t, replicas...)
	w.setMaxMemory(t, 1<<20) // less than is in use
	leader.Kill()
	killed := time.Now()
	w.doom(t, due)
	w.awaitExpired(t, dueSessions)
	within(t, "from the kill until what was due is gone", time.Since(killed), successionBound)
	eventually(t, recovery, w.noRecordsOfEnded) // memory is above the threshold, too
	within(t, "from the kill until the records of all ended sessions are gone", time.Since(killed), successionBound+2*chaosInterval)
	if leads, err := w.store.Leadership(t.Context()); err != nil || leads.Holder != "" {
		t.Errorf("%q leads, %v: the server was not full", leads.Holder, err)
	}
	stats := mustStats(t, w.store)
	if evicted := stats.Ended[cluster.StatusEvicted]; evicted > 0 {
		t.Errorf("%d sessions were evicted that had been active in the last minute", evicted)
	}
	w.setMaxMemory(t, 0)
	_, took := w.awaitLeader(t, recovery, replicas...)
	within(t, "from memory again until somebody leads", took, chaosTTL)
	w.finish(t)
}

// noRecordsOfEnded is a probe.
func (w *chaosWorld) noRecordsOfEnded(ctx context.Context) error {
	stats, err := w.store.Stats(ctx)
	if err != nil {
		return err
	}
	for status, n := range stats.ByStatus {
		if !status.Live() && n > 0 {
			return fmt.Errorf("%d records of %s sessions are kept", n, status)
		}
	}
	return nil
}

func (w *chaosWorld) close(t *testing.T, sessions []knownSession) {
	t.Helper()
	inParallel(t, len(sessions), func(ctx context.Context, i int) error {
		_, err := w.store.Terminate(ctx, sessions[i].ID, cluster.StatusClosed)
		return err
	})
}

func (w *chaosWorld) setMaxMemory(t *testing.T, limit int64) {
	t.Helper()
	client := w.at.Servers()[0].Client()
	defer client.Close()
	if err := client.ConfigSet(t.Context(), "maxmemory", strconv.FormatInt(limit, 10)).Err(); err != nil {
		t.Fatal(err)
	}
}

func (w *chaosWorld) usedMemory(ctx context.Context) (int64, error) {
	info, err := w.store.Client().Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); found {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errors.New("the server does not tell used_memory")
}

func (w *chaosWorld) mustUsedMemory(t *testing.T) int64 {
	t.Helper()
	used, err := w.usedMemory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// emergencyShare is above which share of maxmemory sessions go before their time: the default of emergency_percent.
const emergencyShare = 0.9

// awaitRelief waits until memory is below the threshold of a limit.
func (w *chaosWorld) awaitRelief(t *testing.T, limit int64) {
	t.Helper()
	took := eventually(t, recovery, func(ctx context.Context) error {
		used, err := w.usedMemory(ctx)
		if err == nil && float64(used) > emergencyShare*float64(limit) {
			err = fmt.Errorf("%d of %d bytes are in use", used, limit)
		}
		return err
	})
	within(t, "relief", took, 2*chaosInterval)
}

const (
	bulkSessions = 400
	busySessions = 20
)

// bulk makes sessions that need about 10 kB each, one after the other, as long as they live and after it.
func (w *chaosWorld) bulk(t *testing.T, n int) []knownSession {
	t.Helper()
	made := make([]knownSession, n)
	message := bytes.Repeat([]byte("x"), 8<<10)
	for i := range made {
		created, err := w.store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u", Initialize: message}})
		if err != nil {
			t.Fatal(err)
		}
		active, err := w.store.Update(t.Context(), cluster.Change{ID: created.Session.ID, ExpectedVersion: created.Session.Version, Writer: "w"})
		if err != nil {
			t.Fatal(err)
		}
		frames := []cluster.Frame{{Direction: cluster.FromClient, Payload: message[:2<<10]}}
		if err := w.store.AppendFrames(t.Context(), active.ID, frames); err != nil {
			t.Fatal(err)
		}
		made[i] = knownSession{Session: active, token: created.Token}
	}
	return made
}

// live counts those of some sessions that live, and tells how many of them came before one that does not.
func (w *chaosWorld) live(t *testing.T, sessions []knownSession) (n, skipped int) {
	t.Helper()
	for _, k := range sessions {
		got, err := w.store.Get(t.Context(), k.ID)
		if err != nil && !errors.Is(err, cluster.ErrNotFound) {
			t.Fatal(err)
		}
		if err == nil && got.Status.Live() {
			n++
		} else {
			skipped = n
		}
	}
	return n, skipped
}

func TestChaosAServerThatRunsOutOfMemoryIsRelieved(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), func(c *cluster.Config) {
		c.IdleTimeout, c.EvictMinIdle = time.Hour, chaosInterval
	})
	busy := w.bulk(t, busySessions) // idle for the longest, and at work
	w.keepBusy(t, busy)
	idle := w.bulk(t, bulkSessions)
	live := w.mustUsedMemory(t)
	w.close(t, w.bulk(t, bulkSessions))
	w.awaitSweeper(t, w.replicas(t, 2, "--sweep-batch", smallBatch)...)

	limit := int64(float64(w.mustUsedMemory(t)) / 0.95)
	w.setMaxMemory(t, limit)
	w.awaitRelief(t, limit)
	kept := mustStats(t, w.store)
	t.Logf("above the threshold by a little: %d of %d ended records are left", kept.ByStatus[cluster.StatusClosed], bulkSessions)
	if kept.ByStatus[cluster.StatusClosed] == 0 || kept.ByStatus[cluster.StatusClosed] == bulkSessions {
		t.Error("what of the ended records was needed should have gone")
	}
	if n, _ := w.live(t, idle); n < bulkSessions || kept.Ended[cluster.StatusEvicted] > 0 {
		t.Errorf("%d of %d live sessions are left, though there were enough ended ones", n, bulkSessions)
	}

	limit = int64(float64(live) * 0.95 / emergencyShare) // so that even some live ones have to go
	w.setMaxMemory(t, limit)
	w.awaitRelief(t, limit)
	pause(t.Context(), 2*chaosInterval) // whatever else is under way
	if n := mustStats(t, w.store).ByStatus[cluster.StatusClosed]; n > 0 {
		t.Errorf("live sessions went before %d ended ones", n)
	}
	left, skipped := w.live(t, idle)
	t.Logf("above it by much: %d of %d idle sessions are left, and no records of those that had ended", left, bulkSessions)
	if left == 0 || left == bulkSessions || skipped > 0 {
		t.Errorf("%d of %d idle sessions are left, %d of them idle for longer than one that went", left, bulkSessions, skipped)
	}
	if n, _ := w.live(t, busy); n < busySessions {
		t.Errorf("%d of %d sessions with requests in flight are left", n, busySessions)
	}
	w.finish(t)
}

// keepBusy gives sessions a request in flight, of an incarnation that lives long enough, without other activity.
func (w *chaosWorld) keepBusy(t *testing.T, sessions []knownSession) {
	t.Helper()
	const incarnation = "at-work"
	if err := w.store.Beat(t.Context(), incarnation); err != nil {
		t.Fatal(err)
	}
	reports := make([]cluster.Report, len(sessions))
	for i, k := range sessions {
		request := cluster.PendingRequest{Key: "c1", Owner: incarnation, Age: time.Second}
		reports[i] = cluster.Report{ID: k.ID, Idle: -1, Started: []cluster.PendingRequest{request}}
	}
	for _, renewal := range w.store.Report(t.Context(), reports) {
		if renewal.Err != nil {
			t.Fatal(renewal.Err)
		}
	}
}

// An operator's cleanup beside the leader's is allowed as much, and no more: it passes the stored epoch.
func TestChaosAnOperatorsEpochIsRefusedByALaterFence(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	w.awaitSweeper(t, w.replicas(t, 1)...)
	leads, err := w.store.Leadership(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := w.mortals(t, 1)[0]
	end := cluster.EndCall{IDs: []cluster.ID{k.ID}, Status: cluster.StatusTerminated, Cleanup: cluster.Cleanup{Epoch: leads.Epoch - 1}}
	if _, err := w.store.End(t.Context(), end); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("an older epoch: %v, want ErrFenced", err)
	}
	end.Epoch = leads.Epoch
	if ended, err := w.store.End(t.Context(), end); err != nil || len(ended) != 1 {
		t.Errorf("the stored epoch: %d ended, %v", len(ended), err)
	}
	w.finish(t)
}
