package cluster

import (
	"context"
	"time"
)

// Store is the state that all replicas share. Every method is atomic, safe for concurrent use, bounded by its context,
// and returns an error that is [ErrStoreUnavailable] when the store itself is at fault.
type Store interface {
	SessionStore
	LeaseStore
	ListStore
	CleanupStore
	ReplicaStore
	EventStore
	FrameStore
	StreamStore
	RecoveryStore
	RateStore
}

// SessionStore moves sessions through their life.
type SessionStore interface {
	// Create makes an initializing session and returns it with its token. Repeated with the same token (after a lost
	// reply) it returns the stored record, whatever its status, before any limit. At the cap it ends the session that is
	// past its end or idle the longest, and refuses with ErrCapacity when none has been idle for EvictMinIdle. The
	// principal's own cap is ErrPrincipalCapacity; the rates of creation are ErrCreationLimited. A token with the id of another
	// session is ErrTaken.
	Create(ctx context.Context, c Creation) (Created, error)
	// Update activates a session, or changes an active one's upstream mapping, if its version is still
	// ChangeOf.ExpectedVersion. Repeated with the same Writer it returns the record it made. Errors: ErrNotFound,
	// ErrConflict, ErrIllegalTransition.
	Update(ctx context.Context, c Change) (Session, error)
	// Terminate ends a live session with an ended status and returns its record. A session that has ended already keeps
	// its first status; the record is returned with ErrIllegalTransition. One that is past its end becomes expired; the
	// record is returned with ErrExpired. Errors: ErrNotFound, ErrIllegalTransition, ErrExpired.
	Terminate(ctx context.Context, id ID, status Status) (Session, error)
	// Get returns a record, live or ended, until it is purged. It touches nothing. Errors: ErrNotFound.
	Get(ctx context.Context, id ID) (Session, error)
}

// LeaseStore is the hot path.
type LeaseStore interface {
	// Lease verifies a caller, counts the requests in hand, touches the session and takes request budget. Errors: ErrNotFound,
	// a LimitError that is ErrRateLimited or ErrPendingLimited.
	Lease(ctx context.Context, c LeaseCall) (Grant, error)
	// Report writes back what happened since the last report and renews. It returns one Renewal for each Report, in order.
	Report(ctx context.Context, reports []Report) []Renewal
	// Check tells which sessions still serve requests, touching nothing. It returns one error for each ID, in order: nil,
	// ErrNotFound, or ErrStoreUnavailable.
	Check(ctx context.Context, ids []ID) []error
}

// ListStore answers operators.
type ListStore interface {
	// List returns one page of sessions: live ones by their last activity, the longest idle first, or, of one principal, by
	// their creation; ended ones in the order they will be purged. Errors: ErrInvalidCursor, ErrInvalidQuery.
	List(ctx context.Context, q Query) (Page, error)
	// Stats counts sessions. It costs the same however many there are.
	Stats(ctx context.Context) (Stats, error)
	// ReadPending returns the requests of a session that Report told to be in flight, the oldest first, at most 1000. It touches
	// nothing. Errors: ErrNotFound.
	ReadPending(ctx context.Context, id ID) ([]PendingRequest, error)
}

// Creation asks a store for a new session.
type Creation struct {
	NewSession
	// Token is usually zero: then the store draws one whose session falls where it has room.
	Token Token
}

// Created is a store's answer to a Creation.
type Created struct {
	Session Session
	Token   Token
	// Ended are the sessions that were ended to make room, expired or evicted: two at most in each slice of the store that
	// was tried. They are told with an error, too: a refused creation may have lowered an excess over the cap.
	Ended []Session
}

// Change asks a store to activate or remap a session.
type Change struct {
	Activation
	ID              ID
	Endpoint        string // empty: keep
	ExpectedVersion int64
	// Writer identifies this one change, so that repeating it after a lost reply is recognized. Random, not empty.
	Writer string
}

// LeaseCall asks a store for the right to serve one session.
type LeaseCall struct {
	ID        ID
	Digest    Digest
	Upstream  string
	Principal Principal
	// Need is how many requests are in hand, at least 1: all are granted or the call is refused.
	Need int
	// Want is how many requests the replica would like to serve before it asks again, those in hand included. The store
	// may grant fewer, but never less than Need; it should leave most of what there is to other replicas.
	Want int
	// Pending is how many of the requests in hand would be in flight if they were granted. They are not recorded: a
	// Report does that, of those that last.
	Pending int
	// KnownVersion is the version of the record that the caller has, which need not be told again; 0: none.
	KnownVersion int64
}

// Grant is a store's answer to a LeaseCall.
type Grant struct {
	// Session is the record. Where its version still is LeaseCall.KnownVersion it is empty, and IsKnown is set.
	Session Session
	IsKnown bool
	// Budget is how many requests were granted, those in hand included.
	Budget int
	// Left is how many are left for others after that; 0 without a limit.
	Left int
	// EndsIn is how long the session lives from the moment the store answered, unless touched again; negative: forever.
	EndsIn time.Duration
	// At is the store's clock when it granted. Only the store can read anything from it: see Report.UnspentSince.
	At time.Time
	// Pending is how many requests of the session the store knows to be in flight, at any replica.
	Pending int
}

// Report is what one replica tells the store about one session.
type Report struct {
	ID ID
	// Idle is how long ago the last message passed; negative when none did and only an open stream holds the session,
	// which moves its deadline but not its place in the order of eviction.
	Idle time.Duration
	// Requests were served from memory since the last report.
	Requests int
	// Unspent requests are given back; the oldest of them was granted at UnspentSince, by the store's clock (Grant.At,
	// Renewal.At): an age would be too short for a report that is delivered late. What the passing of time has refilled
	// since is subtracted, so that holding budget never adds to it.
	Unspent      int
	UnspentSince time.Time
	// Want is how many requests the replica would like for the next interval; 0 is fine.
	Want int
	// Started and Finished are requests that outlived one report interval.
	Started  []PendingRequest
	Finished []string
}

// PendingRequest is a request in flight.
type PendingRequest struct {
	// Key names this request and no other of its session: a PendingKey, a space and what makes it unique, 96 bytes at most.
	Key   string
	Owner string        // the incarnation that holds it
	Age   time.Duration // since it came in
}

// Renewal is a store's answer to a Report.
type Renewal struct {
	// Err is nil, ErrNotFound when the session no longer serves requests, or ErrStoreUnavailable when it is not known
	// whether the report was taken.
	Err error
	// Version is the record's; when it differs from the lease's, the lease must be asked for anew.
	Version int64
	Budget  int           // granted of Want
	Left    int           // as in Grant
	EndsIn  time.Duration // as in Grant
	At      time.Time     // as in Grant
	Pending int           // as in Grant, after this report
}

// Query selects sessions for a listing. The zero value of each condition selects all.
type Query struct {
	// Ended selects ended sessions instead of live ones.
	Ended bool
	// Status selects sessions of one status, an ended one only with Ended. One that is past its end, but not swept yet, is
	// listed among the live ones as expired.
	Status Status
	// Principal selects one principal's sessions.
	Principal Principal
	// IdleFor selects sessions whose last activity was at least so long ago.
	IdleFor time.Duration
	// OlderThan selects sessions that were created at least so long ago.
	OlderThan time.Duration
	// Limit is the size of the page: 1 to 1000.
	Limit int
	// Cursor is Page.Next of the page before, empty for the first.
	Cursor string
}

// Page is one page of a listing. Sessions that move while a listing runs may appear twice or be missed.
type Page struct {
	// Sessions are at most Query.Limit. They may be fewer, even none, although there is a next page: a store looks at a
	// bounded number of sessions a page, and not all of them fit every query.
	Sessions []Session
	Next     string // empty: this was the last page
	// Now is the store's clock, by which the sessions' times are to be read.
	Now time.Time
}

// Stats counts sessions.
type Stats struct {
	// ByStatus counts the records kept, by status.
	ByStatus map[Status]int64
	// Due counts live sessions that are past their end and wait to be expired.
	Due int64
	// Lag is for how long the session that waits the longest has been waiting to be ended, or its record to be purged.
	Lag time.Duration
	// Created and Ended are totals since the store was first used, Ended by final status.
	Created int64
	Ended   map[Status]int64
}
