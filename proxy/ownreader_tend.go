package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// ownReaderKeep is how long a session's own stream is read on after the last of this replica's clients left: as long as what is
// stored of it is kept by default.
const ownReaderKeep = 5 * time.Minute

// look stops the reader when its session has ended or nobody has listened here for long, and stores what could not be stored before.
func (r *ownReader) look(ctx context.Context, now time.Time) {
	select {
	case <-r.lease.Ended():
		r.endListener()
		r.stop(errSessionEnded)
		return
	default:
	}
	r.move()
	r.mu.Lock()
	idle := r.listener == nil && now.Sub(r.unheard) >= ownReaderKeep
	behind := len(r.backlog) > 0
	r.mu.Unlock()
	if idle {
		r.stop(errStopReading)
	}
	if behind {
		_ = r.flush(ctx) // it is tried again
	}
}

// check takes in what the store says of the stream. A reader whose claim has moved must not keep the upstream from the next one.
func (r *ownReader) check(state cluster.StreamState, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(state.Err, cluster.ErrNotFound): // the lease tells
	case state.Err != nil:
		if r.listener == nil && now.Sub(r.checked) > blindReading {
			r.stop(errStopReading)
		}
	case state.Claim != r.claim || state.Reader != r.p.incarnation:
		r.stop(cluster.ErrStaleClaim)
	default:
		r.checked, r.known = now, state.Version
		if r.body != nil && r.known != r.call.current().Version { // a failover may have lost a recovery
			_ = r.body.Close() // which ends its reading
		}
		if r.listener != nil && r.listener.number < state.Listener {
			r.letGo() // its client has opened another stream since
		}
	}
}

// move has the stream opened anew when the session has been given another upstream session since, also where the connection to the
// one before still stands.
func (r *ownReader) move() {
	latest := r.lease.Current()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil && latest.Version > r.call.current().Version {
		r.call.use(latest)
		_ = r.body.Close() // which ends its reading
	}
}

// refresh reads the session's record when the store has told of a later one: another replica may have recovered the session.
func (r *ownReader) refresh(ctx context.Context) error {
	session := r.call.current()
	r.mu.Lock()
	isLatest := r.known == session.Version
	r.mu.Unlock()
	if isLatest {
		return nil
	}
	fresh, err := r.p.sessions.Get(ctx, session.ID)
	if err == nil && fresh.Version != session.Version {
		r.call.use(fresh)
	}
	return err
}
