package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// notFoundTo answers requests of a method with 404 and a JSON-RPC error of their id, and counts them. Those that are no requests get 404 alone.
func notFoundTo(method string, ran *atomic.Int32) handler {
	return func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != method {
			return false
		}
		ran.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		if got.msg.Kind == mcp.KindRequest {
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(got.msg.ID)+`,"error":{"code":-32602,"message":"unknown tool"}}`)
		}
		return true
	}
}

// pings counts the pings that the proxy has sent of its own accord.
func (u *upstream) pings() (n int) {
	for _, got := range u.requests() {
		if strings.Contains(got.body, "shadowcat:known") {
			n++
		}
	}
	return n
}

// A server that knows the session may answer 404 to what it has run.
func TestA404OfASessionThatIsKnownIsTheAnswer(t *testing.T) {
	t.Parallel()
	for name, noRecover := range map[string]bool{"with recovery": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ran atomic.Int32
			k := newTalker(t)
			k.next = notFoundTo("tools/call", &ran)
			_, a, _, token := listening(t, k, func(c *proxy.Config) { c.NoRecover = noRecover })
			got := post(a.url, token, call(7, "tools/call", "{}")).send(t)
			if got.status != http.StatusNotFound || !strings.Contains(got.body, `"id":7,"error":{"code":-32602,"message":"unknown tool"}`) {
				t.Errorf("%d %s, want the upstream's own answer", got.status, got.body)
			}
			if ran.Load() != 1 || k.pings() != 1 {
				t.Errorf("it ran %d times, and the upstream was asked %d times; want once each", ran.Load(), k.pings())
			}
			wantsAnswer(t, post(a.url, token, pingBody).send(t))
			if status := a.status(token); status != cluster.StatusActive || k.sessions() != 1 || k.open() != 1 || a.recoveries() != 0 {
				t.Errorf("the session is %s, and its upstream has had %d, of which %d are open", status, k.sessions(), k.open())
			}
		})
	}
}

func TestA404ToANotificationOfASessionThatIsKnownIsTheAnswer(t *testing.T) {
	t.Parallel()
	var ran atomic.Int32
	k := newTalker(t)
	k.next = notFoundTo("notifications/cancelled", &ran)
	_, a, _, token := listening(t, k)
	if got := post(a.url, token, `{"jsonrpc":"2.0","method":"notifications/cancelled"}`).send(t); got.status != http.StatusNotFound || ran.Load() != 1 {
		t.Errorf("%d %s, sent %d times", got.status, got.body, ran.Load())
	}
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
}

func TestOneOfManyAsksWhetherASessionIsLost(t *testing.T) {
	t.Parallel()
	const many = 20
	var ran atomic.Int32
	all := make(chan struct{})
	k := newTalker(t)
	k.next = func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method == "ping" {
			<-all // by then most of them wait for this one
			return false
		}
		handled := notFoundTo("tools/call", &ran)(w, r, got)
		if handled && ran.Load() == many {
			flush(w)
			close(all)
		}
		return handled
	}
	_, a, _, token := listening(t, k)
	var sending sync.WaitGroup
	for i := range many {
		sending.Go(func() {
			if got := post(a.url, token, call(i+10, "tools/call", "{}")).send(t); got.status != http.StatusNotFound || !strings.Contains(got.body, "unknown tool") {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	sending.Wait()
	if n := k.pings(); n > many/4 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if ran.Load() != many {
		t.Errorf("%d calls ran, want %d", ran.Load(), many)
	}
}

func TestACallMayHaveRunWhereNobodyCanTellWhetherItsSessionIsLost(t *testing.T) {
	t.Parallel()
	var ran atomic.Int32
	k := newTalker(t)
	k.next = func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method == "ping" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return notFoundTo("tools/call", &ran)(w, r, got)
	}
	_, a, _, token := listening(t, k)
	got := post(a.url, token, call(7, "tools/call", "{}")).send(t)
	wantsMayHaveRun(t, []string{got.body}, "7")
	if status := a.status(token); ran.Load() != 1 || k.pings() != 3 || k.sessions() != 1 || status != cluster.StatusActive {
		t.Errorf("it ran %d times, the upstream was asked %d times, and the session is %s", ran.Load(), k.pings(), status)
	}
}
