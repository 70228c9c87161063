package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func TestASessionServedByOneReplicaIsServedListedAndEndedEverywhere(t *testing.T) {
	t.Parallel()
	redis, up := newStore(t), newUpstream(t)
	first := startServe(t, "--redis", redis, "--upstream", up.url, "--lease=0")
	second := startServe(t, "--redis", redis, "--upstream", up.url, "--lease=0")
	first.waitReady(http.StatusOK)
	second.waitReady(http.StatusOK)

	token := first.initialize()
	id, secret, _ := strings.Cut(token, ".")
	if got := request(t, http.MethodPost, second.address+"/mcp", token, pingBody); got.status != http.StatusOK {
		t.Errorf("ping through the other replica: %d %s", got.status, got.body)
	}
	if list := command(t, "session", "list", "--redis", redis); !strings.Contains(list, id) || strings.Contains(list, secret) {
		t.Errorf("session list:\n%s", list)
	}
	metrics := request(t, http.MethodGet, second.admin+"/metrics", "", "").body
	if !strings.Contains(metrics, `shadowcat_sessions{status="active"} 1`) ||
		!strings.Contains(metrics, `shadowcat_requests_total{code="200",era="session",http_method="POST",rpc_method="ping",upstream=""} 1`) {
		t.Errorf("/metrics:\n%s", metrics)
	}
	command(t, "session", "terminate", id, "--redis", redis)
	for _, replica := range []*served{first, second} {
		if got := request(t, http.MethodPost, replica.address+"/mcp", token, pingBody); got.status != http.StatusNotFound {
			t.Errorf("after terminate: %d %s", got.status, got.body)
		}
		replica.signal()
		if err := replica.waitEnd(patienceOfTests); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		replica.waitLog("stopped")
	}
}

func TestServeDoesNotStartWhereTracesCannotBeSentAsTold(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer hunter2")
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"serve", "--upstream", "http://127.0.0.1:9/mcp"}, &stdout, &stderr)
	if said := stderr.String(); status != exitUsage || !strings.Contains(said, "OTEL_EXPORTER_OTLP_HEADERS: ") || strings.Contains(said, "hunter2") {
		t.Errorf("status %d, stderr %q", status, said)
	}
}

func TestStoppingFinishesRequestsInFlight(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	s := startServe(t, "--redis", newStore(t), "--upstream", up.url)
	token := s.initialize()
	answered := make(chan int, 1)
	go func() {
		response, err := send(t, http.MethodPost, s.address+"/mcp", token, slowBody)
		if err != nil {
			answered <- 0
			return
		}
		response.Body.Close()
		answered <- response.StatusCode
	}()
	up.waitEntered(t)
	s.signal()
	s.waitLog("stopping")
	s.waitReady(http.StatusServiceUnavailable) // the admin port still answers
	close(up.release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request in flight was answered with %d", status)
	}
	if err := s.waitEnd(patienceOfTests); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

func TestStoppingEndsOpenStreams(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	s := startServe(t, "--redis", newStore(t), "--upstream", up.url)
	stream, err := send(t, http.MethodGet, s.address+"/mcp", s.initialize(), "")
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("GET: %v, %v", stream, err)
	}
	defer stream.Body.Close()
	s.signal()
	// Far less than what a request in flight is given.
	if err := s.waitEnd(5 * time.Second); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

func TestASecondSignalEndsServeAtOnce(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	s := startServe(t, "--redis", newStore(t), "--upstream", up.url)
	token := s.initialize()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if response, err := send(t, http.MethodPost, s.address+"/mcp", token, slowBody); err == nil {
			response.Body.Close()
		}
	}()
	up.waitEntered(t)
	s.signal()
	s.waitLog("stopping")
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	timeout := time.After(5 * time.Second)
	for {
		select {
		case <-again.C:
			_ = s.command.Process.Signal(syscall.SIGTERM) // fails when it has ended
			continue
		case err := <-s.ended:
			if _, killed := errors.AsType[*exec.ExitError](err); !killed {
				t.Errorf("the second signal did not end it by force: %v", err)
			}
		case <-timeout:
			t.Error("the second signal did not end it")
		}
		break
	}
	close(up.release)
	<-done
}

func TestASignalThatIsRepeatedAtOnceIsOne(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	s := startServe(t, "--redis", newStore(t), "--upstream", up.url)
	token := s.initialize()
	answered := make(chan int, 1)
	go func() {
		response, err := send(t, http.MethodPost, s.address+"/mcp", token, slowBody)
		if err != nil {
			answered <- 0
			return
		}
		response.Body.Close()
		answered <- response.StatusCode
	}()
	up.waitEntered(t)
	s.signal()
	s.waitLog("stopping")
	s.signal()
	s.waitReady(http.StatusServiceUnavailable) // it lives
	close(up.release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request in flight was answered with %d", status)
	}
	if err := s.waitEnd(patienceOfTests); err != nil {
		t.Errorf("SIGTERM twice: %v", err)
	}
}

// The upstream is not to blame for what the drain has cut.
func TestARequestThatTheDrainCutsIsToldSo(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	s := startServe(t, "--redis", newStore(t), "--upstream", up.url, "--drain-timeout", "1s")
	token := s.initialize()
	answered := make(chan string, 1)
	go func() {
		response, err := send(t, http.MethodPost, s.address+"/mcp", token, slowBody)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answered <- string(body)
	}()
	up.waitEntered(t)
	s.signal()
	if got := <-answered; !strings.Contains(got, "may_have_run") || !strings.Contains(got, "this replica is stopping") || strings.Contains(got, "connection") {
		t.Errorf("the client is told: %s", got)
	}
	if err := s.waitEnd(patienceOfTests); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if line := s.waitLog("drain_timeout is nearly over"); !strings.Contains(line.text, `"requests":1`) || !strings.Contains(line.text, `"drain_timeout":"1s"`) {
		t.Errorf("log line %s", line.text)
	}
	s.waitLog("a request was cut")
	if found, _ := s.logged("upstream did not answer"); len(found) > 0 {
		t.Errorf("the upstream is blamed: %+v", found)
	}
}

func TestAStoreThatIsAwayAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	address := server.Addr()
	server.Close()

	s := startServe(t, "--redis", "redis://admin:hunter2@"+address, "--upstream", newUpstream(t).url)
	s.waitLog("the store cannot be reached")
	if body := s.waitReady(http.StatusServiceUnavailable); !strings.Contains(body, "connection refused") {
		t.Errorf("/readyz does not name the cause: %s", body)
	}
	got := request(t, http.MethodPost, s.address+"/mcp", "", initializeBody)
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("initialize: %+v", got)
	}

	server = miniredis.NewMiniRedis()
	server.RequireUserAuth("admin", "hunter2")
	if err := server.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s.waitReady(http.StatusOK)
	s.initialize()
	all, _ := s.logged("")
	changes := 0
	for _, line := range all {
		if strings.HasPrefix(line.Msg, "the store") {
			changes++
		}
		if line.Level == "" || strings.Contains(line.Msg, "hunter2") {
			t.Errorf("log line %+v", line)
		}
	}
	if changes != 2 {
		t.Errorf("%d lines about the store, want one for away and one for back: %+v", changes, all)
	}
}

// slowAnnouncement is a log whose line about stopping takes until the one about having stopped is written, or long enough.
type slowAnnouncement struct {
	slog.Handler
	stopped chan struct{}
	once    *sync.Once

	mu    *sync.Mutex
	lines *[]string
}

func (slowAnnouncement) Enabled(context.Context, slog.Level) bool { return true }

func (h slowAnnouncement) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h slowAnnouncement) Handle(_ context.Context, record slog.Record) error {
	switch {
	case strings.HasPrefix(record.Message, "stopping"):
		select {
		case <-h.stopped:
		case <-time.After(300 * time.Millisecond):
		}
	case record.Message == "stopped":
		h.once.Do(func() { close(h.stopped) })
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	*h.lines = append(*h.lines, record.Message)
	return nil
}

func TestStoppingIsAnnouncedBeforeItIsDone(t *testing.T) {
	t.Parallel()
	s, err := settings.Load(settings.Sources{Flags: map[string][]string{
		"redis": {newStore(t)}, "listen": {"127.0.0.1:0"}, "admin_listen": {"off"}, "upstream": {"http://127.0.0.1:1/mcp?key=hunter2"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	log := slog.New(slowAnnouncement{slog.DiscardHandler, make(chan struct{}), &sync.Once{}, &sync.Mutex{}, &lines})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := serve(ctx, s, log, new(slog.LevelVar)); err != nil {
		t.Fatal(err)
	}
	stopping := slices.Index(lines, "stopping: finishing requests in flight")
	if stopping < 0 || lines[len(lines)-1] != "stopped" || slices.Contains(lines[:stopping], "this replica leads no more") {
		t.Errorf("the log says %q", lines)
	}
}

func TestUpstreamsAreLoggedWithoutTheirQueries(t *testing.T) {
	t.Parallel()
	s := startServe(t, "--redis", newStore(t), "--upstream", "files=http://127.0.0.1:1/a/mcp?key=hunter2,http://127.0.0.1:2/b/mcp?key=hunter2")
	line := s.waitLog("listening")
	if !strings.Contains(line.text, `"http://127.0.0.1:1/a/mcp,http://127.0.0.1:2/b/mcp"`) || strings.Contains(line.text, "hunter2") {
		t.Errorf("log line %s", line.text)
	}
}

func TestAnOpenDoorIsToldOf(t *testing.T) {
	t.Parallel()
	at := func(address string, mode auth.Mode) string {
		var log bytes.Buffer
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		s := settings.Settings{}
		s.Auth.Mode = mode
		warnIfOpen(slog.New(slog.NewTextHandler(&log, nil)), s, listener)
		return log.String()
	}
	if said := at(":0", auth.ModeNone); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "auth.mode is none") {
		t.Errorf("on all addresses: %q", said)
	}
	for address, mode := range map[string]auth.Mode{"127.0.0.1:0": auth.ModeNone, ":0": auth.ModeJWT} {
		if said := at(address, mode); said != "" {
			t.Errorf("on %s with %s: %q", address, mode, said)
		}
	}
}

func TestAnAddressInUseIsAFailure(t *testing.T) {
	t.Parallel()
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	address := strings.TrimPrefix(taken.URL, "http://")
	output, err := exec.CommandContext(t.Context(), programName, "serve", "--redis", "embedded:",
		"--upstream", "http://127.0.0.1:1/mcp", "--listen", address).CombinedOutput()
	exit, isExit := errors.AsType[*exec.ExitError](err)
	if !isExit || exit.ExitCode() != exitFailure || !strings.HasPrefix(string(output), "shadowcat-cluster: listen: ") {
		t.Errorf("%v: %s", err, output)
	}
}
