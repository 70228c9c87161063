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

// metaKey is the one key that belongs to no partition.
func metaKey(prefix string) string { return prefix + ":meta" } // HASH: schema version, number of partitions, limits

func (p partition) session(id cluster.ID) string { return p.sessionPrefix() + id.String() } // HASH: the record
func (p partition) more(id cluster.ID) string    { return p.morePrefix() + id.String() }    // HASH: long strings, the initialize message
func (p partition) pending(id cluster.ID) string { return p.pendingPrefix() + id.String() } // HASH: requests in flight
func (p partition) lru() string                  { return p.prefix + "lru" }                // ZSET: live sessions by last activity, ms
func (p partition) deadlines() string            { return p.prefix + "deadlines" }          // ZSET: live sessions by their end, ms
func (p partition) ended() string                { return p.prefix + "ended" }              // ZSET: ended sessions by purge time, ms
func (p partition) counts() string               { return p.prefix + "counts" }             // HASH: records by status, totals

// The prefixes let a script find the keys of a session that it picks itself, such as the one to evict.
func (p partition) sessionPrefix() string { return p.prefix + "session:" }
func (p partition) morePrefix() string    { return p.prefix + "more:" }
func (p partition) pendingPrefix() string { return p.prefix + "pending:" }
