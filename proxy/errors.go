package proxy

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// retryAfter is what clients are told when nothing better is known.
const retryAfter = time.Second

// Why a request was cut while it was being forwarded; causes of its context's end.
var (
	errSessionEnded      = errors.New("the session ended")
	errInitializeTimeout = errors.New("the upstream took too long to answer initialize")
	errNotAccepted       = errors.New("the upstream took too long to accept the message; it may have come to it")
	errDraining          = errors.New("the replica is stopping")
)

// cutByDrain is what clients are told whose requests the drain has cut: the upstream is not to blame.
const cutByDrain = "this replica is stopping, and the upstream had not answered in time"

// cutByEnd is what clients are told, in the stream that was to answer, whose session ended before it did. That concerns the request; of the
// session the next one tells them, by its 404.
const cutByEnd = "the session ended before the upstream had answered"

// refusal is an answer of the proxy's own. Its body is a JSON-RPC error: with the code of JSON-RPC where that defines one
// (the body is no JSON, or no message, or initialize lacks what it needs), else 1000 more than the HTTP status.
type refusal struct {
	status     int
	code       int        // 0: from status
	reason     mcp.Reason // may be empty
	limit      string     // the setting that was reached, if any
	requested  string     // the protocol version that is not supported, for a client who understands that
	message    string     // what is wrong and what to do
	retryAfter time.Duration
	allow      string // for 405
	challenge  string // of authentication; may be empty
	anonymous  bool   // without the request's id
}

// Error makes a refusal an error, so that the hooks of a httputil.ReverseProxy can return one.
func (f refusal) Error() string { return f.message }

// The refusals that are the same wherever they come from.
var (
	errSessionRequired = refusal{
		status:  http.StatusBadRequest,
		reason:  mcp.ReasonSessionRequired,
		message: "the request has no Mcp-Session-Id; send initialize first",
	}
	errSessionNotFound = refusal{
		status:  http.StatusNotFound,
		reason:  mcp.ReasonSessionNotFound,
		message: "session not found; send initialize without Mcp-Session-Id to start a new one",
		// The answer is about the session, not about one request. With an id the official Go client takes it for the
		// answer of a server that still has the session, and never starts anew.
		anonymous: true,
	}
)

// errEventsGone refuses to resume a stream of which something is missing, or that never was: the answers are the same.
var errEventsGone = refusal{
	status:  http.StatusGone,
	reason:  mcp.ReasonEventsGone,
	message: "what follows this event is not kept any more; open the stream anew without Last-Event-ID",
}

func methodNotAllowed(allow, message string) refusal {
	return refusal{status: http.StatusMethodNotAllowed, allow: allow, message: message}
}

func unsupportedVersion() refusal {
	return refusal{
		status:  http.StatusBadRequest,
		message: "the MCP-Protocol-Version header names no supported version; supported are " + strings.Join(mcp.Revisions(), ", "),
	}
}

// upstreamUnavailable refuses what an upstream could not answer, and had not begun to.
func upstreamUnavailable(message string) refusal {
	return refusal{
		status:     http.StatusServiceUnavailable,
		reason:     mcp.ReasonUpstreamUnavailable,
		message:    message,
		retryAfter: retryAfter,
	}
}

// refusalOfInitialize translates an error of package cluster for a client that has no session yet. Whether one was made
// that nobody holds the token of, it need not know.
func refusalOfInitialize(err error) refusal {
	f := refusalOf(err)
	if f.reason == mcp.ReasonStoreUnavailable {
		f.message = "the session store is unavailable; retry initialize"
	}
	return f
}

// refusalOf translates an error of package cluster for a client that has a session, or says so.
func refusalOf(err error) refusal {
	var limit *cluster.LimitError
	switch {
	case errors.As(err, &limit) && errors.Is(err, cluster.ErrRateLimited):
		return refusal{
			status: http.StatusTooManyRequests, reason: mcp.ReasonRateLimited, limit: limit.Limit,
			message: "the session sends requests too fast", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.As(err, &limit) && errors.Is(err, cluster.ErrPendingLimited):
		return refusal{
			status: http.StatusTooManyRequests, reason: mcp.ReasonTooManyPending, limit: limit.Limit,
			message: "the session has too many requests in flight; wait for some to be answered", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.As(err, &limit) && errors.Is(err, cluster.ErrStreamsLimited):
		return refusal{
			status: http.StatusTooManyRequests, reason: mcp.ReasonTooManyStreams, limit: limit.Limit,
			message: "the session has as many streams open as it may; close some", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.As(err, &limit) && errors.Is(err, cluster.ErrCreationLimited):
		return refusal{
			status: http.StatusTooManyRequests, reason: mcp.ReasonCreationRate, limit: limit.Limit,
			message: "sessions are opened too fast", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.As(err, &limit) && errors.Is(err, cluster.ErrPrincipalCapacity):
		return refusal{
			status: http.StatusTooManyRequests, reason: mcp.ReasonCapacity, limit: limit.Limit,
			message: "you have as many sessions open as one may have here; end some", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.As(err, &limit):
		return refusal{
			status: http.StatusServiceUnavailable, reason: mcp.ReasonCapacity, limit: limit.Limit,
			message: "no more sessions can be opened now", retryAfter: cmp.Or(limit.RetryAfter, retryAfter),
		}
	case errors.Is(err, cluster.ErrStoreUnavailable):
		return refusal{
			status: http.StatusServiceUnavailable, reason: mcp.ReasonStoreUnavailable,
			message: "the session store is unavailable; the session may still exist, so keep it and retry", retryAfter: retryAfter,
		}
	case errors.Is(err, cluster.ErrNotFound):
		return errSessionNotFound
	default:
		return refusal{status: http.StatusInternalServerError, message: "the proxy failed on this request; its log says more"}
	}
}

// refuse answers the request with f.
func (x *exchange) refuse(f refusal) {
	x.refused, x.limit = f.reason, f.limit
	h := x.w.Header()
	h.Set("Content-Type", mcp.MediaTypeJSON)
	h.Set("Cache-Control", "no-store")
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.challenge != "" {
		h.Set("WWW-Authenticate", f.challenge)
	}
	if f.retryAfter > 0 {
		// Whole seconds, rounded up: a client that waits for them must not come too early.
		h.Set("Retry-After", strconv.FormatInt(int64((f.retryAfter+time.Second-1)/time.Second), 10))
	}
	var supported []string
	if f.code == mcp.CodeUnsupportedVersion {
		supported = mcp.Revisions()
	}
	body := mcp.EncodeError(x.refusedID(f), mcp.Error{
		Code:       cmp.Or(f.code, mcp.HTTPCode(f.status)),
		Message:    f.message,
		Reason:     f.reason,
		Limit:      f.limit,
		RetryAfter: f.retryAfter,
		Supported:  supported,
		Requested:  f.requested,
	})
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.recordRefusal(f, len(body))
	x.w.WriteHeader(f.status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // a client that is gone needs no answer
	}
}

// refusedID is the id of the request that an error answers. A client's answer has an id too, but of a request that the
// upstream made.
func (x *exchange) refusedID(f refusal) mcp.ID {
	if f.anonymous || x.msg.Kind == mcp.KindResponse {
		return ""
	}
	return x.msg.ID
}

// refuseSession answers with what an error of package cluster means to the client.
func (x *exchange) refuseSession(err error) { x.refuseFor(err, refusalOf(err)) }

// refuseFor answers with f because of err, and logs what no client can do anything about. A client that left while the
// store was asked gets no answer, and what the store's call ended with says nothing about the store.
func (x *exchange) refuseFor(err error, f refusal) {
	if f.status == http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		x.log().Error("session operation failed", "session", x.sessionText(), "error", err)
	}
	if x.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	x.refuse(f)
}
