package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// From a sweep that finds nothing to a batch on a server that is busy.
var sweepBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

var (
	leaderFamily = Family{
		Name: "leader", Kind: KindGauge,
		Help:  "1 while this replica is the one that cleans up, else 0.",
		Worry: "The sum over replicas is 0 for longer than `leader_ttl` and a few seconds: nobody cleans up.",
	}
	transitionsFamily = Family{
		Name: "leader_transitions_total", Kind: KindCounter,
		Help: "How often this replica began or ceased to lead, by reason. Terms are those that began, elected.",
		Labels: []Label{{
			Name: "reason", Values: []string{"elected", "stopped", "lost", "expired", "failed", "panicked"},
			Meaning: "`elected` begins a term, all else ends one: `stopped`: the replica stops. `lost`: the lock was gone, or another's. `expired`: the " +
				"lock could not be extended in time. `failed`, `panicked`: its work could not go on.",
		}},
		Worry: "`lost`, `expired`, `failed` or `panicked`; more than one `elected` without a replica that stops.",
	}
	renewSecondsFamily = Family{
		Name: "leader_renew_duration_seconds", Kind: KindHistogram, Buckets: sweepBuckets,
		Help:  "Time the store took to extend the leader's lock.",
		Worry: "It comes near a third of `leader_ttl`.",
	}
	renewFailedFamily = Family{
		Name: "leader_renew_failures_total", Kind: KindCounter,
		Help: "Extensions of the leader's lock that did not work.",
	}
	sweepSecondsFamily = Family{
		Name: "sweep_duration_seconds", Kind: KindHistogram, Buckets: sweepBuckets,
		Help:  "Time the store took for one batch of cleanup.",
		Worry: "It grows beyond a few milliseconds: the store is busy, or `sweep_batch` large.",
	}
	sweepFailedFamily = Family{
		Name: "sweep_failures_total", Kind: KindCounter,
		Help: "Sweeps that did not work, in all or in part of the store.",
	}
	removedFamily = Family{
		Name: "sweep_sessions_total", Kind: KindCounter,
		Help: "Sessions that this replica has cleaned up, by what became of them.",
		Labels: []Label{{
			Name: "action", Values: texts([]cluster.Action{cluster.ActionExpired, cluster.ActionEvicted, cluster.ActionPurged}),
			Meaning: "`expired`: ended. `evicted`: ended, because memory ran out. `purged`: the record of an ended one was removed.",
		}},
		Worry: "`evicted` at all: the store's memory is too small for `max_sessions`.",
	}
	fencedFamily = Family{
		Name: "sweep_fenced_total", Kind: KindCounter,
		Help:  "Calls that a later leader's fence has refused.",
		Worry: "It grows: a replica that led hangs and comes back, or the store has lost writes in a failover.",
	}
	repairsFamily = Family{
		Name: "repairs_total", Kind: KindCounter,
		Help: "Drift between records, indexes and counts that this replica has mended, by kind.",
		Labels: []Label{{
			Name: "kind", Values: texts(cluster.RepairKinds()),
			Meaning: "`keys_orphaned`: keys had outlived their session. `pending_abandoned`: a request was in flight at a replica that died. The log names the session of each.",
		}},
		Worry: "It grows without a failover or a replica that died: something else writes to the store's keys.",
	}
	panicsFamily = Family{
		Name: "panics_total", Kind: KindCounter,
		Help:   "Panics in background loops, by loop. The loop was started again.",
		Labels: []Label{{Name: "loop", Meaning: "The loop's name, as in the log; one appears with its first panic."}},
		Worry:  "At all: it is a defect, and the log has its stack.",
	}
	memoryFamily = Family{
		Name: "store_memory_usage_ratio", Kind: KindGauge,
		Help:  "The highest share of a store server's memory limit in use, as this replica saw it when it last led; 0 without a limit.",
		Worry: "Near `emergency_percent` (90 %): emergency cleanup begins there.",
	}
)

// cleanupMetrics count what the sweeper of this replica does.
type cleanupMetrics struct {
	leader       prometheus.Gauge
	transitions  map[string]prometheus.Counter
	renewSeconds prometheus.Observer
	renewFailed  prometheus.Counter
	sweepSeconds prometheus.Observer
	sweepFailed  prometheus.Counter
	removed      map[string]prometheus.Counter
	fenced       prometheus.Counter
	mended       map[string]prometheus.Counter
	panics       *prometheus.CounterVec
	memory       prometheus.Gauge
}

func newCleanupMetrics(r *prometheus.Registry) cleanupMetrics {
	return cleanupMetrics{
		leader:       leaderFamily.gauge(r),
		transitions:  transitionsFamily.byValue(r),
		renewSeconds: renewSecondsFamily.histogram(r),
		renewFailed:  renewFailedFamily.counter(r),
		sweepSeconds: sweepSecondsFamily.histogram(r),
		sweepFailed:  sweepFailedFamily.counter(r),
		removed:      removedFamily.byValue(r),
		fenced:       fencedFamily.counter(r),
		mended:       repairsFamily.byValue(r),
		panics:       panicsFamily.counters(r),
		memory:       memoryFamily.gauge(r),
	}
}

// LeaderChanged counts a change of leadership.
func (m *Metrics) LeaderChanged(isLeader bool, reason string) {
	m.cleanup.leader.Set(number(isLeader))
	add(m.cleanup.transitions, reason, 1)
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
	add(m.cleanup.removed, string(cluster.ActionExpired), expired)
	add(m.cleanup.removed, string(cluster.ActionPurged), purged)
}

// SweepFailed counts a sweep that did not work.
func (m *Metrics) SweepFailed() { m.cleanup.sweepFailed.Inc() }

// Fenced counts a refusal by a later leader's fence.
func (m *Metrics) Fenced() { m.cleanup.fenced.Inc() }

// Mended counts a repair.
func (m *Metrics) Mended(kind cluster.RepairKind) { add(m.cleanup.mended, string(kind), 1) }

// Relieved counts what emergency cleanup did.
func (m *Metrics) Relieved(purged, evicted int, usage float64) {
	add(m.cleanup.removed, string(cluster.ActionPurged), purged)
	add(m.cleanup.removed, string(cluster.ActionEvicted), evicted)
	m.cleanup.memory.Set(usage)
}
