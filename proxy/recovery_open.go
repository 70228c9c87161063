package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// recoveryTries is how often one recovery asks for a new upstream session at most. The pauses between them, of which each is
	// recoverySlower times as long as the one before, take three seconds in all: as long as a request waits for an endpoint.
	recoveryTries  = 4
	recoveryPause  = 225 * time.Millisecond
	recoverySlower = 3
	// replayTimeout bounds telling a new upstream session one message again.
	replayTimeout = 5 * time.Second
)

// errNotAnew refuses a request whose session may be made anew later.
var errNotAnew = upstreamUnavailable("the upstream has lost the session, and it cannot be made anew now; retry")

// initialize opens a new upstream session. Endpoints that cannot be reached are passed over.
func (r *recovery) initialize(ctx context.Context, body []byte) (cluster.Activation, *endpoint, error) {
	var avoid []string
	if !r.why.lost {
		avoid = append(avoid, r.stale.Endpoint)
	}
	for try, wait := 1, recoveryPause; ; try, wait = try+1, recoverySlower*wait {
		e, err := r.endpoint(ctx, avoid)
		if err != nil {
			return cluster.Activation{}, nil, errNotAnew
		}
		avoid = append(avoid, e.name)
		made, err := r.initializeAt(ctx, e, body, try < recoveryTries && r.call.upstream.hasOthers(avoid...))
		if err == nil {
			return made, e, nil
		}
		if refused, ok := errors.AsType[refusal](err); ok {
			return cluster.Activation{}, nil, refused
		}
		r.call.log().Warn("a session could not be recovered at an endpoint", "endpoint", e.name, "error", err)
		if try == recoveryTries || !pause(ctx, wait) {
			return cluster.Activation{}, nil, errNotAnew
		}
	}
}

// endpoint is where the new upstream session is to be made: where the old one was, when that still answers.
func (r *recovery) endpoint(ctx context.Context, avoid []string) (*endpoint, error) {
	if len(avoid) == 0 {
		if e, known := r.call.upstream.pinned(ctx, r.stale.Endpoint); known && e.healthy() {
			e.chosen()
			return e, nil
		}
	}
	return r.call.upstream.choose(ctx, avoid...)
}

// initializeAt opens a new upstream session at one endpoint, and leaves none there that it does not return. others: some could be tried
// then. A refusal means that another endpoint would do no better.
func (r *recovery) initializeAt(ctx context.Context, e *endpoint, body []byte, others bool) (cluster.Activation, error) {
	msg, err := mcp.Peek(body)
	if err != nil {
		return cluster.Activation{}, r.giveUp(ctx, "its initialize message is not readable any more")
	}
	header := r.header()
	header.Del(mcp.HeaderProtocolVersion) // initialize agrees on it
	deadline, _ := ctx.Deadline()
	res, err := e.open(r.request(ctx, e, header, body), deadline, others)
	if err != nil {
		return cluster.Activation{}, err
	}
	defer discard(res)
	made, err := r.initialized(ctx, res, msg.ID)
	if err == nil {
		err = r.confirm(ctx, e, made)
	}
	if err != nil {
		r.drop(e, made)
		return cluster.Activation{}, err
	}
	return made, nil
}

// initialized reads the answer to the initialize request with an id. The upstream session in it is there even if there is an error, too.
func (r *recovery) initialized(ctx context.Context, res *http.Response, id mcp.ID) (made cluster.Activation, err error) {
	if name := res.Header.Get(mcp.HeaderSessionID); mcp.ValidSessionID(name) {
		made.UpstreamSession = name
	} else if name != "" {
		return made, r.giveUp(ctx, "the upstream has given it a session id that is none")
	}
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return made, r.denied(res)
	case status >= 400 && status <= 499 && !isPassing(status):
		return made, r.giveUp(ctx, fmt.Sprintf("the upstream refused to initialize it anew, with status %d", status))
	case status < 200 || status > 299:
		return made, fmt.Errorf("it answered initialize with status %d", status)
	}
	answer, err := findAnswer(io.LimitReader(res.Body, r.p.cfg.MaxBody), res.Header.Get("Content-Type"), int(r.p.cfg.MaxBody), id)
	if err != nil {
		return made, fmt.Errorf("its answer to initialize is unusable: %w", err)
	}
	if answer.Failed {
		return made, r.giveUp(ctx, "the upstream refused to initialize it anew")
	}
	made.Revision = answer.Version
	return made, nil
}

// denied is the upstream's refusal of the client's credentials, for the client to see: with others the session can be made anew.
func (r *recovery) denied(res *http.Response) refusal {
	r.call.log().Warn("a session could not be recovered: the upstream takes the client's credentials for none", "status", res.StatusCode)
	h := res.Header.Clone()
	r.p.cfg.Auth.Inbound(h)
	return refusal{
		status: res.StatusCode, challenge: strings.Join(h.Values("WWW-Authenticate"), ", "),
		message: "the upstream has lost the session, and does not let this client make it anew; the request was not processed, the session is kept",
	}
}

// isPassing reports whether the status of an answer may be another one soon, without anything being done about it.
func isPassing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError
}

// confirm tells the new upstream session that its initialization is complete.
func (r *recovery) confirm(ctx context.Context, e *endpoint, made cluster.Activation) error {
	res, err := r.post(ctx, e, r.sessionHeader(made), []byte(`{"jsonrpc":"2.0","method":"`+mcp.MethodInitialized+`"}`))
	if err != nil {
		return err
	}
	discard(res)
	return nil
}

// replay tells the new upstream session what the client had told the old one. That it takes it is hoped for, not demanded.
func (r *recovery) replay(ctx context.Context, e *endpoint, made cluster.Activation, notes [][]byte) {
	for _, note := range notes {
		bounded, cancel := context.WithTimeout(ctx, replayTimeout)
		res, err := r.post(bounded, e, r.sessionHeader(made), note)
		if err == nil {
			_, _ = io.CopyN(io.Discard, res.Body, maxIgnoredBody) // its end is when the upstream has taken it
			_ = res.Body.Close()                                  // only read
		} else {
			r.call.log().Warn("a recovered session could not be told again what its client had asked for", "error", err)
		}
		cancel()
	}
}

// drop has an endpoint asked to forget an upstream session that is not wanted after all.
func (r *recovery) drop(e *endpoint, made cluster.Activation) {
	r.p.leaveUpstream(r.call, e.name, made, 0)
}

// leave has the old upstream session forgotten that the session has been moved away from, unless it is lost. One that has requests in flight
// for longer than a report interval is left to end by itself: they may still be answered.
func (r *recovery) leave(old cluster.Session) {
	if !r.why.lost && old.Pending == 0 {
		r.p.leaveUpstream(r.call, old.Endpoint, cluster.Activation{UpstreamSession: old.UpstreamSession, Revision: old.Revision}, leaveAfter)
	}
}

// header is that of a message in the client's name.
func (r *recovery) header() http.Header {
	h := r.call.header.Clone()
	for _, name := range []string{"Content-Length", mcp.HeaderLastEventID} {
		h.Del(name)
	}
	h.Set("Content-Type", mcp.MediaTypeJSON)
	h.Set("Accept", mcp.MediaTypeJSON+", "+mcp.MediaTypeEventStream)
	return h
}

// sessionHeader is header for messages after initialize.
func (r *recovery) sessionHeader(made cluster.Activation) http.Header {
	h := r.header()
	h.Set(mcp.HeaderProtocolVersion, made.Revision)
	if made.UpstreamSession != "" {
		h.Set(mcp.HeaderSessionID, made.UpstreamSession)
	}
	return h
}

func (r *recovery) post(ctx context.Context, e *endpoint, header http.Header, body []byte) (*http.Response, error) {
	return e.RoundTrip(r.request(ctx, e, header, body))
}

func (r *recovery) request(ctx context.Context, e *endpoint, header http.Header, body []byte) *http.Request {
	return r.call.request(ctx, e, cluster.Session{}, message{method: http.MethodPost, body: body, header: header})
}
