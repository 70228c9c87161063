package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxDuration is the longest duration any setting takes.
const MaxDuration = 365 * 24 * time.Hour

// Config holds the limits of sessions. All replicas of a cluster must use the same. Start from [DefaultConfig]: the zero
// value turns every limit off.
type Config struct {
	// MaxSessions is the hard cap on live sessions over all replicas. Default 10000; 0: no cap.
	MaxSessions int
	// IdleTimeout ends a session this long after its last activity (plus ReportSlack). Default 30m; 0: never.
	IdleTimeout time.Duration
	// MaxAge ends a session this long after its creation, however busy it is. Default 24h; 0: never.
	MaxAge time.Duration
	// InitializeTimeout is how long the upstream may take to answer initialize. Default 30s; at least 1s.
	InitializeTimeout time.Duration
	// Retention is how long the record of an ended session is kept. Default 10m; 0: not at all.
	Retention time.Duration
	// EvictMinIdle protects sessions that were active this recently from being evicted at the cap. Default 1m; at least ReportInterval,
	// because the store does not know of younger activity; 0: none is protected.
	EvictMinIdle time.Duration

	// MaxSessionsPerPrincipal caps the live sessions of one principal. Default 0: no cap. Sessions without a principal
	// have none either.
	MaxSessionsPerPrincipal int
	// CreateRate is how many sessions a second may be created over all replicas, as many at once. Default 100; 0: no limit.
	CreateRate int
	// CreateRatePerPrincipal is the same for one principal. Default 10; 0: no limit.
	CreateRatePerPrincipal int
	// StatelessRatePerPrincipal is how many requests a second one principal may make without a session, over all replicas, as
	// many at once. Default 100; 0: no limit. Without a principal there is none either.
	StatelessRatePerPrincipal int

	// RequestRate is how many requests a second one session may make, over all replicas. Default 50; 0: no limit.
	RequestRate int
	// RequestBurst is how many requests a session may make at once. Default 100; needed when RequestRate is set. Spread over
	// several replicas it may be a few less, because each may hold some that it was granted and has not spent.
	RequestBurst int
	// MaxPending caps the requests of one session in flight: exactly at each replica; of what others have in flight a
	// replica learns by reports, so it counts two or three ReportIntervals later. Default 64; 0: no cap.
	MaxPending int
	// MaxStreams caps the streams that clients have open to listen to one session, over all replicas, exactly. Of answers
	// that are resumed there may be as many, or MaxPending if that is more. Default 8; 0: no cap.
	MaxStreams int

	// EventsCount, EventsBytes and EventsAge bound what is kept of a session's messages to its client, for resumption and for clients at
	// other replicas than the one that gets them: each until EventsCount or EventsBytes of newer ones have come, or EventsAge has passed.
	// One of more than MaxEventBytes is not kept. Defaults 1000, 1 MiB and 5m; when any is 0, none are kept.
	EventsCount int
	EventsBytes int
	EventsAge   time.Duration
	// FramesCount and FramesBytes bound what is recorded of a session. Defaults 1000 and 1 MiB; when either is 0, nothing
	// is recorded.
	FramesCount int
	FramesBytes int

	// Lease is how long a replica serves a session from memory before it asks the store again, and so the longest a
	// session that was ended elsewhere is still served. Default 3s; 0: strict mode, every request asks.
	Lease time.Duration
	// ReportInterval is how often a replica writes back activity and counters. Default 1s; at least 10ms.
	ReportInterval time.Duration
	// ReportSlack is added to every idle end, so that activity still on its way to the store counts. Default 2s; at
	// least ReportInterval.
	ReportSlack time.Duration
	// StoreTimeout bounds every call of the store; creating a session takes up to four, at the cap up to twelve. Default 250ms; at least 1ms.
	StoreTimeout time.Duration
	// OutageGrace is for how long after the store has last confirmed a session a replica serves it while the store cannot be
	// asked, and so the longest a session that was ended elsewhere is still served by a replica that is cut off. A replica
	// keeps what it knows of a session for as long, so memory grows with it. Default 30s; 0: not at all. It may be longer
	// than IdleTimeout: sessions idle out as usual, as far as the replica knows of their activity.
	OutageGrace time.Duration
}

// maxEventShare is how many times EventsBytes one event may have.
const maxEventShare = 4

// MaxEventBytes is how large an event may be to be kept, in bytes: four times EventsBytes, so that a session's messages together have no
// more than five times that; 0 when none are kept.
func (c Config) MaxEventBytes() int {
	if c.EventsCount == 0 || c.EventsAge == 0 {
		return 0
	}
	return maxEventShare * c.EventsBytes
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxSessions:            10_000,
		IdleTimeout:            30 * time.Minute,
		MaxAge:                 24 * time.Hour,
		InitializeTimeout:      30 * time.Second,
		Retention:              10 * time.Minute,
		EvictMinIdle:           time.Minute,
		RequestRate:            50,
		RequestBurst:           100,
		CreateRate:             100,
		CreateRatePerPrincipal: 10,
		MaxPending:             64,
		MaxStreams:             8,
		EventsCount:            1000,
		EventsBytes:            1 << 20,
		EventsAge:              5 * time.Minute,
		FramesCount:            1000,
		FramesBytes:            1 << 20,
		Lease:                  3 * time.Second,
		ReportInterval:         time.Second,
		ReportSlack:            2 * time.Second,
		StoreTimeout:           250 * time.Millisecond,
		OutageGrace:            30 * time.Second,

		StatelessRatePerPrincipal: 100,
	}
}

// Largest values of the counted settings. A rate above one a microsecond cannot be expressed in the store's clock.
const (
	maxSessionsLimit = 100_000_000
	maxRequestRate   = 1_000_000
	maxRequestBurst  = 1_000_000
	maxCreateRate    = 1_000_000
	maxPendingLimit  = 10_000
	maxStreamsLimit  = 1_000
	maxKept          = 10_000           // events or frames
	maxKeptBytes     = 64 * 1024 * 1024 // of them
)

// Validate reports everything that is wrong with c, by the names of the settings.
func (c Config) Validate() error {
	errs := []error{
		inRange("max_sessions", c.MaxSessions, maxSessionsLimit, "sessions"),
		inRange("request_rate", c.RequestRate, maxRequestRate, "a second"),
		inRange("request_burst", c.RequestBurst, maxRequestBurst, "requests"),
		inRange("max_sessions_per_principal", c.MaxSessionsPerPrincipal, maxSessionsLimit, "sessions"),
		inRange("create_rate", c.CreateRate, maxCreateRate, "a second"),
		inRange("create_rate_per_principal", c.CreateRatePerPrincipal, maxCreateRate, "a second"),
		inRange("stateless_rate_per_principal", c.StatelessRatePerPrincipal, maxRequestRate, "a second"),
		inRange("max_pending", c.MaxPending, maxPendingLimit, "requests"),
		inRange("max_streams", c.MaxStreams, maxStreamsLimit, "streams"),
		inRange("events.count", c.EventsCount, maxKept, "events"),
		inRange("events.bytes", c.EventsBytes, maxKeptBytes, "bytes"),
		durationInRange("events.age", c.EventsAge, 0),
		inRange("frames.count", c.FramesCount, maxKept, "frames"),
		inRange("frames.bytes", c.FramesBytes, maxKeptBytes, "bytes"),
		durationInRange("idle_timeout", c.IdleTimeout, 0),
		durationInRange("max_age", c.MaxAge, 0),
		durationInRange("initialize_timeout", c.InitializeTimeout, time.Second),
		durationInRange("retention", c.Retention, 0),
		durationInRange("evict_min_idle", c.EvictMinIdle, 0),
		durationInRange("lease", c.Lease, 0),
		durationInRange("report_interval", c.ReportInterval, 10*time.Millisecond),
		durationInRange("report_slack", c.ReportSlack, 0),
		durationInRange("store_timeout", c.StoreTimeout, time.Millisecond),
		durationInRange("outage_grace", c.OutageGrace, 0),
	}
	fails := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fails(c.RequestRate > 0 && c.RequestBurst < 1,
		"request_burst: %d lets no request through; set at least 1, or request_rate to 0", c.RequestBurst)
	fails(c.ReportSlack < c.ReportInterval,
		"report_slack: %s is shorter than report_interval (%s), so activity could be lost at a session's end",
		text(c.ReportSlack), text(c.ReportInterval))
	fails(c.EvictMinIdle > 0 && c.EvictMinIdle < c.ReportInterval,
		"evict_min_idle: %s is shorter than report_interval (%s), so it would not protect a session whose activity is not reported yet; set at least that, or 0 for no protection",
		text(c.EvictMinIdle), text(c.ReportInterval))
	fails(c.Lease > 0 && c.Lease <= c.ReportInterval,
		"lease: %s must be 0 or longer than report_interval (%s), which renews it", text(c.Lease), text(c.ReportInterval))
	fails(c.IdleTimeout > 0 && c.IdleTimeout < c.Lease,
		"lease: %s must not be longer than idle_timeout (%s)", text(c.Lease), text(c.IdleTimeout))
	fails(c.MaxAge > 0 && c.MaxAge < c.InitializeTimeout,
		"max_age: %s is shorter than initialize_timeout (%s)", text(c.MaxAge), text(c.InitializeTimeout))
	return errors.Join(errs...)
}

// text writes a duration the way a user would: without zero minutes and seconds.
func text(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func inRange(name string, value, most int, unit string) error {
	if value < 0 || value > most {
		return fmt.Errorf("%s: %d is not in 0 to %d %s", name, value, most, unit)
	}
	return nil
}

func durationInRange(name string, value, least time.Duration) error {
	if value < least || value > MaxDuration {
		return fmt.Errorf("%s: %s is not in %s to 365d", name, text(value), text(least))
	}
	return nil
}
