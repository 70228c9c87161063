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

	// ErrIllegalTransition means that a session's status does not allow the change: it has ended already.
	ErrIllegalTransition = errors.New("the session's status does not allow this change")

	// ErrConflict means that the session's version is no longer the expected one: another replica changed it first.
	ErrConflict = errors.New("the session was changed by another replica")

	// ErrRateLimited means that the session has spent its request budget; see [LimitError] for when to retry.
	ErrRateLimited = errors.New("the session's request rate is used up")

	// ErrCapacity means that the store is at its cap and no session has been idle long enough to be evicted; see
	// [LimitError] for when to retry.
	ErrCapacity = errors.New("the cluster is at its session cap")

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
