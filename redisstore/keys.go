package redisstore

import (
	"fmt"
	"regexp"
	"strconv"

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

// partition names the keys of one slice of the session space. They share a hash tag, so that one script may touch all.
// Every key of the store is spelled here and nowhere else.
type partition string

// newPartition returns partition number n of a cluster.
func newPartition(prefix string, n int) partition {
	return partition(prefix + ":{" + strconv.Itoa(n) + "}:")
}

func (p partition) session(id cluster.ID) string { return p.sessionPrefix() + id.String() } // HASH: the record
func (p partition) more(id cluster.ID) string    { return p.morePrefix() + id.String() }    // HASH: long strings, the initialize message
func (p partition) pending(id cluster.ID) string { return p.pendingPrefix() + id.String() } // HASH: requests in flight
func (p partition) lru() string                  { return string(p) + "lru" }               // ZSET: live sessions by last activity, ms
func (p partition) deadlines() string            { return string(p) + "deadlines" }         // ZSET: live sessions by their end, ms
func (p partition) ended() string                { return string(p) + "ended" }             // ZSET: ended sessions by purge time, ms
func (p partition) counts() string               { return string(p) + "counts" }            // HASH: records by status, totals

// The prefixes let a script find the keys of a session that it picks itself, such as the one to evict.
func (p partition) sessionPrefix() string { return string(p) + "session:" }
func (p partition) morePrefix() string    { return string(p) + "more:" }
func (p partition) pendingPrefix() string { return string(p) + "pending:" }
