package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Create implements [cluster.SessionStore]. The session goes to the emptier of two random partitions; when that is full, all
// others are looked at, in one round trip, and up to three that may take it are tried before it is refused.
func (s *Store) Create(ctx context.Context, c cluster.Creation) (cluster.Created, error) {
	if c.Principal != "" { // after that its place may be given to another
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, placeSettled)
		defer cancel()
	}
	if c.Token != (cluster.Token{}) {
		return s.createAs(ctx, c)
	}
	first, err := s.emptier(ctx)
	if err != nil {
		return cluster.Created{}, err
	}
	created, err := s.createIn(ctx, &c, first, "")
	if isFull := errors.Is(err, cluster.ErrCapacity) && created.Token != (cluster.Token{}); !isFull {
		return created, err
	}
	refused, ended := err, created.Ended
	others, err := s.mayHaveRoom(ctx, first)
	if err != nil {
		refused = err
	}
	for _, i := range others {
		// Its place among its principal's is taken over from the session that could not be made.
		created, err = s.createIn(ctx, &c, i, c.Token.ID.String())
		ended = append(ended, created.Ended...)
		created.Ended = ended
		if !errors.Is(err, cluster.ErrCapacity) {
			return created, err
		}
		refused = sooner(refused, err)
	}
	s.release(ctx, c.Principal, c.Token.ID)
	return cluster.Created{Ended: ended}, refused
}

// createIn draws a token for one partition, into c, checks the limits that come before the cap, and creates the session. The
// token is told with a refusal by the cap, but not by the limits before it.
func (s *Store) createIn(ctx context.Context, c *cluster.Creation, partition int, instead string) (cluster.Created, error) {
	var err error
	if c.Token, err = s.tokenIn(partition); err != nil {
		return cluster.Created{}, err
	}
	if err := s.admit(ctx, *c, instead); err != nil {
		return cluster.Created{}, err
	}
	return s.create(ctx, *c)
}

// createAs creates a session with the token of the caller's choice. If it is there already, no limit applies.
func (s *Store) createAs(ctx context.Context, c cluster.Creation) (cluster.Created, error) {
	_, err := s.Get(ctx, c.Token.ID)
	if errors.Is(err, cluster.ErrNotFound) {
		err = s.admit(ctx, c, "")
	}
	if err != nil {
		return cluster.Created{}, err
	}
	created, err := s.create(ctx, c)
	if errors.Is(err, cluster.ErrCapacity) {
		s.release(ctx, c.Principal, c.Token.ID)
	}
	return created, err
}

// emptier returns the number of the partition to try first.
func (s *Store) emptier(ctx context.Context) (int, error) {
	if len(s.partitions) == 1 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	a, b, err := s.twoPartitions()
	if err != nil || a == b {
		return a, err
	}
	pipe := s.client.Pipeline()
	inA, inB := pipe.ZCard(ctx, s.partitions[a].lru()), pipe.ZCard(ctx, s.partitions[b].lru())
	_, _ = pipe.Exec(ctx) // each command has its own error
	errA, errB := inA.Err(), inB.Err()
	switch {
	case errA != nil && errB != nil:
		return 0, unavailable(errA)
	case errA != nil, errB == nil && inB.Val() < inA.Val():
		return b, nil // one partition being away is no reason to refuse
	default:
		return a, nil
	}
}

// sooner returns the refusal after which a retry makes sense first.
func sooner(a, b error) error {
	first, ok := errors.AsType[*cluster.LimitError](a)
	second, _ := errors.AsType[*cluster.LimitError](b)
	if ok && first.RetryAfter <= second.RetryAfter {
		return a
	}
	return b
}

// create runs session_create. What it ended on the way is told with ErrCapacity, too.
func (s *Store) create(ctx context.Context, c cluster.Creation) (cluster.Created, error) {
	id, digest := c.Token.ID, c.Token.Digest()
	p := s.partitionOf(id)
	args := append(s.finishArgs(p),
		id.String(), digest[:],
		p.cap, s.cfg.EvictMinIdle.Milliseconds(), s.cfg.InitializeTimeout.Milliseconds(), s.lifetimeMillis(), s.leewayMillis(),
	)
	reply, _, err := s.acknowledged(ctx, call{
		script: sessionCreate,
		keys:   []string{p.session(id), p.more(id), p.lru(), p.deadlines(), p.ended(), p.counts()},
		args:   append(args, encodeCreation(c)...),
	})
	if err != nil {
		return cluster.Created{}, err
	}
	created, purged, err := decodeCreated(c.Token, reply)
	s.tellPurged(purged)
	s.releaseAll(ctx, created.Ended)
	s.traceEvicted(ctx, created.Ended)
	return created, err
}

// decodeCreated reads the reply of session_create.
func decodeCreated(token cluster.Token, reply []any) (cluster.Created, []cluster.ID, error) {
	var d decoder
	var refused error
	created := cluster.Created{Token: token}
	var err error
	switch {
	case len(reply) >= 2 && d.text(reply[0]) == "FULL":
		refused = &cluster.LimitError{Limit: "max_sessions", RetryAfter: max(d.millis(reply[1]), time.Millisecond), Err: cluster.ErrCapacity}
		reply = reply[2:]
	case len(reply) >= 3+numFields:
		created.Session, _, err = decodeAnswer(token.ID, reply[:3+numFields])
		reply = reply[3+numFields:]
	default:
		err = errMalformedReply
	}
	ended, purged, errGone := decodeGone(reply)
	if err = errors.Join(err, errGone, d.err); err != nil {
		return cluster.Created{}, nil, unavailable(err)
	}
	created.Ended = ended
	return created, purged, refused
}

// finishArgs are the first arguments of a script that ends sessions: see lua/finish.inc.lua.
func (s *Store) finishArgs(p partition) []any {
	args := make([]any, 0, 16)
	for _, prefix := range p.owned() {
		args = append(args, prefix)
	}
	return append(args, s.cfg.Retention.Milliseconds(), backstop.Milliseconds(), p.cap)
}

// Update implements [cluster.SessionStore].
func (s *Store) Update(ctx context.Context, c cluster.Change) (cluster.Session, error) {
	p := s.partitionOf(c.ID)
	args := []any{
		c.ID.String(), c.ExpectedVersion, c.Writer,
		s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never, s.leewayMillis(),
	}
	reply, _, err := s.acknowledged(ctx, call{
		script: sessionUpdate,
		keys:   []string{p.session(c.ID), p.more(c.ID), p.lru(), p.deadlines(), p.counts(), p.pending(c.ID)},
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
	p := s.partitionOf(id)
	reply, repeated, err := s.acknowledged(ctx, call{
		script: sessionTerminate,
		keys:   []string{p.session(id), p.more(id), p.lru(), p.deadlines(), p.ended(), p.counts()},
		args:   append(s.finishArgs(p), id.String(), statusCodes[status], s.leewayMillis(), s.cfg.MaxAge.Milliseconds()),
	})
	if err != nil {
		return cluster.Session{}, err
	}
	session, done, purged, err := decodeTerminated(id, reply)
	if err != nil {
		return cluster.Session{}, err
	}
	s.tellPurged(purged)
	s.releaseAll(ctx, []cluster.Session{session})
	switch {
	case done == hasExpired:
		return session, cluster.ErrExpired
	case done == hadEnded && (!repeated || session.Status != status): // a repeated call finds the session as the lost one left it
		return session, cluster.ErrIllegalTransition
	}
	return session, nil
}

// What session_terminate has done.
const (
	hadEnded   = 0 // nothing: the session had ended before
	hasEnded   = 1
	hasExpired = 2 // it was past its end
)

// decodeTerminated reads the reply of session_terminate: the record, what was done, and what was purged on the way.
func decodeTerminated(id cluster.ID, reply []any) (session cluster.Session, done int64, purged []cluster.ID, err error) {
	const beside = 1 + 3 + numFields // where it begins
	if len(reply) < beside {
		return cluster.Session{}, hadEnded, nil, unavailable(errMalformedReply)
	}
	done, isNumber := reply[0].(int64)
	if !isNumber || done < hadEnded || done > hasExpired {
		return cluster.Session{}, hadEnded, nil, unavailable(errMalformedReply)
	}
	session, _, err = decodeAnswer(id, reply[1:beside])
	_, purged, errGone := decodeGone(reply[beside:])
	if err = errors.Join(err, errGone); err != nil {
		return cluster.Session{}, hadEnded, nil, unavailable(err)
	}
	return session, done, purged, nil
}

// Get implements [cluster.SessionStore].
func (s *Store) Get(ctx context.Context, id cluster.ID) (cluster.Session, error) {
	reply, _, err := s.repeat(ctx, s.getCall(id))
	if err != nil {
		return cluster.Session{}, err
	}
	session, now, err := decodeAnswer(id, reply)
	if err != nil {
		return cluster.Session{}, unavailable(err)
	}
	return asSeenAt(session, now), nil
}

func (s *Store) getCall(id cluster.ID) call {
	p := s.partitionOf(id)
	return call{
		script: sessionGet,
		keys:   []string{p.session(id), p.more(id), p.pending(id), p.deadlines(), p.ended()},
		args:   []any{id.String()},
	}
}

func decodeSession(id cluster.ID, reply []any) (cluster.Session, error) {
	session, _, err := decodeAnswer(id, reply)
	if err != nil {
		return cluster.Session{}, unavailable(err)
	}
	return session, nil
}
