package redisstore

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// placeYoung is how long a principal's place is left alone: its session may be about to be created.
const placeYoung = 30 * time.Second

// mendPlaces gives back the places of a principal whose sessions live no more.
func (s *Store) mendPlaces(ctx context.Context, principal cluster.Principal) ([]cluster.Repair, error) {
	key := principalKey(s.prefix, principal)
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return nil, unavailable(err)
	}
	repairs, err := s.limitPlaces(ctx, key)
	l := &listing{indexes: []string{key}, after: position{score: math.MinInt64}}
	settled := strconv.FormatInt(now.Add(-placeYoung).UnixMilli(), 10)
	for more := true; more && err == nil; {
		var members []position
		members, more, err = s.nextMembers(ctx, l, settled, placeChecks)
		if isBroken(err) {
			repairs = append(repairs, cluster.Repair{Kind: cluster.RepairRecordBroken})
			err = s.client.Unlink(ctx, key).Err() // the walk of the indexes makes it anew
		}
		if err != nil {
			return repairs, unavailable(err)
		}
		if len(members) == 0 {
			break
		}
		l.after = members[len(members)-1]
		var some []cluster.Repair
		some, err = s.checkPlaces(ctx, principal, members)
		repairs = append(repairs, some...)
	}
	return repairs, err
}

// limitPlaces gives a principal's places their TTL, if they have lost it.
func (s *Store) limitPlaces(ctx context.Context, key string) ([]cluster.Repair, error) {
	const withoutTTL = -1 // as PTTL says it; the client keeps it as nanoseconds
	ttl, err := s.client.PTTL(ctx, key).Result()
	if err != nil {
		return nil, unavailable(err)
	}
	if ttl != withoutTTL {
		return nil, nil
	}
	if err := s.client.PExpire(ctx, key, time.Duration(s.placesMillis())*time.Millisecond).Err(); err != nil {
		return nil, unavailable(err)
	}
	return []cluster.Repair{{Kind: cluster.RepairTTLMissing}}, nil
}

// checkPlaces gives back those of some places that belong to no live session.
func (s *Store) checkPlaces(ctx context.Context, principal cluster.Principal, places []position) ([]cluster.Repair, error) {
	var repairs []cluster.Repair
	foreign := slices.DeleteFunc(slices.Clone(places), isID)
	if len(foreign) > 0 {
		var err error
		if repairs, err = s.dropMembers(ctx, principalKey(s.prefix, principal), foreign, cluster.RepairPlaceWrong); err != nil {
			return nil, err
		}
	}
	ids, err := idsOf(slices.DeleteFunc(slices.Clone(places), func(p position) bool { return !isID(p) }))
	if err != nil {
		return repairs, unavailable(err)
	}
	gone, err := s.clearPlaces(ctx, principal, ids)
	for _, id := range gone {
		repairs = append(repairs, cluster.Repair{ID: id, Kind: cluster.RepairPlaceWrong})
	}
	return repairs, err
}

func isID(p position) bool {
	id, err := cluster.ParseID(p.id)
	return err == nil && id.String() == p.id
}

// givePlaces gives live sessions that have lost their places among their principals' new ones.
func (s *Store) givePlaces(ctx context.Context, members []position) ([]cluster.Repair, error) {
	ids, err := idsOf(members)
	if err != nil {
		return nil, unavailable(err)
	}
	owned, err := s.owners(ctx, ids)
	if err != nil {
		return nil, err
	}
	byPrincipal := make(map[cluster.Principal][]any)
	for i, o := range owned {
		// The place of one that is past its end may have been given to another.
		if o.principal != "" && o.principal.Valid() && o.status.Live() && !o.isDue {
			byPrincipal[o.principal] = append(byPrincipal[o.principal], o.created, ids[i].String())
		}
	}
	var calls []call
	var principals []cluster.Principal
	for principal, places := range byPrincipal {
		for some := range slices.Chunk(places, 2*cleanupBatch) {
			calls = append(calls, call{
				script: placeGive, keys: []string{principalKey(s.prefix, principal)}, args: append([]any{s.placesMillis()}, some...),
			})
			principals = append(principals, principal)
		}
	}
	var repairs []cluster.Repair
	var errs []error
	for i, result := range s.pipeline(ctx, calls) {
		given, err := decodeIDs(result.reply)
		if err = errors.Join(result.err, err); err == nil && len(given) > 0 {
			given, err = s.keepLive(ctx, principals[i], given)
		}
		for _, id := range given {
			repairs = append(repairs, cluster.Repair{ID: id, Kind: cluster.RepairPlaceWrong})
		}
		errs = append(errs, err)
	}
	return repairs, errors.Join(errs...)
}

// keepLive takes those places back that were given to sessions which have ended meanwhile, and returns the others.
func (s *Store) keepLive(ctx context.Context, principal cluster.Principal, given []cluster.ID) ([]cluster.ID, error) {
	gone, err := s.clearPlaces(ctx, principal, given)
	return slices.DeleteFunc(given, func(id cluster.ID) bool { return slices.Contains(gone, id) }), err
}
