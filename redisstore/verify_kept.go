package redisstore

import (
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// checkLifetimes looks for keys of sessions that would stay for ever if nobody cleaned up.
func (v *verifier) checkLifetimes() error {
	for _, key := range v.owned {
		if err := v.checkLifetime(key); err != nil {
			return err
		}
	}
	return nil
}

// checkLifetime does that for one key. One that is gone by now has expired.
func (v *verifier) checkLifetime(key string) error {
	const withoutTTL = -1 // as PTTL says it; the client keeps it as nanoseconds
	ttl, err := v.client.PTTL(v.ctx, key).Result()
	if err == nil && ttl == withoutTTL {
		v.violation("key %s has no TTL", key)
	}
	return err
}

// checkKept looks for disagreement in what is kept of the sessions' messages.
func (v *verifier) checkKept() error {
	for _, key := range v.owned {
		id, err := cluster.ParseID(key[strings.LastIndex(key, ":")+1:])
		if err != nil {
			v.violation("key %s is of no session", key)
			continue
		}
		switch key {
		case v.p.events(id), v.p.heads(id):
			err = v.checkEvents(v.p.events(id), v.p.heads(id))
		case v.p.frames(id):
			err = v.checkFrames(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkEvents compares a session's events with their heads: the last position of each stream, and the bytes of all.
func (v *verifier) checkEvents(events, heads string) error {
	entries, err := v.client.XRange(v.ctx, events, "-", "+").Result()
	if err != nil {
		return err
	}
	told, err := v.client.HGetAll(v.ctx, heads).Result()
	if err != nil {
		return err
	}
	last, bytes := make(map[string]int64), 0
	for _, entry := range entries {
		stream, message := fieldOf(entry, "s"), fieldOf(entry, "d")
		position, err := strconv.ParseInt(fieldOf(entry, "p"), 10, 64)
		if err != nil || position <= last[stream] {
			v.violation("events %s: position %q of stream %q follows %d", events, fieldOf(entry, "p"), stream, last[stream])
		}
		last[stream] = position
		bytes += len(message)
	}
	if sum := told[""]; sum != strconv.Itoa(bytes) && (sum != "" || bytes > 0) {
		v.violation("heads %s say %q bytes, there are %d", heads, sum, bytes)
	}
	delete(told, "")
	for stream, position := range last {
		if told[stream] != strconv.FormatInt(position, 10) {
			v.violation("heads %s say that stream %q ends at %q, it ends at %d", heads, stream, told[stream], position)
		}
		delete(told, stream)
	}
	for stream := range told {
		v.violation("heads %s tell of stream %q, of which nothing is kept", heads, stream)
	}
	return nil
}

// checkFrames looks for gaps in a session's frames and in their running sum of bytes.
func (v *verifier) checkFrames(key string) error {
	entries, err := v.client.XRange(v.ctx, key, "-", "+").Result()
	if err != nil {
		return err
	}
	var number, sum int64
	for i, entry := range entries {
		at, errAt := strconv.ParseInt(strings.TrimSuffix(entry.ID, "-0"), 10, 64)
		all, errAll := strconv.ParseInt(fieldOf(entry, "c"), 10, 64)
		own, errOwn := strconv.ParseInt(fieldOf(entry, "b"), 10, 64)
		if errAt != nil || errAll != nil || errOwn != nil || (i > 0 && (at != number+1 || all != sum+own)) {
			v.violation("frames %s: entry %s with the sum %q follows %d with %d", key, entry.ID, fieldOf(entry, "c"), number, sum)
		}
		number, sum = at, all
	}
	return nil
}

func fieldOf(entry redis.XMessage, name string) string {
	text, _ := entry.Values[name].(string)
	return text
}
