package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Violations looks for disagreement between records, indexes and counts, and describes each in a line: a live session
// that is not in both its indexes, an ended one in a wrong one, an index entry or key without a record, a count that
// differs from a recount, a record that has outgrown the compact encoding, a key of a session without a TTL, events or
// frames that their own accounts do not fit, a principal's place without a live session or a session without its place.
// None is what the store guarantees, but for places: a creator that dies, or a fault when a place is given back, leaves one
// until the principal needs it.
//
// It reads every key of the store and is not atomic: it is for tests and for diagnosis of a quiet store.
func (s *Store) Violations(ctx context.Context) ([]string, error) {
	var found []string
	live := make(map[string]string)
	for _, p := range s.partitions {
		v := verifier{ctx: ctx, client: s.client, p: p, records: make(map[string]string), live: live}
		for _, check := range []func() error{
			v.readKeys, v.checkIndexes, v.checkCounts, v.checkOwned, v.checkLifetimes, v.checkKept, v.checkEncoding,
		} {
			if err := check(); err != nil {
				return nil, unavailable(err)
			}
		}
		found = append(found, v.found...)
	}
	v := verifier{ctx: ctx, client: s.client}
	if err := v.checkPlaces(s, live); err != nil {
		return nil, unavailable(err)
	}
	return append(found, v.found...), nil
}

type verifier struct {
	ctx     context.Context
	client  redis.UniversalClient
	p       partition
	records map[string]string // id -> status code
	live    map[string]string // id -> principal of live sessions that have one, of all partitions
	owned   []string          // keys that belong to a session besides its record
	found   []string
}

func (v *verifier) violation(format string, args ...any) {
	v.found = append(v.found, fmt.Sprintf(format, args...))
}

func (v *verifier) readKeys() error { return v.eachNode(v.readKeysOf) }

// readKeysOf reads the partition's keys that one node has.
func (v *verifier) readKeysOf(node redis.Cmdable) error {
	iter := node.Scan(v.ctx, 0, v.p.prefix+"*", 1000).Iterator()
	owned := v.p.owned()
	known := map[string]bool{v.p.lru(): true, v.p.deadlines(): true, v.p.ended(): true, v.p.counts(): true, v.p.fence(): true}
	for iter.Next(v.ctx) {
		key := iter.Val()
		id, isRecord := strings.CutPrefix(key, owned[0])
		switch {
		case isRecord:
			if err := v.readRecord(key, id); err != nil {
				return err
			}
		case slices.ContainsFunc(owned[1:], func(prefix string) bool { return strings.HasPrefix(key, prefix) }):
			v.owned = append(v.owned, key)
		case !known[key]:
			v.violation("key %s is none of the store's", key)
		}
	}
	return iter.Err()
}

func (v *verifier) readRecord(key, id string) error {
	fields, err := v.client.HMGet(v.ctx, key, "s", "p").Result()
	if err != nil {
		return err
	}
	status, _ := fields[0].(string)
	v.records[id] = status
	if principal, _ := fields[1].(string); principal != "" && statusByCode[status].Live() {
		v.live[id] = principal
	}
	return v.checkLifetime(key)
}

func (v *verifier) checkIndexes() error {
	for _, index := range []struct {
		key  string
		live bool
	}{{v.p.lru(), true}, {v.p.deadlines(), true}, {v.p.ended(), false}} {
		members, err := v.client.ZRange(v.ctx, index.key, 0, -1).Result()
		if err != nil {
			return err
		}
		in := make(map[string]bool, len(members))
		for _, id := range members {
			in[id] = true
			if _, exists := v.records[id]; !exists {
				v.violation("%s holds %s, which has no record", index.key, id)
			}
		}
		for id, code := range v.records {
			if belongs := statusByCode[code].Live() == index.live; belongs != in[id] {
				v.violation("session %s is %s; in %s: %v, want %v", id, statusByCode[code], index.key, in[id], belongs)
			}
		}
	}
	return nil
}

func (v *verifier) checkCounts() error {
	counts, err := v.client.HGetAll(v.ctx, v.p.counts()).Result()
	if err != nil {
		return err
	}
	recount := make(map[string]int)
	for _, code := range v.records {
		recount[code]++
	}
	for code, status := range statusByCode {
		counted := counts[code]
		if want := strconv.Itoa(recount[code]); counted != want && (counted != "" || want != "0") {
			v.violation("counts say %q %s sessions, there are %s", counted, status, want)
		}
	}
	return nil
}

func (v *verifier) checkOwned() error {
	ofLiveOnly := v.p.owned()[2:5] // pending, events, heads
	for _, key := range v.owned {
		id := key[strings.LastIndex(key, ":")+1:]
		code, exists := v.records[id]
		if !exists {
			v.violation("key %s has outlived its session", key)
		} else if statusByCode[code].Ended() && slices.ContainsFunc(ofLiveOnly, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			v.violation("key %s belongs to an ended session", key)
		}
	}
	return nil
}

func (v *verifier) checkEncoding() error {
	for id := range v.records {
		key := v.p.owned()[0] + id
		encoding, err := v.client.ObjectEncoding(v.ctx, key).Result()
		switch {
		case err == nil:
		case strings.Contains(strings.ToLower(err.Error()), "unknown"): // the embedded Redis has no encodings
			return nil
		case errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "ERR no such key"): // purged meanwhile
			continue
		default:
			return err
		}
		if encoding != "listpack" && encoding != "ziplist" {
			v.violation("record %s is encoded as %s, not as a listpack", key, encoding)
		}
	}
	return nil
}
