package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is away while failure is set; while hang is set it answers nothing.
type fakeStore struct {
	failure atomic.Pointer[error]
	hang    atomic.Bool
	stats   atomic.Int64 // calls of Stats
}

func (s *fakeStore) Ping(ctx context.Context) error {
	if s.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *fakeStore) fail(message string) {
	err := errors.New(message)
	s.failure.Store(&err)
}

func (s *fakeStore) Held() int { return 3 }

func (s *fakeStore) Stats(ctx context.Context) (cluster.Stats, error) {
	s.stats.Add(1)
	if err := s.Ping(ctx); err != nil {
		return cluster.Stats{}, err
	}
	return cluster.Stats{
		ByStatus: map[cluster.Status]int64{cluster.StatusActive: 5, cluster.StatusClosed: 2},
		Due:      1,
		Created:  9,
		Ended:    map[cluster.Status]int64{cluster.StatusClosed: 4},
	}, nil
}

func newAdmin(t *testing.T, store *fakeStore, log *slog.Logger) (*admin.Admin, *admin.Metrics) {
	t.Helper()
	return newGraceful(t, store, log, nil)
}

// newGraceful returns an Admin of a replica that serves on while the store is away as long as inGrace says so.
func newGraceful(t *testing.T, store *fakeStore, log *slog.Logger, inGrace func() bool) (*admin.Admin, *admin.Metrics) {
	t.Helper()
	metrics := admin.NewMetrics(admin.Build{Version: "v1.2.3", Commit: "abc"})
	a, err := admin.New(admin.Config{
		ReplicaID: "r-1", Store: store, Sessions: store, Metrics: metrics, StoreTimeout: 100 * time.Millisecond, Logger: log,
		InGrace: inGrace, Breakers: func() redisstore.Breakers { return redisstore.Breakers{Parts: 16, Open: 2, Trips: 7} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, metrics
}

func get(t *testing.T, a *admin.Admin, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	return w
}

type readyBody struct {
	Ready   bool   `json:"ready"`
	Replica string `json:"replica"`
	Checks  map[string]struct {
		OK    bool       `json:"ok"`
		Error string     `json:"error"`
		Since *time.Time `json:"since"`
	} `json:"checks"`
}

func ready(t *testing.T, a *admin.Admin) (int, readyBody) {
	t.Helper()
	w := get(t, a, "/readyz")
	var body readyBody
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return w.Code, body
}

// running runs a until the test's bubble ends.
func running(t *testing.T, a *admin.Admin) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}

func TestHealthNeverDependsOnTheStore(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	store.fail("down")
	a, _ := newAdmin(t, store, nil)
	if w := get(t, a, "/healthz"); w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("/healthz: %d %s", w.Code, w.Body)
	}
}

func TestReadyWhenTheStoreAnswersAndTheReplicaServes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAdmin(t, &fakeStore{}, nil)
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || body.Checks["store"].Error != "not probed yet" {
			t.Errorf("before the first probe: %d %+v", code, body)
		}
		running(t, a)
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || !body.Checks["store"].OK || body.Checks["serving"].OK {
			t.Errorf("before serving: %d %+v", code, body)
		}
		a.SetServing(true)
		if code, body := ready(t, a); code != http.StatusOK || !body.Ready || body.Replica != "r-1" {
			t.Errorf("serving: %d %+v", code, body)
		}
		a.SetServing(false)
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || body.Ready {
			t.Errorf("stopping: %d %+v", code, body)
		}
	})
}

func TestReadinessFollowsTheStoreAndLogsThatItIsReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		store := &fakeStore{}
		store.fail("connection refused")
		a, _ := newAdmin(t, store, slog.New(slog.NewJSONHandler(&lines, nil)))
		a.SetServing(true)
		running(t, a)
		<-time.After(time.Minute)
		code, body := ready(t, a)
		if code != http.StatusServiceUnavailable || body.Checks["store"].Error != "connection refused" || body.Checks["store"].Since == nil {
			t.Errorf("store away: %d %+v", code, body)
		}
		store.failure.Store(nil)
		<-time.After(admin.ProbeInterval)
		synctest.Wait()
		if code, body := ready(t, a); code != http.StatusOK {
			t.Errorf("store back: %d %+v", code, body)
		}
		store.hang.Store(true)
		<-time.After(admin.ProbeInterval + 100*time.Millisecond)
		synctest.Wait()
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || body.Checks["store"].Error != "away since 2000-01-01T00:01:01Z: no answer within 100ms" {
			t.Errorf("store hangs: %d %+v", code, body)
		}
		store.hang.Store(false)
		<-time.After(admin.ProbeInterval)
		synctest.Wait()
		var messages []string
		for line := range strings.Lines(lines.String()) {
			var entry struct {
				Msg string `json:"msg"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			messages = append(messages, entry.Msg)
		}
		want := []string{
			"the store cannot be reached: not ready, and trying again", "the store is reached", // the rest is the Manager's to tell
		}
		if !slices.Equal(messages, want) {
			t.Errorf("log: %q, want %q", messages, want)
		}
	})
}

func TestReadyForAsLongAsKnownSessionsAreServedWithoutTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.fail("never there")
		var inGrace atomic.Bool
		inGrace.Store(true)
		a, _ := newGraceful(t, store, nil, inGrace.Load)
		a.SetServing(true)
		running(t, a)
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || body.Checks["store"].Error != "never there" {
			t.Errorf("never reached: %d %+v", code, body)
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		store.failure.Store(nil)
		pass(admin.ProbeInterval)
		store.fail("connection refused")
		pass(10 * time.Second)
		code, body := ready(t, a)
		want := "away since 2000-01-01T00:00:01Z: connection refused"
		if check := body.Checks["store"]; code != http.StatusOK || !check.OK || check.Error != want || check.Since == nil {
			t.Errorf("inside the grace: %d %+v; want %q", code, body, want)
		}
		inGrace.Store(false) // at once, not with the next probe
		if code, body := ready(t, a); code != http.StatusServiceUnavailable || body.Checks["store"].OK || body.Checks["store"].Error != want {
			t.Errorf("after the grace: %d %+v", code, body)
		}
		store.failure.Store(nil)
		pass(admin.ProbeInterval)
		if code, body := ready(t, a); code != http.StatusOK || body.Checks["store"].Error != "" {
			t.Errorf("when it is back: %d %+v", code, body)
		}
	})
}

func TestMetricsTellWhatTheReplicaAndTheClusterDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, metrics := newAdmin(t, &fakeStore{}, nil)
		running(t, a)
		metrics.RequestDone(admin.Request{Era: "session", HTTPMethod: "POST", RPCMethod: "tools/call", Status: 200, Duration: time.Second})
		metrics.RequestDone(admin.Request{HTTPMethod: "BREW", RPCMethod: "brew/coffee", Status: 499})
		metrics.RequestDone(admin.Request{HTTPMethod: "GET", Status: 42_000})
		metrics.LeaseDone(cluster.LeaseHit)
		metrics.LeaseDone("invented")
		metrics.ReportDone(25, 1, 2, 3*time.Millisecond)
		metrics.OutageBegan()
		metrics.OutageEnded(1500 * time.Millisecond)
		metrics.OutageBegan()
		body := get(t, a, "/metrics").Body.String()
		for _, want := range []string{
			`shadowcat_build_info{commit="abc",goversion="go`,
			`shadowcat_requests_total{code="200",era="session",http_method="POST",rpc_method="tools/call",upstream=""} 1`,
			`shadowcat_requests_total{code="499",era="none",http_method="other",rpc_method="other",upstream=""} 1`,
			`shadowcat_requests_total{code="other",era="none",http_method="GET",rpc_method="none",upstream=""} 1`,
			`shadowcat_request_duration_seconds_sum{http_method="POST",rpc_method="tools/call"} 1`,
			`shadowcat_leases_total{outcome="hit"} 1`,
			`shadowcat_leases_total{outcome="unavailable"} 0`,
			`shadowcat_leases_total{outcome="canceled"} 0`,
			"shadowcat_report_sessions_sum 25",
			"shadowcat_reports_unsent_total 1",
			"shadowcat_reports_given_up_total 2",
			"shadowcat_report_duration_seconds_count 1",
			"shadowcat_store_up 1",
			"shadowcat_store_outage 1",
			"shadowcat_store_outages_total 2",
			"shadowcat_store_outage_seconds_total 1.5",
			"shadowcat_store_breakers 16",
			"shadowcat_store_breakers_open 2",
			"shadowcat_store_breaker_trips_total 7",
			`shadowcat_leases_total{outcome="grace"} 0`,
			"shadowcat_leases_held 3",
			`shadowcat_sessions{status="active"} 5`,
			`shadowcat_sessions{status="evicted"} 0`,
			"shadowcat_sessions_due 1",
			"shadowcat_sessions_created_total 9",
			`shadowcat_sessions_ended_total{status="closed"} 4`,
			"go_goroutines ",
		} {
			if !strings.Contains(body, "\n"+want) && !strings.HasPrefix(body, want) {
				t.Errorf("/metrics lacks %s", want)
			}
		}
		if strings.Contains(body, "invented") || strings.Contains(body, `ended_total{status="active"}`) {
			t.Errorf("/metrics has a label that cannot be:\n%s", body)
		}
		problems, err := promlint.New(strings.NewReader(body)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
	})
}

func TestAScrapeLeavesOutWhatAStoreThatIsAwayWouldTell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.fail("down")
		a, _ := newAdmin(t, store, nil)
		running(t, a)
		w := get(t, a, "/metrics")
		body := w.Body.String()
		if w.Code != http.StatusOK || !strings.Contains(body, "\nshadowcat_store_up 0\n") || strings.Contains(body, "shadowcat_sessions") {
			t.Errorf("/metrics: %d\n%s", w.Code, body)
		}
		if n := store.stats.Load(); n != 0 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

func TestAScrapeWaitsNoLongerThanTheStoreTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		a, _ := newAdmin(t, store, nil)
		running(t, a)
		store.hang.Store(true) // not probed again yet
		start := time.Now()
		body := get(t, a, "/metrics").Body.String()
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the scrape took %v", took)
		}
		if !strings.Contains(body, "shadowcat_leases_held 3") || strings.Contains(body, "shadowcat_sessions") {
			t.Errorf("/metrics:\n%s", body)
		}
	})
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := admin.New(admin.Config{}); err == nil {
		t.Error("New accepted an empty Config")
	}
}
