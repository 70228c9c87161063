package cluster

import "slices"

// Status is where a session is in its life.
//
//	          Create                 Activate
//	(none) ----------> initializing ----------> active
//	                       |                      |
//	                       +----------+-----------+
//	                                  v
//	 closed | expired | evicted | terminated | failed ---- retention ----> (purged)
//
// Every arrow is one atomic operation of the store. An ended session never changes its status again.
type Status string

// The statuses of a session. The last five are ended: the name is also the reason.
const (
	StatusInitializing Status = "initializing" // created; the upstream has not answered initialize yet
	StatusActive       Status = "active"       // serving requests
	StatusClosed       Status = "closed"       // the client sent DELETE
	StatusExpired      Status = "expired"      // idle too long, or past its maximum age
	StatusEvicted      Status = "evicted"      // made room for a new session at the cap
	StatusTerminated   Status = "terminated"   // an operator ended it
	StatusFailed       Status = "failed"       // initialize failed, or the upstream lost the session
)

// Statuses lists every status in the order of a session's life.
func Statuses() []Status {
	return []Status{
		StatusInitializing, StatusActive,
		StatusClosed, StatusExpired, StatusEvicted, StatusTerminated, StatusFailed,
	}
}

// Valid reports whether s is one of [Statuses].
func (s Status) Valid() bool { return slices.Contains(Statuses(), s) }

// Live reports whether a session with this status may serve requests, now or once it is initialized.
func (s Status) Live() bool { return s == StatusInitializing || s == StatusActive }

// Ended reports whether s is a final status.
func (s Status) Ended() bool { return s.Valid() && !s.Live() }

// CanBecome reports whether the step from s to next is legal. A live session may end for any reason, an initializing one
// may become active, an active one may stay active (its upstream mapping changes); nothing leads back.
func (s Status) CanBecome(next Status) bool {
	return s.Live() && (next.Ended() || next == StatusActive)
}
