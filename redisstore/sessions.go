package redisstore

import (
	"context"
	"fmt"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Create implements [cluster.SessionStore].
func (s *Store) Create(ctx context.Context, c cluster.Creation) (cluster.Session, error) {
	p := s.partition
	args := []any{
		p.sessionPrefix(), p.morePrefix(), p.pendingPrefix(),
		c.ID.String(), c.Digest[:],
		s.cfg.MaxSessions, s.cfg.EvictMinIdle.Milliseconds(), s.cfg.InitializeTimeout.Milliseconds(), s.lifetimeMillis(),
		s.cfg.Retention.Milliseconds(), backstop.Milliseconds(), s.cfg.MaxSessions,
	}
	reply, _, err := s.repeat(ctx, call{
		script: sessionCreate,
		keys:   []string{p.session(c.ID), p.more(c.ID), p.lru(), p.deadlines(), p.ended(), p.counts()},
		args:   append(args, encodeCreation(c)...),
	})
	if err != nil {
		return cluster.Session{}, err
	}
	return decodeSession(c.ID, reply)
}

// Update implements [cluster.SessionStore].
func (s *Store) Update(ctx context.Context, c cluster.Change) (cluster.Session, error) {
	p := s.partition
	args := []any{
		c.ID.String(), c.ExpectedVersion, c.Writer,
		s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never,
	}
	reply, _, err := s.repeat(ctx, call{
		script: sessionUpdate,
		keys:   []string{p.session(c.ID), p.more(c.ID), p.lru(), p.deadlines(), p.counts()},
		args:   append(args, encodeChange(c)...),
	})
	if err != nil {
		return cluster.Session{}, err
	}
	return decodeSession(c.ID, reply)
}

// Terminate implements [cluster.SessionStore].
func (s *Store) Terminate(ctx context.Context, id cluster.ID, status cluster.Status) (cluster.Session, error) {
	if !status.Ended() {
		return cluster.Session{}, fmt.Errorf("%w: %q does not end a session", cluster.ErrIllegalTransition, status)
	}
	p := s.partition
	reply, repeated, err := s.repeat(ctx, call{
		script: sessionTerminate,
		keys:   []string{p.session(id), p.more(id), p.lru(), p.deadlines(), p.ended(), p.counts()},
		args: []any{
			p.sessionPrefix(), p.morePrefix(), p.pendingPrefix(),
			id.String(), statusCodes[status],
			s.cfg.Retention.Milliseconds(), backstop.Milliseconds(), s.cfg.MaxSessions,
		},
	})
	if err != nil {
		return cluster.Session{}, err
	}
	if len(reply) == 0 {
		return cluster.Session{}, unavailable(errMalformedReply)
	}
	session, err := decodeSession(id, reply[1:])
	// A repeated call finds the session as the lost one left it.
	if done := reply[0] == int64(1) || (repeated && session.Status == status); err == nil && !done {
		err = cluster.ErrIllegalTransition
	}
	return session, err
}

// Get implements [cluster.SessionStore].
func (s *Store) Get(ctx context.Context, id cluster.ID) (cluster.Session, error) {
	p := s.partition
	reply, _, err := s.repeat(ctx, call{
		script: sessionGet,
		keys:   []string{p.session(id), p.more(id), p.pending(id), p.deadlines(), p.ended()},
		args:   []any{id.String()},
	})
	if err != nil {
		return cluster.Session{}, err
	}
	session, now, err := decodeAnswer(id, reply)
	if err != nil {
		return cluster.Session{}, unavailable(err)
	}
	return asSeenAt(session, now), nil
}

func decodeSession(id cluster.ID, reply []any) (cluster.Session, error) {
	session, _, err := decodeAnswer(id, reply)
	if err != nil {
		return cluster.Session{}, unavailable(err)
	}
	return session, nil
}
