package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Pauses before an upstream is asked again for a session's own stream.
const (
	reopenPause    = 200 * time.Millisecond
	maxReopenPause = 10 * time.Second
)

// ownReader reads one session's own stream from its upstream, for clients at all replicas: every message is stored first. At most one
// replica does that for a session; it holds the claim to.
type ownReader struct {
	p     *Proxy
	call  *upstreamCall
	lease *cluster.Lease // only watches
	claim int64
	stop  context.CancelCauseFunc
	began cluster.StreamState // what there was when it took the claim

	mu       sync.Mutex
	body     io.Closer  // of the upstream's answer that is read now; nil between two
	asks     int64      // the generation of the upstream session whose answer that is
	listener *listener  // this replica's client, nil when there is none
	unheard  time.Time  // since when there is none
	ended    bool       // it takes no listener any more
	last     int64      // the position of the last event
	backlog  []unstored // events that the store may not have yet, the last of them at last
	size     int        // bytes of backlog
	checked  time.Time  // when the store last said that the claim is still this reader's
	from     origin     // the last thing that the upstream has given an id, and the upstream session that is read
	known    int64      // the latest version of the record that the store has told of
}

// errStopReading ends a reader on purpose.
var errStopReading = errors.New("the session's own stream is read no more by this replica")

// run reads until the reader is stopped, or the upstream has no such stream any more. res is its answer to the first request.
func (r *ownReader) run(ctx context.Context, res *http.Response) {
	defer r.lease.Release()
	defer r.p.own.remove(r)
	defer r.unfeed()
	defer r.stop(nil)
	wait := reopenPause
	for {
		if res != nil {
			if r.read(ctx, res) {
				wait = reopenPause
			}
			res = nil
		}
		if !pause(ctx, jittered(wait)) {
			break
		}
		_ = r.refresh(ctx) // without it the upstream is asked in vain, which ends with the same record
		wait = min(2*wait, maxReopenPause)
		again, err := r.open(ctx)
		switch {
		case err == nil && isEventStream(again):
			res = again
		case err == nil:
			discard(again)
			if again.StatusCode < http.StatusInternalServerError && again.StatusCode != http.StatusConflict {
				r.endListener()
				r.release()
				return
			}
		case isSessionOver(err):
			r.endListener()
			return
		}
	}
	if !errors.Is(context.Cause(ctx), cluster.ErrStaleClaim) {
		r.release()
	}
}

// release gives the claim up, so that another replica may go on at once.
func (r *ownReader) release() {
	ctx := context.Background() // the store's timeout bounds it
	_ = r.flush(ctx)
	err := r.p.sessions.ReleaseStream(ctx, r.call.current().ID, r.claim)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrStaleClaim) {
		r.p.own.doubt(r.call.current().ID)
		r.call.log().Debug("a session's own stream could not be let go yet", "error", err)
	}
}

// read stores and passes on what comes. It reports whether anything did.
func (r *ownReader) read(ctx context.Context, res *http.Response) (some bool) {
	r.reads(res.Body)
	defer func() {
		r.reads(nil)
		_ = res.Body.Close() // only read
	}()
	events := mcp.NewEventReader(res.Body, maxUpstreamEvent)
	for {
		event, err := events.Next()
		if err != nil {
			return some
		}
		some = true
		if len(event.Data) == 0 {
			r.mu.Lock()
			if event.ID != "" {
				r.from.event = event.ID
			}
			r.mu.Unlock()
			continue
		}
		r.lease.Touch()
		r.took(ctx, event)
	}
}

// reads says which body is read now: nobody gives the call another session meanwhile.
func (r *ownReader) reads(body io.Closer) {
	r.mu.Lock()
	session := r.call.current() // it may have been recovered on the way
	r.body, r.asks = body, session.Generation()
	if r.from.version != session.Version {
		r.from = originOf(session, "")
	}
	r.mu.Unlock()
}
