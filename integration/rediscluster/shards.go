package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// Primary asks the nodes that run which of them is the primary of a key now.
func (t *Topology) Primary(ctx context.Context, key string) (*redisserver.Server, error) {
	shard, err := t.Shard(ctx, key)
	if err != nil {
		return nil, err
	}
	return shard[0], nil
}

// Shard asks the nodes that run which of them have a key now: the primary, and the replicas that are not known to be dead.
func (t *Topology) Shard(ctx context.Context, key string) ([]*redisserver.Server, error) {
	var errs []error
	for _, n := range t.nodes {
		if !n.Running() {
			continue
		}
		addresses, err := n.shardOf(ctx, key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var shard []*redisserver.Server
		for _, address := range addresses {
			i := slices.IndexFunc(t.nodes, func(other node) bool { return other.Address() == address })
			if i < 0 {
				return nil, fmt.Errorf("the cluster node %s names %s, which is none of this cluster", n.Address(), address)
			}
			shard = append(shard, t.nodes[i].Server)
		}
		return shard, nil
	}
	return nil, fmt.Errorf("find the primary of %s: %w", key, errors.Join(errs...))
}

// Agreed looks whether all nodes that run name the same primary for a key, and the same epoch. After a move it takes them a
// moment: a slot that moved on before might end up with two primaries for ever, because they take the same epoch.
func (t *Topology) Agreed(ctx context.Context, key string) error {
	var primary, epoch string
	for _, n := range t.nodes {
		if !n.Running() {
			continue
		}
		addresses, err := n.shardOf(ctx, key)
		if err != nil {
			return err
		}
		info, err := n.ask(ctx, "info")
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(info, "cluster_current_epoch:")
		its, _, _ := strings.Cut(rest, "\r\n")
		if primary == "" {
			primary, epoch = addresses[0], its
		}
		if addresses[0] != primary || its != epoch {
			return fmt.Errorf("the cluster names two primaries of %s: %s in epoch %s, %s in epoch %s", key, primary, epoch, addresses[0], its)
		}
	}
	return nil
}

// shardOf returns addresses, the primary's first.
func (n node) shardOf(ctx context.Context, key string) ([]string, error) {
	client := n.Client()
	defer client.Close()
	slot, err := client.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return nil, err
	}
	ranges, err := client.ClusterSlots(ctx).Result() //nolint:staticcheck // what the store's client goes by; SHARDS lists the dead, too
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		if int(slot) < r.Start || int(slot) > r.End {
			continue
		}
		addresses := make([]string, len(r.Nodes))
		for i, served := range r.Nodes {
			addresses[i] = served.Addr
		}
		return addresses, nil
	}
	return nil, fmt.Errorf("the cluster node %s knows nobody who serves slot %d", n.Address(), slot)
}

// WaitReplicated returns once every replica has all that its primary has acknowledged so far.
func (t *Topology) WaitReplicated(ctx context.Context) error {
	for _, n := range t.nodes {
		if n.CheckPrimary(ctx, 1) != nil {
			continue // a replica
		}
		if err := n.WaitReplicated(ctx, 1); err != nil {
			return err
		}
	}
	return nil
}

// migrateTimeout bounds the move of one key.
const migrateTimeout = 5 * time.Second

// Migration is the move of one slot to another primary, step by step.
type Migration struct {
	slot     int64
	from, to node
	target   string // the id of to
}

// Migrate begins to move the slot of a key to another primary. From then on keys of the slot that the old primary does not
// have are asked for at the new one. The caller goes on with Step until it says so, and ends with Finish.
func (t *Topology) Migrate(ctx context.Context, key string) (*Migration, error) {
	owner, err := t.Primary(ctx, key)
	if err != nil {
		return nil, err
	}
	m := &Migration{}
	for _, n := range t.nodes {
		switch {
		case n.Server == owner:
			m.from = n
		case m.to.Server == nil && n.CheckPrimary(ctx, 1) == nil:
			m.to = n
		}
	}
	client := m.from.Client()
	defer client.Close()
	if m.slot, err = client.ClusterKeySlot(ctx, key).Result(); err != nil {
		return nil, fmt.Errorf("find the slot of %s: %w", key, err)
	}
	source, err := m.from.ask(ctx, "myid")
	if err != nil {
		return nil, err
	}
	if m.target, err = m.to.ask(ctx, "myid"); err != nil {
		return nil, err
	}
	if _, err := m.to.ask(ctx, "setslot", m.slot, "importing", source); err != nil {
		return nil, err
	}
	_, err = m.from.ask(ctx, "setslot", m.slot, "migrating", m.target)
	return m, err
}

// Step moves up to n keys and tells whether there are more.
func (m *Migration) Step(ctx context.Context, n int) (more bool, err error) {
	client := m.from.Client()
	defer client.Close()
	keys, err := client.ClusterGetKeysInSlot(ctx, int(m.slot), n).Result()
	if err != nil || len(keys) == 0 {
		return false, err
	}
	host, port, _ := net.SplitHostPort(m.to.Address()) // made by FreeAddress, so well formed
	args := []any{"migrate", host, port, "", 0, migrateTimeout.Milliseconds(), "keys"}
	for _, key := range keys {
		args = append(args, key)
	}
	if err := client.Do(ctx, args...).Err(); err != nil {
		return false, fmt.Errorf("move keys of slot %d: %w", m.slot, err)
	}
	return true, nil
}

// Finish gives the slot to its new primary.
func (m *Migration) Finish(ctx context.Context) error {
	for _, n := range []node{m.to, m.from} { // in this order, so that somebody always has it
		if _, err := n.ask(ctx, "setslot", m.slot, "node", m.target); err != nil {
			return err
		}
	}
	return nil
}
