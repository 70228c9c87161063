package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var (
	leasesFamily = Family{
		Name: "leases_total", Kind: KindCounter,
		Help: "Requests of a session by how this replica got the right to serve them: hit is from memory, grace is without the store, which is away, all else asked the store.",
		Labels: []Label{{
			Name: "outcome", Values: texts(cluster.LeaseOutcomes()),
			Meaning: "`limited`: over `request_rate` or `max_pending`. `not_found`: no session for this caller. `canceled`: the caller left. `unavailable`: the store could not be asked.",
		}},
		Worry: "`hit` is a small share of a busy replica's: requests of one session are spread over many replicas, or `lease` is short. `grace` or `unavailable`: the store is away.",
	}
	reportSessionsFamily = Family{
		Name: "report_sessions", Kind: KindHistogram,
		Help:    "Sessions in one batch of reports, by which this replica tells the store what happened.",
		Buckets: []float64{1, 2, 5, 10, 25, 50, 100}, // 100 is the most
	}
	reportSecondsFamily = Family{
		Name: "report_duration_seconds", Kind: KindHistogram,
		Help: "Time the store took for one batch of reports.",
		// A batch of reports is one round trip; beyond the store's timeout it is given up.
		Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		Worry:   "The 99th percentile comes near `store_timeout` (0.25 s).",
	}
	unsentFamily = Family{
		Name: "reports_unsent_total", Kind: KindCounter,
		Help:  "Sessions whose report did not reach the store. It waits for the next round, and nothing is lost but budget that was to be given back.",
		Worry: "It grows without an outage of the store.",
	}
	unconfirmedFamily = Family{
		Name: "reports_given_up_total", Kind: KindCounter,
		Help:  "Sessions whose report may or may not have been taken. Activity is told again; what it counted is given up, so that nothing counts twice.",
		Worry: "It grows: answers of the store are lost, or come after `store_timeout`.",
	}
	heldFamily = Family{
		Name: "leases_held", Kind: KindGauge,
		Help: "Sessions this replica knows: those it serves, and those it could serve without the store.",
	}
)

// leaseMetrics count what the Manager does.
type leaseMetrics struct {
	leases            map[cluster.LeaseOutcome]prometheus.Counter
	sessions, seconds prometheus.Observer
	unsent, givenUp   prometheus.Counter
}

func newLeaseMetrics(r *prometheus.Registry) leaseMetrics {
	m := leaseMetrics{
		leases:   make(map[cluster.LeaseOutcome]prometheus.Counter),
		sessions: reportSessionsFamily.histogram(r), seconds: reportSecondsFamily.histogram(r),
		unsent: unsentFamily.counter(r), givenUp: unconfirmedFamily.counter(r),
	}
	leases := leasesFamily.counters(r)
	for _, outcome := range cluster.LeaseOutcomes() {
		m.leases[outcome] = leases.WithLabelValues(string(outcome))
	}
	return m
}

// LeaseDone counts a lease by its outcome.
func (m *Metrics) LeaseDone(outcome cluster.LeaseOutcome) {
	if c, known := m.lease.leases[outcome]; known {
		c.Inc()
	}
}

// ReportDone counts a batch of reports.
func (m *Metrics) ReportDone(sessions, unsent, unconfirmed int, took time.Duration) {
	m.lease.sessions.Observe(float64(sessions))
	m.lease.seconds.Observe(took.Seconds())
	m.lease.unsent.Add(float64(unsent))
	m.lease.givenUp.Add(float64(unconfirmed))
}
