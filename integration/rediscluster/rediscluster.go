// Package rediscluster runs a Redis Cluster of one's own, three primaries with a replica each: real processes on free
// loopback ports, in temporary folders, gone afterwards.
package rediscluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

const (
	shards = 3
	slots  = 16384

	// introduction is how long two nodes may take to get to know each other. Then they have given up.
	introduction = 3 * time.Second

	healthyTimeout = 30 * time.Second
	startTries     = 3
)

// Options say how the cluster behaves.
type Options struct {
	// NodeTimeout is how long a node may be silent before it counts as down. Default: 1 s.
	NodeTimeout time.Duration
	// Users are ACL users of all nodes, as in redisserver.Options.
	Users []string
	// FullCoverage makes all nodes refuse while a slot is served by nobody (cluster-require-full-coverage), which is
	// Redis's own default.
	FullCoverage bool
	// TLS makes the nodes speak TLS alone, with whom this authority has certified. Default: no TLS.
	TLS *authority.Authority
}

// Topology is a Redis Cluster. It is not for use by several goroutines at once.
type Topology struct {
	nodes []node
}

// node is one server of the cluster. The first three start as primaries, the others as their replicas, in this order.
type node struct {
	*redisserver.Server
	busPort string
}

// Start starts the nodes, makes them a cluster and waits until it is healthy. It returns redisserver.ErrNotInstalled when
// there is no redis-server. The caller must call Close.
func Start(ctx context.Context, options Options) (*Topology, error) {
	var failed error
	for range startTries { // another program may take a port before Redis does
		t := &Topology{}
		err := t.start(ctx, options)
		if err == nil {
			return t, nil
		}
		if failed = errors.Join(err, t.Close()); !errors.Is(failed, process.ErrAddressInUse) {
			break
		}
	}
	return nil, failed
}

func (t *Topology) start(ctx context.Context, options Options) error {
	for range 2 * shards {
		if err := t.startNode(ctx, options); err != nil {
			return err
		}
	}
	for i, n := range t.nodes {
		if err := n.assign(ctx, i); err != nil {
			return err
		}
	}
	if err := t.introduce(ctx); err != nil {
		return err
	}
	for i, n := range t.nodes[shards:] {
		id, err := t.nodes[i].ask(ctx, "myid")
		if err != nil {
			return err
		}
		err = wait(ctx, func(ctx context.Context) error { // it may not have heard of that one yet
			_, err := n.ask(ctx, "replicate", id)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := t.WaitHealthy(ctx); err != nil {
		return err
	}
	return t.setNodeTimeout(ctx, cmp.Or(options.NodeTimeout, time.Second))
}

func (t *Topology) setNodeTimeout(ctx context.Context, timeout time.Duration) error {
	for _, n := range t.nodes {
		client := n.Client()
		err := client.ConfigSet(ctx, "cluster-node-timeout", strconv.FormatInt(timeout.Milliseconds(), 10)).Err()
		if err = errors.Join(err, client.Close()); err != nil {
			return fmt.Errorf("set the node timeout of %s: %w", n.Address(), err)
		}
	}
	return nil
}

func (t *Topology) startNode(ctx context.Context, options Options) error {
	// By default the bus listens 10,000 ports above, which may be out of range, or anybody's.
	bus, err := process.FreeAddress()
	if err != nil {
		return err
	}
	_, busPort, _ := net.SplitHostPort(bus) // made by FreeAddress, so well formed
	fullCoverage := "no"                    // then the death of one primary makes only its own slots refuse, until its replica has taken over
	if options.FullCoverage {
		fullCoverage = "yes"
	}
	server, err := redisserver.Start(ctx, redisserver.Options{Users: options.Users, TLS: options.TLS, Args: []string{
		"--cluster-enabled", "yes", "--cluster-port", busPort,
		// Nodes also get to know each other at this pace.
		"--cluster-node-timeout", "1000",
		// However long its link was down, a replica may take over: here it is the only one.
		"--cluster-replica-validity-factor", "0",
		"--cluster-require-full-coverage", fullCoverage,
		"--repl-ping-replica-period", "1",
	}})
	if err != nil {
		return err
	}
	t.nodes = append(t.nodes, node{server, busPort})
	return nil
}

// assign gives node i its slots, if it is a primary.
func (n node) assign(ctx context.Context, i int) error {
	// Nodes that all begin with the same epoch would settle it among themselves, one a round.
	if _, err := n.ask(ctx, "set-config-epoch", i+1); err != nil {
		return err
	}
	if i >= shards {
		return nil
	}
	_, err := n.ask(ctx, "addslotsrange", i*slots/shards, (i+1)*slots/shards-1)
	return err
}

// introduce makes all nodes know each other.
func (t *Topology) introduce(ctx context.Context) error {
	first := t.nodes[0]
	host, port, _ := net.SplitHostPort(first.Address()) // made by FreeAddress, so well formed
	var introduced time.Time
	return wait(ctx, func(ctx context.Context) error {
		err := t.acquainted(ctx)
		if err == nil || time.Since(introduced) < introduction {
			return err
		}
		introduced = time.Now()
		for _, n := range t.nodes[1:] {
			if _, err := n.ask(ctx, "meet", host, port, first.busPort); err != nil {
				return err
			}
		}
		return err
	})
}

// ask runs a subcommand of CLUSTER.
func (n node) ask(ctx context.Context, args ...any) (string, error) {
	client := n.Client()
	defer client.Close()
	answer, err := client.Do(ctx, append([]any{"cluster"}, args...)...).Text()
	if err != nil {
		return "", fmt.Errorf("CLUSTER %v at %s: %w", args[0], n.Address(), err)
	}
	return answer, nil
}

// acquainted looks whether all nodes know all others.
func (t *Topology) acquainted(ctx context.Context) error {
	for _, n := range t.nodes {
		if err := n.expect(ctx, "cluster_known_nodes", strconv.Itoa(len(t.nodes))); err != nil {
			return err
		}
	}
	return nil
}

// expect looks at a line of CLUSTER INFO.
func (n node) expect(ctx context.Context, field, want string) error {
	info, err := n.ask(ctx, "info")
	if err != nil {
		return err
	}
	if !strings.Contains(info, field+":"+want+"\r\n") {
		return fmt.Errorf("the cluster node %s does not have %s %s", n.Address(), field, want)
	}
	return nil
}

// URL is the cluster as a redis-cluster:// or, with TLS, a rediss-cluster:// URL, for a user of the nodes (nil for the default one). It names all nodes.
func (t *Topology) URL(user *url.Userinfo) string {
	login := ""
	if user != nil {
		login = user.String() + "@"
	}
	addresses := make([]string, len(t.nodes))
	for i, n := range t.nodes {
		addresses[i] = n.Address()
	}
	return t.nodes[0].Scheme() + "-cluster://" + login + strings.Join(addresses, ",")
}

// Servers are the nodes, in no order.
func (t *Topology) Servers() []*redisserver.Server {
	servers := make([]*redisserver.Server, len(t.nodes))
	for i, n := range t.nodes {
		servers[i] = n.Server
	}
	return servers
}

// Client returns a new client of the cluster as the default user. The caller must close it.
func (t *Topology) Client() *redis.ClusterClient {
	addresses := make([]string, len(t.nodes))
	for i, n := range t.nodes {
		addresses[i] = n.Address()
	}
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addresses, TLSConfig: t.nodes[0].TLSConfig(), ContextTimeoutEnabled: true, DisableIdentity: true,
	})
}

// Restore starts the nodes that were killed and waits until the cluster is healthy. It should not be called before their
// replicas have taken over: a node without persistence comes back empty, and so will be its replica.
func (t *Topology) Restore(ctx context.Context) error {
	for _, n := range t.nodes {
		if n.Running() {
			continue
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return t.WaitHealthy(ctx)
}

// WaitHealthy waits until all nodes agree that all slots are served, and each primary has a replica, at most 30 s.
func (t *Topology) WaitHealthy(ctx context.Context) error { return wait(ctx, t.healthy) }

func wait(ctx context.Context, probe process.Probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthyTimeout, errors.New("the cluster was not healthy within "+healthyTimeout.String()))
	defer cancel()
	return process.Poll(ctx, probe)
}

func (t *Topology) healthy(ctx context.Context) error {
	var primaries int
	for _, n := range t.nodes {
		if err := n.expect(ctx, "cluster_state", "ok"); err != nil {
			return err
		}
		if err := n.sees(ctx, len(t.nodes)); err != nil {
			return err
		}
		if n.CheckReplica(ctx) == nil {
			continue
		}
		if err := n.CheckPrimary(ctx, 1); err != nil {
			return err
		}
		primaries++
	}
	if primaries != shards {
		return fmt.Errorf("the cluster has %d primaries, want %d", primaries, shards)
	}
	return nil
}

// sees looks whether a node finds every node in its place: three primaries that each name a replica, and nobody failing.
func (n node) sees(ctx context.Context, nodes int) error {
	client := n.Client()
	defer client.Close()
	ranges, err := client.ClusterSlots(ctx).Result() //nolint:staticcheck // what the store's client goes by; SHARDS lists the dead, too
	if err != nil {
		return err
	}
	seen := 0
	for _, r := range ranges {
		seen += len(r.Nodes)
	}
	if seen != nodes {
		return fmt.Errorf("the cluster node %s sees %d nodes that serve, want %d", n.Address(), seen, nodes)
	}
	list, err := n.ask(ctx, "nodes")
	if err != nil {
		return err
	}
	if strings.Contains(list, "fail") {
		return fmt.Errorf("the cluster node %s sees a failing node", n.Address())
	}
	return nil
}

// Close ends everything and removes the folders.
func (t *Topology) Close() error {
	var errs []error
	for _, n := range t.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}
