package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// wantsOverload wants an answer to be the refusal of a replica that has too much in hand.
func wantsOverload(t *testing.T, what string, got answer, reason, limit string) {
	t.Helper()
	p := got.problem()
	if got.status != http.StatusServiceUnavailable || p.Error.Code != 1503 || p.Error.Data.Reason != reason || p.Error.Data.Limit != limit ||
		p.Error.Data.RetryAfterMS < 1 || got.header.Get("Retry-After") == "" {
		t.Errorf("%s: %d %v %s, want 503 with %s by %s", what, got.status, got.header, got.body, reason, limit)
	}
}

// waiting is an upstream at which tools/list waits until it is told to go on, and tools/call answers with a stream that does.
type waiting struct {
	*upstream

	arrived, goOn chan struct{}
}

func newWaiting(t *testing.T) waiting {
	w := waiting{arrived: make(chan struct{}, 100), goOn: make(chan struct{}, 100)}
	w.upstream = newUpstream(t, func(rw http.ResponseWriter, r *http.Request, got recorded) bool {
		switch got.msg.Method {
		case "tools/list":
		case "tools/call", "subscriptions/listen":
			rw.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(rw, "data: "+progress(1)+"\n\n")
			flush(rw)
		default:
			return false
		}
		w.arrived <- struct{}{}
		select {
		case <-w.goOn:
		case <-r.Context().Done():
		}
		if got.msg.Method == "tools/list" {
			return false
		}
		_, _ = io.WriteString(rw, "data: "+result+"\n\n")
		return true
	})
	return w
}

// later sends a request that is answered later.
func (r request) later(t *testing.T) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- r.send(t) }()
	return done
}

// A replica that has as many requests in flight as it takes says so at once, whosever they are; the others serve on, and so does it what
// ends what is waited for.
func TestAReplicaRefusesMoreRequestsThanItTakes(t *testing.T) {
	t.Parallel()
	u := newWaiting(t)
	f := newFleet(t, u.url)
	few := func(c *proxy.Config) { c.Capacity.Requests = 2 }
	full, others := f.replica(few), []*replica{f.replica(few), f.replica(few)}
	one, two, ending := full.openSession(), others[0].openSession(), others[0].openSession()
	list := strings.Replace(pingBody, "ping", "tools/list", 1)
	answers := []<-chan answer{post(full.url, one, list).later(t), stateless(full.url, "tools/list", "").later(t)}
	for range answers {
		receive(t, "a request that waits", u.arrived)
	}
	for name, q := range map[string]request{
		"a notification":     post(full.url, two, `{"jsonrpc":"2.0","method":"notifications/progress"}`),
		"of another session": post(full.url, two, pingBody), "without a session": stateless(full.url, "ping", ""), "initialize": post(full.url, "", initializeBody),
	} {
		got := q.send(t)
		wantsOverload(t, name, got, "capacity", "replica_max_requests")
		if len(got.problem().ID) == 0 && !strings.Contains(name, "notification") {
			t.Errorf("%s: the refusal has no id: %s", name, got.body)
		}
	}
	for name, tt := range map[string]struct {
		request request
		status  int
	}{
		"a cancellation":    {post(full.url, two, `{"jsonrpc":"2.0","method":"notifications/cancelled"}`), 202},
		"an answer":         {post(full.url, two, `{"jsonrpc":"2.0","id":1,"result":{}}`), 202},
		"another replica":   {post(others[0].url, one, pingBody), 200},
		"yet another":       {post(others[1].url, two, pingBody), 200},
		"a session's end":   {del(full.url, ending), 204},
		"a malformed token": {get(full.url, "x"), 404},
	} {
		if got := tt.request.send(t); got.status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, tt.status)
		}
	}
	for range answers {
		u.goOn <- struct{}{}
	}
	for _, a := range answers {
		if got := receive(t, "an answer", a); got.status != http.StatusOK {
			t.Errorf("a request that waited: %d %s", got.status, got.body)
		}
	}
	eventually(t, "there to be room again", func() bool { return post(full.url, one, pingBody).send(t).status == http.StatusOK })
}

// An answer that is a stream is no request that waits any more.
func TestStreamsAreNoRequestsInFlight(t *testing.T) {
	t.Parallel()
	u := newWaiting(t)
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.Capacity.Requests = 1 })
	session := r.openSession()
	first := post(r.url, session, callBody).stream(t)
	first.wants(progress(1))
	second := stateless(r.url, "tools/call", `"name":"x"`).with("Mcp-Name", "x").stream(t)
	second.wants(progress(1))
	if got := post(r.url, session, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("a request beside two streams: %d %s", got.status, got.body)
	}
	u.goOn <- struct{}{}
	u.goOn <- struct{}{}
	first.wantsRest(result)
	second.wantsRest(result)
}

func TestAReplicaRefusesMoreStreamsThanItTakes(t *testing.T) {
	t.Parallel()
	u := newWaiting(t)
	f := newFleet(t, u.url)
	few := func(c *proxy.Config) { c.Capacity.Streams, c.Capacity.Requests = 2, 1 }
	full, other := f.replica(few), f.replica(few)
	session := full.openSession()
	call := post(full.url, session, callBody)
	listen := stateless(full.url, "subscriptions/listen", "")
	streams := []*stream{listen.stream(t), call.stream(t)}
	wantsOverload(t, "GET", get(full.url, session).send(t), "too_many_streams", "replica_max_streams")
	wantsOverload(t, "listen", listen.send(t), "too_many_streams", "replica_max_streams")
	// Calls have as much beyond the bound as there may be requests, so that those who only listen do not keep others from working.
	streams = append(streams, call.stream(t))
	wantsOverload(t, "a call", call.send(t), "too_many_streams", "replica_max_streams")
	if got := post(other.url, session, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("a request at another replica: %d %s", got.status, got.body)
	}
	for _, s := range streams {
		s.drop()
		u.goOn <- struct{}{} // a call is read to its end
	}
	eventually(t, "a stream to be opened again", func() bool {
		s := listen.open(t)
		defer s.Body.Close()
		return s.StatusCode == http.StatusOK
	})
}

// What is announced weighs nothing: only what has come is in memory.
func TestAReplicaRefusesMoreBytesThanItHolds(t *testing.T) {
	t.Parallel()
	u := newWaiting(t)
	f := newFleet(t, u.url)
	little := func(c *proxy.Config) { c.Capacity.Bytes, c.MaxBody = 64<<10, 64<<10 }
	full, other := f.replica(little), f.replica(little)
	session := full.openSession()
	idle := full.dial()
	_, _ = fmt.Fprintf(idle, "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 60000\r\n\r\n{")
	large := func(method string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{"x":"` + strings.Repeat("x", 40<<10) + `"}}`
	}
	first := post(full.url, session, large("tools/list")).later(t)
	receive(t, "the request that waits", u.arrived)
	wantsOverload(t, "a second large body", post(full.url, session, large("ping")).send(t), "capacity", "replica_max_bytes")
	if got := post(full.url, session, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("a small body: %d %s", got.status, got.body)
	}
	if got := post(other.url, session, large("ping")).send(t); got.status != http.StatusOK {
		t.Errorf("a large body at another replica: %d %s", got.status, got.body)
	}
	u.goOn <- struct{}{}
	if got := receive(t, "the answer", first); got.status != http.StatusOK {
		t.Errorf("the request that waited: %d %s", got.status, got.body)
	}
	eventually(t, "there to be room again", func() bool { return post(full.url, session, large("ping")).send(t).status == http.StatusOK })
}

// status reads the status of an answer on a connection; 0 when it is closed without one.
func status(t *testing.T, r io.Reader) int {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 8 << 10
	limits := proxy.ServerLimits{HeaderTimeout: 100 * time.Millisecond, IdleTimeout: 100 * time.Millisecond, MaxHeader: most}
	r := newFleet(t, newUpstream(t, nil).url).replicaBehind(limits)
	request := "POST /mcp HTTP/1.1\r\nHost: x\r\n"

	conn := r.dial()
	_, _ = fmt.Fprintf(conn, "%sX-Large: %s\r\n\r\n", request, strings.Repeat("x", 32<<10))
	if got := status(t, conn); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of four times what it may have: %d, want 431", got)
	}
	conn = r.dial()
	_, _ = fmt.Fprint(conn, request) // and no end of it
	if got := status(t, conn); got != 0 {
		t.Errorf("a header without an end: %d, want the connection closed", got)
	}
	conn = r.dial()
	_, _ = fmt.Fprintf(conn, "%sContent-Length: 0\r\n\r\n", request)
	if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 ") {
		t.Errorf("a connection without a second request was not closed: %v after %.100q", err, text)
	}
}

// A header that is not far too large is refused like everything else: with a reason, and counted.
func TestALargeHeaderIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	const most = 8 << 10
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replicaBehind(proxy.ServerLimits{MaxHeader: most}, func(c *proxy.Config) { c.MaxHeader = most })
	send := func(filler int) answer {
		return post(r.url, "", initializeBody).with("X-Large", strings.Repeat("x", filler)).send(t)
	}
	if got := send(most - 1<<10); got.status != http.StatusOK {
		t.Errorf("a header that fits: %d %s", got.status, got.body)
	}
	before := len(u.requests())
	for _, filler := range []int{most, 2 * most} { // with the rest of the header more than it may have; net/http reads 4 KiB beyond twice
		got := send(filler)
		p := got.problem()
		if got.status != http.StatusRequestHeaderFieldsTooLarge || p.Error.Code != 1431 || p.Error.Data.Reason != "header_too_large" ||
			p.Error.Data.Limit != "max_header" {
			t.Errorf("a filler of %d: %d %s", filler, got.status, got.body)
		}
	}
	if n := len(u.requests()); n != before {
		t.Errorf("the upstream got %d of these requests", n-before)
	}
	refused := 0
	for _, done := range r.requests() {
		if done.Refused == mcp.ReasonHeaderTooLarge && done.Limit == "max_header" && done.Status == http.StatusRequestHeaderFieldsTooLarge {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d refusals were counted, want 2", refused)
	}
}

// A client that sends its body byte by byte holds nothing for longer than the body may take, however alive it looks.
func TestAClientThatSendsItsBodyByteByByteIsCut(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica(func(c *proxy.Config) { c.BodyTimeout = 200 * time.Millisecond })
	conn := r.dial()
	_, _ = fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 100000\r\n\r\n")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := conn.Write([]byte(" ")); err != nil {
					return
				}
			case <-stop:
				return
			}
		}
	}()
	if got := status(t, conn); got != http.StatusRequestTimeout {
		t.Errorf("status %d, want 408", got)
	}
	close(stop)
	<-done
}

// What this replica reads for a client that has left is in hand still.
func TestAnAnswerTakesAPlaceForAsLongAsItIsRead(t *testing.T) {
	t.Parallel()
	u := newWaiting(t)
	r := newFleet(t, u.url).node(func(c *proxy.Config) { c.Capacity.Streams, c.Capacity.Requests = 1, 1 })
	session := r.openSession()
	call := post(r.url, session, callBody)
	for range 2 {
		s := call.stream(t)
		s.wants(progress(1))
		s.drop()
	}
	eventually(t, "both clients to have left", func() bool { return r.proxy.Streams().Answers == 0 })
	wantsOverload(t, "a third call", call.send(t), "too_many_streams", "replica_max_streams")
	u.goOn <- struct{}{}
	u.goOn <- struct{}{}
	eventually(t, "the answers to have been read", func() bool { return r.proxy.Streams().ReadAnswers == 0 })
	call.stream(t).drop()
}

// newSilent returns an upstream that accepts no notification and no answer.
func newSilent(t *testing.T) waiting {
	u := waiting{arrived: make(chan struct{}, 100)}
	u.upstream = newUpstream(t, func(_ http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Kind == mcp.KindRequest || got.msg.Method == mcp.MethodInitialized || r.Method != http.MethodPost {
			return false
		}
		u.arrived <- struct{}{}
		<-r.Context().Done()
		return true
	})
	return u
}

func TestMessagesThatNeedNoAnswerAreBounded(t *testing.T) {
	t.Parallel()
	const progressing, cancelling = `{"jsonrpc":"2.0","method":"notifications/progress"}`, `{"jsonrpc":"2.0","method":"notifications/cancelled"}`
	u := newSilent(t)
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.Capacity.Requests, c.InitializeTimeout = 2, 3*time.Second })
	session := r.openSession()
	var sent []<-chan answer
	for _, body := range []string{progressing, progressing, cancelling, `{"jsonrpc":"2.0","id":1,"result":{}}`} {
		sent = append(sent, post(r.url, session, body).later(t))
		receive(t, "a message that is not accepted", u.arrived)
	}
	for _, body := range []string{progressing, cancelling, `{"jsonrpc":"2.0","id":1,"result":{}}`, pingBody} {
		wantsOverload(t, body, post(r.url, session, body).send(t), "capacity", "replica_max_requests")
	}
	for _, s := range sent {
		if got := receive(t, "an answer", s); got.status != http.StatusServiceUnavailable || got.problem().Error.Data.Reason != "may_have_run" {
			t.Errorf("a message that is not accepted: %d %s", got.status, got.body)
		}
	}
	if got := post(r.url, session, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("a request after that: %d %s", got.status, got.body)
	}
}

func TestEachRequestOfABatchIsInFlight(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.Capacity.Requests = 2 })
	session := r.openSession()
	before := len(u.requests())
	batch := "[" + pingBody + "," + strings.Replace(pingBody, `"id":`, `"id":1`, 1) + "," + strings.Replace(pingBody, `"id":`, `"id":2`, 1) + "]"
	wantsOverload(t, "a batch of three", post(r.url, session, batch).send(t), "capacity", "replica_max_requests")
	if got := len(u.requests()); got != before {
		t.Errorf("%d of it came through", got-before)
	}
}

// wantsShare wants an answer to be the refusal of what one principal has too much of at a replica.
func wantsShare(t *testing.T, got answer, reason, limit string) {
	t.Helper()
	if p := got.problem(); got.status != http.StatusTooManyRequests || p.Error.Data.Reason != reason || p.Error.Data.Limit != limit {
		t.Errorf("beyond the share: %d %s, want 429 with %s by %s", got.status, got.body, reason, limit)
	}
}

func TestAPrincipalHasHalfOfAReplicaAtMost(t *testing.T) {
	t.Parallel()
	u, i := newWaiting(t), newIssuer(t)
	r := newFleet(t, u.url).replica(asksFor(t, i), func(c *proxy.Config) { c.Capacity.Requests, c.Capacity.Streams = 4, 4 })
	alice, mallory := i.Token(t.Name()+"alice"), i.Token(t.Name()+"mallory")
	hanging, listening := stateless(r.url, "tools/list", ""), stateless(r.url, "subscriptions/listen", "")
	var answers []<-chan answer
	for range 2 {
		listening.as(mallory).stream(t).wants(progress(1))
		receive(t, "a stream", u.arrived)
	}
	wantsShare(t, listening.as(mallory).send(t), "too_many_streams", "replica_max_streams")
	for range 2 {
		answers = append(answers, hanging.as(mallory).later(t))
		receive(t, "a request that waits", u.arrived)
	}
	wantsShare(t, hanging.as(mallory).send(t), "too_many_pending", "replica_max_requests")
	session := r.openSessionAs(alice)
	if got := post(r.url, session, pingBody).as(alice).send(t); got.status != http.StatusOK {
		t.Errorf("somebody else: %d %s", got.status, got.body)
	}
	listening.as(alice).stream(t).wants(progress(1))
	for range answers {
		for range 3 {
			u.goOn <- struct{}{}
		}
	}
	for _, a := range answers {
		receive(t, "an answer", a)
	}
}
