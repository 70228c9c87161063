package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/lua"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

var (
	scriptLabel = Label{Name: "script", Values: lua.Names(), Meaning: "The name of a file in lua/; one appears with its first call."}

	callsFamily = Family{
		Name: "store_calls_total", Kind: KindCounter,
		Help: "Calls of scripts in the store by this replica, by script and outcome.",
		Labels: []Label{scriptLabel, {
			Name: "outcome", Values: texts(redisstore.CallOutcomes()),
			Meaning: "`answered` is also what a script refuses. `timeout`, `failed` and `canceled` (the caller left) may have run. `not_made`: the " +
				"store was not asked, because it does not answer.",
		}},
		Worry: "`timeout` or `failed` at all, outside of a failover.",
	}
	callSecondsFamily = Family{
		Name: "store_call_duration_seconds", Kind: KindHistogram,
		Help:   "Time a call of a script took; calls made together in one round trip take as long as that.",
		Labels: []Label{scriptLabel},
		// From a server next door to one that is given up.
		Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		Worry:   "The 99th percentile of `session_lease` or `session_report` comes near `store_timeout` (0.25 s).",
	}
	upFamily = Family{
		Name: "store_up", Kind: KindGauge,
		Help:  "1 when this replica's last probe of the store was answered, else 0.",
		Worry: "0 for longer than a failover takes.",
	}
	outageFamily = Family{
		Name: "store_outage", Kind: KindGauge,
		Help:  "1 from when this replica could not ask the store for about a second until no call has failed for two seconds, else 0.",
		Worry: "1: known sessions are served for `outage_grace` (30 s), no new ones begin.",
	}
	outagesFamily = Family{
		Name: "store_outages_total", Kind: KindCounter,
		Help: "Outages of the store that this replica has seen begin.",
	}
	outageSecondsFamily = Family{
		Name: "store_outage_seconds_total", Kind: KindCounter,
		Help:  "How long those outages were that are over.",
		Worry: "One outage comes near `outage_grace`.",
	}
	partsFamily = Family{
		Name: "store_breakers", Kind: KindGauge,
		Help: "Parts of the store that fail by themselves: one, of a Redis Cluster one for each range of slots.",
	}
	openFamily = Family{
		Name: "store_breakers_open", Kind: KindGauge,
		Help:  "Those of them that this replica does not ask at present but for a probe every 500 ms, because they did not answer.",
		Worry: "More than 0 for longer than a failover takes: the sessions in that part have no store.",
	}
	tripsFamily = Family{
		Name: "store_breaker_trips_total", Kind: KindCounter,
		Help: "How often a part of the store became one of those.",
	}
	auditDroppedFamily = Family{
		Name: "audit_dropped_total", Kind: KindCounter, Only: "unless `audit_stream` is 0",
		Help:  "Audit records that this replica could not write to the stream in the store. The log has them.",
		Worry: "At all, if somebody relies on the stream.",
	}
)

// storeMetrics count what the store is asked.
type storeMetrics struct {
	scripts       *memo[string, scriptMetrics]
	outages       prometheus.Counter
	outageSeconds prometheus.Counter
	isAway        prometheus.Gauge
}

// scriptMetrics are those of one script.
type scriptMetrics struct {
	calls   map[redisstore.CallOutcome]prometheus.Counter
	seconds prometheus.Observer
}

func newStoreMetrics(r *prometheus.Registry) storeMetrics {
	calls, seconds := callsFamily.counters(r), callSecondsFamily.histograms(r)
	return storeMetrics{
		scripts: newMemo(func(script string) scriptMetrics {
			s := scriptMetrics{calls: make(map[redisstore.CallOutcome]prometheus.Counter), seconds: seconds.WithLabelValues(script)}
			for _, outcome := range redisstore.CallOutcomes() {
				s.calls[outcome] = calls.WithLabelValues(script, string(outcome))
			}
			return s
		}),
		outages: outagesFamily.counter(r), outageSeconds: outageSecondsFamily.counter(r), isAway: outageFamily.gauge(r),
	}
}

// CallDone counts a call of a script.
func (m *Metrics) CallDone(script string, outcome redisstore.CallOutcome, took time.Duration) {
	s := m.store.scripts.of(script)
	if c, known := s.calls[outcome]; known {
		c.Inc()
	}
	if outcome != redisstore.CallNotMade {
		s.seconds.Observe(took.Seconds())
	}
}

// OutageBegan counts an outage of the store.
func (m *Metrics) OutageBegan() {
	m.store.outages.Inc()
	m.store.isAway.Set(1)
}

// OutageEnded adds its length.
func (m *Metrics) OutageEnded(length time.Duration) {
	m.store.outageSeconds.Add(length.Seconds())
	m.store.isAway.Set(0)
}
