package cluster

import "context"

// EventStore keeps a session's latest messages to the client, so that a broken stream can be resumed at any replica.
//
// A session has several streams. The writer numbers the events of each: 1, 2, 3 and so on. What is kept of all streams of a
// session is bounded by Config.EventsCount, EventsBytes and EventsAge, the oldest goes first, and all goes when the session
// ends. An event of more than Config.MaxEventBytes is not kept: where it was is a hole.
type EventStore interface {
	// AppendEvents stores events of a live session, all or none. Events that are stored already are passed over, so that
	// repeating it at once after a lost reply is harmless; once they have been dropped for newer ones, they would be stored
	// anew, but never those of OwnStream. Errors: ErrNotFound (there is no such live session, or it is past its end),
	// ErrStaleClaim.
	AppendEvents(ctx context.Context, a EventAppend) (Appended, error)
	// ReadEvents reads of several streams at once. It returns one EventPage for each query, in order. It touches nothing.
	ReadEvents(ctx context.Context, queries []EventQuery) []EventPage
}

// EventAppend asks a store to keep events.
type EventAppend struct {
	ID     ID
	Stream string // names the stream within its session: 1 to 64 bytes
	// First is the position of the first event, at least 1; the others follow without a gap. What is missing between the
	// last event stored before and First is a hole: readers are told. Positions go up to 1<<53 - 1.
	First  int64
	Events [][]byte // at least one; none is empty
	// Claim is for OwnStream, and only for it: the number of the writer's claim to read it. With another one than the
	// session's the call is refused.
	Claim int64
	// UpstreamEvent is for OwnStream, too: the upstream's own id of the last of Events, empty when it gave none or one of more than
	// [MaxUpstreamEvent] bytes.
	UpstreamEvent string
	// Version is for OwnStream, too: that of the session's record whose upstream session said the last of Events. When the record has another
	// by now, the events are stored, and UpstreamEvent is not.
	Version int64
}

// Appended is a store's answer to an EventAppend.
type Appended struct {
	// Listener is for OwnStream: the number of the latest listener, who is the one to be sent the events.
	Listener int64
	// TooLarge is how many of the events are not kept because they have more than Config.MaxEventBytes. Readers of OwnStream are told at
	// once, those of another stream when an event that follows is kept. It is 0 where no events are kept at all.
	TooLarge int
}

// EventQuery asks for the events of one stream.
type EventQuery struct {
	ID     ID
	Stream string
	After  int64 // the position of the last event the reader has, 0 for none
	Limit  int   // the most events to return: 1 to 1000; there may be fewer, one at least, when they have more than 1 MiB
}

// EventPage is a store's answer to an EventQuery.
type EventPage struct {
	// Err is nil, or ErrNotFound when there is no such live session or it is past its end, ErrEventsGone when the event after
	// EventQuery.After is not kept any more, or was never stored although later ones were, or when the store knows of none as
	// late as EventQuery.After: what the reader has, the store has lost or not been told of. Or ErrStoreUnavailable.
	Err error
	// Events are those at EventQuery.After+1 and up, without a gap. None: there are none yet. A stream of which nothing is kept
	// is like one that never was: there are none after 0. Not so OwnStream: what is missing is gone.
	Events [][]byte
	// Last is the position of the last event that is stored of the stream, 0 when there is none. Of OwnStream it is the last
	// that ever was.
	Last int64
	// Listener is for OwnStream: the number of the latest listener, who is the one to be sent the events.
	Listener int64
	// Claim is for OwnStream: the number of the latest claim to read it. Nothing in Events was stored under a later one.
	Claim int64
}
