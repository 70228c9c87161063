package cluster

import (
	"context"
	"math"
	"time"
)

// OwnStream names the stream of what a session's upstream says of its own accord. A session has one, however many replicas
// serve it; its events are numbered without a gap for as long as the session lives, whoever reads them.
const OwnStream = "g"

// MaxUpstreamEvent is how long an upstream's own id of an event may be, in bytes. A longer one counts as none.
const MaxUpstreamEvent = 256

// StreamStore says who reads a session's own stream from its upstream, and whose client listens to it; and it counts the streams that
// are open to clients.
//
// One replica at a time reads: upstreams refuse a second reader, and every message must be stored once. The claim to read
// has a number that grows each time it moves; what comes with an older number is refused. One client connection at a time
// listens, the latest that asked: a message goes out on one stream only.
type StreamStore interface {
	// ClaimStream makes the caller the listener or the reader of a live session's own stream, or both. Who is the reader
	// already stays it, with the same number; a claim that somebody else holds moves only when c.From is its number.
	// Repeated after a lost reply it may count one more listener, which harms nobody. Errors: ErrNotFound.
	ClaimStream(ctx context.Context, c StreamClaim) (StreamState, error)
	// ReleaseStream gives the claim up, if claim is still its number. Errors: ErrNotFound, ErrStaleClaim.
	ReleaseStream(ctx context.Context, id ID, claim int64) error
	// StreamStates looks at the own streams of several sessions at once, touching nothing. It returns one state for each
	// ID, in order.
	StreamStates(ctx context.Context, ids []ID) []StreamState

	// OpenStream counts one more stream of a live session to its client as open, unless most of its kind are. Then those are
	// forgotten that were opened at least superseded ago, if that is not 0; where that makes no room the stream is not counted,
	// and it returns the others, 100 at most. Repeated it counts once. When the session ends, its streams are
	// forgotten. Errors: ErrNotFound.
	OpenStream(ctx context.Context, o OpenStream, most int, superseded time.Duration) ([]OpenStream, error)
	// CloseStreams forgets streams that OpenStream has counted. What it does not know is forgotten already. It returns one
	// error for each, in order: nil or ErrStoreUnavailable.
	CloseStreams(ctx context.Context, closed []OpenStream) []error
}

// StreamClaim asks a store for a part in a session's own stream.
type StreamClaim struct {
	ID ID
	// Owner is the caller's incarnation: 1 to 256 bytes.
	Owner string
	// Listen makes the caller's client the listener: StreamState.Listener is its number then.
	Listen bool
	// After is the position that a new listener begins behind: what it has, or does not want. -1: the last one there is. A client
	// may have been sent more than was stored of the claim that Sent names: then it begins behind what was.
	After int64
	// Read makes the caller the reader when there is none, or when the reader's claim has the number From: the caller knows
	// that its holder is dead.
	Read bool
	From int64
	// Sent is the event at After, if a client was sent it. When the store has not come so far, that is because its reader could not
	// store it: it is the last event from now on, and whoever reads next goes on after it.
	Sent SentEvent
}

// SentEvent is an event of a session's own stream as a client knows it. The zero value is none.
type SentEvent struct {
	// UpstreamEvent is the upstream's own id of it: 1 to [MaxUpstreamEvent] bytes. Empty: it is not known.
	UpstreamEvent string
	// Claim is the one under which it was sent, 0 when that is not known. Under another than the latest, the positions up to it may
	// be of other events.
	Claim int64
	// Version is that of the session's record whose upstream session said it. To another upstream session the id means nothing.
	Version int64
}

// StreamState tells about a session's own stream.
type StreamState struct {
	// Err is nil; of StreamStates also ErrNotFound when there is no such live session or it is past its end, or
	// ErrStoreUnavailable.
	Err error
	// Reader is the incarnation that holds the claim to read, empty when nobody does.
	Reader string
	// Claim is the number of the claim, or of the last one; 0 when there never was one.
	Claim int64
	// Listener is the number of the latest listener, 0 when there never was one.
	Listener int64
	// Last is the position of the last event stored, 0 when there is none.
	Last int64
	// Begins are the positions that the latest listeners began behind, the latest first, eight of them at most: up to there the one
	// before each is to be sent what there is. ClaimStream leaves them out.
	Begins []int64
	// Version is that of the session's record: with a later one the session may have another upstream session.
	Version int64
	// Since is what Last was when each of the latest claims was taken, the latest first, eight of them at most: what an earlier reader
	// has sent beyond it was never stored.
	Since []int64
	// UpstreamEvent is the upstream's own id of the last event stored, by which a new reader may go on; empty when the
	// upstream gives none, or when the session has been given another upstream session since. StreamStates leaves it out.
	UpstreamEvent string
}

// EndOfListener is the position up to which a listener is to be sent what there is: the one after it begins there. It reports whether
// that is known: the listener is not the latest, and none of the latest eight came so long after it.
func (s StreamState) EndOfListener(number int64) (position int64, known bool) {
	i := s.Listener - number - 1
	if i < 0 || i >= int64(len(s.Begins)) {
		return 0, false
	}
	return s.Begins[i], true
}

// EndOfClaim is the position of the last event that was stored under a claim, or before: what its reader has sent beyond that was never
// stored. Of a claim that has not moved it is the last position there can be. When more claims have been taken since than are known, it is
// where the oldest of those begins.
func (s StreamState) EndOfClaim(number int64) int64 {
	later := min(s.Claim-number, int64(len(s.Since)))
	if later <= 0 {
		return math.MaxInt64
	}
	return s.Since[later-1]
}
