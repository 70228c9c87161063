package proxy_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// open counts the sessions that a talker still has.
func (k *talker) open() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.made {
		if !s.lost {
			n++
		}
	}
	return n
}

// forgets waits until a talker has been asked to forget all of its sessions but some.
func (k *talker) forgets(t *testing.T, but int) {
	t.Helper()
	eventually(t, "the upstream sessions to be ended", func() bool { return k.open() == but })
}

// whenInitialized does something when a new upstream session is told that its initialization is complete. The first one is not.
func (k *talker) whenInitialized(do func(w http.ResponseWriter, r *http.Request) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		return got.msg.Method == "notifications/initialized" && do(w, r)
	}
}

// holds has a new upstream session hold up its recovery, until go on is called or the request ends. held gets a value when it does.
func (k *talker) holds() (held chan struct{}, goOn func()) {
	held, on := make(chan struct{}, 1), make(chan struct{})
	k.whenInitialized(func(_ http.ResponseWriter, r *http.Request) bool {
		held <- struct{}{}
		select {
		case <-on:
		case <-r.Context().Done():
		}
		return false
	})
	return held, func() { close(on) }
}

func TestARecoveryThatFailsLeavesNoUpstreamSession(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, _, token := listening(t, k)
	k.whenInitialized(func(w http.ResponseWriter, _ *http.Request) bool {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return true
	})
	k.lose()
	wantsUnavailable(t, post(a.url, token, callBody).send(t))
	k.forgets(t, 0)
	if n := k.sessions(); n < 3 || n > 5 {
		t.Errorf("the upstream has had %d sessions", n)
	}
	k.whenInitialized(func(http.ResponseWriter, *http.Request) bool { return false })
	wantsAnswer(t, post(a.url, token, callBody).send(t))
	k.forgets(t, 1)
}

func TestARecoveryWithAnUnusableAnswerLeavesNoUpstreamSession(t *testing.T) {
	t.Parallel()
	for name, initAs := range map[string]string{"no JSON": "yes", "an error": `{"jsonrpc":"2.0","id":"init","error":{"code":-32602,"message":"no"}}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, _, token := listening(t, k)
			k.mu.Lock()
			k.initAs = func(w http.ResponseWriter, _ recorded) bool {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Mcp-Session-Id", upstreamSession)
				_, _ = io.WriteString(w, initAs)
				return true
			}
			k.mu.Unlock()
			k.lose()
			post(a.url, token, pingBody).send(t)
			eventually(t, "the new upstream session to be ended", func() bool { return k.ended() > 0 })
		})
	}
}

func TestASessionThatEndsWhileItIsMadeAnewLeavesNoUpstreamSession(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	held, goOn := k.holds()
	k.lose()
	answered := make(chan answer, 1)
	go func() { answered <- post(a.url, token, callBody).send(t) }()
	receive(t, "the recovery", held)
	if got := del(b.url, token).send(t); got.status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", got.status, got.body)
	}
	goOn()
	if got := receive(t, "an answer", answered); got.status != http.StatusNotFound || got.problem().Error.Data.Reason != "session_not_found" {
		t.Errorf("%d %s", got.status, got.body)
	}
	k.forgets(t, 0)
}

// What waits for a recovery when a replica stops has never run, and that is what its client is told.
func TestARecoveryThatIsCutByADrainLeavesNoUpstreamSession(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"a tool": callBody, "a ping": pingBody} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			held, _ := k.holds()
			k.lose()
			answered := make(chan answer, 1)
			go func() { answered <- post(a.url, token, body).send(t) }()
			receive(t, "the recovery", held)
			a.proxy.Drain()
			a.proxy.Cut()
			wantsUnavailable(t, receive(t, "an answer", answered))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := a.proxy.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			if n := k.open(); n != 0 {
				t.Errorf("%d upstream sessions are left", n)
			}
			k.whenInitialized(func(http.ResponseWriter, *http.Request) bool { return false })
			wantsAnswer(t, post(b.url, token, body).send(t))
		})
	}
}

// wantsUnavailable wants a request refused because of its upstream, which it has not come to.
func wantsUnavailable(t *testing.T, got answer) {
	t.Helper()
	if got.status != http.StatusServiceUnavailable || got.problem().Error.Data.Reason != "upstream_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s, want upstream_unavailable", got.status, got.header, got.body)
	}
}

// relisted is a session at one talker, and a replica that lists only the other one: as while a change of the endpoints is rolled out.
func relisted(t *testing.T) (from, to *talker, before, after *node, token string) {
	t.Helper()
	from, to = newTalker(t), newTalker(t)
	f := newFleet(t, from.url)
	target, err := url.Parse(to.url)
	if err != nil {
		t.Fatal(err)
	}
	before = f.node()
	after = f.node(func(c *proxy.Config) { c.Upstreams = []proxy.Upstream{{URL: target}} })
	token = before.openSession()
	return from, to, before, after, token
}

func TestASessionThatMovesIsForgottenWhereItWas(t *testing.T) {
	t.Parallel()
	from, to, _, after, token := relisted(t)
	begun := time.Now()
	wantsAnswer(t, post(after.url, token, callBody).with("Authorization", "Bearer of-the-client").send(t))
	if from.open() != 1 || to.open() != 1 {
		t.Errorf("%d and %d upstream sessions are open, want one each: others may not have heard yet", from.open(), to.open())
	}
	from.forgets(t, 0)
	if took := time.Since(begun); took < time.Second {
		t.Errorf("it was forgotten after %v", took)
	}
	requests := from.requests()
	if got := requests[len(requests)-1]; got.method != http.MethodDelete || got.path != "/endpoint" || got.header.Get("Authorization") != "" {
		t.Errorf("the former endpoint got %s %s with %v", got.method, got.path, got.header)
	}
	if to.open() != 1 {
		t.Error("the new upstream session was ended, too")
	}
}

// What has been in flight for long where a session was may still be answered there.
func TestASessionThatMovesLeavesRequestsInFlightAlone(t *testing.T) {
	t.Parallel()
	from, _, before, after, token := relisted(t)
	goOn := make(chan struct{})
	from.next = func(_ http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method == "tools/call" {
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
		return false
	}
	answered := make(chan answer, 1)
	go func() { answered <- post(before.url, token, callBody).send(t) }()
	parsed, _ := cluster.ParseToken(token)
	eventually(t, "the store to know of the request", func() bool {
		s, err := after.manager.Get(t.Context(), parsed.ID)
		return err == nil && s.Pending == 1
	})
	wantsAnswer(t, post(after.url, token, pingBody).send(t))
	after.proxy.Drain() // what it wants forgotten is forgotten now
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := after.proxy.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if from.open() != 1 {
		t.Error("the upstream session was ended while a request was in flight")
	}
	close(goOn)
	wantsAnswer(t, receive(t, "the answer", answered))
}

func TestWithoutRecoveryASessionWhoseEndpointIsGoneIsForgottenThere(t *testing.T) {
	t.Parallel()
	from, to := newTalker(t), newTalker(t)
	f := newFleet(t, from.url)
	token := f.node().openSession()
	target, err := url.Parse(to.url)
	if err != nil {
		t.Fatal(err)
	}
	after := f.node(func(c *proxy.Config) { c.Upstreams, c.NoRecover = []proxy.Upstream{{URL: target}}, true })
	if got := post(after.url, token, pingBody).send(t); got.status != http.StatusNotFound {
		t.Errorf("%d %s", got.status, got.body)
	}
	from.forgets(t, 0)
}

// A replica that has not heard yet of a recovery ends the upstream session that there is now.
func TestAClientThatEndsItsSessionEndsItWhereItIs(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.ReportInterval, c.Lease = 2*time.Second, 10*time.Second })
	a, b := f.nodes()
	token := a.openSession()
	for range 8 { // it has a lease that lasts
		wantsAnswer(t, post(b.url, token, callBody).send(t))
	}
	k.lose()
	wantsAnswer(t, post(a.url, token, callBody).send(t))
	if got := del(b.url, token).send(t); got.status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", got.status, got.body)
	}
	k.forgets(t, 0)
}
