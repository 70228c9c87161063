// Package proxy is the reverse proxy for the Model Context Protocol's Streamable HTTP transport. Every replica of it serves
// every session: what they know of sessions they have from the [Sessions] they share.
//
// One request's way:
//
//	client                     Proxy                                     upstream
//	  |                          |                                          |
//	  |--- POST, GET, DELETE --->| host and origin allowed?  (origin.go)    |
//	  |                          | body whole, bounded       (body.go)      |
//	  |                          | which era?                (post.go)      |
//	  |                          |                                          |
//	  |                          |-- stateless: as it is ------------------>|   stateless.go
//	  |                          |-- initialize: create, forward, activate->|   initialize.go
//	  |                          |-- in a session: lease, forward --------->|   session.go
//	  |                          |       our token <-> the upstream's id    |   forward.go
//	  |<-- JSON or event stream -|<---------- unbuffered, touching the lease|   stream.go
//	  |                          |                                          |
//	  |<-- refusal, JSON-RPC ----| anything that cannot go on (errors.go)   |
//
// # Guarantees
//
//   - The token a client holds never reaches an upstream, and an upstream's session id never reaches a client or a log.
//   - A client gets a token only after the session is active in the store. When initialize fails in any way, the session
//     and the upstream's session are ended.
//   - A malformed, unknown, foreign or ended token gets the same answer, 404; a fault of the store is 503, never 404.
//   - When the connection to the upstream fails before any of a request was sent, the answer says so and may be retried;
//     when the request may have been processed, it says that instead (reason may_have_run).
//   - A stream ends when its session does: at once at the replica that ended it, within one lease validity elsewhere.
//   - Slow clients are cut (reading and writing have rolling deadlines); a healthy stream never is, however idle.
//   - A stream costs at most two goroutines besides those of net/http, and nothing grows with the length of a stream.
//
// A client that disconnects cancels its HTTP request at the upstream. Informational (1xx) answers are not passed on.
package proxy
