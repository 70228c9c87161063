package cluster

import (
	"errors"
	"fmt"
	"time"
)

// The errors of this package. Compare with errors.Is.
var (
	// ErrNotFound means that no session answers to this token or ID here: unknown, ended, past its end, of another
	// principal or another upstream, or the secret is wrong. They are deliberately alike.
	ErrNotFound = errors.New("session not found")

	// ErrInvalidToken means that the text is no token at all. It is also an ErrNotFound.
	ErrInvalidToken = fmt.Errorf("malformed session token: %w", ErrNotFound)

	// ErrInvalidID means that the text is no session ID.
	ErrInvalidID = errors.New("malformed session id: want a UUID such as 0198c0de-0000-7000-8000-000000000000")

	// ErrInvalidCursor means that a listing's cursor was not made by the listing it is used with.
	ErrInvalidCursor = errors.New("malformed cursor: use the next value of the page before")

	// ErrTaken means that a session has this id already, with another secret.
	ErrTaken = errors.New("the session id is taken")

	// ErrIllegalTransition means that a session's status does not allow the change: it has ended already.
	ErrIllegalTransition = errors.New("the session's status does not allow this change")

	// ErrExpired means that a session could not be ended as was asked: it was past its end, and has been ended as expired. It
	// is also an ErrIllegalTransition.
	ErrExpired = fmt.Errorf("the session was past its end: %w", ErrIllegalTransition)

	// ErrConflict means that the session's version is no longer the expected one: another replica changed it first.
	ErrConflict = errors.New("the session was changed by another replica")

	// ErrRateLimited means that the session has spent its request budget; see [LimitError] for when to retry.
	ErrRateLimited = errors.New("the session's request rate is used up")

	// ErrCapacity means that the store is at its cap and no session has been idle long enough to be evicted; see
	// [LimitError] for when to retry.
	ErrCapacity = errors.New("the cluster is at its session cap")

	// ErrPrincipalCapacity means that a principal has as many live sessions as one may; see [LimitError] for when to look again.
	ErrPrincipalCapacity = errors.New("the principal is at its session cap")

	// ErrCreationLimited means that too many sessions were created of late; see [LimitError] for when to retry.
	ErrCreationLimited = errors.New("too many sessions are being created")

	// ErrPendingLimited means that too many of the session's requests are in flight; see [LimitError] for when to retry.
	ErrPendingLimited = errors.New("too many requests of the session are in flight")

	// ErrStreamsLimited means that the session has as many streams open as it may; see [LimitError] for when to retry.
	ErrStreamsLimited = errors.New("too many streams of the session are open")

	// ErrEventsGone means that a stream cannot be resumed where its reader left it: the events that follow are not kept.
	ErrEventsGone = errors.New("the events that follow are not kept any more")

	// ErrStaleClaim means that another replica has taken over what this one held a claim to.
	ErrStaleClaim = errors.New("another replica has taken over")

	// ErrNotesFull means that as many messages are noted of a session as may be.
	ErrNotesFull = errors.New("too many messages are noted of the session")

	// ErrInvalidQuery means that a listing's conditions contradict each other or are out of their ranges.
	ErrInvalidQuery = errors.New("no such listing")

	// ErrStoreUnavailable means that the store could not be asked, or did not answer in time. What was asked may or may
	// not have happened; nothing is known about the session.
	ErrStoreUnavailable = errors.New("the session store is unavailable")

	// ErrNotSupported means that the store cannot do what the configuration asks of it.
	ErrNotSupported = errors.New("not supported by this version")
)

// LimitError is a refusal: a limit was reached, nothing was admitted, and the same call may succeed later. It unwraps to
// the sentinel that names its kind, such as [ErrRateLimited] or [ErrCapacity].
type LimitError struct {
	Limit      string        // the setting that was reached, such as request_rate
	RetryAfter time.Duration // how long until a retry may succeed; at least one millisecond
	Err        error         // the kind of refusal
}

// Error says which limit was reached and when to retry.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%v (limit %s); retry in %v", e.Err, e.Limit, e.RetryAfter)
}

// Unwrap returns the kind of refusal.
func (e *LimitError) Unwrap() error { return e.Err }
