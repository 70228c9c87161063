// Package cluster is the session manager that lets any number of replicas of a Model Context Protocol proxy act as one.
//
// A session is one client's stateful conversation. Its record lives in a [Store] that all replicas share; a replica serves
// requests from a [Lease] that the store granted it, and writes back what happened in batches, called reports:
//
//	client          replica (Manager)                       store
//	  |  request 1      |------- Lease: verify, touch, budget --->|   one round trip, once per lease validity
//	  |---------------->|<------ record, validity, budget --------|
//	  |  request 2..n   |   (served from memory)                  |
//	  |---------------->|                                         |
//	  |                 |------- Report: activity, counters ----->|   once per report interval, batched
//	  |                 |<------ renewed, or gone ----------------|
//
// # Guarantees
//
//   - A session ended anywhere stops being served everywhere within one lease validity, and at once at the replica that
//     ended it. A replica that cannot reach the store goes on for Config.OutageGrace after the store has last confirmed the
//     session, and stops then; only requests in flight are finished.
//   - While the store can be asked, in any window w at most burst + rate × (w + lease) requests of one session run, over all
//     replicas. In strict mode (lease 0) that is burst + rate × w, as the store admits them: what is on its way from store
//     to replica, up to a StoreTimeout, may reach the upstream closer together. While the store is away, each replica lets
//     through burst + rate × w by itself.
//   - A replica that dies loses at most one report interval of activity and counters. It never loses a session.
//   - An ended session never comes back.
//   - What happens to a session while the store is away is reported when it is back, and nobody expires the session before.
//     Exempt is what only a replica knows that is cut off alone.
//   - A fault of the store is [ErrStoreUnavailable], never [ErrNotFound]: clients throw their state away on "not found".
//
// The package knows neither Redis nor HTTP. Package redisstore implements Store; package proxy is the first user.
package cluster
