package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A principal's live sessions have places in a sorted set of its own. It is in no partition, so a place is reserved before the
// session is made, and given back after it has ended. What a replica that dies in between leaves behind is found when the
// places are full.
const (
	// placeSettled is how long after its reservation a place without a session is nobody's: creating takes less.
	placeSettled = 5 * time.Second
	// placeChecks is how many of the oldest places are looked at when a principal has none left, in placeRounds rounds.
	placeChecks = 20
	placeRounds = 3
	// placeRetry is what a refused principal is told to wait for: nobody knows when one of its sessions ends.
	placeRetry = 5 * time.Second
)

// admit checks the limits that a creation meets before the cap, the principal's own first: who is over them must not use up
// what all share.
func (s *Store) admit(ctx context.Context, c cluster.Creation, instead string) error {
	if c.Principal != "" {
		if err := s.reserve(ctx, c.Principal, c.Token.ID, instead); err != nil {
			return err
		}
	}
	if s.cfg.CreateRate == 0 || instead != "" {
		return nil
	}
	reply, _, err := s.repeat(ctx, call{
		script: rateTake,
		keys:   []string{createRateKey(s.prefix)},
		args:   []any{intervalMicros(s.cfg.CreateRate), s.cfg.CreateRate},
	})
	if err != nil {
		return err
	}
	wait, err := decodeNumber(reply)
	if err == nil && wait > 0 {
		s.release(ctx, c.Principal, c.Token.ID)
		err = tooManyCreations("create_rate", wait)
	}
	return err
}

// reserve gets a session its place. When there is none, those whose sessions are gone are cleared first.
func (s *Store) reserve(ctx context.Context, principal cluster.Principal, id cluster.ID, instead string) error {
	for round := 0; ; round++ {
		settled, err := s.reserveOnce(ctx, principal, id, instead)
		if !errors.Is(err, cluster.ErrPrincipalCapacity) || round == placeRounds {
			return err
		}
		gone, errClear := s.clearPlaces(ctx, principal, settled)
		if errClear != nil {
			return errClear
		}
		if len(gone) == 0 {
			return err
		}
	}
}

// reserveOnce returns ErrPrincipalCapacity with the oldest places that are settled.
func (s *Store) reserveOnce(ctx context.Context, principal cluster.Principal, id cluster.ID, instead string) ([]cluster.ID, error) {
	reply, _, err := s.repeat(ctx, call{
		script: placeReserve,
		keys:   []string{principalKey(s.prefix, principal), principalRateKey(s.prefix, principal)},
		args: []any{
			id.String(), instead, s.cfg.MaxSessionsPerPrincipal,
			intervalMicros(s.cfg.CreateRatePerPrincipal), s.cfg.CreateRatePerPrincipal,
			s.placesMillis(), placeSettled.Milliseconds(), placeChecks,
		},
	})
	if err != nil {
		return nil, err
	}
	return decodeReserved(reply)
}

// placesMillis is the TTL of a principal's places, renewed by every reservation. Sessions that end at no age outlive many
// years without one.
func (s *Store) placesMillis() int64 {
	if s.cfg.MaxAge == 0 {
		return 10 * s.lifetimeMillis()
	}
	return s.lifetimeMillis()
}

// decodeReserved reads the reply of place_reserve.
func decodeReserved(reply []any) ([]cluster.ID, error) {
	if len(reply) == 0 {
		return nil, unavailable(errMalformedReply)
	}
	var d decoder
	switch code := d.text(reply[0]); code {
	case "OK":
		return nil, nil
	case "RATE":
		wait, err := decodeNumber(reply[1:])
		if err != nil {
			return nil, err
		}
		return nil, tooManyCreations("create_rate_per_principal", wait)
	case "FULL":
		settled := make([]cluster.ID, 0, len(reply)-1)
		for _, member := range reply[1:] {
			id, err := cluster.ParseID(d.text(member))
			if err != nil {
				return nil, unavailable(fmt.Errorf("%w: a place is no session id", errMalformedReply))
			}
			settled = append(settled, id)
		}
		return settled, &cluster.LimitError{Limit: "max_sessions_per_principal", RetryAfter: placeRetry, Err: cluster.ErrPrincipalCapacity}
	default:
		return nil, unavailable(errMalformedReply)
	}
}

// clearPlaces gives back those of some places whose sessions live no more, and returns which. A session that cannot be asked
// about keeps its place.
func (s *Store) clearPlaces(ctx context.Context, principal cluster.Principal, settled []cluster.ID) ([]cluster.ID, error) {
	var gone []cluster.ID
	for i, result := range s.pipeline(ctx, s.getCalls(settled)) {
		if errors.Is(result.err, cluster.ErrNotFound) {
			gone = append(gone, settled[i])
			continue
		}
		if isBroken(result.err) { // the record itself, or something else of the session: that is for the reconciler
			is, err := s.client.Type(ctx, s.partitionOf(settled[i]).session(settled[i])).Result()
			if err == nil && is != "hash" {
				gone = append(gone, settled[i])
			}
			continue
		}
		if result.err != nil {
			return nil, result.err
		}
		session, now, err := decodeListed(settled[i], result.reply)
		if err != nil {
			return nil, unavailable(err)
		}
		if session.EndedAtOrBefore(now) || session.Principal != principal {
			gone = append(gone, settled[i])
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	if _, _, err := s.repeat(ctx, s.releaseCall(principal, gone)); err != nil {
		return nil, err
	}
	return gone, nil
}

// release gives one place back. When that fails, the place is cleared when it is needed.
func (s *Store) release(ctx context.Context, principal cluster.Principal, id cluster.ID) {
	s.releaseAll(ctx, []cluster.Session{{ID: id, Principal: principal}})
}

// releaseAll gives the places of ended sessions back, in one round trip.
func (s *Store) releaseAll(ctx context.Context, ended []cluster.Session) {
	ids := make(map[cluster.Principal][]cluster.ID)
	for _, session := range ended {
		if session.Principal != "" {
			ids[session.Principal] = append(ids[session.Principal], session.ID)
		}
	}
	calls := make([]call, 0, len(ids))
	for principal, its := range ids {
		for len(its) > 0 {
			n := min(len(its), maxPage)
			calls = append(calls, s.releaseCall(principal, its[:n]))
			its = its[n:]
		}
	}
	if len(calls) == 0 {
		return
	}
	for _, result := range s.pipeline(ctx, calls) {
		if result.err != nil {
			s.log.Debug("places of ended sessions could not be given back; they are cleared when they are needed", "error", result.err)
			return
		}
	}
}

func (s *Store) releaseCall(principal cluster.Principal, ids []cluster.ID) call {
	c := call{script: placeRelease, keys: []string{principalKey(s.prefix, principal)}}
	for _, id := range ids {
		c.args = append(c.args, id.String())
	}
	return c
}

// tooManyCreations refuses a creation for so many microseconds.
func tooManyCreations(limit string, wait int) error {
	return &cluster.LimitError{
		Limit: limit, RetryAfter: max(duration(int64(wait), time.Microsecond), time.Millisecond), Err: cluster.ErrCreationLimited,
	}
}
