package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
)

const sweepInterval = 5 * time.Second

// laggard is a store whose cleanup is behind.
type laggard struct {
	fakeStore

	mu  sync.Mutex
	lag time.Duration
}

func (l *laggard) set(lag time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag = lag
}

func (l *laggard) Stats(ctx context.Context) (cluster.Stats, error) {
	stats, err := l.fakeStore.Stats(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	stats.Lag = l.lag
	return stats, err
}

// watched runs an admin with its watchdog and probe, until the test's bubble ends.
func watched(t *testing.T, store *laggard, leads func() admin.Leadership) (*admin.Admin, *admin.Metrics) {
	t.Helper()
	metrics := admin.NewMetrics(admin.Build{})
	a, err := admin.New(admin.Config{
		ReplicaID: "r-1", Store: store, Sessions: store, Metrics: metrics, StoreTimeout: 100 * time.Millisecond,
		SweepInterval: sweepInterval, Leadership: leads,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.SetServing(true)
	running(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	synctest.Wait()
	return a, metrics
}

// cleanupBody is what /readyz tells of the cleanup.
type cleanupBody struct {
	Ready bool `json:"ready"`
	Sweep struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	} `json:"sweep"`
	Leader *struct {
		IsLeader     bool       `json:"is_leader"`
		Leader       string     `json:"leader"`
		Epoch        int64      `json:"epoch"`
		Since        *time.Time `json:"since"`
		TrustedUntil *time.Time `json:"trusted_until"`
	} `json:"leader"`
}

func cleanup(t *testing.T, a *admin.Admin) (int, cleanupBody) {
	t.Helper()
	w := get(t, a, "/readyz")
	var body cleanupBody
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return w.Code, body
}

func TestTheWatchdogTurnsRedPastThreeIntervalsAndReadinessDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &laggard{}
		a, _ := watched(t, store, nil)
		want := func(lag time.Duration, red bool) {
			t.Helper()
			store.set(lag)
			<-time.After(sweepInterval)
			synctest.Wait()
			code, body := cleanup(t, a)
			if code != http.StatusOK || !body.Ready {
				t.Errorf("lag %v: not ready: %d", lag, code)
			}
			if body.Sweep.OK == red || (body.Sweep.Error != "") != red {
				t.Errorf("lag %v: sweep is %+v, want it red: %v", lag, body.Sweep, red)
			}
			metric := "\nshadowcat_sweep_behind 0\n"
			if red {
				metric = "\nshadowcat_sweep_behind 1\n"
			}
			if text := get(t, a, "/metrics").Body.String(); !strings.Contains(text, metric) {
				t.Errorf("lag %v: /metrics lacks %s", lag, metric)
			}
		}
		want(0, false)
		want(3*sweepInterval, false)
		want(3*sweepInterval+time.Millisecond, true)
		if _, body := cleanup(t, a); !strings.Contains(body.Sweep.Error, "15s") {
			t.Errorf("it says %q, want for how long", body.Sweep.Error)
		}
		// While the store is away nobody can clean up, and nothing new is known.
		store.fail("down")
		<-time.After(sweepInterval)
		synctest.Wait()
		if code, body := cleanup(t, a); code != http.StatusServiceUnavailable || body.Sweep.OK {
			t.Errorf("store away: %d, sweep %+v", code, body.Sweep)
		}
		store.failure.Store(nil)
		<-time.After(admin.ProbeInterval)
		want(time.Second, false)
	})
}

func TestReadinessTellsWhoLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var leads admin.Leadership
		a, _ := watched(t, &laggard{}, func() admin.Leadership { return leads })
		if code, body := cleanup(t, a); code != http.StatusOK || body.Leader == nil || body.Leader.IsLeader || body.Leader.Leader != "" {
			t.Errorf("nobody leads: %d, %+v", code, body.Leader)
		}
		leads = admin.Leadership{Leader: "r-2/AB", Epoch: 7}
		if _, body := cleanup(t, a); body.Leader.IsLeader || body.Leader.Leader != "r-2/AB" || body.Leader.Epoch != 7 || body.Leader.Since != nil || body.Leader.TrustedUntil != nil {
			t.Errorf("another leads: %+v", body.Leader)
		}
		now := time.Now()
		leads = admin.Leadership{IsLeader: true, Leader: "r-1/CD", Epoch: 8, Since: now, TrustedUntil: now.Add(9 * time.Second)}
		if _, body := cleanup(t, a); !body.Leader.IsLeader || !body.Leader.Since.Equal(now) || !body.Leader.TrustedUntil.Equal(now.Add(9*time.Second)) {
			t.Errorf("this replica leads: %+v", body.Leader)
		}
		without, _ := watched(t, &laggard{}, nil)
		if _, body := cleanup(t, without); body.Leader != nil {
			t.Errorf("it takes no part, and says %+v", body.Leader)
		}
	})
}

func TestMetricsTellWhatTheSweeperDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &laggard{}
		store.set(1500 * time.Millisecond)
		a, metrics := watched(t, store, nil)
		metrics.LeaderChanged(true, "elected")
		metrics.Renewed(3*time.Millisecond, nil)
		metrics.Renewed(time.Second, errors.New("away"))
		metrics.Swept(5, 3, 2*time.Millisecond)
		metrics.Swept(0, 0, 2*time.Millisecond)
		metrics.SweepFailed()
		metrics.Fenced()
		metrics.Panicked("sweep")
		metrics.Relieved(2, 4, .93)
		for _, kind := range cluster.RepairKinds() {
			metrics.Mended(kind)
		}
		metrics.Mended("invented")
		body := get(t, a, "/metrics").Body.String()
		for _, want := range []string{
			"shadowcat_leader 1",
			`shadowcat_leader_transitions_total{reason="elected"} 1`,
			"shadowcat_leader_renew_duration_seconds_count 2",
			"shadowcat_leader_renew_failures_total 1",
			"shadowcat_sweep_duration_seconds_count 2",
			"shadowcat_sweep_failures_total 1",
			`shadowcat_sweep_sessions_total{action="expired"} 5`,
			`shadowcat_sweep_sessions_total{action="purged"} 5`,
			`shadowcat_sweep_sessions_total{action="evicted"} 4`,
			"shadowcat_sweep_fenced_total 1",
			`shadowcat_panics_total{loop="sweep"} 1`,
			"shadowcat_store_memory_usage_ratio 0.93",
			`shadowcat_repairs_total{kind="record_missing"} 1`,
			`shadowcat_repairs_total{kind="pending_abandoned"} 1`,
			"shadowcat_sweep_lag_seconds 1.5",
			"shadowcat_sweep_behind 0",
		} {
			if !strings.Contains(body, "\n"+want+"\n") {
				t.Errorf("/metrics lacks %s", want)
			}
		}
		if strings.Contains(body, "invented") || strings.Count(body, "\nshadowcat_repairs_total{") != len(cluster.RepairKinds()) {
			t.Error("/metrics has not just the kinds of repairs that there are")
		}
		problems, err := promlint.New(strings.NewReader(body)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
		metrics.LeaderChanged(false, "stopped")
		if body := get(t, a, "/metrics").Body.String(); !strings.Contains(body, "\nshadowcat_leader 0\n") {
			t.Error("it leads still")
		}
	})
}
