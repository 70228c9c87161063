package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/sync/singleflight"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// claimTime is how long others wait for a replica that recovers a session, at most: it may have died.
	claimTime = 5 * time.Second
	// busyPause is the pause before looking again at a session that another replica recovers.
	busyPause = 50 * time.Millisecond
)

// recoverSession gives a session whose upstream has lost it a new upstream session, at whichever endpoint can be reached, and returns
// the record with the new mapping. Of all requests, at all replicas, that find it lost, one does that; the others wait for it. stale is
// the record with the mapping that failed. The error is a refusal, or ctx's.
func (p *Proxy) recoverSession(ctx context.Context, c *upstreamCall, stale cluster.Session, why *fault) (cluster.Session, error) {
	return together(ctx, p, &p.recovering, stale, func() (cluster.Session, error) {
		// It goes on when this caller leaves: others wait for it.
		bounded, cancel := context.WithTimeoutCause(p.cut, p.cfg.InitializeTimeout, errInitializeTimeout)
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
}

// together has do done once for all who want that at the same time of a session with one mapping. It goes on when who began it leaves;
// then the error is ctx's.
func together[T any](ctx context.Context, p *Proxy, doing *singleflight.Group, s cluster.Session, do func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	p.running.Go(func() {
		value, err, _ := doing.Do(fmt.Sprint(s.ID, s.Version), func() (any, error) {
			result := outcome{err: errNotAnew} // unless it comes to an end: a panic must leave nobody waiting
			func() {
				defer p.recovered("recoveries")
				result.value, result.err = do()
			}()
			return result.value, result.err
		})
		if err != nil {
			done <- outcome{err: err}
			return
		}
		done <- outcome{value: value.(T)} //nolint:forcetypeassert,errcheck // of the function above
	})
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
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
		case ctx.Err() != nil:
			return cluster.Session{}, errNotAnew
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
		r.drop(e, made)
		return cluster.Session{}, r.giveUp(ctx, "the upstream now speaks protocol revision "+made.Revision)
	}
	r.replay(ctx, e, made, claim.Notes)
	if ctx.Err() != nil {
		r.drop(e, made)
		return cluster.Session{}, errNotAnew
	}
	// What has been made for it is written, or given up, whether or not time has run out meanwhile.
	recovered, err := r.p.sessions.Remap(context.WithoutCancel(ctx), claim.Session, rand.Text()[:13], e.name, made)
	switch {
	case err == nil:
		r.made = true
		r.call.upstream.unpin(r.stale.Endpoint)
		e.pin()
		r.call.log().Info("recovered a session that its upstream had lost", "endpoint", e.name)
		r.leave(claim.Session)
		return recovered, nil
	case errors.Is(err, cluster.ErrStoreUnavailable) && !errors.Is(err, cluster.ErrNotSent):
		return cluster.Session{}, refusalOf(err) // the record may have the new mapping, so the upstream session stays
	}
	r.drop(e, made)
	switch {
	case errors.Is(err, cluster.ErrConflict):
		return r.run(ctx) // somebody was faster
	case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrIllegalTransition):
		return cluster.Session{}, errSessionNotFound
	default:
		return cluster.Session{}, refusalOf(err)
	}
}

// letGo lets others try at once. It is courtesy only: the claim passes.
func (r *recovery) letGo(ctx context.Context) {
	_, _ = r.p.sessions.ClaimRecovery(context.WithoutCancel(ctx), r.stale.ID, r.stale.Version, r.p.owner, time.Millisecond)
}

// giveUp ends a session that cannot be recovered. Its client has to start anew, whether or not the store could be told.
func (r *recovery) giveUp(ctx context.Context, why string) error {
	r.p.endLost(ctx, r.call, why)
	return errSessionNotFound
}

// endLost ends a session that its upstream no longer knows, or that has no endpoint any more. The client must start anew either way, so it
// is told even when the store cannot be. Where the upstream session is after all, its upstream is asked to forget it.
func (p *Proxy) endLost(ctx context.Context, c *upstreamCall, why string) {
	sent := time.Now()
	ended, err := p.sessions.Terminate(context.WithoutCancel(ctx), c.current().ID, cluster.StatusFailed)
	switch {
	case err == nil:
		c.upstream.unpin(ended.Endpoint)
		p.leaveUpstream(c, ended.Endpoint, cluster.Activation{UpstreamSession: ended.UpstreamSession, Revision: ended.Revision}, 0)
	case !errors.Is(err, cluster.ErrIllegalTransition) && !errors.Is(err, cluster.ErrNotFound):
		c.log().Log(ctx, p.cfg.InOutage.Level(err, sent), "session lost by its upstream could not be ended", "error", err)
		return
	}
	c.log().Warn("upstream lost a session, which could not be recovered", "reason", why)
}
