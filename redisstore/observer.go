package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// CallOutcome says what became of one call of a script.
type CallOutcome string

// The outcomes of a call.
const (
	CallAnswered CallOutcome = "answered" // the script has run, and may have refused what was asked for
	CallTimeout  CallOutcome = "timeout"  // there was no answer in time: it may have run
	CallFailed   CallOutcome = "failed"   // the store could not be reached, or could not do it: it may have run
	CallCanceled CallOutcome = "canceled" // the caller left before there was an answer: it may have run
	CallNotMade  CallOutcome = "not_made" // the store was not asked, because it does not answer: see [Store.Breakers]
)

// CallOutcomes lists every outcome of a call.
func CallOutcomes() []CallOutcome {
	return []CallOutcome{CallAnswered, CallTimeout, CallFailed, CallCanceled, CallNotMade}
}

// Observer is told of the calls of a store's scripts, for metrics. CallDone is called on the way of requests, concurrently: it must
// return at once.
type Observer interface {
	// CallDone is called once for each call, however often it was tried. script is one of [lua.Names]. took is the time until
	// there was an answer, or none was waited for any longer; calls that are made together in one round trip take as long as that. It
	// is 0 for CallNotMade.
	CallDone(script string, outcome CallOutcome, took time.Duration)
}

type noObserver struct{}

func (noObserver) CallDone(string, CallOutcome, time.Duration) {}

// Observe has o told of every call from now on. It must be called before the store is used.
func (s *Store) Observe(o Observer) { s.observer = o }

// observe tells of a call that was made.
func (s *Store) observe(c call, err error, took time.Duration) {
	s.observer.CallDone(c.script.name, callOutcome(err), took)
}

func callOutcome(err error) CallOutcome {
	switch {
	case err == nil || !errors.Is(err, cluster.ErrStoreUnavailable):
		return CallAnswered
	case errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed):
		return CallCanceled
	case isTimeout(err):
		return CallTimeout
	default:
		return CallFailed
	}
}
