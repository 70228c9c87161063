package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// ClaimRecovery implements [cluster.RecoveryStore].
func (s *Store) ClaimRecovery(ctx context.Context, c cluster.RecoveryClaim) (cluster.Recovery, error) {
	if c.Writer == "" || c.For < time.Millisecond || c.For > cluster.MaxDuration {
		return cluster.Recovery{}, fmt.Errorf("recovery of session %s: a claim of a writer named by %d bytes for %v, want a name, and 1ms to %v",
			c.ID, len(c.Writer), c.For, cluster.MaxDuration)
	}
	p := s.partitionOf(c.ID)
	reply, _, err := s.acknowledged(ctx, call{
		script: sessionRecover,
		keys:   []string{p.session(c.ID), p.deadlines(), p.more(c.ID), p.pending(c.ID)},
		args:   []any{c.ID.String(), c.ExpectedVersion, c.Writer, c.For.Milliseconds(), s.lifetimeMillis(), s.leewayMillis(), s.cfg.MaxAge.Milliseconds()},
	})
	if err != nil {
		return cluster.Recovery{}, err
	}
	return decodeRecovery(c.ID, reply)
}

// recoveryParts is how many parts session_recover answers before the notes: 0, the answer of record.inc.lua, the initialize
// message.
const recoveryParts = 1 + 3 + numFields + 1

// decodeRecovery reads the reply of session_recover.
func decodeRecovery(id cluster.ID, reply []any) (cluster.Recovery, error) {
	if len(reply) == 0 {
		return cluster.Recovery{}, unavailable(errMalformedReply)
	}
	busy, isNumber := reply[0].(int64)
	switch {
	case !isNumber, busy < 0, busy == 0 && (len(reply) < recoveryParts || (len(reply)-recoveryParts)%2 != 0), busy > 0 && len(reply) != 1:
		return cluster.Recovery{}, unavailable(errMalformedReply)
	case busy > 0:
		return cluster.Recovery{Busy: duration(busy, time.Millisecond)}, nil
	}
	session, err := decodeSession(id, reply[1:recoveryParts-1])
	if err != nil {
		return cluster.Recovery{}, err
	}
	var d decoder
	r := cluster.Recovery{Session: session}
	if message := d.text(reply[recoveryParts-1]); message != "" {
		r.Initialize = []byte(message)
	}
	r.Notes = d.notes(reply[recoveryParts:])
	if d.err != nil {
		return cluster.Recovery{}, unavailable(d.err)
	}
	return r, nil
}

// notes reads keys and messages, and returns the messages by their keys' order: scripts cannot sort texts the same everywhere.
func (d *decoder) notes(parts []any) [][]byte {
	type note struct{ key, message string }
	all := make([]note, 0, len(parts)/2)
	for ; len(parts) > 0; parts = parts[2:] {
		all = append(all, note{d.text(parts[0]), d.text(parts[1])})
	}
	slices.SortFunc(all, func(a, b note) int { return strings.Compare(a.key, b.key) })
	messages := make([][]byte, len(all))
	for i, n := range all {
		messages[i] = []byte(n.message)
	}
	return messages
}

// Note implements [cluster.RecoveryStore].
func (s *Store) Note(ctx context.Context, n cluster.Note) error {
	if n.Key == "" || len(n.Key) > cluster.MaxNoteKey || len(n.Message) > cluster.MaxNoteMessage {
		return fmt.Errorf("note of session %s: a message of %d bytes under a key of %d bytes, want at most %d, and 1 to %d",
			n.ID, len(n.Message), len(n.Key), cluster.MaxNoteMessage, cluster.MaxNoteKey)
	}
	p := s.partitionOf(n.ID)
	_, _, err := s.acknowledged(ctx, call{
		script: noteKeep,
		keys:   []string{p.session(n.ID), p.deadlines(), p.more(n.ID)},
		args:   []any{n.ID.String(), n.Key, n.Message, cluster.MaxNotes, s.lifetimeMillis(), s.leewayMillis(), s.cfg.MaxAge.Milliseconds()},
	})
	return err
}
