package admin

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

var (
	sessionsFamily = Family{
		Name: "sessions", Kind: KindGauge, IsShared: true,
		Help:   "Session records by status; initializing and active ones are live.",
		Labels: []Label{{Name: "status", Values: texts(cluster.Statuses())}},
		Worry:  "`initializing` and `active` together come near `shadowcat_max_sessions`: at the cap idle sessions are evicted, then clients refused.",
	}
	maxSessionsFamily = Family{
		Name: "max_sessions", Kind: KindGauge,
		Help: "The setting max_sessions, the same at every replica; 0: no cap.",
	}
	createdFamily = Family{
		Name: "sessions_created_total", Kind: KindCounter, IsShared: true,
		Help: "Sessions created since the store was first used.",
	}
	endedFamily = Family{
		Name: "sessions_ended_total", Kind: KindCounter, IsShared: true,
		Help: "Sessions ended since the store was first used, by final status, which is the reason.",
		Labels: []Label{{
			Name: "status", Values: texts(endedStatuses()),
			Meaning: "`closed`: by the client. `expired`: idle, or too old. `evicted`: made room. `terminated`: by an operator. `failed`: initialize failed, or the upstream lost it.",
		}},
		Worry: "`evicted` grows: `max_sessions` is too small, or clients leave without DELETE and `idle_timeout` is long. `failed`: see the upstreams.",
	}
	dueFamily = Family{
		Name: "sessions_due", Kind: KindGauge, IsShared: true,
		Help: "Live sessions past their end that nobody has ended yet.",
	}
	lagFamily = Family{
		Name: "sweep_lag_seconds", Kind: KindGauge, IsShared: true,
		Help:  "For how long the session that waits the longest has been waiting to be cleaned up.",
		Worry: "Longer than three times `sweep_interval` (5 s): nobody cleans up, or not fast enough. Ended sessions are not served all the same.",
	}
	behindFamily = Family{
		Name: "sweep_behind", Kind: KindGauge,
		Help:  "1 when that lag is longer than three sweep intervals, as this replica saw it last, else 0.",
		Worry: "1.",
	}
	streamsFamily = Family{
		Name: "streams_open", Kind: KindGauge,
		Help: "Streams of events to clients that this replica has open, by kind.",
		Labels: []Label{{
			Name: "kind", Values: []string{"own", "answer", "resumed", "stateless"},
			Meaning: "`own`: a GET that listens to what the server has to say of its own. `answer`: to a POST. `resumed`: a GET for the rest of an answer. `stateless`: without a session.",
		}},
		Worry: "It comes near what this replica's file descriptors (two for each stream: `ulimit -n`) and memory allow.",
	}
	readStreamsFamily = Family{
		Name: "upstream_streams_open", Kind: KindGauge,
		Help: "Streams of events from upstreams that this replica reads for sessions, by kind. It reads them to their end, whether or not the client stays.",
		Labels: []Label{{
			Name: "kind", Values: []string{"own", "answer"},
			Meaning: "`own`: what the server has to say of its own, one for each session in the whole cluster. `answer`: to a POST.",
		}},
		Worry: "`answer` stays far above that of `shadowcat_streams_open`: upstreams do not end answers that nobody waits for.",
	}
	inFlightFamily = Family{
		Name: "requests_in_flight", Kind: KindGauge,
		Help:  "Requests of clients that wait for the header of their answer at this replica.",
		Worry: "It comes near `replica_max_requests` (2048): beyond it requests are refused.",
	}
	bytesInFlightFamily = Family{
		Name: "request_bytes_in_flight", Kind: KindGauge,
		Help:  "Bytes of requests' bodies in this replica's memory.",
		Worry: "It comes near `replica_max_bytes` (64 MiB): beyond it requests are refused.",
	}
	keysUpFamily = Family{
		Name: "auth_keys_up", Kind: KindGauge, Only: "with `auth.mode` jwt",
		Help:  "1 when this replica's last attempt to fetch the issuer's keys worked, else 0.",
		Worry: "0 for longer than a minute: after `auth.jwks_stale` (1 h) nobody is let in.",
	}
	keysAgeFamily = Family{
		Name: "auth_keys_age_seconds", Kind: KindGauge, Only: "with `auth.mode` jwt, once keys were fetched",
		Help:  "How long ago the issuer's keys that are in use were fetched.",
		Worry: "Longer than twice `auth.jwks_refresh` (10 m).",
	}
)

func endedStatuses() (ended []cluster.Status) {
	for _, s := range cluster.Statuses() {
		if s.Ended() {
			ended = append(ended, s)
		}
	}
	return ended
}

// Streams is how many streams of events a replica has open.
type Streams struct {
	// To clients: sessions' own streams, answers to requests, answers that are resumed, and answers without a session.
	Own, Answers, Resumed, Stateless int64
	// From upstreams: sessions' own streams, and answers.
	ReadOwn, ReadAnswers int64
}

// InFlight is what a replica has in hand.
type InFlight struct {
	Requests int64 // that wait for the header of their answer
	Bytes    int64 // of requests' bodies in memory
}

// sharedCollector asks, at each scrape, for the numbers that live elsewhere: in the store, in the parts of the replica.
type sharedCollector struct {
	sessions    Sessions
	timeout     time.Duration
	maxSessions int
	up          func() bool
	breakers    func() redisstore.Breakers // may be nil
	lag         func() (time.Duration, bool)
	dropped     func() int64    // may be nil
	streams     func() Streams  // may be nil
	inFlight    func() InFlight // may be nil
	keys        func() Keys     // may be nil
}

// sharedFamilies are those that are made at each scrape.
func sharedFamilies() []Family {
	return []Family{
		sessionsFamily, maxSessionsFamily, createdFamily, endedFamily, dueFamily, lagFamily, behindFamily, streamsFamily, readStreamsFamily,
		inFlightFamily, bytesInFlightFamily, keysUpFamily, keysAgeFamily, upFamily, heldFamily, partsFamily, openFamily, tripsFamily, auditDroppedFamily,
	}
}

// Describe tells the registry which metrics there are.
func (c *sharedCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range sharedFamilies() {
		descs <- f.desc()
	}
}

// scrape is where one scrape's metrics go.
type scrape chan<- prometheus.Metric

func (s scrape) put(f Family, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if f.Kind == KindCounter {
		kind = prometheus.CounterValue
	}
	s <- prometheus.MustNewConstMetric(f.desc(), kind, value, labels...)
}

// Collect asks the store once. While it is away its numbers are left out: a gap in a graph is true, a zero is not.
func (c *sharedCollector) Collect(metrics chan<- prometheus.Metric) {
	c.collectOwn(metrics)
	if c.up() { // else the answer is known, and asking would cost the whole timeout
		c.collectStats(metrics)
	}
}

// collectOwn tells what this replica knows.
func (c *sharedCollector) collectOwn(s scrape) {
	s.put(upFamily, number(c.up()))
	s.put(heldFamily, float64(c.sessions.Held()))
	s.put(maxSessionsFamily, float64(c.maxSessions))
	_, behind := c.lag()
	s.put(behindFamily, number(behind))
	if c.breakers != nil {
		b := c.breakers()
		s.put(partsFamily, float64(b.Parts))
		s.put(openFamily, float64(b.Open))
		s.put(tripsFamily, float64(b.Trips))
	}
	if c.dropped != nil {
		s.put(auditDroppedFamily, float64(c.dropped()))
	}
	if c.streams != nil {
		open := c.streams()
		s.put(streamsFamily, float64(open.Own), "own")
		s.put(streamsFamily, float64(open.Answers), "answer")
		s.put(streamsFamily, float64(open.Resumed), "resumed")
		s.put(streamsFamily, float64(open.Stateless), "stateless")
		s.put(readStreamsFamily, float64(open.ReadOwn), "own")
		s.put(readStreamsFamily, float64(open.ReadAnswers), "answer")
	}
	if c.inFlight != nil {
		now := c.inFlight()
		s.put(inFlightFamily, float64(now.Requests))
		s.put(bytesInFlightFamily, float64(now.Bytes))
	}
	if c.keys != nil {
		keys := c.keys()
		s.put(keysUpFamily, number(keys.Err == nil && !keys.FetchedAt.IsZero()))
		if !keys.FetchedAt.IsZero() {
			s.put(keysAgeFamily, time.Since(keys.FetchedAt).Seconds())
		}
	}
}

// collectStats tells what the store counts.
func (c *sharedCollector) collectStats(s scrape) {
	// A collector is given no context; the timeout alone bounds the call.
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	stats, err := c.sessions.Stats(ctx)
	if err != nil {
		return
	}
	s.put(dueFamily, float64(stats.Due))
	s.put(lagFamily, stats.Lag.Seconds())
	s.put(createdFamily, float64(stats.Created))
	for _, status := range cluster.Statuses() {
		s.put(sessionsFamily, float64(stats.ByStatus[status]), string(status))
	}
	for _, status := range endedStatuses() {
		s.put(endedFamily, float64(stats.Ended[status]), string(status))
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
