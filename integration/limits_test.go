package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/deployment"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// slowUpstream is an MCP server that answers tools/call when it is let go on, and everything else at once.
type slowUpstream struct {
	url     string
	arrived chan struct{}
	goOn    func() // lets all go on, from now on
}

func newSlowUpstream(t *testing.T) *slowUpstream {
	t.Helper()
	goOn := make(chan struct{})
	u := &slowUpstream{arrived: make(chan struct{}, 100), goOn: sync.OnceFunc(func() { close(goOn) })}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		msg, _ := mcp.Peek(body)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case msg.Kind != mcp.KindRequest:
			w.WriteHeader(http.StatusAccepted)
		case msg.Initializes:
			_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}`, msg.ID)
		default:
			if msg.Method == "tools/call" {
				u.arrived <- struct{}{}
				select {
				case <-goOn:
				case <-r.Context().Done():
				}
			}
			_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{}}`, msg.ID)
		}
	}))
	t.Cleanup(func() {
		u.goOn()
		server.CloseClientConnections()
		server.Close()
	})
	u.url = server.URL
	return u
}

// wantLimit wants an answer to be a refusal that names a limit, and when to come back.
func wantLimit(t *testing.T, what string, got rawAnswer, status int, reason, limit string) {
	t.Helper()
	if got.status != status || got.reason() != reason || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, `"limit":"`+limit+`"`) ||
		!strings.Contains(got.body, `"retry_after_ms":`) {
		t.Errorf("%s: %s, want %d %s by %s with Retry-After", what, got, status, reason, limit)
	}
}

// limited is three replicas with a limit, behind a front that sends each request to the next.
func limited(t *testing.T, upstream string, args ...string) *deployment.Deployment {
	t.Helper()
	return newDeployment(t, newRedis(t, redisOptions).URL(), upstream, args...)
}

// A session's rate is that of all replicas together: what one has granted, the others do not.
func TestTheRequestRateOfASessionHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	const rate, burst = 10, 20
	d := limited(t, newSlowUpstream(t).url, "--request-rate", strconv.Itoa(rate), "--request-burst", strconv.Itoa(burst))
	session := openSession(t, d.URL(), "2025-11-25")
	begun, served := time.Now(), 0
	for range 6 * burst {
		if got := mustSend(t, post(d.URL(), session, pingBody)); got.status == http.StatusOK {
			served++
		} else {
			wantLimit(t, "too fast", got, http.StatusTooManyRequests, "rate_limited", "request_rate")
		}
	}
	if most := burst + int(rate*(time.Since(begun)+validity).Seconds()); served < burst/2 || served > most {
		t.Errorf("%d requests were served in %v, want %d to %d", served, time.Since(begun), burst/2, most)
	}
}

func TestTheRateOfCreationHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	const rate = 5
	d := limited(t, newSlowUpstream(t).url, "--create-rate", strconv.Itoa(rate))
	begun := time.Now()
	sessions, refused := openAll(t, d.URL(), "", 8*rate)
	if most := rate + int(rate*time.Since(begun).Seconds()) + 1; len(sessions) < rate || len(sessions) > most {
		t.Errorf("%d sessions were opened in %v, want %d to %d", len(sessions), time.Since(begun), rate, most)
	}
	for _, got := range refused {
		wantLimit(t, "too fast", got, http.StatusTooManyRequests, "creation_rate", "create_rate")
	}
}

func TestTheCapOfSessionsHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	const most = 5
	d := limited(t, newSlowUpstream(t).url, "--max-sessions", strconv.Itoa(most), "--evict-min-idle", "1h")
	sessions, refused := openAll(t, d.URL(), "", 4*most)
	if len(sessions) != most {
		t.Errorf("%d sessions were opened, want %d", len(sessions), most)
	}
	for _, got := range refused {
		wantLimit(t, "at the cap", got, http.StatusServiceUnavailable, "capacity", "max_sessions")
	}
}

// The cap of requests in flight is exact at each replica, and over all once the others have reported. Ids that are used again do not
// get round it.
func TestTheCapOfRequestsInFlightHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]string{"each with its own id": "call-NUMBER", "all with one id": "call"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			capInFlight(t, `{"jsonrpc":"2.0","id":"`+id+`","method":"tools/call","params":{"name":"x"}}`)
		})
	}
}

// capInFlight reaches the cap with messages like that one.
func capInFlight(t *testing.T, message string) {
	t.Helper()
	const most = 3
	u := newSlowUpstream(t)
	d := limited(t, u.url, "--max-pending", strconv.Itoa(most))
	session := openSession(t, d.URL(), "2025-11-25")
	done := make(chan rawAnswer, most)
	for n := range most {
		go func() {
			got, err := post(d.URL(), session, strings.ReplaceAll(message, "NUMBER", strconv.Itoa(n))).send(context.WithoutCancel(t.Context()))
			if err != nil {
				got.body = err.Error()
			}
			done <- got
		}()
		<-u.arrived
	}
	for _, r := range d.Replicas {
		eventually(t, revocation, answers(post(r.URL(), session, pingBody), http.StatusTooManyRequests, "too_many_pending"))
		wantLimit(t, "one too many", mustSend(t, post(r.URL(), session, pingBody)), http.StatusTooManyRequests, "too_many_pending", "max_pending")
		if got := mustSend(t, post(r.URL(), session, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}`)); got.status != http.StatusAccepted {
			t.Errorf("a notification at the cap: %s", got)
		}
	}
	u.goOn()
	for range most {
		if got := <-done; got.status != http.StatusOK {
			t.Errorf("a request that waited: %s", got)
		}
	}
	for _, r := range d.Replicas {
		eventually(t, revocation, answers(post(r.URL(), session, pingBody), http.StatusOK, ""))
	}
}

// listenAt opens a stream, and returns what closes it; nil when it was refused.
func listenAt(t *testing.T, url, session string) (closeIt func(), status int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Accept": {"text/event-stream"}, "Mcp-Session-Id": {session}}
	response, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	closeIt = sync.OnceFunc(func() {
		cancel()
		_ = response.Body.Close()
	})
	t.Cleanup(closeIt)
	return closeIt, response.StatusCode
}

func TestTheCapOfStreamsHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	// An earlier listener stays open until its replica looks again.
	d := limited(t, newSlowUpstream(t).url, "--max-streams", "3", "--follow-interval", "10s")
	session := openSession(t, d.URL(), "2025-11-25")
	var closeLast func()
	for _, r := range d.Replicas {
		var status int
		if closeLast, status = listenAt(t, r.URL(), session); status != http.StatusOK {
			t.Fatalf("listening: %d, want 200", status)
		}
	}
	one := rawRequest{method: http.MethodGet, header: http.Header{"Accept": {"text/event-stream"}, "Mcp-Session-Id": {session}}}
	for _, r := range d.Replicas {
		one.url = r.URL()
		wantLimit(t, "a fourth stream", mustSend(t, one), http.StatusTooManyRequests, "too_many_streams", "max_streams")
	}
	closeLast()
	eventually(t, revocation, func(context.Context) error {
		if _, status := listenAt(t, d.Replicas[2].URL(), session); status != http.StatusOK {
			return fmt.Errorf("listening after one was closed: %d", status)
		}
		return nil
	})
}

// What one replica takes at once, and what it takes on a connection, is its own: each of three refuses for itself.
func TestEachOfThreeReplicasHasItsOwnBounds(t *testing.T) {
	t.Parallel()
	u := newSlowUpstream(t)
	d := limited(t, u.url, "--replica-max-requests", "2", "--max-body", "4KiB", "--max-header", "8KiB", "--header-timeout", "300ms",
		"--body-timeout", "300ms", "--connection-idle-timeout", "1s")
	session := openSession(t, d.URL(), "2025-11-25")
	done := make(chan rawAnswer, 2*len(d.Replicas))
	for _, r := range d.Replicas {
		for n := range 2 {
			go func() {
				got, err := post(r.URL(), session, fmt.Sprintf(`{"jsonrpc":"2.0","id":"%s-%d","method":"tools/call","params":{"name":"x"}}`, r.Address(), n)).send(context.WithoutCancel(t.Context()))
				if err != nil {
					got.body = err.Error()
				}
				done <- got
			}()
			<-u.arrived
		}
	}
	for _, r := range d.Replicas {
		wantLimit(t, "one too many at a replica", mustSend(t, post(r.URL(), session, pingBody)), http.StatusServiceUnavailable, "capacity", "replica_max_requests")
	}
	u.goOn()
	for range 2 * len(d.Replicas) {
		if got := <-done; got.status != http.StatusOK {
			t.Errorf("a request that waited: %s", got)
		}
	}
	for _, r := range d.Replicas {
		large := post(r.URL(), session, `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"`+strings.Repeat("x", 8<<10)+`"}}`)
		if got := mustSend(t, large); got.status != http.StatusRequestEntityTooLarge || got.reason() != "body_too_large" {
			t.Errorf("a large body: %s", got)
		}
		if got := mustSend(t, post(r.URL(), session, pingBody).with("X-Large", strings.Repeat("x", 16<<10))); got.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a large header: %s", got)
		}
		for name, tt := range map[string]struct{ sent, want string }{
			"a header without an end": {"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n", ""},
			"a body without an end":   {"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 408"},
			"no second request":       {"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "HTTP/1.1 404"},
		} {
			if got, err := untilClosed(t, r.Address(), tt.sent); err != nil || !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%s: %v after %.60q, want the connection closed after %q", name, err, got, tt.want)
			}
		}
	}
}

// untilClosed sends something and reads until the other side closes the connection.
func untilClosed(t *testing.T, address, text string) (string, error) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	err = errors.Join(conn.SetDeadline(time.Now().Add(revocation)))
	_, errWrite := io.WriteString(conn, text)
	got, errRead := io.ReadAll(conn)
	return string(got), errors.Join(err, errWrite, errRead)
}

// Without a session the rate is the principal's; without authentication there is no principal, and no limit of one.
func TestLimitsOfPrincipalsHoldUnderThreeReplicasAndNeedAPrincipal(t *testing.T) {
	t.Parallel()
	const rate = 5
	limits := []string{
		"--stateless-rate-per-principal", strconv.Itoa(rate), "--max-sessions-per-principal", "1", "--create-rate-per-principal", "1",
	}
	i := newIssuer(t)
	u := newSlowUpstream(t)
	d := limited(t, u.url, asksFor(i, limits...)...)
	alice, bob := i.Token("alice"), i.Token("bob")
	begun, served := time.Now(), 0
	for range 8 * rate {
		if got := mustSend(t, stateless(d.URL(), "ping").as(alice)); got.status == http.StatusOK {
			served++
		} else {
			wantLimit(t, "too fast", got, http.StatusTooManyRequests, "rate_limited", "stateless_rate_per_principal")
		}
	}
	if most := rate + int(rate*(time.Since(begun)+validity).Seconds()); served < rate/2 || served > most {
		t.Errorf("%d requests were served in %v, want %d to %d", served, time.Since(begun), rate/2, most)
	}
	if got := mustSend(t, stateless(d.URL(), "ping").as(bob)); got.status != http.StatusOK {
		t.Errorf("somebody else: %s", got)
	}

	open := limited(t, u.url, limits...)
	for n := range 8 * rate {
		if got := mustSend(t, stateless(open.URL(), "ping")); got.status != http.StatusOK {
			t.Fatalf("request %d without a principal: %s", n, got)
		}
	}
	if sessions, refused := openAll(t, open.URL(), "", 10); len(sessions) != 10 {
		t.Errorf("without a principal %d sessions were opened, want 10; refused %v", len(sessions), refused)
	}
}
