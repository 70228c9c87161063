package proxy

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// RequestInfo describes one finished request. It holds nothing secret, and its strings, Session apart, have few values:
// all but Status and Duration may be labels of a metric.
type RequestInfo struct {
	Session   cluster.ID // zero when the request was not in a session that exists
	Upstream  string     // the configured name; empty for the one without, and when Path matched none
	Method    string     // GET, POST, DELETE, OPTIONS or "other"
	RPCMethod string     // an MCP method, "other", or "" when there was none
	Era       mcp.Era    // "session", "stateless" or "none"
	Status    int        // the HTTP status sent; 499 when the client left before one was
	Duration  time.Duration
	Denied    string // why authentication let nobody in: an auth.Reason, or keys_unavailable; empty when it did
	// Refused is why the proxy itself refused the request, as the answer says; empty when it did not, or the status says it all.
	Refused mcp.Reason
	// Limit is the setting that was reached, if Refused is for that.
	Limit string
}

// Recovery says what became of one attempt of this replica to make a session anew that its upstream had lost.
type Recovery string

// The outcomes of a recovery.
const (
	RecoveryMade             Recovery = "made"              // the session has a new upstream session
	RecoveryElsewhere        Recovery = "elsewhere"         // it has one that somebody else made at the same time
	RecoveryEnded            Recovery = "ended"             // it cannot have one, and has ended
	RecoveryOff              Recovery = "off"               // it may not have one (Config.NoRecover), and has ended
	RecoveryUpstreamFailed   Recovery = "upstream_failed"   // the upstream could not make one now; the next request tries again
	RecoveryStoreUnavailable Recovery = "store_unavailable" // the store could not be asked, or told; the next request tries again
)

// Recoveries lists every outcome of a recovery.
func Recoveries() []Recovery {
	return []Recovery{RecoveryMade, RecoveryElsewhere, RecoveryEnded, RecoveryOff, RecoveryUpstreamFailed, RecoveryStoreUnavailable}
}

// Resumption says what became of a GET with a Last-Event-ID, in a session that exists.
type Resumption string

// The outcomes of a resumption.
const (
	ResumptionResumed     Resumption = "resumed"      // the stream goes on after that event
	ResumptionComplete    Resumption = "complete"     // that was the last one
	ResumptionEventsGone  Resumption = "events_gone"  // what follows is not kept, or there never was such an event
	ResumptionMayHaveRun  Resumption = "may_have_run" // the replica that waited for the answer has died with it, or the session has ended
	ResumptionUnavailable Resumption = "unavailable"  // the store or the upstream could not be asked
)

// Resumptions lists every outcome of a resumption.
func Resumptions() []Resumption {
	return []Resumption{ResumptionResumed, ResumptionComplete, ResumptionEventsGone, ResumptionMayHaveRun, ResumptionUnavailable}
}

// Observer is told what a proxy does. Its methods are called on the way of requests, concurrently; they must return at once.
type Observer interface {
	// RequestDone is called once for each request, when its answer has ended.
	RequestDone(info RequestInfo)
	// RecoveryDone is called once for each attempt, however many requests wait for it.
	RecoveryDone(outcome Recovery)
	// ResumptionDone is called once for each resumption: of the session's own stream when it has begun, of the answer to a request
	// when its stream has ended.
	ResumptionDone(outcome Resumption)
}

type noObserver struct{}

func (noObserver) RequestDone(RequestInfo)   {}
func (noObserver) RecoveryDone(Recovery)     {}
func (noObserver) ResumptionDone(Resumption) {}
