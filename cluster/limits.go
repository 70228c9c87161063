package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// SharedLimits are limits that all replicas of a cluster must have in common, by the names of their settings, as text.
type SharedLimits map[string]string

// Shared returns the limits that all replicas must have in common: all but report_interval, store_timeout and outage_grace, which say
// how one replica gets on with the store.
func (c Config) Shared() SharedLimits {
	limits := make(SharedLimits)
	for name, n := range map[string]int{
		"max_sessions": c.MaxSessions, "max_sessions_per_principal": c.MaxSessionsPerPrincipal,
		"create_rate": c.CreateRate, "create_rate_per_principal": c.CreateRatePerPrincipal,
		"stateless_rate_per_principal": c.StatelessRatePerPrincipal,
		"request_rate":                 c.RequestRate, "request_burst": c.RequestBurst,
		"max_pending": c.MaxPending, "max_streams": c.MaxStreams,
		"events.count": c.EventsCount, "events.bytes": c.EventsBytes,
		"frames.count": c.FramesCount, "frames.bytes": c.FramesBytes,
	} {
		limits[name] = strconv.Itoa(n)
	}
	for name, d := range map[string]time.Duration{
		"idle_timeout": c.IdleTimeout, "max_age": c.MaxAge, "initialize_timeout": c.InitializeTimeout,
		"retention": c.Retention, "evict_min_idle": c.EvictMinIdle,
		"events.age": c.EventsAge, "lease": c.Lease, "report_slack": c.ReportSlack,
	} {
		limits[name] = text(d)
	}
	return limits
}

// Digest tells limits apart at a glance: eight hexadecimal digits, the same for the same limits. Programs of different versions may
// have different ones for limits that agree, because one knows more of them.
func (l SharedLimits) Digest() string {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(hash, "%s=%s\n", name, l[name])
	}
	return hex.EncodeToString(hash.Sum(nil)[:4])
}

// Differ names, in order, the limits that are not the same in both. What only one of them has says nothing: a program of another
// version may know more limits.
func (l SharedLimits) Differ(other SharedLimits) []string {
	var names []string
	for name, value := range l {
		if theirs, known := other[name]; known && theirs != value {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
