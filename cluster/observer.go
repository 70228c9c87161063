package cluster

import "time"

// LeaseOutcome says how a call of [Manager.Lease] was answered.
type LeaseOutcome string

// The outcomes of a lease.
const (
	LeaseHit         LeaseOutcome = "hit"         // served from memory
	LeaseGranted     LeaseOutcome = "granted"     // asked the store, which granted it
	LeaseGrace       LeaseOutcome = "grace"       // served without the store, which is away
	LeaseLimited     LeaseOutcome = "limited"     // the session has reached its request rate, or its cap on requests in flight
	LeaseNotFound    LeaseOutcome = "not_found"   // no session for this caller
	LeaseCanceled    LeaseOutcome = "canceled"    // the caller left before the store had answered
	LeaseUnavailable LeaseOutcome = "unavailable" // the store could not be asked
)

// LeaseOutcomes lists every outcome.
func LeaseOutcomes() []LeaseOutcome {
	return []LeaseOutcome{LeaseHit, LeaseGranted, LeaseGrace, LeaseLimited, LeaseNotFound, LeaseCanceled, LeaseUnavailable}
}

// Observer is told what a Manager does, for metrics. Its methods are called on the request path and by the report loop:
// they must return at once and be safe for concurrent use.
type Observer interface {
	// LeaseDone is called once for each call of Manager.Lease.
	LeaseDone(outcome LeaseOutcome)
	// ReportDone is called once for each batch of reports: how many sessions it held, for how many of them the report certainly did not
	// reach the store, for how many nobody knows whether it did, and how long the store took.
	ReportDone(sessions, unsent, unconfirmed int, took time.Duration)
	// OutageBegan is called when the store has been away for about a second.
	OutageBegan()
	// OutageEnded is called once for each OutageBegan, about two seconds after the store is back, with the time that it was away.
	OutageEnded(length time.Duration)
}

type noObserver struct{}

func (noObserver) LeaseDone(LeaseOutcome)                  {}
func (noObserver) ReportDone(int, int, int, time.Duration) {}
func (noObserver) OutageBegan()                            {}
func (noObserver) OutageEnded(time.Duration)               {}
