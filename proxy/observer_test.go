package proxy_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// outcomes returns what became of recoveries and resumptions, as the observer has heard.
func (r *replica) outcomes() (recovered []proxy.Recovery, resumed []proxy.Resumption) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.recovered), slices.Clone(r.resumed)
}

// wantsResumptions waits until the observer has heard these and no others.
func (r *replica) wantsResumptions(want ...proxy.Resumption) {
	r.t.Helper()
	var got []proxy.Resumption
	defer func() {
		if r.t.Failed() {
			r.t.Logf("resumptions %q, want %q", got, want)
		}
	}()
	eventually(r.t, "resumptions", func() bool {
		_, got = r.outcomes()
		return slices.Equal(got, want)
	})
}

func TestARefusalIsToldWithItsLimit(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url, func(c *cluster.Config) { c.RequestRate, c.RequestBurst = 1, 1 }).replica()
	token := r.openSession()
	for range 3 {
		post(r.url, token, pingBody).send(t)
	}
	post(r.url, "", pingBody).send(t)
	post(r.url, token, "").with("Content-Type", "text/plain").send(t)
	var refused, limits []string
	eventually(t, "six requests", func() bool { return len(r.requests()) == 6 })
	for _, info := range r.requests() {
		refused, limits = append(refused, string(info.Refused)), append(limits, info.Limit)
	}
	last := len(refused) - 1
	if want := []string{"", "", "rate_limited"}; !slices.Equal(refused[:3], want) || limits[2] != "request_rate" && limits[2] != "request_burst" {
		t.Errorf("refused for %q by %q", refused, limits)
	}
	if refused[last-1] != string(mcp.ReasonSessionRequired) || refused[last] != "" || limits[last-1]+limits[last] != "" {
		t.Errorf("what is no limit's: refused for %q by %q", refused[last-1:], limits[last-1:])
	}
}

func TestAnAttemptToMakeASessionAnewIsToldOnce(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	wantsAnswer(t, post(b.url, token, pingBody).send(t))
	k.lose()
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	if recovered, _ := a.outcomes(); !slices.Equal(recovered, []proxy.Recovery{proxy.RecoveryMade}) {
		t.Errorf("recoveries %q", recovered)
	}
	k.mu.Lock()
	k.initAs = func(w http.ResponseWriter, _ recorded) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	k.mu.Unlock()
	k.lose()
	post(b.url, token, pingBody).send(t)
	recovered, _ := b.outcomes()
	if n := len(recovered); n == 0 || recovered[n-1] != proxy.RecoveryUpstreamFailed {
		t.Errorf("recoveries at an upstream that fails: %q", recovered)
	}
}

func TestWithoutRecoveryALostSessionIsToldOff(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, _, token := listening(t, k, func(c *proxy.Config) { c.NoRecover = true })
	k.lose()
	post(a.url, token, pingBody).send(t)
	if recovered, _ := a.outcomes(); !slices.Equal(recovered, []proxy.Recovery{proxy.RecoveryOff}) {
		t.Errorf("recoveries %q", recovered)
	}
}

func TestResumptionsAreToldByOutcome(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t)
	s := post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	s.drop()
	again := s.resume(b.replica, token).stream(t)
	send(messages, result)
	again.wantsRest(result)
	b.wantsResumptions(proxy.ResumptionResumed)
	again.resume(b.replica, token).send(t)
	get(b.url, token).with("Last-Event-ID", "nonsense").send(t)
	b.wantsResumptions(proxy.ResumptionResumed, proxy.ResumptionComplete, proxy.ResumptionEventsGone)

	s = post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	a.kill()
	s.resume(b.replica, token).stream(t).rest()
	b.wantsResumptions(proxy.ResumptionResumed, proxy.ResumptionComplete, proxy.ResumptionEventsGone, proxy.ResumptionMayHaveRun)
}

func TestOpenStreamsAreCounted(t *testing.T) {
	t.Parallel()
	_, a, b, token, messages := answering(t)
	wants := func(n *node, want proxy.Streams) {
		t.Helper()
		eventually(t, "the number of open streams", func() bool { return n.proxy.Streams() == want })
	}
	s := post(a.url, token, callBody).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	wants(a, proxy.Streams{Answers: 1, ReadAnswers: 1})
	if got, want := a.proxy.InFlight(), (proxy.InFlight{Bytes: int64(len(callBody))}); got != want {
		t.Errorf("in flight with a stream: %+v, want %+v", got, want)
	}
	s.drop()
	wants(a, proxy.Streams{ReadAnswers: 1})
	again := s.resume(b.replica, token).stream(t)
	wants(b, proxy.Streams{Resumed: 1})
	send(messages, result)
	again.wantsRest(result)
	wants(a, proxy.Streams{})
	wants(b, proxy.Streams{})

	k := newTalker(t)
	_, a, b, token = listening(t, k)
	own := listen(t, a, token)
	wants(a, proxy.Streams{Own: 1, ReadOwn: 1})
	wants(b, proxy.Streams{})
	own.drop()
	wants(a, proxy.Streams{ReadOwn: 1})
	if got := del(a.url, token).send(t); got.status >= 300 {
		t.Fatalf("DELETE: %d %s", got.status, got.body)
	}
	wants(a, proxy.Streams{})
}

func TestAStreamWithoutASessionIsCountedWhileItIsOpen(t *testing.T) {
	t.Parallel()
	messages := make(chan string, 10)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, _ recorded) bool {
		answerWith(w, r, messages)
		return true
	})
	a, _ := newFleet(t, u.url).nodes()
	s := stateless(a.url, "subscriptions/listen", "").stream(t)
	eventually(t, "a stream", func() bool { return a.proxy.Streams() == proxy.Streams{Stateless: 1} })
	send(messages, result)
	s.rest()
	eventually(t, "no stream", func() bool { return a.proxy.Streams() == proxy.Streams{} })
}
