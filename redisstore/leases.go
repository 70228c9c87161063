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
	p := s.partitionOf(c.ID)
	reply, err := s.runLease(ctx, call{
		script: sessionLease,
		keys:   []string{p.session(c.ID), p.more(c.ID), p.lru(), p.deadlines(), p.pending(c.ID)},
		args: []any{
			c.ID.String(), c.Digest[:], c.Upstream, string(c.Principal),
			s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never,
			intervalMicros(s.cfg.RequestRate), s.cfg.RequestBurst, max(c.Want, c.Need, 1), max(c.Need, 1),
			s.cfg.MaxPending, c.Pending, s.leewayMillis(), c.KnownVersion,
		},
	})
	if err != nil {
		return cluster.Grant{}, err
	}
	return decodeGrant(c.ID, reply)
}

// decodeGrant reads the reply of session_lease: of a record that the caller knows only the number of requests in flight is told.
func decodeGrant(id cluster.ID, reply []any) (cluster.Grant, error) {
	if len(reply) < 4 {
		return cluster.Grant{}, unavailable(errMalformedReply)
	}
	var d decoder
	grant := cluster.Grant{
		Budget: int(d.number(reply[0])), Left: int(d.number(reply[1])), EndsIn: d.millis(reply[2]), At: time.UnixMicro(d.number(reply[3])).UTC(),
	}
	var err error
	if grant.IsKnown = len(reply) == 5; grant.IsKnown {
		grant.Pending = int(d.number(reply[4]))
	} else {
		grant.Session, _, err = decodeAnswer(id, reply[4:])
		grant.Pending = grant.Session.Pending
	}
	if err = errors.Join(err, d.err); err != nil {
		return cluster.Grant{}, unavailable(err)
	}
	return grant, nil
}

// Report implements [cluster.LeaseStore].
func (s *Store) Report(ctx context.Context, reports []cluster.Report) []cluster.Renewal {
	groups := s.group(len(reports), reportsPerScript, func(i int) cluster.ID { return reports[i].ID })
	calls := make([]call, len(groups))
	for g, group := range groups {
		calls[g] = s.reportCall(group.partition, pickAll(reports, group.members))
	}
	renewals := make([]cluster.Renewal, len(reports))
	for g, result := range s.pipeline(ctx, calls) {
		for n, renewal := range decodeRenewals(result, len(groups[g].members)) {
			renewals[groups[g].members[n]] = renewal
		}
	}
	return renewals
}

// group is what one script takes: some sessions of one partition, by their numbers in the caller's list.
type group struct {
	partition partition
	members   []int
}

// group splits n sessions into groups of at most size.
func (s *Store) group(n, size int, id func(int) cluster.ID) []group {
	var groups []group
	open := make(map[int]int, len(s.partitions)) // partition -> its group that is not full
	for i := range n {
		p := s.indexOf(id(i))
		g, found := open[p]
		if !found || len(groups[g].members) == size {
			g = len(groups)
			open[p] = g
			groups = append(groups, group{partition: s.partitions[p]})
		}
		groups[g].members = append(groups[g].members, i)
	}
	return groups
}

func pickAll[T any](all []T, members []int) []T {
	picked := make([]T, len(members))
	for n, i := range members {
		picked[n] = all[i]
	}
	return picked
}

func (s *Store) reportCall(p partition, reports []cluster.Report) call {
	keys := append(make([]string, 0, 2+2*len(reports)), p.lru(), p.deadlines())
	args := []any{
		s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.lifetimeMillis(), never,
		intervalMicros(s.cfg.RequestRate), s.cfg.RequestBurst, s.leewayMillis(),
	}
	for _, r := range reports {
		keys = append(keys, p.session(r.ID), p.pending(r.ID))
		silent := int64(-1)
		if r.Idle >= 0 {
			silent = r.Idle.Milliseconds()
		}
		args = append(args, r.ID.String(), silent, r.Requests, r.Unspent, r.UnspentSince.UnixMicro(), r.Want, len(r.Started))
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

// renewalParts is how many parts session_report answers for each session.
const renewalParts = 7

// decodeRenewals reads the reply of session_report for n sessions.
func decodeRenewals(result pipelined, n int) []cluster.Renewal {
	renewals := make([]cluster.Renewal, n)
	if result.err == nil && len(result.reply) != renewalParts*n {
		result.err = unavailable(errMalformedReply)
	}
	for i := range renewals {
		if result.err != nil {
			renewals[i].Err = result.err
			continue
		}
		renewals[i] = decodeRenewal(result.reply[renewalParts*i:])
	}
	return renewals
}

func decodeRenewal(answer []any) cluster.Renewal {
	var d decoder
	lives := d.truth(answer[0])
	renewal := cluster.Renewal{
		Version: d.number(answer[1]),
		Budget:  int(d.number(answer[2])),
		Left:    int(d.number(answer[3])),
		EndsIn:  d.millis(answer[4]),
		At:      time.UnixMicro(d.number(answer[5])).UTC(),
		Pending: int(d.number(answer[6])),
	}
	switch {
	case d.err != nil:
		return cluster.Renewal{Err: unavailable(d.err)}
	case !lives:
		return cluster.Renewal{Err: cluster.ErrNotFound}
	default:
		return renewal
	}
}

// Check implements [cluster.LeaseStore].
func (s *Store) Check(ctx context.Context, ids []cluster.ID) []error {
	groups := s.group(len(ids), checksPerScript, func(i int) cluster.ID { return ids[i] })
	calls := make([]call, len(groups))
	for g, group := range groups {
		c := call{
			script: sessionCheck, keys: []string{group.partition.deadlines()},
			args: []any{s.leewayMillis(), s.cfg.MaxAge.Milliseconds()},
		}
		for _, i := range group.members {
			c.keys = append(c.keys, group.partition.session(ids[i]))
			c.args = append(c.args, ids[i].String())
		}
		calls[g] = c
	}
	errs := make([]error, len(ids))
	for g, result := range s.pipeline(ctx, calls) {
		for n, err := range decodeChecks(result, len(groups[g].members)) {
			errs[groups[g].members[n]] = err
		}
	}
	return errs
}

// decodeChecks reads the reply of session_check for n sessions.
func decodeChecks(result pipelined, n int) []error {
	errs := make([]error, n)
	if result.err == nil && len(result.reply) != n {
		result.err = unavailable(errMalformedReply)
	}
	for i := range errs {
		if result.err != nil {
			errs[i] = result.err
			continue
		}
		var d decoder
		switch lives := d.truth(result.reply[i]); {
		case d.err != nil:
			errs[i] = unavailable(d.err)
		case !lives:
			errs[i] = cluster.ErrNotFound
		}
	}
	return errs
}
