package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

func TestRequestAndAnswerPassWithTheirHeadersIDsAndTrailers(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Custom", "kept")
		w.Header().Set("Mcp-Session-Id", upstreamSession) // as some SDKs do in every answer
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "dropped")
		w.Header().Set("Trailer", "X-Trailer, Mcp-Session-Id")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{}}`)
		w.Header().Set("X-Trailer", "kept")
		w.Header().Set("Mcp-Session-Id", upstreamSession)
		w.Header().Set(http.TrailerPrefix+"X-Late", "kept")
		return true
	})
	f := newFleet(t, u.url+"?key=secret")
	r := f.replica()
	token := r.openSession()
	const body = `{"jsonrpc":"2.0", "id":"1", "method":"tools/call", "params":{}}`
	q := post(r.url+"?a=1", token, body).with("Authorization", "Bearer x").with("X-Custom", "kept").with("Mcp-Protocol-Version", "2025-06-18").
		with("Connection", "X-Hop, Upgrade").with("X-Hop", "dropped").with("Upgrade", "websocket").with("X-Forwarded-For", "6.6.6.6")
	res := q.open(t)
	text, err := io.ReadAll(res.Body)
	if err != nil || string(text) != `{"jsonrpc":"2.0","id":"1","result":{}}` {
		t.Errorf("answer %q, %v", text, err)
	}
	if h := res.Header; h.Get("X-Custom") != "kept" || h.Get("X-Hop") != "" || h.Get("Mcp-Session-Id") != token {
		t.Errorf("header of the answer: %v", h)
	}
	if h := res.Trailer; h.Get("X-Trailer") != "kept" || h.Get("X-Late") != "kept" || h.Get("Mcp-Session-Id") != "" {
		t.Errorf("trailer of the answer: %v", h)
	}
	requests := u.requests()
	got := requests[len(requests)-1]
	if got.path != "/endpoint" || got.query != "key=secret&a=1" || "http://"+got.host+"/endpoint" != u.url || got.body != body {
		t.Errorf("the upstream got %s?%s at host %s: %s", got.path, got.query, got.host, got.body)
	}
	h := got.header
	if h.Get("Mcp-Session-Id") != upstreamSession || h.Get("Authorization") != "Bearer x" || h.Get("X-Custom") != "kept" ||
		h.Get("Mcp-Protocol-Version") != "2025-06-18" || h.Get("X-Hop") != "" || h.Get("Upgrade") != "" ||
		strings.Contains(h.Get("X-Forwarded-For"), "6.6.6.6") {
		t.Errorf("header at the upstream: %v", h)
	}
	if all := fmt.Sprint(requests); strings.Contains(all, token) {
		t.Error("the client's token reached the upstream")
	}
}

func TestUpstreamSessionIDNeverReachesTheClient(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		w.Header().Set("Mcp-Session-Id", "another-secret")
		if !got.msg.Initializes {
			w.WriteHeader(http.StatusEarlyHints)
		}
		if got.msg.Method == "fail" {
			http.Error(w, "no", http.StatusInternalServerError)
			return true
		}
		return false
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	for _, body := range []string{pingBody, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, `{"jsonrpc":"2.0","id":1,"method":"fail"}`} {
		if got := post(r.url, token, body).send(t); got.header.Get("Mcp-Session-Id") != "" {
			t.Errorf("%s: the client got the id %q", body, got.header.Get("Mcp-Session-Id"))
		}
	}
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" && r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(w)
		for event := range next {
			_, _ = io.WriteString(w, event)
			flush(w)
		}
		return true
	})
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.WriteTimeout = 200 * time.Millisecond })
	token := r.openSession()
	for _, q := range []request{post(r.url, token, `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`), get(r.url, token)} {
		next = make(chan string)
		res := q.open(t) // the header comes before any event
		events := mcp.NewEventReader(res.Body, 1<<20)
		if primed, err := events.Next(); err != nil || primed.ID == "" || len(primed.Data) != 0 {
			t.Fatalf("%s: the stream begins with %+v, %v; want an id without data", q.method, primed, err)
		}
		// Each event is sent only after the one before has arrived, the last one after longer than any write may take.
		seen := map[string]bool{}
		for i, data := range []string{`{"first":1}`, `{"second":2}`, `{"jsonrpc":"2.0","id":1,"result":{}}`} {
			if i == 2 {
				<-time.After(300 * time.Millisecond)
			}
			next <- fmt.Sprintf("id: stream-1_%d\ndata: %s\n\n", i, data)
			got, err := events.Next()
			if err != nil || string(got.Data) != data || got.ID == "" || strings.Contains(got.ID, "stream-1") || seen[got.ID] {
				t.Fatalf("%s: got %+v, %v; want %s with an id of its own", q.method, got, err, data)
			}
			seen[got.ID] = true
		}
		<-time.After(300 * time.Millisecond) // the end, too, may come long after the last event
		close(next)
		if q.method == http.MethodPost {
			if last, err := events.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last event: %+v, %v", last, err)
			}
		}
		_ = res.Body.Close()
	}
}

func TestReplicasAreInterchangeable(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	f := newFleet(t, u.url)
	a, b := f.replica(), f.replica()
	token := a.openSession()
	for _, r := range []*replica{b, a, b} {
		if got := post(r.url, token, pingBody).send(t); got.status != 200 {
			t.Fatalf("ping: %d %s", got.status, got.body)
		}
	}
	if got := del(b.url, token).send(t); got.status != 204 || got.body != "" {
		t.Errorf("DELETE: %d %q", got.status, got.body)
	}
	if n := u.ended(); n != 1 {
		t.Errorf("the upstream's session was ended %d times when DELETE was answered", n)
	}
	if got := post(b.url, token, pingBody).send(t); got.status != 404 {
		t.Errorf("at the replica that ended it: %d", got.status)
	}
	eventually(t, "404 at the other replica", func() bool { return post(a.url, token, pingBody).send(t).status == 404 })
	if got := del(a.url, token).send(t); got.status != 404 {
		t.Errorf("second DELETE: %d", got.status)
	}
	if status := a.status(token); status != cluster.StatusClosed {
		t.Errorf("the session is %s", status)
	}
}

func TestDeleteDoesNotNeedTheUpstream(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request, _ recorded) bool {
		if r.Method == http.MethodDelete {
			<-r.Context().Done()
		}
		return r.Method == http.MethodDelete
	})
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.EndTimeout = 50 * time.Millisecond })
	token := r.openSession()
	if got := del(r.url, token).send(t); got.status != 204 {
		t.Errorf("DELETE: %d %s", got.status, got.body)
	}
	if status := r.status(token); status != cluster.StatusClosed {
		t.Errorf("the session is %s", status)
	}
}

// Streams end everywhere when their session is ended anywhere, properly, and are cut at the upstream as well.
func TestStreamsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{}, 10)
	waiting := make(chan struct{}, 10)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" && r.Method != http.MethodGet {
			return false
		}
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: unfinished")
			flush(w)
		}
		waiting <- struct{}{}
		<-r.Context().Done()
		cut <- struct{}{}
		return true
	})
	f := newFleet(t, u.url)
	a, b := f.replica(), f.replica()
	for name, at := range map[string]*replica{"ended here": a, "ended elsewhere": b} {
		token := a.openSession()
		stream := get(a.url, token).open(t)
		called := make(chan answer, 1)
		go func() { called <- post(a.url, token, `{"jsonrpc":"2.0","id":5,"method":"tools/call"}`).send(t) }()
		for range 2 {
			receive(t, "both to reach the upstream", waiting)
		}
		del(at.url, token).send(t)
		if text, err := io.ReadAll(stream.Body); err != nil || strings.Contains(string(text), "unfinished") {
			t.Errorf("%s: the stream ended with %q, %v", name, text, err)
		}
		got := receive(t, "the request to be answered", called)
		if p := got.problem(); got.status != 404 || p.Error.Data.Reason != "session_not_found" || len(p.ID) != 0 {
			t.Errorf("%s: the request in flight got %d %s", name, got.status, got.body)
		}
		for range 2 {
			receive(t, "both to be cut at the upstream", cut)
		}
	}
}

func TestUpstreamThatLostTheSession(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Initializes || got.method == http.MethodDelete {
			return false
		}
		http.Error(w, "no such session "+got.header.Get("Mcp-Session-Id"), http.StatusNotFound)
		return true
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	got := post(r.url, token, pingBody).send(t)
	if p := got.problem(); got.status != 404 || p.Error.Data.Reason != "session_not_found" || len(p.ID) != 0 || strings.Contains(got.body, upstreamSession) {
		t.Errorf("POST: %d %s", got.status, got.body)
	}
	if status := r.status(token); status != cluster.StatusFailed {
		t.Errorf("the session is %s", status)
	}
}

func TestUpstreamErrorsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method == "ping" || got.method == http.MethodGet {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return true
		}
		return false
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	for _, q := range []request{post(r.url, token, pingBody), get(r.url, token)} {
		if got := q.send(t); got.status != 401 || got.body != "who are you?\n" || got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d %v %q", q.method, got.status, got.header, got.body)
		}
	}
	if status := r.status(token); status != cluster.StatusActive {
		t.Errorf("the session is %s", status)
	}
}

func TestBatchesPassInRevisionsThatHaveThem(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Initializes {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Replace(initialized, "2025-11-25", got.msg.Version, 1))
			return true
		}
		return false
	})
	r := newFleet(t, u.url).replica()
	for revision, want := range map[string]int{"2024-11-05": 202, "2025-03-26": 202, "2025-06-18": 400} {
		token := r.openSessionWith(strings.Replace(initializeBody, "2025-11-25", revision, 1))
		if got := post(r.url, token, "["+pingBody+"]").send(t); got.status != want {
			t.Errorf("batch in %s: %d, want %d", revision, got.status, want)
		}
	}
}

func TestStatelessRequestsPassWithoutASession(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, _ recorded) bool {
		w.Header().Set("Mcp-Session-Id", upstreamSession)
		return false
	})
	f := newFleet(t, u.url)
	r := f.replica()
	token := r.openSession()
	_ = f.embedded.Close() // no store is asked
	list := stateless(r.url, "tools/list", "")
	for name, q := range map[string]request{
		"a request":      list,
		"with a token":   list.with("Mcp-Session-Id", token),
		"with a name":    stateless(r.url, "tools/call", `"name":"x"`).with("Mcp-Name", "x"),
		"a notification": post(r.url, "", `{"jsonrpc":"2.0","method":"notifications/x"}`).with("Mcp-Protocol-Version", "2026-07-28"),
	} {
		got := q.send(t)
		requests := u.requests()
		seen := requests[len(requests)-1]
		if got.status > 202 || got.header.Get("Mcp-Session-Id") != "" || seen.header.Get("Mcp-Session-Id") != "" || seen.body != q.body {
			t.Errorf("%s: %d %v %s; the upstream got %v %s", name, got.status, got.header, got.body, seen.header, seen.body)
		}
	}
}

func TestObserverHearsOfEachRequestAndOfNoSecret(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	token := r.openSession()
	post(r.url, token, pingBody).send(t)
	post(r.url, token, `{"jsonrpc":"2.0","id":1,"method":"made/up"}`).send(t)
	stateless(r.url, "ping", "").send(t)
	request{"BREW", r.url, "", http.Header{}}.send(t)
	id, _, _ := strings.Cut(token, ".")
	none := (cluster.ID{}).String()
	want := []string{
		"POST initialize session 200 " + id, "POST ping session 200 " + id, "POST other session 200 " + id,
		"POST ping stateless 200 " + none, "other  none 405 " + none,
	}
	eventually(t, "all to be counted", func() bool { return len(r.requests()) == len(want) })
	for i, got := range r.requests() {
		if text := fmt.Sprint(got.Method, " ", got.RPCMethod, " ", got.Era, " ", got.Status, " ", got.Session); text != want[i] || got.Duration <= 0 {
			t.Errorf("request %d: %s, want %s", i, text, want[i])
		}
	}
}

func TestClientThatStopsReadingIsCut(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: "+strings.Repeat("x", 64<<10)+"\n\n"); err != nil {
				break
			}
		}
		return true
	})
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.WriteTimeout = 200 * time.Millisecond })
	token := r.openSession()
	conn := r.dial()
	// And then reads nothing.
	_, _ = fmt.Fprintf(conn, "GET /mcp HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nMcp-Session-Id: %s\r\n\r\n", token)
	eventually(t, "the stream to be cut", func() bool {
		return slices.ContainsFunc(r.requests(), func(done proxy.RequestInfo) bool { return done.Method == http.MethodGet })
	})
	del(r.url, token).send(t)
}

func TestLeasesAreReleased(t *testing.T) {
	t.Parallel()
	streaming := make(chan struct{})
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.method == http.MethodGet {
			w.Header().Set("Content-Type", "text/event-stream")
			flush(w)
			close(streaming)
			<-r.Context().Done()
		}
		return got.method == http.MethodGet
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	post(r.url, token, pingBody).send(t)
	post(r.url, token, "["+pingBody+"]").send(t)
	stream := get(r.url, token).open(t)
	receive(t, "the stream to open", streaming)
	_ = stream.Body.Close()
	after := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() { close(after) })
	receive(t, "several leases to pass", after)
	if r.manager.Held() != 1 {
		t.Errorf("%d sessions are held while a stream is read for a client that may come back, want 1", r.manager.Held())
	}
	del(r.url, token).send(t)
	eventually(t, "the session to be let go", func() bool { return r.manager.Held() == 0 })
}

func TestClientThatSendsItsBodySlowlyIsCut(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica(func(c *proxy.Config) { c.BodyTimeout = 100 * time.Millisecond })
	conn := r.dial()
	_, _ = fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 100\r\n\r\n{")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status %d, want 408", res.StatusCode)
	}
}

// A body's deadline must not outlive the body: it would end the watch over the connection, and with it the request.
func TestRequestMayTakeLongerThanItsBody(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(_ http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method == "ping" {
			<-time.After(300 * time.Millisecond)
		}
		return false
	})
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.BodyTimeout, c.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond })
	token := r.openSession()
	if got := post(r.url, token, pingBody).send(t); got.status != 200 {
		t.Errorf("slow ping: %d %s", got.status, got.body)
	}
}

func TestHeaderInjectionThroughTheTokenIsImpossible(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	conn := r.dial()
	_, _ = fmt.Fprintf(conn, "DELETE /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\nMcp-Session-Id: a\x00\nInjected: {*}\r\n\r\n")
	text, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(text), "HTTP/1.1 400") || len(u.requests()) != 0 {
		t.Errorf("answer: %q", text)
	}
}

// A client that is still sending must hear why it is refused, not see its connection reset.
func TestTooLargeBodyIsReadSoThatTheClientHearsOfIt(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	for range 20 {
		got := post(r.url, "", `{"x":"`+strings.Repeat("x", 8<<20)+`"}`).send(t)
		if got.status != http.StatusRequestEntityTooLarge || got.problem().Error.Data.Reason != "body_too_large" {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
	}
}

func TestTooLargeBodyIsNotAskedFor(t *testing.T) {
	t.Parallel()
	conn := newFleet(t, newUpstream(t, nil).url).replica().dial()
	_, _ = fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
	text, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(text), "HTTP/1.1 413 ") {
		t.Errorf("answer: %q", text)
	}
}
