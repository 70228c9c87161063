package demo

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// screen is a demo's output, to be read while it is written.
type screen struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed and replaced by each write
}

func newScreen() *screen { return &screen{changed: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.text.Write(p)
}

func (s *screen) read() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.changed
}

// requests returns the fields of each line that the demo has shown after its header, once enough says that there are
// enough of them.
func (s *screen) requests(t *testing.T, enough func([][]string) bool) [][]string {
	t.Helper()
	late := time.After(patience)
	for {
		text, changed := s.read()
		_, after, _ := strings.Cut(text, "TOOK\n")
		var lines [][]string
		for line := range strings.Lines(after) {
			lines = append(lines, strings.Fields(line))
		}
		if enough(lines) {
			return lines
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("the demo did not show what it should:\n%s", text)
		}
	}
}

// startDemo runs a demo until the test ends or stop is called, which returns what Run returned.
func startDemo(t *testing.T, replicas int) (d *Demo, out *screen, stop func() error) {
	t.Helper()
	out = newScreen()
	d, err := New(t.Context(), Config{Listen: "127.0.0.1:0", Replicas: replicas, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("the demo did not stop")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the demo ended with: %v", err)
		}
	})
	return d, out, stop
}

func TestOneSessionIsServedByAllReplicas(t *testing.T) {
	t.Parallel()
	d, out, _ := startDemo(t, 3)
	session := connect(t, d.Endpoint(), nil)
	for want := 1; want <= 6; want++ {
		if got := count(t, session); got != want {
			t.Errorf("call %d of the counter returned %d", want, got)
		}
	}

	isCall := func(fields []string) bool { return fields[3] == "tools/call" }
	lines := out.requests(t, func(lines [][]string) bool {
		return len(slices.DeleteFunc(slices.Clone(lines), func(l []string) bool { return !isCall(l) })) == 6
	})
	id, secret, _ := strings.Cut(session.ID(), ".")
	calls := map[string]int{}
	for _, fields := range lines {
		if !isCall(fields) {
			continue
		}
		if len(fields) != 6 || fields[2] != id || fields[4] != "200" {
			t.Errorf("a call is shown as %q, want session %s and status 200", fields, id)
		}
		calls[fields[1]]++
	}
	for _, replica := range []string{"replica-1", "replica-2", "replica-3"} {
		if calls[replica] == 0 {
			t.Errorf("no call is shown for %s: %v", replica, calls)
		}
	}
	if text, _ := out.read(); secret == "" || strings.Contains(text, secret) {
		t.Error("the demo showed the secret of a session's token, or there is none")
	}
}

func TestProgressAndQuestionsPassThroughTheReplicas(t *testing.T) {
	t.Parallel()
	d, _, _ := startDemo(t, 3)
	progress := make(chan float64, 3)
	session := connect(t, d.Endpoint(), &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
			progress <- req.Params.Progress
		},
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"answer": "forty-two"}}, nil
		},
	})
	slow := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"seconds": 0.03, "steps": 3}}
	slow.SetProgressToken("p")
	if got, _ := call(t.Context(), t, session, slow); got != "Done: 3 steps in 0.03 seconds." {
		t.Errorf("slow returned %q", got)
	}
	for want := 1.0; want <= 3; want++ {
		if got := <-progress; got != want {
			t.Errorf("progress is %v, want %v", got, want)
		}
	}
	for range 3 { // whichever replica the question goes out by
		if got, _ := call(t.Context(), t, session, &mcp.CallToolParams{Name: "ask"}); got != "The answer is: forty-two" {
			t.Errorf("ask returned %q", got)
		}
	}
}

func TestStoppingEndsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	d, _, stop := startDemo(t, 2)
	begun := make(chan struct{}, 20)
	session := connect(t, d.Endpoint(), &mcp.ClientOptions{ // it holds a GET stream, too
		ProgressNotificationHandler: func(context.Context, *mcp.ProgressNotificationClientRequest) { begun <- struct{}{} },
	})
	ended := make(chan error, 1)
	go func() {
		params := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"seconds": 40, "steps": 20}}
		params.SetProgressToken("p")
		_, err := session.CallTool(t.Context(), params)
		ended <- err
	}()
	<-begun

	stopping := time.Now()
	if err := stop(); err != nil {
		t.Errorf("the demo ended with: %v", err)
	}
	if took := time.Since(stopping); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := <-ended; err == nil {
		t.Error("the call in flight returned a result")
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", d.front.Addr().String()); err == nil {
		t.Error("the front still listens")
	}
}

func TestEachPartCanBeReachedByItself(t *testing.T) {
	t.Parallel()
	d, out, _ := startDemo(t, 2)
	out.requests(t, func([][]string) bool { text, _ := out.read(); return strings.Contains(text, "TOOK") })
	for _, place := range d.welcome().replicas {
		if got := count(t, connect(t, place.mcp, nil)); got != 1 {
			t.Errorf("%s: a new session's counter is %d", place.mcp, got)
		}
		if status, metrics := send(t, http.MethodGet, place.metrics, ""); status != http.StatusOK || !strings.Contains(metrics, "shadowcat_") {
			t.Errorf("%s: answered %d %.100q", place.metrics, status, metrics)
		}
	}
}

func TestConfigIsRefusedByTheNameOfTheFlag(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		config Config
		want   []string
	}{
		"no replicas":       {Config{Listen: "127.0.0.1:0"}, []string{"--replicas", "1 to 16"}},
		"too many replicas": {Config{Listen: "127.0.0.1:0", Replicas: 17}, []string{"--replicas", "17"}},
		"no port":           {Config{Listen: "127.0.0.1", Replicas: 1}, []string{"--listen", "host:port"}},
		"bad port":          {Config{Listen: "127.0.0.1:99999", Replicas: 1}, []string{"--listen", "99999"}},
		"port in use":       {Config{Listen: taken.Addr().String(), Replicas: 1}, []string{"--listen", "in use", "another address"}},
		"bad Redis":         {Config{Listen: "127.0.0.1:0", Replicas: 1, Redis: "http://h"}, []string{"--redis"}},
		"no Redis":          {Config{Listen: "127.0.0.1:0", Replicas: 1, Redis: "redis://u:secret@" + refused(t)}, []string{"--redis", "does not answer"}},
	} {
		test.config.Out = newScreen()
		_, err := New(t.Context(), test.config)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error is %q, want %q in it", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %q", name, err)
		}
	}
}

func TestEndpointIsOneThatClientsCanConnectTo(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]struct {
		host   string
		public bool
	}{
		"127.0.0.1:0": {"127.0.0.1", false},
		"localhost:0": {"127.0.0.1", false},
		"0.0.0.0:0":   {"127.0.0.1", true},
		":0":          {"127.0.0.1", true},
	} {
		d, err := New(t.Context(), Config{Listen: listen, Replicas: 1, Out: newScreen()})
		if err != nil {
			t.Errorf("%s: %v", listen, err)
			continue
		}
		if got := d.welcome(); !strings.HasPrefix(got.endpoint, "http://"+want.host+":") || got.public != want.public {
			t.Errorf("%s: the endpoint is %s, public %v", listen, got.endpoint, got.public)
		}
		if err := d.Close(); err != nil {
			t.Errorf("%s: closing: %v", listen, err)
		}
	}
}
