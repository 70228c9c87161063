package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// CleanupStore removes what is over. Several callers at once do no harm: every method looks at a session again before it touches
// it. What was done is told with an error, too: part of the store may be away. Each may fail with an [ErrFenced].
type CleanupStore interface {
	// Sweep ends a batch of sessions that are past their end and purges a batch of ended ones that are past their
	// retention, the oldest first. It costs as much as there is to do, however many sessions there are.
	Sweep(ctx context.Context, c SweepCall) (Swept, error)
	// End ends those of some sessions that live and meet the conditions, and returns them as they were ended.
	End(ctx context.Context, c EndCall) ([]Session, error)
	// Purge removes the records of those of some sessions that have ended, and returns which.
	Purge(ctx context.Context, c Cleanup, ids []ID) ([]ID, error)
	// Relieve lets a batch of sessions go where memory runs out.
	Relieve(ctx context.Context, c RelieveCall) (Relieved, error)
	// Mend makes one step of a walk through everything, and mends what is out of step.
	Mend(ctx context.Context, c MendCall) (Mended, error)
	// Prune forgets the requests in flight that the given incarnations, all of them dead, have left behind in a session.
	// It returns how many. A session that does not exist has none. It cannot be fenced: the dead do not come back.
	Prune(ctx context.Context, id ID, dead []string) (int, error)
}

// Cleanup says who cleans up, and is part of every call that does. Of two leaders only the later one's calls take effect.
type Cleanup struct {
	// Epoch numbers the caller's term as leader. A call with an epoch older than one that has cleaned up before is refused
	// with a [FencedError].
	Epoch int64
	// Leader says that the epoch is the caller's own. Operators use the stored one and leave this false: then it refuses
	// nobody else.
	Leader bool
}

// ErrFenced means that a later leader has taken over the cleanup.
var ErrFenced = errors.New("a later leader cleans up")

// FencedError is an ErrFenced that tells the epoch of the later leader.
type FencedError struct{ Epoch int64 }

// Error names the later leader's epoch.
func (e *FencedError) Error() string { return fmt.Sprintf("%v (epoch %d)", ErrFenced, e.Epoch) }

// Unwrap returns ErrFenced.
func (e *FencedError) Unwrap() error { return ErrFenced }

// SweepCall asks a store for one sweep.
type SweepCall struct {
	Cleanup

	// Limit is how many sessions of each kind go at most, of each slice of the session space: 1 to 1000.
	Limit int
	// Without are slices that are left out, as Swept.Away told them.
	Without []int
}

// Swept is what one call of Sweep did.
type Swept struct {
	Expired []Session // as they were ended
	Purged  []ID      // those that had to leave because too many ended ones are kept, too
	More    bool      // there is more to do at once
	// Took is the longest that one script took of a server's time; 0 when the servers do not tell.
	Took time.Duration
	// Repairs is what was broken at the head of what is due and had to be mended before anything could go.
	Repairs []Repair
	// Slices is how many slices the session space has. Away are those that could not be swept, by their numbers from 0; the error
	// tells why.
	Slices int
	Away   []int
}

// EndCall asks a store to end sessions that meet conditions at the moment they are ended.
type EndCall struct {
	Cleanup

	IDs    []ID
	Status Status // to end with; one that is past its end becomes expired
	// Was is the live status they must have, empty for any.
	Was Status
	// IdleFor and OlderThan are as in Query.
	IdleFor   time.Duration
	OlderThan time.Duration
	// SpareBusy leaves sessions alone that have requests in flight for longer than a report interval.
	SpareBusy bool
}

// MendCall asks a store for one step of its walk through everything it holds.
type MendCall struct {
	Cleanup

	// Cursor is Mended.Next of the step before, empty for the first.
	Cursor string
	// Limit is how many sessions or keys one step looks at, about: 1 to 1000.
	Limit int
}

// Mended is what one step of a walk has found and repaired.
type Mended struct {
	Repairs []Repair
	Looked  int // how many sessions and keys it has looked at
	// Next is empty when the walk is over. With an error it is where the walk may go on, past what could not be looked at.
	Next string
}

// Repair is one piece of drift that was mended.
type Repair struct {
	// ID is the session's, the zero ID when the repair is not about one.
	ID   ID
	Kind RepairKind
}

// RepairKind says what was out of step.
type RepairKind string

// The kinds of repairs.
const (
	RepairRecordMissing    RepairKind = "record_missing"    // an index held a session that has no record
	RepairIndexMissing     RepairKind = "index_missing"     // a session was not in an index that it belongs in
	RepairIndexWrong       RepairKind = "index_wrong"       // a session was in an index that it does not belong in
	RepairKeysOrphaned     RepairKind = "keys_orphaned"     // keys had outlived their session, or its life
	RepairTTLMissing       RepairKind = "ttl_missing"       // a key that must not stay for ever had no TTL
	RepairCountWrong       RepairKind = "count_wrong"       // the counts differed from a recount
	RepairPlaceWrong       RepairKind = "place_wrong"       // a principal's place had no session, or a session had no place
	RepairPendingAbandoned RepairKind = "pending_abandoned" // a request was in flight at a replica that lives no more
	RepairRecordBroken     RepairKind = "record_broken"     // a record or a key was of a wrong kind, or held no number where one belongs
	RepairScoreWrong       RepairKind = "score_wrong"       // a session stood elsewhere in an index than its record says
)

// RepairKinds lists every kind.
func RepairKinds() []RepairKind {
	return []RepairKind{
		RepairRecordMissing, RepairIndexMissing, RepairIndexWrong, RepairKeysOrphaned, RepairTTLMissing, RepairCountWrong,
		RepairPlaceWrong, RepairPendingAbandoned, RepairRecordBroken, RepairScoreWrong,
	}
}

// RelieveCall asks a store to make room where its memory runs out.
type RelieveCall struct {
	Cleanup

	// Above is the share of a server's memory limit that may be in use, such as 0.9. Sessions go only from servers that
	// use more.
	Above float64
	// Limit is how many sessions go at most, of each slice of the session space: 1 to 100.
	Limit int
	// IdleFor protects live sessions that were active more recently.
	IdleFor time.Duration
	// Force ends sessions with requests in flight, too.
	Force bool
}

// Relieved is what one call of Relieve did.
type Relieved struct {
	// Purged are ended sessions whose records went, Evicted live ones that were ended. A call does one or the other: those
	// that it evicts are the first that the next one purges.
	Purged  []ID
	Evicted []Session
	// Usage is the highest share of a memory limit in use, as it was found; 0 when no server has a limit.
	Usage float64
	// Spent says that a server is still above, and nothing is left there that may go.
	Spent bool
	// Repairs is as in Swept.
	Repairs []Repair
}

// ReplicaStore knows which replicas live.
type ReplicaStore interface {
	// Beat says that an incarnation lives. One that has not done so for 5 seconds is taken for dead.
	Beat(ctx context.Context, incarnation string) error
	// Leave says that an incarnation has ended in order.
	Leave(ctx context.Context, incarnation string) error
	// Replicas names the incarnations that live.
	Replicas(ctx context.Context) ([]string, error)
}
