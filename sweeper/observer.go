package sweeper

import "time"

// Reason says why a replica leads, or leads no more.
type Reason string

// The reasons of a change of leadership.
const (
	ReasonElected  Reason = "elected"  // it took the lock
	ReasonStopped  Reason = "stopped"  // it was told to stop, and resigned
	ReasonLost     Reason = "lost"     // an extension found the lock gone, or another's
	ReasonExpired  Reason = "expired"  // no extension succeeded before its trust window ended
	ReasonFailed   Reason = "failed"   // its work could not go on, and it resigned
	ReasonPanicked Reason = "panicked" // its work panicked, and it resigned
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{ReasonElected, ReasonStopped, ReasonLost, ReasonExpired, ReasonFailed, ReasonPanicked}
}

// Observer is told what an Election does, for metrics. Its methods are called from several goroutines, one of which
// watches the trust window: they must return at once and be safe for concurrent use. A panic of LeaderChanged is recovered, logged and counted.
type Observer interface {
	// LeaderChanged is called when this replica begins to lead, and when it stops. The calls alternate.
	LeaderChanged(isLeader bool, reason Reason)
	// Renewed is called after each attempt to extend the lock.
	Renewed(took time.Duration, err error)
	// Panicked is called after a panic was recovered; loop tells where.
	Panicked(loop string)
}

type noObserver struct{}

func (noObserver) LeaderChanged(bool, Reason)   {}
func (noObserver) Renewed(time.Duration, error) {}
func (noObserver) Panicked(string)              {}
