// Package proxy is the reverse proxy for the Model Context Protocol's Streamable HTTP transport. Every replica of it serves
// every session: what they know of sessions they have from the [Sessions] they share.
//
// One request's way:
//
//	client                     Proxy                                     upstream
//	  |                          |                                          |
//	  |--- POST, GET, DELETE --->| host and origin allowed?  (origin.go)    |
//	  |                          | who is it?             (authenticate.go) |
//	  |                          | body whole, bounded       (body.go)      |
//	  |                          | which era?                (post.go)      |
//	  |                          |                                          |
//	  |                          |-- stateless: as it is ------------------>|   stateless.go
//	  |                          |-- initialize: create, forward, activate->|   initialize.go
//	  |                          |-- in a session: lease, forward --------->|   session.go
//	  |                          |       endpoint, tries, recovery ------->|   upstreamcall.go, loss.go, recovery.go
//	  |<-- JSON -----------------|<---------- unbuffered, touching the lease|   forward.go, stream.go
//	  |<-- events, our ids ------|<---------- read to the end, kept if needed   answerstream.go
//	  |<-- events, our ids ------| GET: the one reader's, or from the store |   get.go, ownreader.go, follower.go
//	  |                          |                                          |
//	  |<-- refusal, JSON-RPC ----| anything that cannot go on (errors.go)   |
//
// # Guarantees
//
//   - The token a client holds never reaches an upstream, and an upstream's session id never reaches a client or a log.
//   - A client gets a token only after the session is active in the store. When initialize fails in any way, the session
//     and the upstream's session are ended.
//   - A malformed, unknown, foreign or ended token gets the same answer, 404; a fault of the store is 503, never 404.
//   - A session belongs to the principal that opened it: with anybody else's credential its token is like an unknown one, and a stream
//     ends when the credential does that it was opened with.
//   - What upstreams get of a client's credential, in whatever is sent to them, is what Config.Auth says.
//   - A request that was never sent, whose session the upstream had lost (it answers 404 to a ping, too), or whose method changes
//     nothing, is sent again, after the session was recovered where that is lost; tries are bounded. When it may have been
//     processed otherwise, the answer says that (reason may_have_run).
//   - A stream is resumed at any replica by Last-Event-ID: each message comes once, in order, on the stream that it belongs to, or
//     the answer is that something is missing (events_gone), or that the rest is lost (may_have_run). An id that is not of the
//     client's own session is like one that never was.
//   - Of all replicas one reads what a session's upstream says of its own, and of all the session's connections the latest is sent it.
//   - A stream ends when its session does: at once at the replica that ended it, within one lease validity elsewhere.
//   - Slow clients are cut (reading and writing have rolling deadlines); a healthy stream never is, however idle.
//   - A stream costs at most two goroutines besides those of net/http, and nothing grows with the length of a stream.
//   - A recording (recording.go, package record) keeps no request waiting, and has no header in it.
//
// A client that disconnects cancels nothing in the eras with sessions, and its HTTP request at the upstream in the one without.
// Informational (1xx) answers are not passed on.
//
// What is not guaranteed: an answer of which the last bytes were lost on the way to its client, and which was complete before
// Config.KeepAfter had passed, is kept nowhere; who resumes it is told that it may have run.
package proxy
