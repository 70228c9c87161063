package redisstore

import (
	"fmt"
	"regexp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// DefaultPrefix begins every key unless another is configured.
const DefaultPrefix = "shadowcat"

var validPrefix = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

// checkPrefix refuses prefixes that would change what a key means: braces are hash tags, globs match keys of others.
func checkPrefix(prefix string) error {
	if !validPrefix.MatchString(prefix) {
		return fmt.Errorf("prefix: %q is not a key prefix; use 1 to 64 letters, digits, dots, underscores, colons or hyphens, the first a letter or digit", prefix)
	}
	return nil
}

// Every key of the store is spelled in this file and nowhere else.

// resignedChannel is where a leader says that it leads no more.
func resignedChannel(prefix string) string { return prefix + ":resigned" }

// The keys that belong to no partition. Those of one principal share a hash tag.
func metaKey(prefix string) string       { return prefix + ":meta" }     // HASH: schema version, number of partitions, limits
func leaderKey(prefix string) string     { return prefix + ":leader" }   // STRING: who leads, with the term of the lock as its TTL
func epochKey(prefix string) string      { return prefix + ":epoch" }    // STRING: the last epoch taken
func replicasKey(prefix string) string   { return prefix + ":replicas" } // ZSET: incarnations by their last sign of life, ms
func auditKey(prefix string) string      { return prefix + ":audit" }    // STREAM: what has happened to sessions
func createRateKey(prefix string) string { return prefix + ":rate:{*}" } // STRING: arrival time of creations, us; no principal is called *
func replicaKey(prefix, incarnation string) string { // STRING: what a replica tells of itself, JSON
	return prefix + ":replica:" + incarnation
}

func principalKey(prefix string, p cluster.Principal) string { // ZSET: its live sessions by creation, ms
	return prefix + ":principal:{" + string(p) + "}"
}

func principalRateKey(prefix string, p cluster.Principal) string { // STRING: arrival time of its creations, us
	return prefix + ":rate:{" + string(p) + "}"
}

func principalRequestsKey(prefix string, p cluster.Principal) string { // STRING: arrival time of its requests without a session, us
	return prefix + ":requests:{" + string(p) + "}"
}

// probeKey is never there: deleting it shows that the server of its hash tag takes writes.
func probeKey(prefix, tag string) string { return prefix + ":{" + tag + "}:probe" }

func (p partition) session(id cluster.ID) string { return p.prefix + "session:" + id.String() } // HASH: the record
func (p partition) more(id cluster.ID) string    { return p.prefix + "more:" + id.String() }    // HASH: long strings, the initialize message
func (p partition) pending(id cluster.ID) string { return p.prefix + "pending:" + id.String() } // HASH: requests in flight
func (p partition) events(id cluster.ID) string  { return p.prefix + "events:" + id.String() }  // STREAM: messages to the client
func (p partition) heads(id cluster.ID) string   { return p.prefix + "heads:" + id.String() }   // HASH: what is the last event of each stream in events
func (p partition) frames(id cluster.ID) string  { return p.prefix + "frames:" + id.String() }  // STREAM: recorded messages
func (p partition) lru() string                  { return p.prefix + "lru" }                    // ZSET: live sessions by last activity, ms
func (p partition) deadlines() string            { return p.prefix + "deadlines" }              // ZSET: live sessions by their end, ms
func (p partition) ended() string                { return p.prefix + "ended" }                  // ZSET: ended sessions by purge time, ms
func (p partition) counts() string               { return p.prefix + "counts" }                 // HASH: records by status, totals
func (p partition) fence() string                { return p.prefix + "fence" }                  // STRING: the highest epoch that has cleaned up here

// owned are the prefixes of the keys that a session may have, in the order of lua/finish.inc.lua. They let a script find
// the keys of a session that it picks itself, such as the one to evict.
func (p partition) owned() []string {
	return []string{
		p.prefix + "session:", p.prefix + "more:", p.prefix + "pending:", p.prefix + "events:", p.prefix + "heads:", p.prefix + "frames:",
	}
}
