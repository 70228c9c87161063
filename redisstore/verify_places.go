package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// checkPlaces compares the places of principals with the live sessions of all partitions: id -> principal. A place without
// a session is what a creator leaves behind that died or was cut off; it is cleared when the principal needs it.
func (v *verifier) checkPlaces(s *Store, live map[string]string) error {
	var keys []string
	collect := func(node redis.Cmdable) error {
		iter := node.Scan(v.ctx, 0, principalKey(s.prefix, "*"), 1000).Iterator()
		for iter.Next(v.ctx) {
			keys = append(keys, iter.Val())
		}
		return iter.Err()
	}
	if err := v.eachNode(collect); err != nil {
		return err
	}
	placed := make(map[string]string, len(live))
	for _, key := range keys {
		_, tag, _ := strings.Cut(key, "{")
		principal := strings.TrimSuffix(tag, "}")
		ids, err := v.client.ZRange(v.ctx, key, 0, -1).Result()
		if err != nil {
			return err
		}
		for _, id := range ids {
			placed[id] = principal
			if live[id] != principal {
				v.violation("principal %s has a place for %s, which is no live session of it", principal, id)
			}
		}
		if err := v.checkLifetime(key); err != nil {
			return err
		}
	}
	for id, principal := range live {
		if placed[id] != principal {
			if err := v.missesPlace(s, id, principal); err != nil {
				return err
			}
		}
	}
	return nil
}

// missesPlace tells of a live session without a place, unless it is past its end and its place has been given to another.
func (v *verifier) missesPlace(s *Store, id, principal string) error {
	now, err := v.client.Time(v.ctx).Result()
	if err != nil {
		return err
	}
	isDue := func(p partition) bool {
		due := v.client.ZRangeByScore(v.ctx, p.deadlines(), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10)})
		if err == nil {
			err = due.Err()
		}
		return slices.Contains(due.Val(), id)
	}
	if !slices.ContainsFunc(s.partitions, isDue) {
		v.violation("session %s of principal %s has no place", id, principal)
	}
	return err
}

// eachNode visits all servers with data, one after the other.
func (v *verifier) eachNode(visit func(redis.Cmdable) error) error {
	nodes, isCluster := v.client.(*redis.ClusterClient)
	if !isCluster {
		return visit(v.client)
	}
	var mu sync.Mutex
	return nodes.ForEachMaster(v.ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		return visit(node)
	})
}
