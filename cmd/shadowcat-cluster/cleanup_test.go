package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/lua"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// cleanupWorld is a store whose clock and answers a test may change.
type cleanupWorld struct {
	t       *testing.T
	server  *miniredis.Miniredis
	manager *cluster.Manager
	store   *redisstore.Store
	now     time.Time
}

func newCleanupWorld(t *testing.T) *cleanupWorld {
	t.Helper()
	w := &cleanupWorld{t: t, server: miniredis.RunT(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.server.SetTime(w.now)
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout, cfg.CreateRate, cfg.CreateRatePerPrincipal = 10*time.Second, 0, 0
	var err error
	if w.store, err = redisstore.Open("redis://"+w.server.Addr(), redisstore.Options{Config: cfg}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	if err := w.store.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.manager, err = cluster.NewManager(w.store, cfg, cluster.Options{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// make makes n active sessions of one principal.
func (w *cleanupWorld) make(n int, principal cluster.Principal) []cluster.ID {
	w.t.Helper()
	ids := make([]cluster.ID, n)
	for i := range ids {
		s, _, err := w.manager.Create(w.t.Context(), cluster.NewSession{Upstream: "files", Principal: principal})
		if err == nil {
			_, err = w.manager.Activate(w.t.Context(), s, cluster.Activation{})
		}
		if err != nil {
			w.t.Fatal(err)
		}
		ids[i] = s.ID
	}
	return ids
}

func (w *cleanupWorld) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.server.SetTime(w.now)
}

// clean runs session cleanup and returns its exit status and what it wrote.
func (w *cleanupWorld) clean(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	w.t.Helper()
	var out, errOut bytes.Buffer
	// A loaded machine is no fault of the store.
	config := filepath.Join(w.t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("store_timeout: 1m\n"), 0o600); err != nil {
		w.t.Error(err)
	}
	args = append([]string{"session", "cleanup", "--config", config, "--redis", "redis://" + w.server.Addr()}, args...)
	status = run(ctx, args, &out, &errOut)
	return status, out.String(), errOut.String()
}

// cleaned runs session cleanup --yes, which must succeed.
func (w *cleanupWorld) cleaned(args ...string) cleanupView {
	w.t.Helper()
	status, stdout, stderr := w.clean(w.t.Context(), append(args, "--yes", "--output", "json")...)
	if status != exitOK {
		w.t.Fatalf("exit status %d: %s", status, stderr)
	}
	return w.view(stdout)
}

func (w *cleanupWorld) view(stdout string) cleanupView {
	w.t.Helper()
	var view cleanupView
	if err := json.Unmarshal([]byte(stdout), &view); err != nil {
		w.t.Fatalf("%v: %s", err, stdout)
	}
	view.Seconds = 0
	return view
}

// planned runs session cleanup --dry-run and returns the actions.
func (w *cleanupWorld) planned(args ...string) []plannedActionView {
	w.t.Helper()
	status, stdout, stderr := w.clean(w.t.Context(), append(args, "--dry-run", "--output", "json")...)
	var view cleanupPlanView
	if err := json.Unmarshal([]byte(stdout), &view); status != exitOK || err != nil {
		w.t.Fatalf("exit status %d, %v: %s", status, err, stderr)
	}
	return view.Actions
}

// stats counts records by status, those that are not there left out.
func (w *cleanupWorld) stats() map[cluster.Status]int64 {
	w.t.Helper()
	stats, err := w.manager.Stats(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for status, n := range stats.ByStatus {
		if n == 0 {
			delete(stats.ByStatus, status)
		}
	}
	return stats.ByStatus
}

func done(terminated, expired, evicted, purged, failed int) cleanupView {
	return cleanupView{
		Ended:  map[cluster.Status]int{cluster.StatusTerminated: terminated, cluster.StatusExpired: expired, cluster.StatusEvicted: evicted},
		Purged: purged, Failed: failed,
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestCleanupWithoutConditionsDoesWhatTheSweeperWould(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(130, "")
	w.pass(20 * time.Minute)
	w.make(3, "")
	w.pass(11 * time.Minute)
	same(t, "plan", w.planned(), []plannedActionView{{cluster.ActionExpired, "past its end", 130}})
	same(t, "first", w.cleaned(), done(0, 130, 0, 0, 0))
	same(t, "second", w.cleaned(), done(0, 0, 0, 0, 0))
	same(t, "records", w.stats(), map[cluster.Status]int64{cluster.StatusActive: 3, cluster.StatusExpired: 130})
	w.pass(11 * time.Minute)
	same(t, "plan, later", w.planned(), []plannedActionView{{cluster.ActionPurged, "past its retention", 130}})
	same(t, "later", w.cleaned(), done(0, 0, 0, 130, 0))
	same(t, "records, later", w.stats(), map[cluster.Status]int64{cluster.StatusActive: 3})
}

func TestCleanupEndsOnlyWhatMeetsTheConditions(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(5, "alice")
	w.make(2, "bob")
	w.pass(20 * time.Minute)
	w.make(250, "alice")
	w.make(4, "bob")
	w.pass(9 * time.Minute)
	w.make(7, "alice")
	w.pass(3 * time.Minute) // now the first ones are past their end, which nobody has noticed
	same(t, "plan of alice's", w.planned("--principal", "alice", "--older-than", "5m"), []plannedActionView{
		{cluster.ActionTerminated, "active", 250}, {cluster.ActionExpired, "past its end", 5},
	})
	same(t, "plan of active ones", w.planned("--status", "active"), []plannedActionView{{cluster.ActionTerminated, "active", 261}})
	same(t, "alice's", w.cleaned("--principal", "alice", "--older-than", "5m"), done(250, 5, 0, 0, 0))
	same(t, "records", w.stats(), map[cluster.Status]int64{
		cluster.StatusActive: 2 + 4 + 7, cluster.StatusTerminated: 250, cluster.StatusExpired: 5,
	})
	same(t, "plan of ended ones", w.planned("--status", "terminated", "--idle-for", "1m", "--principal", "alice"),
		[]plannedActionView{{cluster.ActionPurged, "terminated", 250}})
	same(t, "ended ones", w.cleaned("--status", "terminated", "--idle-for", "1m", "--principal", "alice"), done(0, 0, 0, 250, 0))
	same(t, "idle ones", w.cleaned("--idle-for", "9m"), done(4, 2, 0, 0, 0))
	same(t, "records at the end", w.stats(), map[cluster.Status]int64{
		cluster.StatusActive: 7, cluster.StatusTerminated: 4, cluster.StatusExpired: 7,
	})
}

// Between the listing and the end a session may come to life again.
func TestCleanupLooksAgainBeforeItEnds(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	ids := w.make(3, "")
	w.pass(10 * time.Minute)
	w.before(isScript(lua.SessionsEnd), func() {
		for _, r := range w.store.Report(t.Context(), []cluster.Report{{ID: ids[1]}}) {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
	})
	same(t, "cleaned up", w.cleaned("--idle-for", "5m"), done(2, 0, 0, 0, 0))
	if s, err := w.manager.Get(t.Context(), ids[1]); err != nil || s.Status != cluster.StatusActive {
		t.Errorf("the session that was touched is %s, %v", s.Status, err)
	}
}

// before does something when a command comes in for the first time.
func (w *cleanupWorld) before(match func(cmd string, args []string) bool, do func()) {
	var once sync.Once
	w.server.Server().SetPreHook(func(_ *server.Peer, cmd string, args ...string) bool {
		if match(cmd, args) {
			once.Do(do)
		}
		return false
	})
}

// isScript matches commands that run a script, whichever way.
func isScript(text string) func(cmd string, args []string) bool {
	sum := sha1.Sum([]byte(text))
	digest := hex.EncodeToString(sum[:])
	return func(cmd string, args []string) bool {
		return strings.EqualFold(cmd, "evalsha") && args[0] == digest || strings.EqualFold(cmd, "eval") && args[0] == text
	}
}

func TestCleanupGoesOnUnderALaterLeadersEpoch(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(150, "")
	epoch, err := w.store.TakeEpoch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	later := strconv.FormatInt(epoch+5, 10)
	if err := w.server.Set("shadowcat:{0}:fence", later); err != nil {
		t.Fatal(err)
	}
	same(t, "cleaned up", w.cleaned("--idle-for", "0"), done(150, 0, 0, 0, 0))
	if fence, err := w.server.Get("shadowcat:{0}:fence"); err != nil || fence != later {
		t.Errorf("an operator has moved the fence from %s to %s, %v", later, fence, err)
	}
}

// The fence is a leader's to raise: an operator who did would lock out one whose store has forgotten the epoch.
func TestCleanupNeverRaisesTheFence(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(3, "")
	if _, err := w.store.TakeEpoch(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	same(t, "cleaned up", w.cleaned("--idle-for", "0"), done(3, 0, 0, 0, 0))
	same(t, "purged", w.cleaned("--ended"), done(0, 0, 0, 3, 0))
	if w.server.Exists("shadowcat:{0}:fence") {
		t.Error("an operator has set the fence")
	}
}

func TestTwoCleanupsAtOnceShareTheWork(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(420, "")
	outputs := make([]string, 2)
	var wg sync.WaitGroup
	for i := range outputs {
		wg.Go(func() {
			var status int
			var stderr string
			if status, outputs[i], stderr = w.clean(t.Context(), "--idle-for", "0", "--yes", "--output", "json"); status != exitOK {
				t.Errorf("exit status %d: %s", status, stderr)
			}
		})
	}
	wg.Wait()
	a, b := w.view(outputs[0]), w.view(outputs[1])
	if sum := a.Ended[cluster.StatusTerminated] + b.Ended[cluster.StatusTerminated]; sum != 420 || a.Failed+b.Failed != 0 {
		t.Errorf("%+v and %+v", a, b)
	}
	same(t, "records", w.stats(), map[cluster.Status]int64{cluster.StatusTerminated: 420})
}

func TestTheGreatestEpochOfSeveralRefusalsCounts(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("ending: %w", errors.Join(&cluster.FencedError{Epoch: 5}, cluster.ErrStoreUnavailable, fmt.Errorf("more: %w", &cluster.FencedError{Epoch: 7})))
	if got := laterEpoch(err); got != 7 {
		t.Errorf("epoch %d", got)
	}
	if got := laterEpoch(nil); got != 0 {
		t.Errorf("epoch %d of no error", got)
	}
}

func TestCleanupGoesOnWhereABatchFails(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(350, "")
	w.fail(isScript(lua.SessionsEnd), 2)
	status, stdout, stderr := w.clean(t.Context(), "--idle-for", "0", "--yes", "--output", "json")
	if status != exitFailure || !strings.Contains(stderr, "30 sessions may not have gone: ") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	same(t, "cleaned up", w.view(stdout), done(320, 0, 0, 0, 30))
	same(t, "again", w.cleaned("--idle-for", "0"), done(30, 0, 0, 0, 0))
}

func TestCleanupGivesUpWhereEveryBatchFails(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(520, "")
	w.fail(isScript(lua.SessionsEnd), 1, 2, 3, 4, 5, 6)
	status, stdout, stderr := w.clean(t.Context(), "--idle-for", "0", "--yes", "--output", "json")
	if status != exitFailure || !strings.Contains(stderr, "given up") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	same(t, "cleaned up", w.view(stdout), done(0, 0, 0, 0, 90))
}

// fail answers commands with an error, by their number from 1.
func (w *cleanupWorld) fail(match func(cmd string, args []string) bool, numbers ...int) {
	var mu sync.Mutex
	n := 0
	w.server.Server().SetPreHook(func(peer *server.Peer, cmd string, args ...string) bool {
		mu.Lock()
		defer mu.Unlock()
		if !match(cmd, args) {
			return false
		}
		if n++; !slices.Contains(numbers, n) {
			return false
		}
		peer.WriteError("ERR told to fail")
		return true
	})
}

func TestAnInterruptedCleanupTellsWhatItDid(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(350, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.before(isScript(lua.SessionsEnd), cancel)
	status, stdout, stderr := w.clean(ctx, "--idle-for", "0", "--yes", "--output", "json")
	if status != exitFailure || !strings.Contains(stderr, "interrupted: what was done stays done") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	same(t, "cleaned up", w.view(stdout), done(30, 0, 0, 0, 0)) // the batch under way is finished
	same(t, "records", w.stats(), map[cluster.Status]int64{cluster.StatusActive: 320, cluster.StatusTerminated: 30})
}

// full makes the server say that it holds a record for each percent of its memory.
func (w *cleanupWorld) full(limit int) {
	w.server.Server().SetPreHook(func(peer *server.Peer, cmd string, _ ...string) bool {
		if !strings.EqualFold(cmd, "info") {
			return false
		}
		used := 0
		for _, key := range w.server.Keys() {
			if strings.Contains(key, ":session:") {
				used++
			}
		}
		peer.WriteBulk(fmt.Sprintf("# Memory\r\nused_memory:%d\r\nmaxmemory:%d\r\n", used, limit))
		return true
	})
}

func TestEmergencyCleanupStopsOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	oldest := w.make(250, "")
	w.pass(2 * time.Minute)
	w.make(300, "")
	for _, id := range oldest[:20] {
		if _, err := w.manager.Terminate(t.Context(), id, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
	}
	w.full(550)
	same(t, "plan", w.planned("--emergency"), []plannedActionView{{cluster.ActionPurged, "ended", 20}, {cluster.ActionEvicted, "idle for 1m", 230}})
	same(t, "cleaned up", w.cleaned("--emergency"), done(0, 0, 60, 80, 0)) // 550, 530, 500, 470: below 90 %
	same(t, "again", w.cleaned("--emergency"), done(0, 0, 0, 0, 0))

	status, stdout, stderr := w.clean(t.Context(), "--emergency", "--above", "1", "--yes", "--output", "json")
	if status != exitFailure || !strings.Contains(stderr, "still uses 55 % of its memory limit, and no session is left that may go") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	same(t, "the rest", w.view(stdout), done(0, 0, 170, 170, 0))
	same(t, "records", w.stats(), map[cluster.Status]int64{cluster.StatusActive: 300})
}

func TestEmergencyCleanupSparesSessionsWithRequestsInFlight(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	busy := w.make(10, "")[3]
	report := cluster.Report{ID: busy, Idle: -1, Started: []cluster.PendingRequest{{Key: "c1", Owner: "replica/x"}}}
	if r := w.store.Report(t.Context(), []cluster.Report{report})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	w.pass(2 * time.Minute)
	w.full(10)
	status, stdout, _ := w.clean(t.Context(), "--emergency", "--above", "5", "--yes", "--output", "json")
	if status != exitFailure {
		t.Errorf("exit status %d", status)
	}
	same(t, "cleaned up", w.view(stdout), done(0, 0, 9, 9, 0))
	same(t, "forced", w.cleaned("--emergency", "--above", "5", "--force"), done(0, 0, 1, 1, 0))
}

func TestEmergencyCleanupWithoutAMemoryLimitDoesNothing(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	w.make(3, "")
	w.pass(2 * time.Minute)
	w.full(0)
	status, stdout, stderr := w.clean(t.Context(), "--emergency", "--yes", "--output", "json")
	if status != exitOK || !strings.Contains(stderr, "The store has no memory limit") {
		t.Errorf("exit status %d: %s", status, stderr)
	}
	same(t, "cleaned up", w.view(stdout), done(0, 0, 0, 0, 0))
}

// remembered is an auditor that keeps what it is told.
type remembered struct{ audits []cluster.Audit }

func (r *remembered) Audited(a cluster.Audit) { r.audits = append(r.audits, a) }

func TestEachSessionThatIsCleanedUpIsAudited(t *testing.T) {
	t.Parallel()
	w := newCleanupWorld(t)
	ids := w.make(2, "alice")
	var auditor remembered
	trail := operatorTrail(nil)
	trail.Auditor = &auditor
	c := &cleaner{
		cleanupJob: cleanupJob{kind: cleanupLive, query: cluster.Query{Principal: "alice", Limit: cleanupPage}},
		store:      w.store, timeout: time.Minute, trail: trail, progress: hidden{},
	}
	plan, err := c.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.execute(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if len(auditor.audits) != len(ids) {
		t.Fatalf("%d records", len(auditor.audits))
	}
	for _, a := range auditor.audits {
		if a.Action != cluster.ActionTerminated || a.Principal != "alice" || a.Actor != cluster.ActorOperator ||
			!strings.HasPrefix(a.By, "operator/") || a.Reason != "cleanup of sessions: of principal alice" || !slices.Contains(ids, a.Session) {
			t.Errorf("%+v", a)
		}
	}
}
