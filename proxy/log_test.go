package proxy_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy"
)

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestLogNamesSessionsAndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	var lost atomic.Bool
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		switch got.msg.Method {
		case "redirect":
			w.Header().Set("Location", "http://elsewhere/mcp?hidden-query")
			w.WriteHeader(http.StatusFound)
		case "hang-up":
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		case "break-off":
			_, _ = io.WriteString(w, "hidden-payload")
			flush(w)
			panic(http.ErrAbortHandler)
		case "lose":
			lost.Store(true)
			w.WriteHeader(http.StatusNotFound)
		default:
			if lost.Load() && got.msg.Method == "ping" {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			return false
		}
		return true
	})
	var log logBuffer
	r := newFleet(t, u.url+"?hidden-query").replica(func(c *proxy.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.ReplicaID = "replica-7"
	})
	token, second := r.openSession(), r.openSession()
	for _, method := range []string{"ping", "redirect", "hang-up", "break-off", "lose"} {
		post(r.url+"?hidden-query", token, `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":"hidden-payload"}`).
			with("Authorization", "hidden-authorization").send(t)
	}
	post(r.url, token+"x", pingBody).send(t)
	del(r.url, second).send(t)
	eventually(t, "all to be logged", func() bool { return strings.Count(log.String(), "msg=request") == 9 })
	text := log.String()
	id, secret, _ := strings.Cut(token, ".")
	for _, hidden := range []string{secret, upstreamSession, "hidden-"} {
		if strings.Contains(text, hidden) {
			t.Errorf("the log holds %q:\n%s", hidden, text)
		}
	}
	for _, want := range []string{"session=" + id, "replica=replica-7", "upstream redirects", "to=http://elsewhere/mcp", "upstream did not answer", "upstream lost a session", "status=503", "rpc=ping", "duration_ms="} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

// A wrong path is a common mistake, and every initialize shows it.
func TestAnUpstreamWithoutAServerAtItsPathIsLoggedWithItsStatusOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, _ recorded) bool {
			w.WriteHeader(status)
			return true
		})
		var log logBuffer
		r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		for range 3 {
			if got := post(r.url, "", initializeBody).send(t); got.status != status {
				t.Errorf("initialize: %d, want %d", got.status, status)
			}
		}
		text := log.String()
		if strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "is the path of its URL right?") || !strings.Contains(text, "status="+strconv.Itoa(status)) {
			t.Errorf("%d, the log:\n%s", status, text)
		}
	}
}
