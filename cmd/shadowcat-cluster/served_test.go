package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// patienceOfTests bounds every wait; reaching it is a failure.
const patienceOfTests = 20 * time.Second

// served is a serve process.
type served struct {
	t       *testing.T
	command *exec.Cmd
	address string // where clients connect
	admin   string
	ended   chan error // of the process; one value

	mu    sync.Mutex
	lines []logLine
	more  chan struct{} // closed and replaced with every line
}

type logLine struct {
	Level   string `json:"level"`
	Msg     string `json:"msg"`
	Address string `json:"address"`
	Admin   string `json:"admin"`

	text string // all of it
}

// startServe starts the command on free ports and waits until it listens.
func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain-delay", "0"}, args...)
	s := &served{t: t, command: exec.CommandContext(t.Context(), programName, args...), ended: make(chan error, 1), more: make(chan struct{})}
	stderr, err := s.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.read(stderr)
	}()
	go func() {
		<-read
		s.ended <- s.command.Wait()
	}()
	t.Cleanup(func() {
		_ = s.command.Process.Kill() // fails when it has ended, as it should have
		<-read
	})
	listening := s.waitLog("listening")
	s.address, s.admin = "http://"+listening.Address, "http://"+listening.Admin
	return s
}

func (s *served) read(stderr io.Reader) {
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
		line := logLine{Msg: scanner.Text(), text: scanner.Text()}
		_ = json.Unmarshal(scanner.Bytes(), &line) // what is no JSON stays as it is, and is found by tests that look
		s.mu.Lock()
		s.lines = append(s.lines, line)
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
}

// logged returns the lines that begin with msg, all if it is empty, and what is closed when there are more.
func (s *served) logged(msg string) ([]logLine, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []logLine
	for _, line := range s.lines {
		if strings.HasPrefix(line.Msg, msg) {
			found = append(found, line)
		}
	}
	return found, s.more
}

func (s *served) waitLog(msg string) logLine {
	s.t.Helper()
	timeout := time.After(patienceOfTests)
	for {
		found, more := s.logged(msg)
		if len(found) > 0 {
			return found[0]
		}
		select {
		case <-more:
		case <-timeout:
			all, _ := s.logged("")
			s.t.Fatalf("no log line %q in %+v", msg, all)
		}
	}
}

func (s *served) signal() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// waitEnd returns how the process ended.
func (s *served) waitEnd(within time.Duration) error {
	s.t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(within):
		s.t.Fatalf("still running after %v", within)
		return nil
	}
}

// waitReady waits until /readyz answers with status.
func (s *served) waitReady(status int) string {
	s.t.Helper()
	timeout := time.After(patienceOfTests)
	for {
		got := request(s.t, http.MethodGet, s.admin+"/readyz", "", "")
		if got.status == status {
			return got.body
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-timeout:
			s.t.Fatalf("/readyz: %d %s, want %d", got.status, got.body, status)
		}
	}
}

// initialize opens a session and returns its token.
func (s *served) initialize() string {
	s.t.Helper()
	got := request(s.t, http.MethodPost, s.address+"/mcp", "", initializeBody)
	token := got.header.Get("Mcp-Session-Id")
	if got.status != http.StatusOK || token == "" {
		s.t.Fatalf("initialize: %d %s", got.status, got.body)
	}
	return token
}

const (
	initializeBody = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`
	pingBody       = `{"jsonrpc":"2.0","id":2,"method":"ping"}`
	slowBody       = `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"slow"}}`
)

// answer is an HTTP response that was read whole.
type answer struct {
	status int
	header http.Header
	body   string
}

// request sends one MCP request and reads the whole answer.
func request(t *testing.T, method, url, token, body string) answer {
	t.Helper()
	response, err := send(t, method, url, token, body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: string(content)}
}

func send(t *testing.T, method, url, token, body string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patienceOfTests)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	if method == http.MethodGet {
		r.Header.Set("Accept", "text/event-stream")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	if token != "" {
		r.Header.Set("Mcp-Session-Id", token)
		r.Header.Set("Mcp-Protocol-Version", "2025-11-25")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// upstream is an MCP server whose tool takes as long as the test wants.
type upstream struct {
	url     string
	entered chan struct{} // one value for each slow call
	release chan struct{} // closed: slow calls end
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{entered: make(chan struct{}, 10), release: make(chan struct{})}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-u.release:
		default:
			close(u.release)
		}
	}))
	u.url = server.URL + "/mcp"
	return u
}

// waitEntered waits until a slow call has arrived.
func (u *upstream) waitEntered(t *testing.T) {
	t.Helper()
	select {
	case <-u.entered:
	case <-time.After(patienceOfTests):
		t.Fatal("no slow call has reached the upstream")
	}
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": hello\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusOK)
	case strings.Contains(string(body), `"initialize"`):
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Mcp-Session-Id", "upstream-session")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`)
	case strings.Contains(string(body), `"slow"`):
		u.entered <- struct{}{}
		<-u.release
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":3,"result":{"content":[]}}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":2,"result":{}}`)
	}
}

func newStore(t *testing.T) string {
	t.Helper()
	server, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server.URL()
}

// command runs a command line that must succeed and returns its standard output.
func command(t *testing.T, args ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), programName, args...).Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(output)
}
