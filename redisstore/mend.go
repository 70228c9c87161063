package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A walk of the reconciler sees every session twice: once by its keys, once by the indexes. So drift shows in either
// direction. At the end of each partition its counts are compared with a recount.
//
//	keys of node 1, keys of node 2, ..., partition 0: lru, deadlines, ended, counts; partition 1: ...
//
// The cursor says where the walk is: "keys|<node>|<cursor of SCAN>", "index|<partition>|<index>|<position>", "counts|<partition>".

// pendingYoung is how long a request in flight is left alone, whoever holds it: its replica may just have begun.
const pendingYoung = 30 * time.Second

// Mend implements [cluster.CleanupStore].
func (s *Store) Mend(ctx context.Context, c cluster.MendCall) (cluster.Mended, error) {
	c.Limit = min(max(c.Limit, 1), maxPage)
	step, rest, _ := strings.Cut(cmp.Or(c.Cursor, keysCursor("", 0)), "|")
	var mended cluster.Mended
	var err error
	switch step {
	case "keys":
		mended, err = s.mendKeys(ctx, c, rest)
	case "index":
		mended, err = s.mendIndex(ctx, c, rest)
	case "counts":
		mended, err = s.mendCounts(ctx, c, rest)
	default:
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	if mended.Next == "" && errors.Is(err, cluster.ErrStoreUnavailable) {
		mended.Next = s.past(step, rest)
	}
	return mended, err
}

// past is where a walk goes on when it cannot look at something: at the next server, or the next partition.
func (s *Store) past(step, at string) string {
	first, _, _ := strings.Cut(at, "|")
	if step == "keys" {
		if _, isCluster := s.client.(*redis.ClusterClient); !isCluster {
			return indexCursor(0, 0, position{score: math.MinInt64})
		}
		return keysCursor(first+"\x00", 0) // whichever comes after it
	}
	p, err := strconv.Atoi(first)
	if err != nil || p+1 >= len(s.partitions) {
		return ""
	}
	return indexCursor(p+1, 0, position{score: math.MinInt64})
}

func keysCursor(node string, scan uint64) string { return fmt.Sprintf("keys|%s|%d", node, scan) }

// mendKeys looks at some keys of one node, and at the sessions they belong to.
func (s *Store) mendKeys(ctx context.Context, c cluster.MendCall, at string) (cluster.Mended, error) {
	address, scan, _ := strings.Cut(at, "|")
	cursor, err := strconv.ParseUint(scan, 10, 64)
	if err != nil {
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	names, nodes, err := s.nodes(ctx)
	if err != nil {
		return cluster.Mended{}, err
	}
	if _, isCluster := s.client.(*redis.ClusterClient); !isCluster && address != "" {
		return cluster.Mended{}, cluster.ErrInvalidCursor
	}
	// A node that is there no more is passed over: its keys are elsewhere, and the next walk finds them.
	i, _ := slices.BinarySearch(names, address)
	if i == len(names) {
		return cluster.Mended{Next: indexCursor(0, 0, position{score: math.MinInt64})}, nil
	}
	if names[i] != address {
		cursor = 0
	}
	keys, cursor, err := nodes[names[i]].Scan(ctx, cursor, s.prefix+":*", int64(c.Limit)).Result()
	if err != nil {
		return cluster.Mended{}, unavailable(err)
	}
	ids, principals := s.ownersOf(keys)
	mended := cluster.Mended{Looked: len(keys)}
	if mended.Repairs, err = s.mendSessions(ctx, c.Cleanup, ids); err != nil {
		return mended, err
	}
	var errs []error // of places: their sessions may be anywhere
	for _, principal := range principals {
		repairs, err := s.mendPlaces(ctx, principal)
		mended.Repairs, errs = append(mended.Repairs, repairs...), append(errs, err)
	}
	switch {
	case cursor != 0:
		mended.Next = keysCursor(names[i], cursor)
	case i+1 < len(names):
		mended.Next = keysCursor(names[i+1], 0)
	default:
		mended.Next = indexCursor(0, 0, position{score: math.MinInt64})
	}
	return mended, errors.Join(errs...)
}

// nodes returns the servers that hold keys, by name, and the names in order.
func (s *Store) nodes(ctx context.Context) ([]string, map[string]redis.Cmdable, error) {
	clients, isCluster := s.client.(*redis.ClusterClient)
	if !isCluster {
		return []string{""}, map[string]redis.Cmdable{"": s.client}, nil
	}
	var mu sync.Mutex
	nodes := make(map[string]redis.Cmdable)
	err := clients.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes[node.Options().Addr] = node
		return nil
	})
	if err != nil {
		return nil, nil, unavailable(err)
	}
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nodes, nil
}

// ownersOf returns the sessions and the principals that keys belong to. Keys of other kinds belong to nobody.
func (s *Store) ownersOf(keys []string) ([]cluster.ID, []cluster.Principal) {
	var principals []cluster.Principal
	owners := make(map[cluster.ID]bool)
	before, after, _ := strings.Cut(principalKey(s.prefix, "|"), "|")
	for _, key := range keys {
		if name, found := strings.CutPrefix(key, before); found {
			if p := cluster.Principal(strings.TrimSuffix(name, after)); p != "" && p.Valid() {
				principals = append(principals, p)
			}
			continue
		}
		id, err := cluster.ParseID(key[strings.LastIndexByte(key, ':')+1:])
		if err != nil || owners[id] {
			continue
		}
		p := s.partitionOf(id)
		if slices.ContainsFunc(p.owned(), func(prefix string) bool { return key == prefix+id.String() }) {
			owners[id] = true
		}
	}
	ids := make([]cluster.ID, 0, len(owners))
	for id := range owners {
		ids = append(ids, id)
	}
	return ids, principals
}

// mendBatch is how many sessions one run of sessions_mend looks at: about 0.2 ms of the server's time, as long as a script of the sweep takes.
const mendBatch = 13

// mendSessions mends what belongs to some sessions.
func (s *Store) mendSessions(ctx context.Context, who cluster.Cleanup, ids []cluster.ID) ([]cluster.Repair, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	alive, err := s.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	var repairs []cluster.Repair
	var errs []error
	// One after the other: the server does a pipeline in one go, and everybody else would wait for all of it.
	for _, group := range s.group(len(ids), mendBatch, func(i int) cluster.ID { return ids[i] }) {
		mend := s.mendCall(group.partition, who, alive, pickAll(ids, group.members))
		reply, _, err := s.repeat(ctx, mend)
		if isBroken(err) { // an index: what is of a session it looks at before it reads it
			var some []cluster.Repair
			if some, err = s.mendShapes(ctx, who, group.partition); err == nil {
				reply, _, err = s.repeat(ctx, mend)
			}
			repairs = append(repairs, some...)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		some, err := decodeRepairs(reply)
		repairs = append(repairs, some...)
		errs = append(errs, err)
	}
	return repairs, errors.Join(errs...)
}

func (s *Store) mendCall(p partition, who cluster.Cleanup, alive []string, ids []cluster.ID) call {
	args := make([]any, 0, 17+len(alive)+len(ids))
	for _, prefix := range p.owned() {
		args = append(args, prefix)
	}
	args = append(append(args, cleanupArgs(who)...),
		s.idleMillis(), s.cfg.MaxAge.Milliseconds(), s.cfg.InitializeTimeout.Milliseconds(), never, s.lifetimeMillis(),
		s.cfg.Retention.Milliseconds(), backstop.Milliseconds(), pendingYoung.Milliseconds(), len(alive))
	for _, incarnation := range alive {
		args = append(args, incarnation)
	}
	return call{
		script: sessionsMend,
		keys:   []string{p.lru(), p.deadlines(), p.ended(), p.fence()},
		args:   append(args, idArgs(ids)...),
	}
}

// decodeRepairs reads the reply of sessions_mend.
func decodeRepairs(reply []any) ([]cluster.Repair, error) {
	if len(reply)%2 != 0 {
		return nil, unavailable(errMalformedReply)
	}
	var d decoder
	repairs := make([]cluster.Repair, 0, len(reply)/2)
	for i := 0; i < len(reply); i += 2 {
		id, err := cluster.ParseID(d.text(reply[i]))
		kind := cluster.RepairKind(d.text(reply[i+1]))
		if err != nil || !slices.Contains(cluster.RepairKinds(), kind) {
			return nil, unavailable(errMalformedReply)
		}
		repairs = append(repairs, cluster.Repair{ID: id, Kind: kind})
	}
	return repairs, nil
}
