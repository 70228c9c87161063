// Package redisstore keeps a cluster's sessions in Redis: it implements [cluster.Store].
//
// A session is a hash, its place in the order of eviction and its end are members of sorted sets, and every transition is
// one Lua script (package lua), so that record, indexes and counts cannot drift apart. Time is the server's own clock; a
// replica's clock decides nothing.
//
// The server must be Redis 7 (or Valkey) with maxmemory-policy noeviction: any other policy may delete indexes or
// sessions behind the store's back. [Open] takes the URL of a single server, of sentinels, or of a Redis Cluster, where
// the sessions are cut into partitions; "embedded:" runs a Redis work-alike inside the process, for demos and tests: its
// sessions end with the process. [ACLRule] is all that the store's user must be allowed.
//
// Every fault of the server, of the network, or of time running out is a [cluster.ErrStoreUnavailable]. Calls that may be
// repeated without harm are repeated when the connection broke. A lease or a report is not, as it would count twice; but over
// TLS a lease is, because there the client does not notice that an idle connection has died.
package redisstore
