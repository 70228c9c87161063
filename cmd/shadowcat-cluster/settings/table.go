package settings

import (
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// Setting is one row of the table.
type Setting struct {
	// Name is the setting's one name: lower-case words joined by underscores, with a dot for each level of nesting.
	Name string
	Kind Kind
	// Default is the default as a user would write it, empty when there is none. A list has no other default than none.
	Default string
	// DefaultNote says what the default is when it is not a fixed text.
	DefaultNote string
	// Meaning says what the setting does, in one or two sentences.
	Meaning string
	// Zero says what a bare 0 means; empty when 0 is refused or nothing special.
	Zero string
	// Choices are the accepted values of a KindChoice.
	Choices []string
	Scope   Scope

	// set reads values, of which there is at least one unless the kind is a list, into s.
	set func(s *Settings, values []string) error
}

// Flag returns the setting's command-line flag, without dashes.
func (s Setting) Flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(s.Name) }

// Env returns the setting's environment variable.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "_"))
}

// Repeatable reports whether the setting takes more than one value.
func (s Setting) Repeatable() bool { return s.Kind == KindUpstream || s.Kind == KindList }

// Table returns all settings, in the order of help texts and documentation.
func Table() []Setting { return slices.Concat(mainSettings, authSettings, logSettings) }

var mainSettings = []Setting{
	{
		Name: "listen", Kind: KindAddress, Default: "127.0.0.1:8081", set: setListen,
		Meaning: "Where MCP clients connect. Port 0 takes a free one, which the log names.",
	},
	{
		Name: "admin_listen", Kind: KindAddress, Default: "127.0.0.1:9081", set: setAdminListen,
		Meaning: "Where /healthz, /readyz, /metrics and /loglevel are served. The value off serves them nowhere.",
	},
	{
		Name: "upstream", Kind: KindUpstream, set: setUpstreams,
		Meaning: "An MCP server. A URL alone is served at /mcp, name=URL at /<name>/mcp. At least one; at most one without a name. Its endpoints are listed with commas, URL,URL, or are all addresses of a host, dns+http://host:port/path, looked up every 5s; each session stays at one.",
	},
	{
		Name: "upstream_check_interval", Kind: KindDuration, Default: "0", Zero: "never", set: setDurationOrOff(time.Second, time.Hour, upstreamCheckInterval),
		Meaning: "How often each endpoint is sent an OPTIONS request, 1s to 1h. One that answers none of three, each within 2s, is passed over, and sessions leave it for others. Failing requests are noticed either way, one that hangs only by this.",
	},
	{
		Name: "recover", Kind: KindSwitch, Default: "true", set: setSwitch(recovers),
		Meaning: "Whether a session that its upstream has lost is initialized there anew; else it ends, and its client must do that.",
	},
	{
		Name: "redis", Kind: KindURL, Default: "redis://127.0.0.1:6379", Scope: ScopeStore, set: setRedis,
		Meaning: "The store that all replicas share: redis://[user:password@]host:port[/database], redis-sentinel://host:port,host:port/master, redis-cluster://host:port,host:port; with rediss for TLS; embedded: is one inside this process, gone with it.",
	},
	{
		Name: "redis_password_file", Kind: KindFile, Scope: ScopeStore, set: file(redisPassword),
		Meaning: "A file that holds the password of the URL's user, or of the user default, instead of the URL. Read for each connection, so that the password may be changed.",
	},
	{
		Name: "redis_sentinel_password_file", Kind: KindFile, Scope: ScopeStore, set: file(sentinelPassword),
		Meaning: "The same for the sentinels of a redis-sentinel URL, whose user is its sentinel_username. Read once, at start.",
	},
	{
		Name: "redis_ca_file", Kind: KindFile, DefaultNote: "the system's", Scope: ScopeStore, set: file(redisCA),
		Meaning: "The certificate authorities, in PEM, that a server or sentinel of a rediss URL must be certified by. Read once, at start.",
	},
	{
		Name: "redis_cert_file", Kind: KindFile, Scope: ScopeStore, set: file(redisCertificate),
		Meaning: "The certificate, in PEM, that is shown to the servers and sentinels of a rediss URL. Read for each connection, so that it may be renewed.",
	},
	{
		Name: "redis_key_file", Kind: KindFile, Scope: ScopeStore, set: file(redisKey),
		Meaning: "The private key, in PEM, of redis_cert_file; neither goes without the other.",
	},
	{
		Name: "prefix", Kind: KindText, Default: "shadowcat", Scope: ScopeStore, set: setPrefix,
		Meaning: "What all keys in the store start with. Replicas with the same prefix are one cluster.",
	},
	{
		Name: "partitions", Kind: KindCount, DefaultNote: "1, on a Redis Cluster 16", set: setCount(1, redisstore.MaxPartitions, partitions, "partitions"),
		Meaning: "Into how many slices the sessions are cut, 1 to 1024; the slices of a Redis Cluster spread over its nodes. Each has a share of max_sessions and an order of eviction of its own. All replicas must use the same.",
	},
	{
		Name: "replica_id", Kind: KindText, DefaultNote: "host name and a random suffix", set: setReplicaID,
		Meaning: "What operators call this replica. Replicas must not share one.",
	},
	{
		Name: "allowed_origins", Kind: KindList, set: setAllowedOrigins,
		Meaning: "Origins whose browser pages may connect, such as https://inspector.example; they also get CORS headers; * allows all. Unset: the Origin must match the Host.",
	},
	{
		Name: "allowed_hosts", Kind: KindList, set: setAllowedHosts,
		Meaning: "Host headers to answer to, such as mcp.example.com, without port for any port. Unset: any, but on a loopback listener only loopback names.",
	},
	{
		Name: "max_body", Kind: KindSize, Default: "4MiB", set: setSize(minBody, maxBody, largestBody),
		Meaning: "The largest request body, 1KiB to 1GiB. A body is read whole before it is forwarded.",
	},
	{
		Name: "max_header", Kind: KindSize, Default: "128KiB", set: setSize(minHeader, maxHeader, largestHeader),
		Meaning: "The largest header of a request, all of its lines together, 8KiB to 16MiB. Up to twice of it the refusal says so; beyond that it is a bare 431.",
	},
	{
		Name: "header_timeout", Kind: KindDuration, Default: "10s", set: setDuration(100*time.Millisecond, 10*time.Minute, headerTimeout),
		Meaning: "How long a client may take to send a request's header, 100ms to 10m. Then its connection is closed.",
	},
	{
		Name: "body_timeout", Kind: KindDuration, Default: "30s", set: setDuration(100*time.Millisecond, time.Hour, bodyTimeout),
		Meaning: "How long a client may take to send a request's body, all of it, 100ms to 1h.",
	},
	{
		Name: "connection_idle_timeout", Kind: KindDuration, Default: "2m", set: setDuration(time.Second, time.Hour, connectionIdle),
		Meaning: "How long a client's connection is kept without a request, 1s to 1h. Longer than the balancer in front keeps it, or that may send requests on connections that are just being closed.",
	},
	{
		Name: "replica_max_requests", Kind: KindCount, Default: "2048", Zero: "no cap", set: setCount(0, maxInFlight, replicaRequests, "requests"),
		Meaning: "Cap on the requests and notifications that one replica has with upstreams, of all sessions, and those without one; each request of a batch counts. An answer that is a stream counts here only until it begins. One principal has half of it at most, of replica_max_bytes and replica_max_streams, too.",
	},
	{
		Name: "replica_max_bytes", Kind: KindSize, Default: "64MiB", Zero: "no cap", set: setSize(0, maxInFlightMem, replicaBytes),
		Meaning: "Cap on the bytes of request bodies in the memory of one replica, counted as they come. Not less than max_body.",
	},
	{
		Name: "replica_max_streams", Kind: KindCount, Default: "10000", Zero: "no cap", set: setCount(0, maxInFlight, replicaStreams, "streams"),
		Meaning: "Cap on the streams that one replica has open to clients. Answers to requests that are streams count, too, until they have been read to their end, whether or not the client stays; these are only refused when there are replica_max_requests more.",
	},
	{
		Name: "follow_interval", Kind: KindDuration, Default: "100ms", set: setDuration(10*time.Millisecond, 10*time.Second, followInterval),
		Meaning: "How often a replica asks the store for what other replicas read from upstreams for its clients, 10ms to 10s.",
	},
	{
		Name: "stream_keep_alive", Kind: KindDuration, Default: "15s", Zero: "none", set: setDurationOrOff(time.Second, time.Hour, streamKeepAlive),
		Meaning: "How long an event stream may be silent until a comment is sent, so that nothing on the way takes it for dead, 1s to 1h.",
	},
	{
		Name: "events.count", Kind: KindCount, Default: "1000", Zero: "none", set: count(clusterEventsCount),
		Meaning: "How many of a session's latest messages to its client are kept, so that a broken stream can be resumed at any replica, at most 10000. A client at another replica than the one that gets them is told `events_gone` when more than that come within one `follow_interval`.",
	},
	{
		Name: "events.bytes", Kind: KindSize, Default: "1MiB", Zero: "none", set: size(clusterEventsBytes),
		Meaning: "How large these may be together, at most 64MiB: a message is kept until so much has come after it. One that is larger than four times that is not kept.",
	},
	{
		Name: "events.age", Kind: KindDuration, Default: "5m", Zero: "none", set: duration(clusterEventsAge),
		Meaning: "How long they are kept.",
	},
	{
		Name: "recording", Kind: KindChoice, Default: string(record.Off), Choices: recordings, set: setRecording,
		Meaning: "What is recorded of the messages of sessions, for session frames: nothing, what is known about each (method, id, size, time), or the message itself, too, redacted. HTTP headers never are, nor is what has no session.",
	},
	{
		Name: "recording_redact", Kind: KindList, DefaultNote: "passwords, tokens and keys by their usual names", set: setRecordingRedact,
		Meaning: "Values that are replaced before anything is recorded, as keys from the top of a message: params.arguments.password; * is any one key, ** any number of them: **.token, and beside a part of a key * is the rest: **.*_token. Case, hyphens and underscores do not matter. A text that is itself JSON is looked into. Unset: " + strings.Join(record.DefaultRedact(), ", ") + ". An empty list redacts nothing.",
	},
	{
		Name: "recording_redact_headers", Kind: KindList, DefaultNote: "tokens, keys and secrets by the ends of their names", set: setRecordingRedactHeaders,
		Meaning: "Headers whose values are secret: a text of a message that repeats one is replaced before it is recorded (headers themselves never are recorded). As X-Api-Key, or *-key for all that end so. Case, hyphens and underscores do not matter. Unset: " + strings.Join(record.DefaultRedactHeaders(), ", ") + ". Authorization, Proxy-Authorization and Cookie always are, also beside an empty list.",
	},
	{
		Name: "frames.count", Kind: KindCount, Default: "1000", Zero: "nothing is recorded", set: count(clusterFramesCount),
		Meaning: "How many of a session's latest recorded messages are kept, at most 10000.",
	},
	{
		Name: "frames.bytes", Kind: KindSize, Default: "1MiB", Zero: "nothing is recorded", set: size(clusterFramesBytes),
		Meaning: "How large these may be together, at most 64MiB. Of a larger message only what is known about it is recorded.",
	},
	{
		Name: "drain_delay", Kind: KindDuration, Default: "3s", Zero: "none", set: setDuration(0, 5*time.Minute, drainDelay),
		Meaning: "How long a replica that is told to stop serves on as before while /readyz says no, so that balancers look away first, at most 5m.",
	},
	{
		Name: "drain_timeout", Kind: KindDuration, Default: "25s", set: setDuration(time.Second, time.Hour, drainTimeout),
		Meaning: "How long stopping may take in all, 1s to 1h; at least 1s longer than drain_delay. Requests still in flight 3.5s before it is over (of a short one: a third of it) are answered with may_have_run: what is left is for those answers and a last report.",
	},
	{
		Name: "max_sessions", Kind: KindCount, Default: "10000", Zero: "no cap", set: count(clusterMaxSessions),
		Meaning: "Hard cap on live sessions over all replicas. At the cap the session idle the longest makes room for a new one; with several partitions each has its share and order, so the first may go a little below the cap.",
	},
	{
		Name: "max_sessions_per_principal", Kind: KindCount, Default: "0", Zero: "no cap", set: count(clusterMaxSessionsPerPrincipal),
		Meaning: "Hard cap on the live sessions of one principal over all replicas, who is refused beyond it. Without authentication there is no principal, and no such cap.",
	},
	{
		Name: "idle_timeout", Kind: KindDuration, Default: "30m", Zero: "never", set: duration(clusterIdleTimeout),
		Meaning: "Ends a session this long after its last activity, plus report_slack. Not shorter than lease.",
	},
	{
		Name: "max_age", Kind: KindDuration, Default: "24h", Zero: "never", set: duration(clusterMaxAge),
		Meaning: "Ends a session this long after its creation, however busy it is.",
	},
	{
		Name: "initialize_timeout", Kind: KindDuration, Default: "30s", set: duration(clusterInitializeTimeout),
		Meaning: "How long an upstream may take to answer initialize, or to accept a message that needs no answer. At least 1s.",
	},
	{
		Name: "retention", Kind: KindDuration, Default: "10m", Zero: "not at all", set: duration(clusterRetention),
		Meaning: "How long the record of an ended session is kept.",
	},
	{
		Name: "evict_min_idle", Kind: KindDuration, Default: "1m", Zero: "no protection", set: duration(clusterEvictMinIdle),
		Meaning: "Protects a session that was active this recently from making room at the cap, at least report_interval; without a candidate a new session is refused.",
	},
	{
		Name: "create_rate", Kind: KindRate, Default: "100/s", Zero: "no limit", set: rate(clusterCreateRate),
		Meaning: "How many sessions a second may be created, over all replicas; as many may come at once.",
	},
	{
		Name: "create_rate_per_principal", Kind: KindRate, Default: "10/s", Zero: "no limit", set: rate(clusterCreateRatePerPrincipal),
		Meaning: "The same for one principal. Without authentication there is none, and no such limit.",
	},
	{
		Name: "request_rate", Kind: KindRate, Default: "50/s", Zero: "no limit", set: rate(clusterRequestRate),
		Meaning: "How many requests a second one session may make, over all replicas. Every message of a batch counts.",
	},
	{
		Name: "request_burst", Kind: KindCount, Default: "100", set: count(clusterRequestBurst),
		Meaning: "How many requests one session may make at once. A batch that holds more is never let through.",
	},
	{
		Name: "stateless_rate_per_principal", Kind: KindRate, Default: "100/s", Zero: "no limit", set: rate(clusterStatelessRate),
		Meaning: "How many requests of protocol revision 2026-07-28, which have no session, one principal may make a second, over all replicas; as many may come at once. Without authentication there is none, no such limit, and the store is not asked.",
	},
	{
		Name: "max_pending", Kind: KindCount, Default: "64", Zero: "no cap", set: count(clusterMaxPending),
		Meaning: "Cap on the requests of one session in flight: exact at each replica; what the others have in flight counts once it has lasted for a report_interval. Each request of a batch counts, so one that holds more is never let through.",
	},
	{
		Name: "max_streams", Kind: KindCount, Default: "8", Zero: "no cap", set: count(clusterMaxStreams),
		Meaning: "Cap on the streams that clients have open to listen to one session, over all replicas, at most 1000. Where there are as many, those opened ten seconds ago make room. Of broken answers as many may be resumed at once, or max_pending if that is more.",
	},
	{
		Name: "lease", Kind: KindDuration, Default: "3s", Zero: "every request asks the store", set: duration(clusterLease),
		Meaning: "How long a replica serves a session from memory before it asks the store again, and so the longest a session that was ended elsewhere is still served. Longer than report_interval, not longer than idle_timeout.",
	},
	{
		Name: "report_interval", Kind: KindDuration, Default: "1s", set: duration(clusterReportInterval),
		Meaning: "How often a replica writes activity and counters back to the store. At least 10ms.",
	},
	{
		Name: "report_slack", Kind: KindDuration, Default: "2s", set: duration(clusterReportSlack),
		Meaning: "Added to every idle end, so that activity still on its way to the store counts. At least report_interval.",
	},
	{
		Name: "store_timeout", Kind: KindDuration, Default: "250ms", set: duration(clusterStoreTimeout),
		Meaning: "Bounds every call to the store that a client waits for. At least 1ms.",
	},
	{
		Name: "outage_grace", Kind: KindDuration, Default: "30s", Zero: "not at all", set: duration(clusterOutageGrace),
		Meaning: "For how long after the store has last confirmed a session a replica serves it while the store is away, and stays ready. Also the longest a session that was ended elsewhere is still served by a replica that is cut off from the store.",
	},
	{
		Name: "wait_replicas", Kind: KindCount, Default: "0", set: setCount(0, redisstore.MaxWaitReplicas, waitReplicas, "replicas of Redis"),
		Meaning: "How many Redis replicas must have a session's creation, activation or end before it counts, 0 to 16. With 0 a failover may forget what was not replicated yet; with more, these calls fail while too few replicas answer within store_timeout.",
	},
	{
		Name: "sweeper", Kind: KindSwitch, Default: "true", set: setSwitch(sweeps),
		Meaning: "Whether this replica may be the one that cleans up. At least one replica must; one at a time does.",
	},
	{
		Name: "sweep_interval", Kind: KindDuration, Default: "5s", set: setDuration(time.Second, time.Hour, sweepInterval),
		Meaning: "How often the leader ends and purges what is due, 1s to 1h.",
	},
	{
		Name: "sweep_batch", Kind: KindCount, Default: "100", set: setCount(1, redisstore.MaxSweepBatch, sweepBatch, "sessions"),
		Meaning: "How many sessions of a kind one script cleans up at most, 1 to 1000; fewer, so that a script takes under a fifth of a millisecond.",
	},
	{
		Name: "leader_ttl", Kind: KindDuration, Default: "10s", set: setDuration(sweeper.MinTTL, sweeper.MaxTTL, leaderTTL),
		Meaning: "How long the lock of the leader lasts without being renewed, 1s to 10m: about so long nobody cleans up after a leader died.",
	},
	{
		Name: "emergency_percent", Kind: KindCount, Default: "90", Zero: "never", set: setCount(0, 100, emergencyPercent, "percent"),
		Meaning: "Above how many percent of a Redis server's maxmemory sessions go before their time: records of ended ones first, then live ones that have been idle the longest, at least evict_min_idle.",
	},
	{
		Name: "audit_stream", Kind: KindCount, Default: "0", Zero: "none", Scope: ScopeStore, set: setCount(0, 10_000_000, auditStream, "records"),
		Meaning: "How many records of what happened to sessions the store keeps, about, in the stream <prefix>:audit. They are always logged. Commands keep them as the replicas do.",
	},
}

var logSettings = []Setting{
	{
		Name: "log_level", Kind: KindChoice, Default: "info", Choices: logLevels, set: setLogLevel,
		Meaning: "The least important log lines to write. PUT /loglevel on admin_listen changes it while the replica runs.",
	},
	{
		Name: "log_format", Kind: KindChoice, Default: "auto", Choices: logFormats, set: setLogFormat,
		Meaning: "How log lines are written to stderr. Auto is text on a terminal and JSON elsewhere.",
	},
}

// lookup finds a setting by name.
func lookup(name string) (Setting, bool) {
	for _, s := range Table() {
		if s.Name == name {
			return s, true
		}
	}
	return Setting{}, false
}

// names returns the names of all settings.
func names() []string {
	table := Table()
	all := make([]string, 0, len(table))
	for _, s := range table {
		all = append(all, s.Name)
	}
	return all
}
