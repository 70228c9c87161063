package proxy_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy"
)

// What net/http cannot read of an upstream's answer it quotes in its errors.
func TestLogHoldsNothingOfAnAnswerThatCannotBeRead(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, raw := range map[string]string{
		"no HTTP":              "hidden-text\r\n\r\n",
		"a status":             "HTTP/1.1 hidden-text\r\n\r\n",
		"a header":             "HTTP/1.1 200 OK\r\nhidden-text\r\n\r\n",
		"a first header":       "HTTP/1.1 200 OK\r\n hidden-text\r\n\r\n",
		"a transfer encoding":  ok + "Transfer-Encoding: hidden-text\r\n\r\n",
		"a length":             ok + "Content-Length: hidden-text\r\n\r\n",
		"two lengths":          ok + "Content-Length: 1\r\nContent-Length: hidden-text\r\n\r\n",
		"a chunk":              ok + "Transfer-Encoding: chunked\r\n\r\nhidden-text\r\n",
		"a trailer":            ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nhidden-text\r\n\r\n",
		"a first trailer":      ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n hidden-text\r\n\r\n",
		"a trailer's name":     ok + "Transfer-Encoding: chunked\r\nTrailer: Content-Length, hidden-text\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"a stream's trailer":   "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n: x\n\r\n0\r\nhidden-text\r\n\r\n",
		"events that are none": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hidden-text\n\nid: hidden-text\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
				if got.msg.Method != "tools/call" {
					return false
				}
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					_, _ = io.WriteString(conn, raw)
					_ = conn.Close()
				}
				return true
			})
			var log logBuffer
			r := newFleet(t, u.url).replica(func(c *proxy.Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			call := post(r.url, r.openSession(), `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`)
			req, err := http.NewRequestWithContext(t.Context(), call.method, call.url, strings.NewReader(call.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = call.header
			if res, err := http.DefaultTransport.RoundTrip(req); err == nil { // it may be broken off as well
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			eventually(t, "the request to be logged", func() bool { return strings.Contains(log.String(), "rpc=tools/call") })
			if strings.Contains(log.String(), "hidden") {
				t.Errorf("the log holds it:\n%s", log.String())
			}
		})
	}
}
