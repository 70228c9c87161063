package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// reportsPerScript is how many sessions one run of session_report takes: about half a millisecond of the server's time,
// during which everybody else waits.
const reportsPerScript = 25

// checksPerScript is the same for session_check, which only reads.
const checksPerScript = 100

// Lease implements [cluster.LeaseStore].
func (s *Store) Lease(ctx context.Context, c cluster.LeaseCall) (cluster.Grant, error) {
	p := s.partition
	reply, err := s.run(ctx, call{
		script: sessionLease,
		keys:   []string{p.session(c.ID), p.more(c.ID), p.lru(), p.deadlines()},
		args: []any{
			c.ID.String(), c.Digest[:], c.Upstream, string(c.Principal),
			s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never,
			s.intervalMicros(), s.cfg.RequestBurst, max(c.Want, 1),
		},
	})
	if err != nil {
		return cluster.Grant{}, err
	}
	if len(reply) < 2 {
		return cluster.Grant{}, unavailable(errMalformedReply)
	}
	var d decoder
	grant := cluster.Grant{Budget: int(d.number(reply[0])), EndsIn: d.millis(reply[1])}
	session, _, err := decodeAnswer(c.ID, reply[2:])
	if err = errors.Join(err, d.err); err != nil {
		return cluster.Grant{}, unavailable(err)
	}
	grant.Session = session
	return grant, nil
}

// Report implements [cluster.LeaseStore].
func (s *Store) Report(ctx context.Context, reports []cluster.Report) []cluster.Renewal {
	calls := make([]call, 0, len(reports)/reportsPerScript+1)
	for start := 0; start < len(reports); start += reportsPerScript {
		calls = append(calls, s.reportCall(reports[start:min(start+reportsPerScript, len(reports))]))
	}
	renewals := make([]cluster.Renewal, 0, len(reports))
	for i, result := range s.pipeline(ctx, calls) {
		n := min(reportsPerScript, len(reports)-i*reportsPerScript)
		renewals = append(renewals, decodeRenewals(result, n)...)
	}
	return renewals
}

func (s *Store) reportCall(reports []cluster.Report) call {
	p := s.partition
	keys := append(make([]string, 0, 2+2*len(reports)), p.lru(), p.deadlines())
	args := []any{
		s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never,
		s.intervalMicros(), s.cfg.RequestBurst,
	}
	for _, r := range reports {
		keys = append(keys, p.session(r.ID), p.pending(r.ID))
		silent := int64(-1)
		if r.Idle >= 0 {
			silent = r.Idle.Milliseconds()
		}
		args = append(args, r.ID.String(), silent, r.Requests, r.Unspent, r.UnspentAge.Microseconds(), r.Want, len(r.Started))
		for _, started := range r.Started {
			args = append(args, started.Key, started.Owner, started.Age.Milliseconds())
		}
		args = append(args, len(r.Finished))
		for _, key := range r.Finished {
			args = append(args, key)
		}
	}
	return call{script: sessionReport, keys: keys, args: args}
}

func decodeRenewals(result pipelined, n int) []cluster.Renewal {
	renewals := make([]cluster.Renewal, n)
	var d decoder
	err := result.err
	if err == nil && len(result.reply) != 4*n {
		err = unavailable(errMalformedReply)
	}
	for i := range renewals {
		if err != nil {
			renewals[i].Err = err
			continue
		}
		answer := result.reply[4*i:]
		if d.number(answer[0]) == 0 {
			renewals[i].Err = cluster.ErrNotFound
			continue
		}
		renewals[i] = cluster.Renewal{
			Version: d.number(answer[1]),
			Budget:  int(d.number(answer[2])),
			EndsIn:  d.millis(answer[3]),
		}
		if d.err != nil {
			renewals[i] = cluster.Renewal{Err: unavailable(d.err)}
		}
	}
	return renewals
}

// Check implements [cluster.LeaseStore].
func (s *Store) Check(ctx context.Context, ids []cluster.ID) []error {
	var calls []call
	for start := 0; start < len(ids); start += checksPerScript {
		c := call{script: sessionCheck, keys: []string{s.partition.deadlines()}}
		for _, id := range ids[start:min(start+checksPerScript, len(ids))] {
			c.keys = append(c.keys, s.partition.session(id))
			c.args = append(c.args, id.String())
		}
		calls = append(calls, c)
	}
	errs := make([]error, 0, len(ids))
	for i, result := range s.pipeline(ctx, calls) {
		n := len(calls[i].args)
		if result.err == nil && len(result.reply) != n {
			result.err = unavailable(errMalformedReply)
		}
		for j := range n {
			switch {
			case result.err != nil:
				errs = append(errs, result.err)
			case result.reply[j] == int64(1):
				errs = append(errs, nil)
			default:
				errs = append(errs, cluster.ErrNotFound)
			}
		}
	}
	return errs
}

// millis reads a duration in ms; a negative one stays negative: never.
func (d *decoder) millis(v any) time.Duration { return time.Duration(d.number(v)) * time.Millisecond }
