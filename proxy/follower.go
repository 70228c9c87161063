package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// followPage is how many events are read of one stream at a time, and followBatch of how many streams with one round trip.
	followPage  = 256
	followBatch = 64
	// tendInterval is how often what this replica reads is looked after.
	tendInterval = time.Second
	// takeoversAtOnce is how many streams whose reader died this replica opens anew at the same time.
	takeoversAtOnce = 16
	// takeoverTime is how long an upstream may take to open one of them; then it is another one's turn.
	takeoverTime = 5 * time.Second
	// beginTime is how long an answer may take to be stored, beyond Config.KeepAfter, after its client broke off.
	beginTime = 2 * time.Second
)

// follower gives listeners the events that other replicas store, for all of them with two round trips an interval: what has changed, and what
// is new of that. Where more is new than a page, it reads on.
type follower struct {
	p         *Proxy
	mu        sync.Mutex
	listeners map[*listener]struct{}
	taking    map[cluster.ID]bool // streams that are being taken over
	closed    bool                // no stream is taken over any more
	places    chan struct{}
}

func newFollower(p *Proxy) *follower {
	return &follower{
		p: p, listeners: make(map[*listener]struct{}), taking: make(map[cluster.ID]bool), places: make(chan struct{}, takeoversAtOnce),
	}
}

func (f *follower) add(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners[l] = struct{}{}
}

func (f *follower) remove(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
}

// close has it take over no stream any more.
func (f *follower) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// RunStreams follows the streams of this replica's clients that other replicas store, takes over those whose replica has died, and
// looks after those that this one reads, until ctx is done. The caller owns the goroutine. Without it no stream is resumed.
func (p *Proxy) RunStreams(ctx context.Context) error {
	follow := time.NewTicker(p.cfg.FollowInterval)
	defer follow.Stop()
	tend := time.NewTicker(tendInterval)
	defer tend.Stop()
	checked := time.Now()
	for {
		select {
		case <-follow.C:
			p.follower.look(ctx, time.Now())
		case <-tend.C:
			now := time.Now()
			p.tendOwn(ctx, now)
			if now.Sub(checked) >= checkInterval && p.checkOwn(ctx, now) {
				checked = now
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// look looks once at all streams that are due.
func (f *follower) look(ctx context.Context, now time.Time) {
	own, answers := f.due(now)
	var behind []*listener
	if len(own) > 0 {
		ids := make([]cluster.ID, len(own))
		for i, l := range own {
			ids[i] = l.session
		}
		for i, state := range f.p.sessions.StreamStates(ctx, ids) {
			if f.isBehind(ctx, own[i], state) {
				behind = append(behind, own[i])
			}
		}
	}
	f.readAll(ctx, append(behind, answers...))
}

// due are the listeners to look at, those to own streams and those to answers.
func (f *follower) due(now time.Time) (own, answers []*listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	quiet := time.Duration(len(f.listeners)) * time.Second / quietAtOnce
	for l := range f.listeners {
		switch {
		case !l.due(now, quiet-f.p.cfg.FollowInterval/8): // ticks do not come on the dot
		case l.isOwn():
			own = append(own, l)
		default:
			answers = append(answers, l)
		}
	}
	return own, answers
}

// isBehind takes in the state of a listener's own stream, and reports whether there is something to read.
func (f *follower) isBehind(ctx context.Context, l *listener, state cluster.StreamState) bool {
	switch {
	case errors.Is(state.Err, cluster.ErrNotFound):
		l.end()
		return false
	case state.Err != nil:
		return false
	case isAhead(l, state):
		l.end() // its client comes back, and is told
		return false
	case state.Listener != l.number: // its client has opened another stream since
		return f.handOver(l, state)
	case state.Reader == f.p.incarnation && f.p.own.of(l.session) != nil:
	case f.isUnread(ctx, state.Reader):
		f.takeOver(l, state)
	}
	return state.Last > l.at()
}

// isAhead reports whether a listener was given what a reader before the present one could not store: of the events that are stored at
// those positions it has none.
func isAhead(l *listener, state cluster.StreamState) bool {
	has := l.has()
	return has.position > state.EndOfClaim(has.claim)
}

// handOver ends a listener where the next one begins: no message is lost between the two, and none is on both. It reports whether there is
// something to read before.
func (f *follower) handOver(l *listener, state cluster.StreamState) bool {
	position, known := state.EndOfListener(l.number)
	if !known {
		l.end()
		return false
	}
	return !l.endAt(position)
}

// isUnread reports whether nobody reads: there is no reader, or it is dead.
func (f *follower) isUnread(ctx context.Context, reader string) bool {
	if reader == "" || reader == f.p.incarnation {
		return true
	}
	alive, err := f.p.sessions.Alive(ctx, reader)
	return err == nil && !alive
}

// takeOver makes this replica the reader of a stream that nobody reads, in the background.
func (f *follower) takeOver(l *listener, state cluster.StreamState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taking[l.session] || f.closed || f.p.isDraining() {
		return
	}
	select {
	case f.places <- struct{}{}:
	default:
		return // another time
	}
	f.taking[l.session] = true
	f.p.running.Go(func() {
		defer func() {
			f.mu.Lock()
			delete(f.taking, l.session)
			f.mu.Unlock()
			<-f.places
		}()
		defer f.p.recovered("a session's own stream")
		f.p.takeOver(l, state.Claim)
	})
}

// takeOver claims the stream of a listener and reads it on.
func (p *Proxy) takeOver(l *listener, from int64) {
	lease := l.watch()
	if lease == nil {
		return
	}
	defer lease.Release()
	has := l.has()
	state, err := p.sessions.ClaimStream(p.background, cluster.StreamClaim{
		ID: l.session, Owner: p.incarnation, After: has.position, Read: true, From: from, Sent: has.sent(),
	})
	if err != nil {
		p.own.doubt(l.session)
		return
	}
	if state.Reader != p.incarnation {
		return
	}
	// One upstream that hangs must not keep the streams of others waiting.
	ctx, cancel := context.WithTimeout(p.background, takeoverTime)
	defer cancel()
	r, refused, err := p.readOwn(ctx, l.call, lease, state)
	switch {
	case err != nil:
		l.call.log().Debug("a session's own stream could not be taken over", "error", err) // it is tried again
	case refused != nil:
		discard(refused)
		l.call.log().Debug("a session's own stream could not be taken over", "status", refused.StatusCode)
		if refused.StatusCode < http.StatusInternalServerError && refused.StatusCode != http.StatusConflict {
			l.end() // there is none; else it is tried again
		}
	default:
		l.call.log().Debug("took over a session's own stream")
		r.attach(l)
	}
}

// readAll gives listeners what follows on what they have, page after page, until they have all that there is. It stops when the next look
// is due: one that gets more all the time keeps nobody waiting.
func (f *follower) readAll(ctx context.Context, listeners []*listener) {
	for begun := time.Now(); len(listeners) > 0; {
		var behind []*listener
		for batch := range slices.Chunk(listeners, followBatch) {
			behind = append(behind, f.readPages(ctx, batch)...)
		}
		if time.Since(begun) >= min(f.p.cfg.FollowInterval, tendInterval) {
			return
		}
		listeners = behind
	}
}

// readPages gives listeners a page each, and returns those for which there is more. For a client that does not take what it has, nothing is
// read: it waits in the store.
func (f *follower) readPages(ctx context.Context, listeners []*listener) (behind []*listener) {
	listeners = slices.DeleteFunc(slices.Clone(listeners), func(l *listener) bool { return !l.hasRoom() })
	if len(listeners) == 0 {
		return nil
	}
	queries := make([]cluster.EventQuery, len(listeners))
	for i, l := range listeners {
		queries[i] = cluster.EventQuery{ID: l.session, Stream: l.id.stream, After: l.at(), Limit: followPage}
	}
	pages := f.p.sessions.Events(ctx, queries)
	for i, l := range listeners {
		if f.got(ctx, l, queries[i].After, pages[i]) {
			behind = append(behind, l)
		}
	}
	return behind
}

// got gives a listener one page, and reports whether there is more for it.
func (f *follower) got(ctx context.Context, l *listener, after int64, page cluster.EventPage) (isBehind bool) {
	switch {
	case errors.Is(page.Err, cluster.ErrNotFound):
		l.lost()
	case errors.Is(page.Err, cluster.ErrEventsGone):
		f.gone(ctx, l)
	case page.Err != nil: // another time
	case l.isOwn() && page.Listener != l.number && !l.isEnding(): // the next look tells where it ends
	case len(page.Events) > 0:
		l.offer(after+1, page.Claim, origin{}, page.Events...)
		return page.Last > l.at() && !l.isOver()
	case !l.isOwn():
		f.waitForAnswer(ctx, l)
	}
	return false
}

// gone ends a listener to a stream of which something is missing. An answer that was begun a moment ago may just not be stored yet: it is,
// Config.KeepAfter after it began.
func (f *follower) gone(ctx context.Context, l *listener) {
	if l.isOwn() {
		l.end()
		return
	}
	alive, err := f.p.sessions.Alive(ctx, l.id.owner)
	switch {
	case err != nil:
	case !alive:
		l.fail(mcp.ReasonMayHaveRun, "the replica that waited for the answer is gone; the request may have run")
	case time.Since(l.opened) > f.p.cfg.KeepAfter+beginTime:
		l.fail(mcp.ReasonEventsGone, "messages of this stream are not kept any more; the request may have run")
	}
}

// waitForAnswer ends a listener whose answer will not come: its replica is dead.
func (f *follower) waitForAnswer(ctx context.Context, l *listener) {
	alive, err := f.p.sessions.Alive(ctx, l.id.owner)
	if err == nil && !alive && !f.hasMore(ctx, l) {
		l.fail(mcp.ReasonMayHaveRun, "the replica that waited for the answer is gone; the request may have run")
	}
}

// hasMore looks once more: its replica may have stored something just before it ended.
func (f *follower) hasMore(ctx context.Context, l *listener) bool {
	pages := f.p.sessions.Events(ctx, []cluster.EventQuery{{ID: l.session, Stream: l.id.stream, After: l.at(), Limit: 1}})
	return pages[0].Err != nil || len(pages[0].Events) > 0
}
