package proxy_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// wantsTooManyStreams wants an answer to be the refusal of one stream too many.
func wantsTooManyStreams(t *testing.T, got answer, limit string) {
	t.Helper()
	p := got.problem()
	if got.status != http.StatusTooManyRequests || p.Error.Code != 1429 || p.Error.Data.Reason != "too_many_streams" || p.Error.Data.Limit != limit ||
		p.Error.Data.RetryAfterMS < 1 || got.header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %d %v %s, want 429 by %s", got.status, got.header, got.body, limit)
	}
}

// The cap holds over all replicas, exactly, whichever the streams are open at.
func TestOpenStreamsOfASessionAreCappedOverThreeReplicas(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.MaxStreams = 3 })
	slowly := func(c *proxy.Config) { c.FollowInterval = patience } // an earlier listener stays until it is looked at
	replicas := []*replica{f.replica(slowly), f.replica(slowly), f.replica(slowly)}
	session, other := replicas[0].openSession(), replicas[0].openSession()
	var streams []*stream
	for _, r := range replicas {
		streams = append(streams, get(r.url, session).stream(t))
	}
	for _, r := range replicas {
		wantsTooManyStreams(t, get(r.url, session).send(t), "max_streams")
		get(r.url, other).stream(t).drop() // another session has its own
	}
	if got := post(replicas[1].url, session, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("a request beside the streams: %d %s", got.status, got.body)
	}
	streams[2].drop()
	eventually(t, "another stream to be opened in its place", func() bool {
		return get(replicas[2].url, session).open(t).StatusCode == http.StatusOK
	})
	wantsTooManyStreams(t, get(replicas[1].url, session).send(t), "max_streams")
}

// A broken connection may take the answers to all requests in flight with it, and official clients give up their session when they cannot
// resume one of them.
func TestAllAnswersInFlightMayBeResumedAtOnce(t *testing.T) {
	t.Parallel()
	const calls = 5
	messages := make(chan string)
	u := streaming(t, messages)
	f := newFleet(t, u.url, func(c *cluster.Config) { c.MaxStreams, c.MaxPending = 2, calls })
	a, b := f.node(), f.node()
	session := a.openSession()
	var broken []*stream
	for i := range calls {
		s := post(a.url, session, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"long"}}`, i)).stream(t)
		s.next() // where it is
		s.drop()
		broken = append(broken, s)
	}
	var resumed []*stream
	for i, s := range broken {
		at := []*node{a, b}[i%2]
		eventually(t, "an answer to be resumed", func() bool {
			res := s.resume(at.replica, session).open(t)
			if res.StatusCode == http.StatusOK {
				resumed = append(resumed, &stream{opened: res, t: t})
			}
			return res.StatusCode == http.StatusOK
		})
	}
	wantsTooManyStreams(t, broken[0].resume(b.replica, session).send(t), "max_pending")
	if got := get(b.url, session).send(t); got.status == http.StatusTooManyRequests { // who listens is counted apart
		t.Errorf("listening beside the answers: %d %s", got.status, got.body)
	}
	for _, s := range resumed {
		s.drop()
	}
}

// What a replica had open that has died does not keep its client out for longer than it takes to know.
func TestStreamsOfADeadReplicaMakeRoom(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.MaxStreams = 1 })
	a, b := f.nodes()
	session := a.openSession()
	get(a.url, session).stream(t)
	wantsTooManyStreams(t, get(b.url, session).send(t), "max_streams")
	a.kill()
	begun := time.Now()
	eventually(t, "the stream to be opened elsewhere", func() bool {
		return get(b.url, session).open(t).StatusCode == http.StatusOK
	})
	t.Logf("after %v", time.Since(begun))
}
