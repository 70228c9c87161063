package cluster

import (
	"context"
	"time"
)

// RecoveryStore helps to give a session a new upstream session when its upstream has lost the old one.
type RecoveryStore interface {
	// ClaimRecovery lets one replica at a time recover an active session, if its version is still c.ExpectedVersion: the claim
	// lasts for c.For, or until the mapping changes. While another writer has it, Recovery.Busy says for how long yet.
	// Repeated by the same writer it is granted again, for c.For from then on. It only keeps others from trying in vain: what
	// Update decides by is the version. Errors: ErrNotFound, ErrIllegalTransition (it is not active, or has ended), ErrConflict
	// (another version: the session was recovered already).
	ClaimRecovery(ctx context.Context, c RecoveryClaim) (Recovery, error)
	// Note keeps a message of a live session's client that a new upstream session must be told again, or forgets it. It is kept
	// until the session ends. Errors: ErrNotFound, ErrNotesFull.
	Note(ctx context.Context, n Note) error
}

// Bounds of notes.
const (
	MaxNotes       = 64       // a session
	MaxNoteKey     = 64       // bytes
	MaxNoteMessage = 16 << 10 // bytes
)

// RecoveryClaim asks a store for the right to recover a session.
type RecoveryClaim struct {
	ID              ID
	ExpectedVersion int64
	// Writer identifies the claimant, as in Change.Writer. Random, not empty.
	Writer string
	For    time.Duration // at least a millisecond, at most MaxDuration
}

// Recovery is a store's answer to a RecoveryClaim.
type Recovery struct {
	Session Session
	// Busy is for how long another writer's claim lasts yet; 0: the claim is the caller's. Then there is no more here.
	Busy time.Duration
	// Initialize is the client's initialize message, nil when it was not kept.
	Initialize []byte
	// Notes are the messages to tell again, by their keys' order.
	Notes [][]byte
}

// Note is a message that a new upstream session must be told again.
type Note struct {
	ID ID
	// Key tells which message this one replaces: 1 to MaxNoteKey bytes.
	Key string
	// Message has at most MaxNoteMessage bytes; an empty one forgets the message noted under Key.
	Message []byte
}
