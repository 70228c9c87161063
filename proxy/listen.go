package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// aheadWait is how long a client that has more than the store is waited for, looking every aheadPause: the reader stores what it could
	// not every tendInterval, or has died with it, which is known after five seconds.
	aheadWait  = 7 * time.Second
	aheadPause = 100 * time.Millisecond
)

// listen makes the client the one that the session's own stream goes to, and this replica its reader unless another one is. after is
// the last event that the client has; nil: it wants what comes from now on.
func (x *exchange) listen(ctx context.Context, lease *cluster.Lease, after *eventID) (res *http.Response, err error) {
	if err := x.p.sessions.OpenStream(ctx, lease, cluster.StreamListening); err != nil {
		return nil, refusalOf(err)
	}
	defer func() {
		if err != nil {
			x.p.own.doubt(x.session)
		}
	}()
	has := eventID{position: -1} // from now on
	if after != nil {
		if err := x.checkSent(ctx, after); err != nil {
			return nil, err
		}
		has = *after
	}
	var (
		state  cluster.StreamState
		begins int64
	)
	err = x.untilStore(func() (err error) {
		state, begins, err = x.claimListening(ctx, has, 0)
		return err
	})
	if err != nil {
		return nil, refusalOf(err)
	}
	l := x.newOwnListener(lease, state, begins)
	if after == nil {
		l.prime(x.record.Revision, x.p.retry())
	} else if state, err = x.catchUp(ctx, l, state, has); err != nil {
		return nil, err
	}
	if state.Reader == x.p.incarnation {
		r, refused, err := x.p.readOwn(ctx, x.call, lease, state)
		if err != nil {
			return nil, streamRefusal(err)
		}
		switch {
		case r != nil:
			r.attach(l)
		case refused.StatusCode == http.StatusConflict:
			discard(refused) // a replica that the store has lost sight of may read it yet; the follower tries again
		default:
			return refused, nil
		}
	}
	return x.streamTo(l), nil
}

// newOwnListener is a listener to what follows on the event of the session's own stream that was the last one when it became that.
func (x *exchange) newOwnListener(lease *cluster.Lease, state cluster.StreamState, begins int64) *listener {
	id := eventID{stream: cluster.OwnStream, claim: state.Claim, position: begins}
	if x.record.Version == state.Version && begins == state.Last {
		id.from = originOf(x.record, state.UpstreamEvent).sealed(begins)
	}
	l := newListener(x.call, lease, id)
	l.number = state.Listener
	l.onEnded = func() {
		if r := x.p.own.of(l.session); r != nil {
			r.stop(errSessionEnded)
		}
	}
	l.onLeave = func() {
		x.p.follower.remove(l)
		if r := x.p.own.of(l.session); r != nil {
			r.left(l)
		}
	}
	return l
}

// checkSent makes sure that a client was sent what it says of the upstream's event, as far as that is of the session's present upstream
// session: else it says nothing. The error is a refusal, or errEventsGone.
func (x *exchange) checkSent(ctx context.Context, after *eventID) error {
	if after.from.event == "" {
		return nil
	}
	if after.from.version > x.record.Version { // the session was recovered, and this replica has not heard of it
		var fresh cluster.Session
		err := x.untilStore(func() (err error) {
			fresh, err = x.p.sessions.Get(ctx, x.session)
			return err
		})
		if err != nil {
			return refusalOf(err)
		}
		x.record = fresh
		x.call.use(fresh)
	}
	if after.from.version == x.record.Version && !after.isSealedBy(x.record) {
		return errEventsGone
	}
	return nil
}

// claimListening makes the client the listener to what follows on an event that it has, unless it is already, by a number, and this replica the
// reader where nobody reads. It also returns the last position that there was when it became the listener.
func (x *exchange) claimListening(ctx context.Context, has eventID, number int64) (state cluster.StreamState, last int64, err error) {
	p := x.p
	claim := cluster.StreamClaim{
		ID: x.session, Owner: p.incarnation, Listen: number == 0, After: has.position, Read: !p.isDraining(), Sent: has.sent(),
	}
	if has.from.version != x.record.Version {
		claim.Sent.UpstreamEvent = ""
	}
	state, err = p.sessions.ClaimStream(ctx, claim)
	if number != 0 {
		state.Listener = number // another client may have become the listener since
	}
	last = state.Last
	if err != nil || state.Reader == p.incarnation || p.isDraining() || !p.follower.isUnread(ctx, state.Reader) {
		return state, last, err
	}
	claim.Listen, claim.From = false, state.Claim
	taken, err := p.sessions.ClaimStream(ctx, claim)
	if err != nil {
		return state, last, nil //nolint:nilerr // the follower tries again
	}
	taken.Listener = state.Listener // as above
	return taken, last, nil
}

// catchUp gives a listener that resumes what it has missed, as far as one look goes; the follower goes on from there. It returns the state
// that it has come to.
func (x *exchange) catchUp(ctx context.Context, l *listener, state cluster.StreamState, after eventID) (cluster.StreamState, error) {
	var page cluster.EventPage
	for begun := time.Now(); ; {
		l.number, l.id = state.Listener, after
		l.id.listener = 0
		if after.from.version != x.record.Version {
			l.id.from = sealedOrigin{}
		}
		if end := state.EndOfClaim(after.claim); after.position > end {
			// A reader before this one had sent it more than it could store.
			if mayComeAgain(state, after) {
				return state, errEventsGone
			}
			l.id = eventID{stream: cluster.OwnStream, claim: state.Claim, position: end} // of what the store knows nothing was missed
		}
		err := x.untilStore(func() error {
			page = x.p.sessions.Events(ctx, []cluster.EventQuery{{ID: l.session, Stream: cluster.OwnStream, After: l.id.position, Limit: followPage}})[0]
			return page.Err
		})
		isAhead := errors.Is(err, cluster.ErrEventsGone) && after.claim == state.Claim && after.position > state.Last
		if !isAhead || time.Since(begun) > aheadWait || !pause(ctx, aheadPause) {
			break
		}
		if state, _, err = x.claimListening(ctx, after, l.number); err != nil {
			return state, refusalOf(err)
		}
	}
	switch {
	case errors.Is(page.Err, cluster.ErrEventsGone):
		return state, errEventsGone
	case page.Err != nil:
		return state, refusalOf(page.Err)
	}
	l.prime(x.record.Revision, x.p.retry())
	l.offer(l.id.position+1, page.Claim, origin{}, page.Events...)
	return state, nil
}

// mayComeAgain reports whether what a client has, and the present reader did not know of when it began, may be among what that reader is
// given: the upstream gives its events ids, and so may give them out again.
func mayComeAgain(state cluster.StreamState, after eventID) bool {
	if after.from.event == "" {
		return state.UpstreamEvent != ""
	}
	return after.from.version >= state.Version // another upstream session says nothing that the one before has said
}
