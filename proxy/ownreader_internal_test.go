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
