package integration_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

const slowBody = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"slow"}}`

// slowServer is an MCP server whose tool takes as long as the test wants. It answers it with JSON, or on an event stream that
// begins at once.
type slowServer struct {
	url     string
	streams bool
	entered chan struct{} // one value for each call
	release chan struct{} // one value, or closed: a call ends
}

func newSlowServer(t *testing.T, streams bool) *slowServer {
	t.Helper()
	s := &slowServer{streams: streams, entered: make(chan struct{}, 100), release: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.url = server.URL + "/mcp"
	return s
}

func (s *slowServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	answer := func(text string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
	switch text := string(body); {
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": hello\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case r.Method == http.MethodDelete:
	case strings.Contains(text, `"initialize"`):
		w.Header().Set("Mcp-Session-Id", "a-session-of-the-upstream")
		answer(`{"jsonrpc":"2.0","id":"init-1","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"slow","version":"1"}}}`)
	case strings.Contains(text, `"slow"`):
		s.slow(w, r)
	case strings.Contains(text, `"ping"`):
		answer(`{"jsonrpc":"2.0","id":1,"result":{}}`)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (s *slowServer) slow(w http.ResponseWriter, r *http.Request) {
	const result = `{"jsonrpc":"2.0","id":7,"result":{"content":[]}}`
	contentType, text := "application/json", result
	if s.streams {
		contentType, text = "text/event-stream", "data: "+result+"\n\n"
	}
	w.Header().Set("Content-Type", contentType)
	if s.streams {
		_, _ = io.WriteString(w, "data: "+`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"begun"}}`+"\n\n")
		_ = http.NewResponseController(w).Flush()
	}
	s.entered <- struct{}{}
	select {
	case <-s.release:
		_, _ = io.WriteString(w, text)
	case <-r.Context().Done():
	}
}

// waitEntered waits until a slow call has arrived.
func (s *slowServer) waitEntered(t *testing.T) {
	t.Helper()
	receive(t, "a slow call at the upstream", s.entered)
}

// newDraining starts a replica in front of a slow server.
func newDraining(t *testing.T, up *slowServer, args ...string) *replica.Replica {
	t.Helper()
	return newDrainingOn(t, newRedis(t, redisOptions), up, args...)
}

func newDrainingOn(t *testing.T, redis *redisserver.Server, up *slowServer, args ...string) *replica.Replica {
	t.Helper()
	r, err := replica.New(replica.Options{
		Executable: built(t, productBinary), RedisURL: redis.URL(), Upstreams: []string{up.url}, Args: args,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	watch(t, r)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// endsWith waits until the replica has ended, and checks its exit status and the time since begun.
func endsWith(t *testing.T, r *replica.Replica, code int, begun time.Time, limit time.Duration) {
	t.Helper()
	select {
	case <-r.Ended():
	case <-time.After(limit + 10*time.Second):
		t.Fatalf("the replica still runs after %v", time.Since(begun))
	}
	took := time.Since(begun)
	t.Logf("ended after %v", took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("stopping took %v, want %v at most", took, limit)
	}
	if got := r.ExitCode(); got != code {
		t.Errorf("exit status %d, want %d", got, code)
	}
}

func terminate(t *testing.T, r *replica.Replica) (begun time.Time) {
	t.Helper()
	if err := r.Terminate(); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

func TestADrainingReplicaServesOnWhileItIsNotReady(t *testing.T) {
	t.Parallel()
	const delay = 2 * time.Second
	up := newSlowServer(t, false)
	r := newDraining(t, up, "--drain-delay", delay.String(), "--request-rate", "0")
	token := openSession(t, r.URL(), "2025-11-25")
	begun := terminate(t, r)
	eventually(t, delay, answersStatus(r.AdminURL("/readyz"), http.StatusServiceUnavailable))

	// The connection is kept for as long as the replica wants.
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	served := 0
	for {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL(), strings.NewReader(pingBody))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = post("", token, "").header
		response, err := client.Do(request)
		if refused, ok := errors.AsType[*net.OpError](err); ok && refused.Op == "dial" {
			break
		}
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(begun), err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || !response.Close {
			t.Fatalf("after %v: %d, and the connection stays open: %v", time.Since(begun), response.StatusCode, !response.Close)
		}
		served++
	}
	lasted := time.Since(begun)
	t.Logf("%d requests were served in the %v after SIGTERM, and then refused", served, lasted.Round(time.Millisecond))
	if served == 0 || lasted < delay {
		t.Errorf("want it to serve on for %v", delay)
	}
	endsWith(t, r, 0, begun, delay+5*time.Second)
}

// answersStatus is satisfied once a GET of the URL has the status.
func answersStatus(url string, status int) func(context.Context) error {
	return answers(rawRequest{method: http.MethodGet, url: url, header: http.Header{}}, status, "")
}

// callSlowly sends a slow call and returns what becomes of it.
func callSlowly(t *testing.T, r *replica.Replica, token string, up *slowServer) <-chan rawAnswer {
	t.Helper()
	result := make(chan rawAnswer, 1)
	ctx, url := t.Context(), r.URL()
	go func() {
		answer, err := post(url, token, slowBody).send(ctx)
		if err != nil {
			answer.body = err.Error()
		}
		result <- answer
	}()
	up.waitEntered(t)
	return result
}

func TestADrainingReplicaFinishesRequestsInFlight(t *testing.T) {
	t.Parallel()
	for name, streams := range map[string]bool{"JSON": false, "event stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newSlowServer(t, streams)
			r := newDraining(t, up)
			result := callSlowly(t, r, openSession(t, r.URL(), "2025-11-25"), up)
			begun := terminate(t, r)
			// New clients are turned away while this one is served.
			eventually(t, 5*time.Second, func(ctx context.Context) error {
				if _, err := post(r.URL(), "", initializeBody("2025-11-25")).send(ctx); err == nil {
					return errNotYet
				}
				return nil
			})
			close(up.release)
			if got := receive(t, "the answer", result); got.status != http.StatusOK || !strings.Contains(got.body, `"id":7,"result"`) {
				t.Errorf("the request in flight: %s", got)
			}
			endsWith(t, r, 0, begun, 10*time.Second)
		})
	}
}

func TestADrainingReplicaTellsRequestsThatTakeTooLong(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	for name, streams := range map[string]bool{"JSON": false, "event stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newSlowServer(t, streams)
			r := newDraining(t, up, "--drain-timeout", timeout.String(), "--drain-delay", "1s")
			result := callSlowly(t, r, openSession(t, r.URL(), "2025-11-25"), up)
			begun := terminate(t, r)
			got := receive(t, "the answer", result)
			if !strings.Contains(got.body, "may_have_run") || !strings.Contains(got.body, `"id":7`) || !strings.Contains(got.body, "this replica is stopping") {
				t.Errorf("the request that takes too long: %s", got)
			}
			t.Logf("answered after %v", time.Since(begun).Round(time.Millisecond))
			endsWith(t, r, 0, begun, timeout)
		})
	}
}

func TestADrainingReplicaTellsStreamsToComeBack(t *testing.T) {
	t.Parallel()
	up := newSlowServer(t, false)
	r := newDraining(t, up, "--drain-delay", "1s")
	token := openSession(t, r.URL(), "2025-11-25")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = post("", token, "").header
	request.Header.Set("Accept", "text/event-stream")
	stream, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if stream.StatusCode != http.StatusOK {
		t.Fatalf("GET: %d", stream.StatusCode)
	}
	begun := terminate(t, r)
	var lines []string
	reader := bufio.NewScanner(stream.Body)
	for reader.Scan() {
		lines = append(lines, reader.Text())
	}
	if err := reader.Err(); err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	if ended := time.Since(begun); ended < time.Second {
		t.Errorf("the stream ended after %v, before the replica stopped to serve", ended)
	}
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "\nretry: ") {
		t.Errorf("the stream ended without a word: %q", lines)
	}
	endsWith(t, r, 0, begun, 10*time.Second)
}

// A store that does not answer is given no more time than there is.
func TestDrainingIsBoundedWithoutTheStore(t *testing.T) {
	t.Parallel()
	for name, loseStore := range map[string]func(*redisserver.Server) error{
		"gone": func(s *redisserver.Server) error { s.Kill(); return nil }, "hanging": (*redisserver.Server).Suspend,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newSlowServer(t, false)
			redis := newRedis(t, redisOptions)
			r := newDrainingOn(t, redis, up, "--drain-timeout", "5s", "--audit-stream", "1000")
			callSlowly(t, r, openSession(t, r.URL(), "2025-11-25"), up)
			if err := loseStore(redis); err != nil {
				t.Fatal(err)
			}
			if name == "hanging" {
				defer func() { _ = redis.Resume() }() // or it could not be ended
			}
			endsWith(t, r, 0, terminate(t, r), 5*time.Second)
		})
	}
}

func TestASecondSignalEndsADrainingReplicaAtOnce(t *testing.T) {
	t.Parallel()
	up := newSlowServer(t, false)
	r := newDraining(t, up, "--drain-delay", "10s")
	result := callSlowly(t, r, openSession(t, r.URL(), "2025-11-25"), up)
	terminate(t, r)
	eventually(t, 5*time.Second, answersStatus(r.AdminURL("/readyz"), http.StatusServiceUnavailable))
	begun := time.Now()
	eventually(t, 5*time.Second, func(context.Context) error { // one that comes at once is taken for the first
		select {
		case <-r.Ended():
			return nil
		default:
			return errors.Join(errors.New("the replica still runs"), r.Terminate())
		}
	})
	endsWith(t, r, -1, begun, 2*time.Second) // by the signal: a shell shows 143
	if got := receive(t, "the end of the call", result); got.status != 0 {
		t.Errorf("the request in flight: %s", got)
	}
}

// readyOnes is what a balancer knows: which replicas said lately that they are ready.
type readyOnes struct {
	replicas []*replica.Replica
	ready    []atomic.Bool
	next     atomic.Int64
}

// watch asks all replicas again and again until ctx ends.
func (b *readyOnes) watch(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for i, r := range b.replicas {
			look, cancel := context.WithTimeout(ctx, time.Second)
			b.ready[i].Store(answersStatus(r.AdminURL("/readyz"), http.StatusOK)(look) == nil)
			cancel()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// send sends a request to the next replica that is ready, and if that refuses the connection, to the one after it.
func (b *readyOnes) send(ctx context.Context, token string) (rawAnswer, error) {
	err := errors.New("no replica is ready")
	for range b.replicas {
		i := int(b.next.Add(1)) % len(b.replicas)
		if !b.ready[i].Load() {
			continue
		}
		var answer rawAnswer
		answer, err = post(b.replicas[i].URL(), token, pingBody).send(ctx)
		if refused, ok := errors.AsType[*net.OpError](err); !ok || refused.Op != "dial" {
			return answer, err
		}
	}
	return rawAnswer{}, err
}

// Every request of a rolling restart is served, as long as balancers look away from replicas that are not ready within the
// drain's delay.
func TestARollingRestartUnderLoadLosesNoRequest(t *testing.T) {
	t.Parallel()
	up := newSlowServer(t, false)
	d := newDeployment(t, newRedis(t, redisOptions).URL(), up.url,
		"--request-rate", "0", "--drain-delay", "1s", "--store-timeout", "5s") // a busy machine is no store fault
	balancer := &readyOnes{replicas: d.Replicas, ready: make([]atomic.Bool, len(d.Replicas))}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() { balancer.watch(ctx) })
	eventually(t, 10*time.Second, func(context.Context) error {
		for i := range balancer.ready {
			if !balancer.ready[i].Load() {
				return errNotYet
			}
		}
		return nil
	})
	var served atomic.Int64
	failures := make(chan string, 1000)
	for range 8 {
		token := openSession(t, d.URL(), "2025-11-25")
		load.Go(func() {
			for ctx.Err() == nil {
				got, err := balancer.send(t.Context(), token)
				if err == nil && got.status == http.StatusOK {
					served.Add(1)
					continue
				}
				select {
				case failures <- fmt.Sprintf("%v %s", err, got):
				default:
				}
			}
		})
	}
	for range 2 {
		for i, r := range d.Replicas {
			before := served.Load()
			if err := r.Stop(); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, func(context.Context) error {
				if served.Load() < before+50 || !balancer.ready[i].Load() {
					return errNotYet
				}
				return nil
			})
		}
	}
	stop()
	load.Wait()
	close(failures)
	t.Logf("%d requests were served and %d lost while each of %d replicas was restarted twice", served.Load(), len(failures), len(d.Replicas))
	for failure := range failures {
		t.Error(failure)
	}
}
