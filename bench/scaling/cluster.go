package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	clusterSessions = 10_000
	// maxHot is how many times the average the fullest partition may hold.
	maxHot = 1.5
)

// clusterResult is how sessions are spread over a Redis Cluster.
type clusterResult struct {
	Sessions   int   `json:"sessions"`
	Nodes      []int `json:"sessions_by_node"`
	Partitions []int `json:"sessions_by_partition"`
	// HottestNode and HottestPartition are the largest over the average.
	HottestNode      float64 `json:"hottest_node"`
	HottestPartition float64 `json:"hottest_partition"`
}

func spread(ctx context.Context, out io.Writer) (result clusterResult, err error) {
	servers, err := rediscluster.Start(ctx, rediscluster.Options{})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, servers.Close()) }()
	store, err := redisstore.Open(servers.URL(nil), redisstore.Options{Config: world.Limits()})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	err = world.InParallel(ctx, 16, clusterSessions, func(ctx context.Context, _ int) error {
		_, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: world.Upstream, Initialize: []byte(world.Initialize)}})
		return err
	})
	if err != nil {
		return result, err
	}
	client := servers.Client()
	defer func() { err = errors.Join(err, client.Close()) }()
	result.Sessions = clusterSessions
	if result.Nodes, result.Partitions, err = census(ctx, client); err != nil {
		return result, err
	}
	result.HottestNode, result.HottestPartition = hottest(result.Nodes), hottest(result.Partitions)
	fmt.Fprintf(out, "\nRedis Cluster, %d masters, %d sessions: %v on each, the fullest %.2f times the average; "+
		"%d partitions, the fullest %.2f times the average (goal: at most %.1f)\n",
		len(result.Nodes), result.Sessions, result.Nodes, result.HottestNode, len(result.Partitions), result.HottestPartition, maxHot)
	return result, nil
}

// census counts the live sessions of each master, and of each partition.
func census(ctx context.Context, client *redis.ClusterClient) (nodes, partitions []int, err error) {
	var mu sync.Mutex // guards the results
	err = client.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		keys, err := node.Keys(ctx, "*:lru").Result()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		sum := 0
		for _, key := range keys {
			n, err := node.ZCard(ctx, key).Result()
			if err != nil {
				return err
			}
			sum += int(n)
			partitions = append(partitions, int(n))
		}
		nodes = append(nodes, sum)
		return nil
	})
	slices.Sort(nodes)
	slices.Sort(partitions)
	return nodes, partitions, err
}

// hottest is the largest over the average.
func hottest(counts []int) float64 {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if sum == 0 {
		return 0
	}
	return float64(slices.Max(counts)) * float64(len(counts)) / float64(sum)
}
