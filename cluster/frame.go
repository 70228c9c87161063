package cluster

import (
	"context"
	"time"
)

// FrameStore keeps a recording of a session's messages, until the session's record is purged. It is bounded by
// Config.FramesCount and FramesBytes, the oldest goes first; the newest always stays. The store numbers a session's frames: 1, 2, 3 and so on.
type FrameStore interface {
	// AppendFrames stores frames of one session, live or ended, all or none. After an ErrStoreUnavailable they may be stored
	// or not: repeating it may store them twice. At most 200 at once. The payload of one that is larger than
	// Config.FramesBytes is left out. Errors: ErrNotFound.
	AppendFrames(ctx context.Context, id ID, frames []Frame) error
	// ReadFrames reads frames in the order of their numbers. It touches nothing. Errors: ErrNotFound.
	ReadFrames(ctx context.Context, q FrameQuery) (FramePage, error)
}

// Direction is who sent a message.
type Direction string

// The directions of a message.
const (
	FromClient   Direction = "client"   // from the client to the upstream
	FromUpstream Direction = "upstream" // from the upstream to the client
	FromProxy    Direction = "proxy"    // from the proxy itself to the client: a refusal, or an answer that is lost
)

// MethodBatch is Frame.Method of a JSON-RPC batch, which is one frame.
const MethodBatch = "(batch)"

// Frame is one recorded message, or what is known about it.
type Frame struct {
	// Number is the frame's place in its session, given by the store: 1 for the first one.
	Number int64
	// At is when the message passed, by the store's clock; Age says the same when a frame is appended.
	At  time.Time
	Age time.Duration

	Direction Direction
	Method    string        // empty for an answer; cut to 128 bytes
	MessageID string        // the typed JSON-RPC id, empty for a notification; cut to 64 bytes
	Size      int           // of the message in bytes, recorded whole or not
	Status    int           // the HTTP status of an answer, else 0
	Latency   time.Duration // from request to answer, of an answer; else 0
	Replica   string        // the incarnation that recorded it; cut to 64 bytes
	Payload   []byte        // empty unless payloads are recorded
}

// FrameQuery asks for a session's frames.
type FrameQuery struct {
	ID    ID
	After int64 // the number of the last frame the reader has, 0 for none
	Limit int   // the most frames to return: 1 to 1000
}

// FramePage is one page of a recording.
type FramePage struct {
	Frames []Frame
	// Missed is how many frames between FrameQuery.After and the first of Frames are not kept any more.
	Missed int64
	// Last is the number of the last frame stored, 0 when there is none.
	Last int64
}
