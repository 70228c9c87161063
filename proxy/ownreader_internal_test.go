package proxy

import (
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A reader without a client goes on when the store is late with one answer, and lets go before another replica may have taken over and
// given up on the upstream.
func TestAReaderGoesOnWhenTheStoreIsLate(t *testing.T) {
	t.Parallel()
	var why error
	begun := time.Now()
	r := &ownReader{p: &Proxy{incarnation: "a/1"}, claim: 1, checked: begun, stop: func(cause error) { why = cause }}
	away := cluster.StreamState{Err: cluster.ErrStoreUnavailable}
	r.check(away, begun.Add(checkInterval+tendInterval))
	if why != nil {
		t.Errorf("one answer was late: %v", why)
	}
	r.call = &upstreamCall{}
	r.check(cluster.StreamState{Reader: "a/1", Claim: 1}, begun.Add(checkInterval+2*tendInterval))
	r.check(away, begun.Add(2*checkInterval+3*tendInterval))
	if why != nil {
		t.Errorf("the store had answered since: %v", why)
	}
	r.check(away, begun.Add(checkInterval+2*tendInterval+blindReading+1))
	if why == nil {
		t.Error("the reader goes on without the store")
	}
	if limit := checkInterval + conflictWait; blindReading > limit {
		t.Errorf("it would go on for %v, while another one asks the upstream for up to %v", blindReading, limit)
	}
}

// Of two clients that ask a replica at once the later one is sent to, also when the earlier one is served last.
func TestAnEarlierListenerDoesNotEndALaterOne(t *testing.T) {
	t.Parallel()
	earlier, later := &listener{number: 1, news: newSignal()}, &listener{number: 2, news: newSignal()}
	r := &ownReader{}
	for _, l := range []*listener{later, later, earlier} {
		r.attach(l)
	}
	if later.isOver() || !later.fed || earlier.fed || r.listener != later {
		t.Errorf("the later one is over: %v, is fed: %v, the earlier one: %v", later.isOver(), later.fed, earlier.fed)
	}
}

// A client that comes while a reader ends is left to the follower: nothing would be passed on to it any more.
func TestAReaderThatHasEndedTakesNoListener(t *testing.T) {
	t.Parallel()
	r, l := &ownReader{}, &listener{news: newSignal()}
	r.unfeed()
	r.attach(l)
	if !l.due(time.Now(), time.Second) || l.isOver() {
		t.Errorf("the listener is fed: %v, over: %v", l.fed, l.isOver())
	}
}

// Of what a client was sent by readers before, and they could not store, the present one may have read as much by now.
func TestAListenerWithMoreThanWasStoredIsSentAway(t *testing.T) {
	t.Parallel()
	began := cluster.StreamState{Claim: 3, Since: []int64{7, 5, 0}}
	for _, tt := range []struct {
		claim, position int64
		isOver          bool
	}{
		{1, 5, false}, {1, 6, true}, {1, 9, true}, {2, 7, false}, {2, 8, true}, {2, 9, true}, {3, 7, false}, {3, 9, false}, {3, 10, true},
	} {
		r := &ownReader{claim: 3, began: began, last: 9}
		l := &listener{id: eventID{stream: cluster.OwnStream, claim: tt.claim, position: tt.position}, news: newSignal()}
		r.attach(l)
		if l.isOver() != tt.isOver || (r.listener == l) == tt.isOver {
			t.Errorf("with event %d of claim %d: over %v, want %v", tt.position, tt.claim, l.isOver(), tt.isOver)
		}
	}
}
