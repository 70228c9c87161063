package redisstore

import (
	"context"
	"fmt"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// maxOwner is how long an incarnation may be, in bytes.
const maxOwner = 256

// statesPerScript is how many sessions one run of stream_states takes: it only reads, in about a third of a millisecond.
const statesPerScript = 100

// stateParts is how many parts stream_states answers for each session, claimParts how many stream_claim does.
const (
	stateParts = 8
	claimParts = 7
)

// ClaimStream implements [cluster.StreamStore].
func (s *Store) ClaimStream(ctx context.Context, c cluster.StreamClaim) (cluster.StreamState, error) {
	if c.Owner == "" || len(c.Owner) > maxOwner {
		return cluster.StreamState{}, fmt.Errorf("stream of session %s: the claimant's name has %d bytes, want 1 to %d", c.ID, len(c.Owner), maxOwner)
	}
	p := s.partitionOf(c.ID)
	reply, _, err := s.acknowledged(ctx, call{
		script: streamClaim,
		keys:   []string{p.session(c.ID), p.deadlines(), p.more(c.ID)},
		args:   []any{c.ID.String(), c.Owner, flag(c.Listen), flag(c.Read), c.From, s.lifetimeMillis(), s.leewayMillis(), s.cfg.MaxAge.Milliseconds(), c.After, keptUpstreamEvent(c.Sent.UpstreamEvent), c.Sent.Claim, c.Sent.Version},
	})
	if err != nil {
		return cluster.StreamState{}, err
	}
	return decodeClaimed(reply)
}

// flag is how scripts are told yes and no.
func flag(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// decodeClaimed reads the reply of stream_claim.
func decodeClaimed(reply []any) (cluster.StreamState, error) {
	if len(reply) != claimParts {
		return cluster.StreamState{}, unavailable(errMalformedReply)
	}
	var d decoder
	state := d.streamState(reply)
	state.UpstreamEvent = d.text(reply[4])
	state.Since, state.Version = d.numbers(reply[5]), d.number(reply[6])
	if d.err != nil {
		return cluster.StreamState{}, unavailable(d.err)
	}
	return state, nil
}

// streamState reads the four parts that both scripts tell of a stream.
func (d *decoder) streamState(parts []any) cluster.StreamState {
	return cluster.StreamState{Reader: d.text(parts[0]), Claim: d.number(parts[1]), Listener: d.number(parts[2]), Last: d.number(parts[3])}
}

// ReleaseStream implements [cluster.StreamStore]. It does not wait for replicas: who forgets it only takes the claim over later.
func (s *Store) ReleaseStream(ctx context.Context, id cluster.ID, claim int64) error {
	p := s.partitionOf(id)
	_, _, err := s.repeat(ctx, call{
		script: streamRelease,
		keys:   []string{p.session(id), p.deadlines(), p.more(id)},
		args:   []any{id.String(), claim, s.leewayMillis(), s.cfg.MaxAge.Milliseconds()},
	})
	return err
}

// StreamStates implements [cluster.StreamStore].
func (s *Store) StreamStates(ctx context.Context, ids []cluster.ID) []cluster.StreamState {
	groups := s.group(len(ids), statesPerScript, func(i int) cluster.ID { return ids[i] })
	calls := make([]call, len(groups))
	for g, group := range groups {
		p := group.partition
		c := call{
			script: streamStates, keys: append(make([]string, 0, 1+2*len(group.members)), p.deadlines()),
			args: []any{s.leewayMillis(), s.cfg.MaxAge.Milliseconds()},
		}
		for _, i := range group.members {
			c.keys = append(c.keys, p.session(ids[i]), p.more(ids[i]))
			c.args = append(c.args, ids[i].String())
		}
		calls[g] = c
	}
	states := make([]cluster.StreamState, len(ids))
	for g, result := range s.pipeline(ctx, calls) {
		for n, state := range decodeStates(result, len(groups[g].members)) {
			states[groups[g].members[n]] = state
		}
	}
	return states
}

// decodeStates reads the reply of stream_states for n sessions.
func decodeStates(result pipelined, n int) []cluster.StreamState {
	states := make([]cluster.StreamState, n)
	if result.err == nil && len(result.reply) != stateParts*n {
		result.err = unavailable(errMalformedReply)
	}
	for i := range states {
		if result.err != nil {
			states[i].Err = result.err
			continue
		}
		states[i] = decodeState(result.reply[stateParts*i:])
	}
	return states
}

func decodeState(parts []any) cluster.StreamState {
	var d decoder
	lives := d.truth(parts[0])
	state := d.streamState(parts[1:])
	state.Begins, state.Since, state.Version = d.numbers(parts[5]), d.numbers(parts[6]), d.number(parts[7])
	switch {
	case d.err != nil:
		return cluster.StreamState{Err: unavailable(d.err)}
	case !lives:
		return cluster.StreamState{Err: cluster.ErrNotFound}
	default:
		return state
	}
}
