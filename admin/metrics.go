package admin

import (
	"cmp"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics counts what one replica does, on a registry of its own. It is the observer of every part of it. Its methods return at
// once and are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	request  requestMetrics
	lease    leaseMetrics
	store    storeMetrics
	cleanup  cleanupMetrics
	frames   frameMetrics

	disagreeing prometheus.Gauge
}

// Build says which program runs.
type Build struct {
	Version string
	Commit  string
}

var buildFamily = Family{
	Name: "build_info", Kind: KindGauge,
	Help:   "Always 1; the labels say which program runs.",
	Labels: []Label{{Name: "version"}, {Name: "commit"}, {Name: "goversion", Meaning: "The version of Go that made it."}},
	Worry:  "Replicas have different versions for longer than a rollout takes.",
}

var disagreeingFamily = Family{
	Name: "replicas_disagreeing", Kind: KindGauge,
	Help:  "Other live replicas whose limits are not those of this one, as it saw them last, within 5 s; `shadowcat-cluster replicas` names them.",
	Worry: "More than 0 for longer than a rollout of changed settings takes: a session may be held to the strictest of them, and be ended by it.",
}

// NewMetrics returns metrics at zero.
func NewMetrics(build Build) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), constant{
		prometheus.MustNewConstMetric(buildFamily.desc(), prometheus.GaugeValue, 1,
			cmp.Or(build.Version, "unknown"), cmp.Or(build.Commit, "unknown"), runtime.Version()),
	})
	return &Metrics{
		registry: r,
		request:  newRequestMetrics(r),
		lease:    newLeaseMetrics(r),
		store:    newStoreMetrics(r),
		cleanup:  newCleanupMetrics(r),
		frames:   newFrameMetrics(r),

		disagreeing: disagreeingFamily.gauge(r),
	}
}

// ReplicasDisagree says how many other live replicas have other limits than this one.
func (m *Metrics) ReplicasDisagree(n int) { m.disagreeing.Set(float64(n)) }

// constant is a collector of one metric that never changes.
type constant struct{ prometheus.Metric }

// Describe tells the registry which metric there is.
func (c constant) Describe(descs chan<- *prometheus.Desc) { descs <- c.Desc() }

// Collect returns it.
func (c constant) Collect(metrics chan<- prometheus.Metric) { metrics <- c.Metric }

// section is a part of the documentation.
type section struct {
	title    string
	families []Family
}

// sections are all metrics, in the order in which they are documented.
func sections() []section {
	return []section{
		{"Requests", []Family{
			requestsFamily, requestSecondsFamily, inFlightFamily, bytesInFlightFamily, refusalsFamily, authRefusalsFamily, keysUpFamily, keysAgeFamily,
		}},
		{"Sessions", []Family{sessionsFamily, maxSessionsFamily, createdFamily, endedFamily, recoveriesFamily}},
		{"Streams", []Family{streamsFamily, readStreamsFamily, resumptionsFamily}},
		{"Leases and reports", []Family{
			leasesFamily, heldFamily, reportSessionsFamily, reportSecondsFamily, unsentFamily, unconfirmedFamily,
		}},
		{"The store", []Family{
			upFamily, outageFamily, outagesFamily, outageSecondsFamily, callsFamily, callSecondsFamily, partsFamily, openFamily, tripsFamily,
			memoryFamily, auditDroppedFamily,
		}},
		{"Cleanup and the leader", []Family{
			dueFamily, lagFamily, behindFamily, leaderFamily, transitionsFamily, renewSecondsFamily, renewFailedFamily, sweepSecondsFamily,
			sweepFailedFamily, removedFamily, fencedFamily, repairsFamily, panicsFamily,
		}},
		{"Recording", []Family{recordedFamily, droppedFamily}},
		{"The program", []Family{buildFamily, disagreeingFamily}},
	}
}

// Families lists all metrics but those of the Go runtime, the process and the scrapes themselves.
func Families() []Family {
	var all []Family
	for _, s := range sections() {
		all = append(all, s.families...)
	}
	return all
}
