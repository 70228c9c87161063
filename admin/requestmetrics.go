package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// none stands for a label's value where there is nothing to tell.
const none = "none"

var (
	httpMethodLabel = Label{Name: "http_method", Values: []string{http.MethodPost, http.MethodGet, http.MethodDelete, http.MethodOptions, other}}
	rpcMethodLabel  = Label{
		Name: "rpc_method", Values: append(mcp.Methods(), other, none),
		Meaning: "The JSON-RPC method, if the protocol defines it for clients; `none` where the request has none, such as an answer, a batch or a GET.",
	}

	requestsFamily = Family{
		Name: "requests_total", Kind: KindCounter,
		Help: "Client requests answered by this replica, by upstream, protocol era, HTTP method, JSON-RPC method and HTTP status.",
		Labels: []Label{
			{Name: "upstream", Meaning: "The upstream's configured name; empty for the one that is served at /mcp, and where there is none at the path."},
			{
				Name: "era", Values: []string{string(mcp.EraSession), string(mcp.EraStateless), string(mcp.EraUnknown)},
				Meaning: "`session` is protocol revision 2025-11-25 and before, `stateless` 2026-07-28 and later, `none` neither.",
			},
			httpMethodLabel, rpcMethodLabel,
			{Name: "code", Meaning: "The HTTP status of the answer; 499 when the client left before there was one."},
		},
		Worry: "The share of 5xx grows: 503 is this proxy's word for an upstream, or a store, that does not answer; see `shadowcat_refusals_total` for which.",
	}
	requestSecondsFamily = Family{
		Name: "request_duration_seconds", Kind: KindHistogram,
		Help:   "Time from a client request's headers to the end of its answer. A GET is a stream: it lasts as long as the client listens.",
		Labels: []Label{httpMethodLabel, rpcMethodLabel},
		// From a hit in memory next to the upstream to a tool that works for minutes.
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		Worry:   "`ping` or `tools/list` grows with `shadowcat_store_call_duration_seconds` (the store is slow) or without it (the upstream is).",
	}
	refusalsFamily = Family{
		Name: "refusals_total", Kind: KindCounter,
		Help: "Client requests that the proxy itself refused, by the reason that the answer names and the setting that was reached.",
		Labels: []Label{
			{Name: "reason", Values: append(texts(mcp.Reasons()), other), Meaning: "As `error.data.reason` of the answer."},
			{
				Name: "limit", Values: append(refusingLimits(), none, other),
				Meaning: "The setting (see configuration.md), as `error.data.limit` of the answer; `none` where the reason is no limit.",
			},
		},
		Worry: "`max_sessions`: clients cannot start; raise it or shorten `idle_timeout`. `replica_max_requests`, `replica_max_bytes`: more replicas are needed, or upstreams hang. `may_have_run`, `upstream_unavailable`: " +
			"upstreams break off. `store_unavailable`: see the store. `session_not_found` beyond the sessions that end: tokens are guessed, or the store lost data.",
	}
	authRefusalsFamily = Family{
		Name: "auth_refusals_total", Kind: KindCounter,
		Help: "Client requests that this replica refused because of who they are from, or because nobody could tell, by reason.",
		Labels: []Label{{Name: "reason", Values: []string{
			"missing", "ambiguous", "too_large", "malformed", "algorithm", "unknown_key", "signature", "issuer", "audience", "expired",
			"not_yet_valid", "subject", "bound", "scope", "peer", "identity", "keys_unavailable",
			"key_not_fetched",
		}, Meaning: "`unknown_key`: the issuer was asked since and has no such key. `key_not_fetched`: it will be asked, at most once in five seconds."}},
		Worry: "`keys_unavailable` at all: nobody is let in. `signature`, `issuer`, `audience` or `peer` in numbers: somebody tries, or a client is configured wrongly.",
	}
	recoveriesFamily = Family{
		Name: "recoveries_total", Kind: KindCounter,
		Help: "Attempts of this replica to make a session anew that its upstream had lost, by outcome.",
		Labels: []Label{{
			Name: "outcome", Values: []string{"made", "elsewhere", "ended", "off", "upstream_failed", "store_unavailable"},
			Meaning: "`made`: it has a new upstream session. `elsewhere`: somebody else made one. `ended`: it cannot have one. `off`: `recover` is off. " +
				"`upstream_failed`, `store_unavailable`: not now; the next request tries again.",
		}},
		Worry: "`made` without a restart of an upstream: it loses sessions. `ended`: clients had to start anew.",
	}
	resumptionsFamily = Family{
		Name: "resumptions_total", Kind: KindCounter,
		Help: "Streams that clients wanted to go on with by Last-Event-ID, by outcome.",
		Labels: []Label{{
			Name: "outcome", Values: []string{"resumed", "complete", "events_gone", "may_have_run", "unavailable"},
			Meaning: "`complete`: the client had all of it. `events_gone`: what follows is not kept. `may_have_run`: the replica that waited for " +
				"the answer has died with it, or the session has ended. `unavailable`: the store or the upstream could not be asked.",
		}},
		Worry: "`events_gone`: clients stay away for longer than `events.age`, or streams have more than `events.count`. Many `resumed`: something between clients and replicas cuts connections.",
	}
)

// refusalKinds are the reasons for which the proxy refuses, with the settings that each may name; none where it is no limit.
func refusalKinds() map[mcp.Reason][]string {
	kinds := make(map[mcp.Reason][]string)
	for _, reason := range mcp.Reasons() {
		kinds[reason] = []string{none}
	}
	kinds[mcp.ReasonRateLimited] = []string{"request_rate", "request_burst", "stateless_rate_per_principal"}
	kinds[mcp.ReasonTooManyPending] = []string{"max_pending", "replica_max_requests", "replica_max_bytes"}
	kinds[mcp.ReasonTooManyStreams] = []string{"max_streams", "max_pending", "replica_max_streams"}
	kinds[mcp.ReasonCapacity] = []string{"max_sessions", "max_sessions_per_principal", "replica_max_requests", "replica_max_bytes"}
	kinds[mcp.ReasonCreationRate] = []string{"create_rate", "create_rate_per_principal"}
	kinds[mcp.ReasonBodyTooLarge] = []string{"max_body"}
	kinds[mcp.ReasonHeaderTooLarge] = []string{"max_header"}
	return kinds
}

// refusingLimits are the settings that a refusal may name.
func refusingLimits() (limits []string) {
	kinds := refusalKinds()
	for _, reason := range mcp.Reasons() {
		for _, limit := range kinds[reason] {
			if limit != none && !slices.Contains(limits, limit) {
				limits = append(limits, limit)
			}
		}
	}
	return limits
}

// requestMetrics count what clients ask for.
type requestMetrics struct {
	requests     *memo[requestKind, prometheus.Counter]
	seconds      *memo[requestKind, prometheus.Observer]
	refusals     *memo[[2]string, prometheus.Counter]
	authRefusals map[string]prometheus.Counter
	recoveries   map[string]prometheus.Counter
	resumptions  map[string]prometheus.Counter
}

// requestKind is what tells requests apart.
type requestKind struct {
	upstream, era, httpMethod, rpcMethod string
	status                               int
}

func newRequestMetrics(r *prometheus.Registry) requestMetrics {
	requests, seconds, refusals := requestsFamily.counters(r), requestSecondsFamily.histograms(r), refusalsFamily.counters(r)
	m := requestMetrics{
		requests: newMemo(func(k requestKind) prometheus.Counter {
			return requests.WithLabelValues(k.upstream, k.era, k.httpMethod, k.rpcMethod, statusCode(k.status))
		}),
		seconds: newMemo(func(k requestKind) prometheus.Observer {
			return seconds.WithLabelValues(k.httpMethod, k.rpcMethod)
		}),
		refusals:     newMemo(func(k [2]string) prometheus.Counter { return refusals.WithLabelValues(k[0], k[1]) }),
		authRefusals: authRefusalsFamily.byValue(r),
		recoveries:   recoveriesFamily.byValue(r),
		resumptions:  resumptionsFamily.byValue(r),
	}
	// From the start, at zero: the first refusal is an increase, too.
	for reason, limits := range refusalKinds() {
		for _, limit := range limits {
			m.refusals.of([2]string{string(reason), limit})
		}
	}
	return m
}

// Request is one finished client request.
type Request struct {
	// Upstream is the configured name; empty for the one without, and where there is none.
	Upstream string
	// Era is the protocol's: one of a few words.
	Era string
	// HTTPMethod is counted as "other" when it is none that the protocol uses.
	HTTPMethod string
	// RPCMethod is the JSON-RPC method, empty for what has none. One that the protocol does not define is counted as "other".
	RPCMethod string
	// Status is the HTTP status of the answer.
	Status   int
	Duration time.Duration
	// Denied is why authentication refused it, one of a few words; empty when it did not.
	Denied string
	// Refused is why the proxy itself refused it, and Limit the setting that was reached, if it was for that. Each may be empty.
	Refused mcp.Reason
	Limit   string
}

// RequestDone counts a finished request.
func (m *Metrics) RequestDone(r Request) {
	kind := requestKind{httpMethod: httpMethodLabel.oneOf(r.HTTPMethod), rpcMethod: cmp.Or(mcp.MethodLabel(r.RPCMethod), none)}
	m.request.seconds.of(kind).Observe(r.Duration.Seconds())
	kind.upstream, kind.era, kind.status = r.Upstream, cmp.Or(r.Era, none), r.Status
	m.request.requests.of(kind).Inc()
	if r.Denied != "" {
		add(m.request.authRefusals, r.Denied, 1)
	}
	if r.Refused != "" {
		reason, limit := refusalsFamily.Labels[0], refusalsFamily.Labels[1]
		m.request.refusals.of([2]string{reason.oneOf(string(r.Refused)), limit.oneOf(cmp.Or(r.Limit, none))}).Inc()
	}
}

// RecoveryDone counts an attempt to make a session anew that its upstream had lost.
func (m *Metrics) RecoveryDone(outcome string) { add(m.request.recoveries, outcome, 1) }

// ResumptionDone counts a stream that a client wanted to go on with.
func (m *Metrics) ResumptionDone(outcome string) { add(m.request.resumptions, outcome, 1) }

// statusCode is a status as a label: an upstream may send any number.
func statusCode(status int) string {
	if status < 100 || status > 599 {
		return other
	}
	return strconv.Itoa(status)
}
