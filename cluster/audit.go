package cluster

import (
	"log/slog"
	"time"
)

// Action is what has happened to a session.
type Action string

// The actions. Those that end a session are called like the status that they lead to.
const (
	ActionCreated    Action = "created"
	ActionActivated  Action = "activated"
	ActionClosed     Action = Action(StatusClosed)
	ActionExpired    Action = Action(StatusExpired)
	ActionEvicted    Action = Action(StatusEvicted)
	ActionTerminated Action = Action(StatusTerminated)
	ActionFailed     Action = Action(StatusFailed)
	ActionRecovered  Action = "recovered" // the upstream had lost it, and it was given a new upstream session
	ActionPurged     Action = "purged"    // its record was removed
)

// Actions lists every action.
func Actions() []Action {
	return []Action{
		ActionCreated, ActionActivated, ActionClosed, ActionExpired, ActionEvicted, ActionTerminated, ActionFailed,
		ActionRecovered, ActionPurged,
	}
}

// Actor is who has done it.
type Actor string

// The actors.
const (
	ActorClient   Actor = "client"   // the session's client
	ActorOperator Actor = "operator" // a person or a program at the command line
	ActorReplica  Actor = "replica"  // a replica, in the course of a client's request
	ActorSweeper  Actor = "sweeper"  // the leader
)

// Audit is the record of one change in a session's life. It holds nothing secret.
type Audit struct {
	At        time.Time // by the store's clock where it tells, else by the replica's
	Action    Action
	Session   ID
	Principal Principal // empty: nobody, or not known any more
	Upstream  string    // empty: not known any more
	Actor     Actor
	By        string // the incarnation that did it
	Reason    string // why, in a few words; may be empty
}

// Auditor is told of every change in the life of sessions. Its methods are called on the request path: they must return at
// once and be safe for concurrent use.
type Auditor interface {
	Audited(a Audit)
}

// Trail writes audit records to a log, and to an [Auditor] if there is one. By and Actor are put into every record that has
// none. The zero value writes nowhere.
type Trail struct {
	Log     *slog.Logger
	Auditor Auditor
	Actor   Actor
	By      string
}

// Record writes one record.
func (t Trail) Record(a Audit) {
	if a.At.IsZero() {
		a.At = time.Now()
	}
	a.At = a.At.UTC()
	if a.Actor == "" {
		a.Actor = t.Actor
	}
	if a.By == "" {
		a.By = t.By
	}
	if t.Log != nil {
		t.Log.Info("audit", "action", a.Action,
			"session", a.Session, "principal", a.Principal, "upstream", a.Upstream, "actor", a.Actor, "by", a.By, "reason", a.Reason)
	}
	if t.Auditor != nil {
		t.Auditor.Audited(a)
	}
}

// Ended records the end of sessions, by their status.
func (t Trail) Ended(actor Actor, reason string, sessions ...Session) {
	for _, s := range sessions {
		t.Record(Audit{
			At: s.EndedAt, Action: Action(s.Status), Session: s.ID, Principal: s.Principal, Upstream: s.Upstream, Actor: actor, Reason: reason,
		})
	}
}

// Purged records that the records of ended sessions were removed.
func (t Trail) Purged(actor Actor, reason string, ids ...ID) {
	for _, id := range ids {
		t.Record(Audit{Action: ActionPurged, Session: id, Actor: actor, Reason: reason})
	}
}
