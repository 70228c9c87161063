package admin

import (
	"cmp"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const namespace = "shadowcat"

var (
	// From a hit in memory next to the upstream to a tool that works for minutes.
	requestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	// A batch of reports is one round trip; beyond the store's timeout it is given up.
	reportBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
)

// Metrics counts what one replica does, on a registry of its own. It is a [cluster.Observer]. Its methods return at once
// and are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	requests       *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec

	authRefusals *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	recoveries   *prometheus.CounterVec
	resumptions  *prometheus.CounterVec

	leases map[cluster.LeaseOutcome]prometheus.Counter

	reportedSessions    prometheus.Counter
	unconfirmedSessions prometheus.Counter
	reportSeconds       prometheus.Histogram

	outages       prometheus.Counter
	outageSeconds prometheus.Counter
	isAway        prometheus.Gauge

	cleanup cleanupMetrics
	frames  frameMetrics
}

// Build says which program runs.
type Build struct {
	Version string
	Commit  string
}

// NewMetrics returns metrics at zero.
func NewMetrics(build Build) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "requests_total",
			Help: "Client requests answered by this replica, by protocol era, HTTP method, JSON-RPC method and HTTP status.",
		}, []string{"era", "http_method", "rpc_method", "code"}),
		requestSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "request_duration_seconds",
			Help:    "Time from a client request's headers to the end of its answer. A GET is a stream: it lasts as long as the client listens.",
			Buckets: requestBuckets,
		}, []string{"http_method", "rpc_method"}),
		authRefusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "auth_refusals_total",
			Help: "Client requests that this replica refused because of who they are from, or because nobody could tell, by reason.",
		}, []string{"reason"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "refusals_total",
			Help: "Requests that this replica refused, by reason and by the setting that was reached.",
		}, []string{"reason", "limit"}),
		recoveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "recoveries_total",
			Help: "Attempts of this replica to make a session anew that its upstream had lost, by outcome.",
		}, []string{"outcome"}),
		resumptions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "resumptions_total",
			Help: "Streams that clients wanted to go on with by Last-Event-ID, by outcome.",
		}, []string{"outcome"}),
		leases: make(map[cluster.LeaseOutcome]prometheus.Counter),
		reportedSessions: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "reported_sessions_total",
			Help: "Sessions whose activity this replica has reported to the store, one for each session and report.",
		}),
		unconfirmedSessions: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "reported_sessions_unconfirmed_total",
			Help: "Those of them for which the store did not confirm the report.",
		}),
		reportSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "report_duration_seconds",
			Help:    "Time the store took for one batch of reports.",
			Buckets: reportBuckets,
		}),
		outages: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_outages_total",
			Help: "How often this replica could not ask the store for a second or longer.",
		}),
		outageSeconds: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_outage_seconds_total",
			Help: "How long those outages were that are over.",
		}),
		isAway: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "store_outage",
			Help: "1 during such an outage and until no call has failed for two seconds, else 0.",
		}),
	}
	leases := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "leases_total",
		Help: "Requests of a session by how this replica got the right to serve them: hit is from memory, grace is without the store, which is away, all else asked the store.",
	}, []string{"outcome"})
	for _, outcome := range cluster.LeaseOutcomes() {
		m.leases[outcome] = leases.WithLabelValues(string(outcome))
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help: "Always 1; the labels say which program runs.",
		ConstLabels: prometheus.Labels{
			"version": cmp.Or(build.Version, "unknown"), "commit": cmp.Or(build.Commit, "unknown"), "goversion": runtime.Version(),
		},
	})
	info.Set(1)
	m.registry.MustRegister(info, m.requests, m.requestSeconds, m.authRefusals, m.refusals, m.recoveries, m.resumptions, leases,
		m.reportedSessions, m.unconfirmedSessions, m.reportSeconds, m.outages, m.outageSeconds, m.isAway,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.cleanup = newCleanupMetrics(m.registry)
	m.frames = newFrameMetrics(m.registry)
	return m
}

// Request is one finished client request.
type Request struct {
	// Era is the protocol's: one of a few words.
	Era string
	// HTTPMethod is counted as "other" when it is none that the protocol uses.
	HTTPMethod string
	// RPCMethod is the JSON-RPC method, or a word for what has none. The caller bounds how many different ones there are:
	// a client must not be able to invent them.
	RPCMethod string
	// Status is the HTTP status of the answer, 0 when there was none.
	Status   int
	Duration time.Duration
	// Denied is why authentication refused it, one of a few words; empty when it did not.
	Denied string
	// Upstream is the configured name; empty for the one without, and where there is none.
	Upstream string
	// Refused is why the proxy itself refused it, one of a few words, and Limit the setting that was reached, if it was for that. Each
	// may be empty.
	Refused, Limit string
}

// RequestDone counts a finished request.
func (m *Metrics) RequestDone(r Request) {
	method, rpc := httpMethod(r.HTTPMethod), cmp.Or(r.RPCMethod, "none")
	m.requests.WithLabelValues(cmp.Or(r.Era, "none"), method, rpc, statusCode(r.Status)).Inc()
	m.requestSeconds.WithLabelValues(method, rpc).Observe(r.Duration.Seconds())
	if r.Denied != "" {
		m.authRefusals.WithLabelValues(r.Denied).Inc()
	}
	if r.Refused != "" {
		m.refusals.WithLabelValues(r.Refused, cmp.Or(r.Limit, "none")).Inc()
	}
}

// RecoveryDone counts an attempt to make a session anew that its upstream had lost.
func (m *Metrics) RecoveryDone(outcome string) { m.recoveries.WithLabelValues(outcome).Inc() }

// ResumptionDone counts a stream that a client wanted to go on with.
func (m *Metrics) ResumptionDone(outcome string) { m.resumptions.WithLabelValues(outcome).Inc() }

// LeaseDone counts a lease by its outcome.
func (m *Metrics) LeaseDone(outcome cluster.LeaseOutcome) {
	if counter, known := m.leases[outcome]; known {
		counter.Inc()
	}
}

// ReportDone counts a batch of reports.
func (m *Metrics) ReportDone(sessions, unconfirmed int, took time.Duration) {
	m.reportedSessions.Add(float64(sessions))
	m.unconfirmedSessions.Add(float64(unconfirmed))
	m.reportSeconds.Observe(took.Seconds())
}

// OutageBegan counts an outage of the store.
func (m *Metrics) OutageBegan() {
	m.outages.Inc()
	m.isAway.Set(1)
}

// OutageEnded adds its length.
func (m *Metrics) OutageEnded(length time.Duration) {
	m.outageSeconds.Add(length.Seconds())
	m.isAway.Set(0)
}

func httpMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodOptions, http.MethodHead:
		return method
	default:
		return "other"
	}
}

func statusCode(status int) string {
	switch {
	case status == 0:
		return "none"
	case status < 100 || status > 599:
		return "other"
	default:
		return strconv.Itoa(status)
	}
}
