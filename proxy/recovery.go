package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// claimTime is how long others wait for a replica that recovers a session, at most: it may have died.
	claimTime = 5 * time.Second
	// busyPause is the pause before looking again at a session that another replica recovers.
	busyPause = 50 * time.Millisecond
	// replayTimeout bounds telling a new upstream session one message again.
	replayTimeout = 5 * time.Second
)

// recoverSession gives a session whose upstream has lost it a new upstream session, at whichever endpoint can be reached, and returns
// the record with the new mapping. Of all requests, at all replicas, that find it lost, one does that; the others wait for it. stale is
// the record with the mapping that failed. The error is a refusal, or ctx's.
func (p *Proxy) recoverSession(ctx context.Context, c *upstreamCall, stale cluster.Session, why *fault) (cluster.Session, error) {
	key := fmt.Sprint(stale.ID, stale.Version)
	done := p.recovering.DoChan(key, func() (any, error) {
		// It goes on when this caller leaves: others wait for it.
		bounded, cancel := context.WithTimeout(p.background, p.cfg.InitializeTimeout)
		defer cancel()
		bounded, span := p.part(bounded, ctx, "recover session")
		defer span.End()
		r := recovery{p: p, call: c, stale: stale, why: why}
		recovered, err := r.run(bounded)
		outcome := r.outcome(err)
		span.SetAttributes(sessionKey.String(stale.ID.String()), attribute.String("shadowcat.recovery", string(outcome)))
		p.cfg.Observer.RecoveryDone(outcome)
		return recovered, err
	})
	select {
	case result := <-done:
		if result.Err != nil {
			return cluster.Session{}, result.Err
		}
		return result.Val.(cluster.Session), nil //nolint:forcetypeassert,errcheck // of the function above
	case <-ctx.Done():
		return cluster.Session{}, ctx.Err()
	}
}

// recovery is one attempt to recover one session.
type recovery struct {
	p     *Proxy
	call  *upstreamCall
	stale cluster.Session
	why   *fault
	made  bool // it was this one that made the session anew
}

// outcome is what became of the recovery, by the error of run.
func (r *recovery) outcome(err error) Recovery {
	refused, _ := errors.AsType[refusal](err)
	switch {
	case err == nil && r.made:
		return RecoveryMade
	case err == nil:
		return RecoveryElsewhere
	case refused.reason == mcp.ReasonSessionNotFound:
		return RecoveryEnded
	case refused.reason == mcp.ReasonStoreUnavailable:
		return RecoveryStoreUnavailable
	default:
		return RecoveryUpstreamFailed
	}
}

// run returns the session with a mapping that somebody else or this recovery has made. The error is a refusal.
func (r *recovery) run(ctx context.Context) (cluster.Session, error) {
	for {
		claim, err := r.p.sessions.ClaimRecovery(ctx, r.stale.ID, r.stale.Version, r.p.owner, claimTime)
		switch {
		case errors.Is(err, cluster.ErrConflict): // it has another mapping already
			fresh, err := r.p.sessions.Get(ctx, r.stale.ID)
			if err != nil {
				return cluster.Session{}, refusalOf(err)
			}
			if !fresh.Status.Live() {
				return cluster.Session{}, errSessionNotFound
			}
			return fresh, nil
		case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrIllegalTransition):
			return cluster.Session{}, errSessionNotFound
		case err != nil:
			return cluster.Session{}, refusalOf(err)
		case claim.Busy == 0:
			recovered, err := r.recover(ctx, claim)
			if err != nil {
				r.letGo(ctx)
			}
			return recovered, err
		}
		if !pause(ctx, min(claim.Busy, busyPause)) {
			return cluster.Session{}, upstreamUnavailable("the upstream has lost the session, and another replica is still making it anew; retry")
		}
	}
}

// recover makes the new upstream session. This replica has the claim to.
func (r *recovery) recover(ctx context.Context, claim cluster.Recovery) (cluster.Session, error) {
	if claim.Initialize == nil {
		return cluster.Session{}, r.giveUp(ctx, "its initialize message was too long to be kept")
	}
	made, e, err := r.initialize(ctx, claim.Initialize)
	if err != nil {
		return cluster.Session{}, err
	}
	if made.Revision != claim.Session.Revision {
		r.end(ctx, e, made)
		return cluster.Session{}, r.giveUp(ctx, "the upstream now speaks protocol revision "+made.Revision)
	}
	r.replay(ctx, e, made, claim.Notes)
	recovered, err := r.p.sessions.Remap(ctx, claim.Session, rand.Text()[:13], e.name, made)
	switch {
	case err == nil:
		r.made = true
		e.pin()
		r.call.log().Info("recovered a session that its upstream had lost", "endpoint", e.name)
		return recovered, nil
	case errors.Is(err, cluster.ErrConflict):
		r.end(ctx, e, made)
		return r.run(ctx) // somebody was faster
	case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrIllegalTransition):
		r.end(ctx, e, made)
		return cluster.Session{}, errSessionNotFound
	default: // it may or may not have the new mapping, so the upstream session stays
		return cluster.Session{}, refusalOf(err)
	}
}

// letGo lets others try at once. It is courtesy only: the claim passes.
func (r *recovery) letGo(ctx context.Context) {
	_, _ = r.p.sessions.ClaimRecovery(context.WithoutCancel(ctx), r.stale.ID, r.stale.Version, r.p.owner, time.Millisecond)
}

// giveUp ends a session that cannot be recovered. Its client has to start anew, whether or not the store could be told.
func (r *recovery) giveUp(ctx context.Context, why string) error {
	r.p.endLost(ctx, r.call.origin, r.stale.ID, r.call.upstream.Name, why)
	return errSessionNotFound
}

// initialize opens a new upstream session. Endpoints that cannot be reached are passed over.
func (r *recovery) initialize(ctx context.Context, body []byte) (cluster.Activation, *endpoint, error) {
	unavailable := upstreamUnavailable("the upstream has lost the session, and it cannot be made anew now; retry")
	var avoid []string
	if !r.why.lost {
		avoid = append(avoid, r.stale.Endpoint)
	}
	for wait := firstRetry; ; wait *= 2 {
		e, err := r.endpoint(ctx, avoid)
		if err != nil {
			return cluster.Activation{}, nil, unavailable
		}
		made, err := r.initializeAt(ctx, e, body)
		if err == nil {
			return made, e, nil
		}
		if refused, ok := errors.AsType[refusal](err); ok {
			return cluster.Activation{}, nil, refused
		}
		r.call.log().Warn("a session could not be recovered at an endpoint", "endpoint", e.name, "error", err)
		avoid = append(avoid, e.name)
		if len(avoid) > maxTries || !pause(ctx, wait) {
			return cluster.Activation{}, nil, unavailable
		}
	}
}

// endpoint is where the new upstream session is to be made: where the old one was, when that still answers.
func (r *recovery) endpoint(ctx context.Context, avoid []string) (*endpoint, error) {
	if len(avoid) == 0 {
		if e, known := r.call.upstream.pinned(ctx, r.stale.Endpoint); known && e.healthy() {
			return e, nil
		}
	}
	return r.call.upstream.choose(ctx, avoid...)
}

// initializeAt opens a new upstream session at one endpoint. A refusal means that another endpoint would do no better.
func (r *recovery) initializeAt(ctx context.Context, e *endpoint, body []byte) (cluster.Activation, error) {
	msg, err := mcp.Peek(body)
	if err != nil {
		return cluster.Activation{}, r.giveUp(ctx, "its initialize message is not readable any more")
	}
	header := r.header()
	header.Del(mcp.HeaderProtocolVersion) // initialize agrees on it
	res, err := r.post(ctx, e, header, body)
	if err != nil {
		return cluster.Activation{}, err
	}
	defer discard(res)
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return cluster.Activation{}, fmt.Errorf("it answered initialize with status %d", res.StatusCode)
	}
	answer, err := findAnswer(io.LimitReader(res.Body, r.p.cfg.MaxBody), res.Header.Get("Content-Type"), int(r.p.cfg.MaxBody), msg.ID)
	if err != nil {
		return cluster.Activation{}, fmt.Errorf("its answer to initialize is unusable: %w", err)
	}
	made := cluster.Activation{UpstreamSession: res.Header.Get(mcp.HeaderSessionID), Revision: answer.Version}
	if answer.Failed || made.UpstreamSession != "" && !mcp.ValidSessionID(made.UpstreamSession) {
		return cluster.Activation{}, r.giveUp(ctx, "the upstream refused to initialize it anew")
	}
	header = r.sessionHeader(made)
	initialized, err := r.post(ctx, e, header, []byte(`{"jsonrpc":"2.0","method":"`+mcp.MethodInitialized+`"}`))
	if err != nil {
		return cluster.Activation{}, err
	}
	discard(initialized)
	return made, nil
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

// end asks an endpoint to forget an upstream session that is not wanted after all.
func (r *recovery) end(ctx context.Context, e *endpoint, made cluster.Activation) {
	r.p.sendDelete(context.WithoutCancel(ctx), r.call.upstream, parting{
		request: r.call.origin, session: r.stale.ID.String(), endpoint: e.name, upstreamSession: made.UpstreamSession, revision: made.Revision,
		credential: r.p.cfg.Auth.Credential(r.call.header),
	})
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
	return e.RoundTrip(r.call.request(ctx, e, cluster.Session{}, message{method: http.MethodPost, body: body, header: header}))
}

// endLost ends a session that its upstream no longer knows. The client must start anew either way, so it is told even when the
// store cannot be.
func (p *Proxy) endLost(ctx context.Context, cause requestRef, id cluster.ID, upstream, why string) {
	log := cause.in(p.log).With("upstream", upstream, "session", id)
	sent := time.Now()
	_, err := p.sessions.Terminate(context.WithoutCancel(ctx), id, cluster.StatusFailed)
	if err != nil && !errors.Is(err, cluster.ErrIllegalTransition) && !errors.Is(err, cluster.ErrNotFound) {
		log.Log(ctx, p.cfg.InOutage.Level(err, sent), "session lost by its upstream could not be ended", "error", err)
		return
	}
	log.Warn("upstream lost a session, which could not be recovered", "reason", why)
}

// note keeps, or forgets, what a new upstream session would have to be told again.
func (x *exchange) note() {
	n := cluster.Note{ID: x.session, Message: x.body}
	switch x.msg.Method {
	case mcp.MethodSetLevel:
		n.Key = "level"
	case mcp.MethodSubscribe, mcp.MethodUnsubscribe:
		var request struct {
			Params struct {
				URI string `json:"uri"`
			} `json:"params"`
		}
		if json.Unmarshal(x.body, &request) != nil {
			return // the upstream will not have taken it either
		}
		sum := sha256.Sum256([]byte(request.Params.URI))
		n.Key = "uri:" + base64.RawURLEncoding.EncodeToString(sum[:16])
		if x.msg.Method == mcp.MethodUnsubscribe {
			n.Message = nil
		}
	default:
		return
	}
	if x.p.cfg.NoRecover || len(n.Message) > cluster.MaxNoteMessage {
		return
	}
	sent := time.Now()
	if err := x.p.sessions.Note(x.detached(), n); err != nil {
		x.log().Log(x.r.Context(), x.p.cfg.InOutage.Level(err, sent),
			"a recovery of this session would forget what its client has asked for", "session", x.sessionText(), "method", x.msg.Method, "error", err)
	}
}
