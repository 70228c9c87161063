// Package redisstore keeps a cluster's sessions in Redis: it implements [cluster.Store].
//
// A session is a hash, its place in the order of eviction and its end are members of sorted sets, and every transition is
// one Lua script (package lua), so that record, indexes and counts cannot drift apart. Time is the server's own clock; a
// replica's clock decides nothing.
//
// The server must be Redis 7 (or Valkey) with maxmemory-policy noeviction: any other policy may delete indexes or
// sessions behind the store's back. [Open] takes a URL; "embedded:" runs a Redis work-alike inside the process, for demos
// and tests: its sessions end with the process.
//
// Every fault of the server, of the network, or of time running out is a [cluster.ErrStoreUnavailable]. Calls that may be
// repeated without harm are repeated once when the connection broke; a lease or a report is not, as it would count twice.
package redisstore
