package redisstore

import (
	"context"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// ownersPerScript is how many sessions one run of sessions_owners takes: it only reads.
const ownersPerScript = 100

// owned is what the reconciler compares with what is kept beside a session's record.
type owned struct {
	status    cluster.Status // empty when there is no record
	isDue     bool           // past its end
	principal cluster.Principal
	created   int64 // ms since 1970
}

// owners tells of some sessions whose they are, in their order.
func (s *Store) owners(ctx context.Context, ids []cluster.ID) ([]owned, error) {
	groups := s.group(len(ids), ownersPerScript, func(i int) cluster.ID { return ids[i] })
	calls := make([]call, len(groups))
	for g, group := range groups {
		calls[g] = call{script: sessionsOwners, keys: []string{group.partition.deadlines()}, args: idArgs(pickAll(ids, group.members))}
		for _, i := range group.members {
			calls[g].keys = append(calls[g].keys, group.partition.session(ids[i]))
		}
	}
	all := make([]owned, len(ids))
	for g, result := range s.pipeline(ctx, calls) {
		some, err := decodeOwners(result, len(groups[g].members))
		if err != nil {
			return nil, err
		}
		for n, o := range some {
			all[groups[g].members[n]] = o
		}
	}
	return all, nil
}

// decodeOwners reads the reply of sessions_owners for n sessions.
func decodeOwners(result pipelined, n int) ([]owned, error) {
	if result.err != nil {
		return nil, result.err
	}
	if len(result.reply) != 4*n {
		return nil, unavailable(errMalformedReply)
	}
	d := decoder{tolerant: true} // what is wrong with one record is mended elsewhere
	some := make([]owned, n)
	for i := range some {
		part := result.reply[4*i:]
		some[i] = owned{statusByCode[d.text(part[0])], d.truth(part[1]), cluster.Principal(d.text(part[2])), d.number(part[3])}
	}
	if d.err != nil {
		return nil, unavailable(d.err)
	}
	return some, nil
}
