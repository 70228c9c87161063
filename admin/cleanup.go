package admin

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// lagIntervals is after how many sweep intervals what is due counts as left behind.
const lagIntervals = 3

// Leadership is what a replica knows of who cleans up.
type Leadership struct {
	IsLeader     bool
	Leader       string // the incarnation last seen leading, empty for none
	Epoch        int64
	Since        time.Time // of this replica's own term, else zero
	TrustedUntil time.Time // as Since
}

// leaderCheck is what /readyz tells of the cleanup. It says nothing about readiness.
type leaderCheck struct {
	IsLeader     bool       `json:"is_leader"`
	Leader       string     `json:"leader,omitempty"`
	Epoch        int64      `json:"epoch,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	TrustedUntil *time.Time `json:"trusted_until,omitempty"`
}

func newLeaderCheck(l Leadership) *leaderCheck {
	c := &leaderCheck{IsLeader: l.IsLeader, Leader: l.Leader, Epoch: l.Epoch}
	if l.IsLeader {
		since, until := l.Since.UTC().Truncate(time.Millisecond), l.TrustedUntil.UTC().Truncate(time.Millisecond)
		c.Since, c.TrustedUntil = &since, &until
	}
	return c
}

// watchdog knows how far behind the cleanup is. One goroutine asks (run), everyone may look (state).
type watchdog struct {
	sessions Sessions
	timeout  time.Duration
	interval time.Duration // between sweeps

	mu     sync.Mutex
	lag    time.Duration
	behind bool
}

// run asks once an interval, until ctx ends.
func (w *watchdog) run(ctx context.Context) {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		w.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once asks the store. While it is away what was known stays: nobody can clean up then.
func (w *watchdog) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	stats, err := w.sessions.Stats(ctx)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag, w.behind = stats.Lag, stats.Lag > lagIntervals*w.interval
}

func (w *watchdog) state() (lag time.Duration, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lag, w.behind
}

var sweepBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// cleanupMetrics counts what the sweeper of this replica does.
type cleanupMetrics struct {
	leader       prometheus.Gauge
	transitions  *prometheus.CounterVec
	renewSeconds prometheus.Histogram
	renewFailed  prometheus.Counter
	sweepSeconds prometheus.Histogram
	sweepFailed  prometheus.Counter
	removed      *prometheus.CounterVec
	fenced       prometheus.Counter
	mended       map[cluster.RepairKind]prometheus.Counter
	panics       *prometheus.CounterVec
	memory       prometheus.Gauge
}

func newCleanupMetrics(registry *prometheus.Registry) cleanupMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: sweepBuckets})
	}
	m := cleanupMetrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "leader", Help: "1 while this replica is the one that cleans up, else 0.",
		}),
		transitions:  vector("leader_transitions_total", "How often this replica began or ceased to lead, by reason.", "reason"),
		renewSeconds: histogram("leader_renew_duration_seconds", "Time the store took to extend the leader's lock."),
		renewFailed:  counter("leader_renew_failures_total", "Extensions of the leader's lock that did not work."),
		sweepSeconds: histogram("sweep_duration_seconds", "Time the store took for one batch of cleanup."),
		sweepFailed:  counter("sweep_failures_total", "Sweeps that did not work."),
		removed:      vector("sweep_sessions_total", "Sessions that this replica has cleaned up, by what became of them: expired, evicted (memory ran out) or purged.", "action"),
		fenced:       counter("sweep_fenced_total", "Calls that a later leader's fence has refused."),
		panics:       vector("panics_total", "Panics in background loops, by loop. The loop was started again.", "loop"),
		memory: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "store_memory_usage_ratio",
			Help: "The highest share of a store server's memory limit in use, as this replica saw it when it last led; 0 without a limit.",
		}),
		mended: make(map[cluster.RepairKind]prometheus.Counter),
	}
	repairs := vector("repairs_total", "Drift between records, indexes and counts that this replica has mended, by kind.", "kind")
	for _, kind := range cluster.RepairKinds() {
		m.mended[kind] = repairs.WithLabelValues(string(kind))
	}
	for _, action := range []cluster.Action{cluster.ActionExpired, cluster.ActionEvicted, cluster.ActionPurged} {
		m.removed.WithLabelValues(string(action))
	}
	registry.MustRegister(m.leader, m.transitions, m.renewSeconds, m.renewFailed, m.sweepSeconds, m.sweepFailed, m.removed, m.fenced,
		m.panics, m.memory, repairs)
	return m
}

// LeaderChanged counts a change of leadership.
func (m *Metrics) LeaderChanged(isLeader bool, reason string) {
	m.cleanup.leader.Set(number(isLeader))
	m.cleanup.transitions.WithLabelValues(reason).Inc()
}

// Renewed counts an extension of the leader's lock.
func (m *Metrics) Renewed(took time.Duration, err error) {
	m.cleanup.renewSeconds.Observe(took.Seconds())
	if err != nil {
		m.cleanup.renewFailed.Inc()
	}
}

// Panicked counts a panic that was recovered.
func (m *Metrics) Panicked(loop string) { m.cleanup.panics.WithLabelValues(loop).Inc() }

// Swept counts what a sweep did.
func (m *Metrics) Swept(expired, purged int, took time.Duration) {
	m.cleanup.sweepSeconds.Observe(took.Seconds())
	m.cleanup.removed.WithLabelValues(string(cluster.ActionExpired)).Add(float64(expired))
	m.cleanup.removed.WithLabelValues(string(cluster.ActionPurged)).Add(float64(purged))
}

// SweepFailed counts a sweep that did not work.
func (m *Metrics) SweepFailed() { m.cleanup.sweepFailed.Inc() }

// Fenced counts a refusal by a later leader's fence.
func (m *Metrics) Fenced() { m.cleanup.fenced.Inc() }

// Mended counts a repair.
func (m *Metrics) Mended(kind cluster.RepairKind) {
	if c, known := m.cleanup.mended[kind]; known {
		c.Inc()
	}
}

// Relieved counts what emergency cleanup did.
func (m *Metrics) Relieved(purged, evicted int, usage float64) {
	m.cleanup.removed.WithLabelValues(string(cluster.ActionPurged)).Add(float64(purged))
	m.cleanup.removed.WithLabelValues(string(cluster.ActionEvicted)).Add(float64(evicted))
	m.cleanup.memory.Set(usage)
}
