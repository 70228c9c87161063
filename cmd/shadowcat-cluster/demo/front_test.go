package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const testMaxBody = 100

// startFront serves a front over these replicas and returns its URL.
func startFront(t *testing.T, replicas ...string) string {
	t.Helper()
	front := newFront(replicas, testMaxBody, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(front)
	t.Cleanup(func() { server.Close(); front.close() })
	return server.URL
}

// startReplica serves a handler in a replica's place and returns its host:port.
func startReplica(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.URL.RequestURI(), body)
	}
}

// send makes a request and returns its status and its body.
func send(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(got)
}

// refused returns an address on which nothing listens.
func refused(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestFrontGivesEachRequestToTheNextReplica(t *testing.T) {
	t.Parallel()
	url := startFront(t, startReplica(t, named("a")), startReplica(t, named("b")), startReplica(t, named("c")))
	for i, want := range strings.Fields("a b c a b c") {
		if _, got := send(t, http.MethodPost, url+"/mcp?x=1", "hello"); got != want+" POST /mcp?x=1 hello" {
			t.Errorf("request %d was answered %q, want replica %s", i, got, want)
		}
	}
}

func TestFrontPassesOverAReplicaThatRefuses(t *testing.T) {
	t.Parallel()
	url := startFront(t, refused(t), startReplica(t, named("b")), refused(t))
	for range 6 {
		if status, got := send(t, http.MethodPost, url+"/mcp", "hello"); status != http.StatusOK || got != "b POST /mcp hello" {
			t.Errorf("answered %d %q, want b", status, got)
		}
	}
}

func TestFrontSaysWhenNoReplicaAnswers(t *testing.T) {
	t.Parallel()
	url := startFront(t, refused(t), refused(t))
	status, got := send(t, http.MethodPost, url+"/mcp", "hello")
	if status != http.StatusBadGateway || !strings.Contains(got, "no replica took the request") {
		t.Errorf("answered %d %q", status, got)
	}
}

func TestFrontRepeatsNothingThatMayHaveRun(t *testing.T) {
	t.Parallel()
	var others atomic.Int64
	broken := startReplica(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	other := startReplica(t, func(http.ResponseWriter, *http.Request) { others.Add(1) })
	url := startFront(t, broken, other)
	if status, _ := send(t, http.MethodPost, url+"/mcp", "hello"); status != http.StatusBadGateway || others.Load() != 0 {
		t.Errorf("answered %d and asked another replica %d times, want 502 and none", status, others.Load())
	}
}

func TestFrontLeavesTheBodyLimitToTheReplica(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	url := startFront(t, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.ContentLength)
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}))
	if status, _ := send(t, http.MethodPost, url+"/mcp", strings.Repeat("x", 10*testMaxBody)); status != http.StatusRequestEntityTooLarge || got.Load() != testMaxBody+1 {
		t.Errorf("answered %d for a body of %d bytes, want 413 and one over the limit", status, got.Load())
	}
}

func TestFrontKeepsTheClientsHost(t *testing.T) {
	t.Parallel()
	url := startFront(t, startReplica(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	if _, got := send(t, http.MethodGet, url, ""); "http://"+got != url {
		t.Errorf("the replica saw Host %s, want that of %s", got, url)
	}
}

func TestFrontStreamsAndEndsWithTheClient(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	url := startFront(t, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/mcp", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	// The event must arrive while the stream is still open.
	if got, err := bufio.NewReader(answer.Body).ReadString('\n'); got != "data: first\n" {
		t.Fatalf("read %q, %v", got, err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the replica was not told that the client had gone")
	}
}
