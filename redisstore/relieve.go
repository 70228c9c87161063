package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Relieve implements [cluster.CleanupStore]. On a Redis Cluster only the partitions of the servers that are above are touched.
func (s *Store) Relieve(ctx context.Context, c cluster.RelieveCall) (cluster.Relieved, error) {
	full, usage, away := s.partitionsAbove(ctx, c.Above)
	relieved := cluster.Relieved{Usage: usage}
	if len(full) == 0 {
		return relieved, away
	}
	var err error
	c.Limit = min(max(c.Limit, 1), cleanupBatch)
	relieved, err = s.relieve(ctx, c, full)
	s.traceEvicted(ctx, relieved.Evicted)
	relieved.Usage = usage
	if isBroken(err) {
		relieved.Repairs, err = s.mendBrokenOf(ctx, c.Cleanup, full, relievePages*c.Limit, err)
	}
	return relieved, errors.Join(err, away)
}

// relieve lets sessions of some partitions go.
func (s *Store) relieve(ctx context.Context, c cluster.RelieveCall, full []partition) (relieved cluster.Relieved, err error) {
	limit := c.Limit
	oldest, err := s.heads(ctx, full, partition.ended, "+inf", 0, limit)
	if err != nil {
		return relieved, err
	}
	if len(oldest) > 0 {
		relieved.Purged, err = s.Purge(ctx, c.Cleanup, oldest)
		return relieved, err
	}
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return relieved, unavailable(err)
	}
	if !c.Force {
		// What a request in flight does reaches the store with the reports: until then a session only looks idle.
		c.IdleFor = max(c.IdleFor, s.cfg.ReportInterval+s.cfg.ReportSlack)
	}
	idleSince := strconv.FormatInt(now.Add(-c.IdleFor).UnixMilli(), 10)
	for page := range relievePages { // those that have been idle the longest may all have requests in flight
		idlest, err := s.heads(ctx, full, partition.lru, idleSince, page*limit, limit)
		if err != nil {
			return relieved, err
		}
		if len(idlest) == 0 {
			break
		}
		relieved.Evicted, err = s.End(ctx, cluster.EndCall{
			Cleanup: c.Cleanup, IDs: idlest, Status: cluster.StatusEvicted, IdleFor: c.IdleFor, SpareBusy: !c.Force,
		})
		if err != nil || len(relieved.Evicted) > 0 {
			return relieved, err
		}
	}
	relieved.Spent = true
	return relieved, nil
}

// relievePages is how many batches of busy sessions one call passes over in search of one that may go.
const relievePages = 50

// heads reads n members of a sorted set of each partition, up to a score and after the first few.
func (s *Store) heads(ctx context.Context, partitions []partition, index func(partition) string, most string, skip, n int) ([]cluster.ID, error) {
	pipe := s.client.Pipeline()
	heads := make([]*redis.StringSliceCmd, len(partitions))
	for i, p := range partitions {
		heads[i] = pipe.ZRangeByScore(ctx, index(p), &redis.ZRangeBy{Min: "-inf", Max: most, Offset: int64(skip), Count: int64(n)})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(err)
	}
	var ids []cluster.ID
	for _, head := range heads {
		for _, member := range head.Val() {
			if id, err := cluster.ParseID(member); err == nil { // else it is for the reconciler
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// partitionsAbove returns the partitions on servers that use more than a share of their memory limit, and the highest share.
// Servers that do not answer are left out, and are the error.
func (s *Store) partitionsAbove(ctx context.Context, share float64) (above []partition, highest float64, err error) {
	nodes, isCluster := s.client.(*redis.ClusterClient)
	if !isCluster {
		usage, err := memoryUsage(ctx, s.client)
		if err != nil || usage <= share {
			return nil, usage, err
		}
		return s.partitions, usage, nil
	}
	var mu sync.Mutex
	full := make(map[string]bool)
	var errs []error
	err = nodes.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		usage, err := memoryUsage(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		highest = max(highest, usage)
		full[node.Options().Addr] = err == nil && usage > share
		errs = append(errs, err)
		return nil
	})
	if err != nil {
		return nil, highest, unavailable(err)
	}
	for _, p := range s.partitions {
		node, err := nodes.MasterForKey(ctx, p.lru())
		if err != nil {
			errs = append(errs, unavailable(err))
			continue
		}
		if full[node.Options().Addr] {
			above = append(above, p)
		}
	}
	return above, highest, errors.Join(errs...)
}

// memoryUsage returns the share of its memory limit that a server uses, 0 when it has no limit or does not tell.
func memoryUsage(ctx context.Context, node redis.Cmdable) (float64, error) {
	text, err := node.Info(ctx, "memory").Result()
	if err != nil && !isReply(err) {
		return 0, unavailable(err)
	}
	used, limit := infoNumber(text, "used_memory"), infoNumber(text, "maxmemory")
	if limit <= 0 {
		return 0, nil
	}
	return used / limit, nil
}

// infoNumber reads a number from the answer to INFO, 0 when it is not there.
func infoNumber(text, name string) float64 {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			n, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n
		}
	}
	return 0
}
