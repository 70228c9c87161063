package proxy_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// deleted is an upstream that counts the sessions it is asked to forget.
type deleted struct {
	*httptest.Server

	hold chan struct{} // answers wait for it, when there is one

	mu      sync.Mutex
	heard   map[string]int // by session id
	headers []http.Header
	other   int // requests that were no DELETE
}

func newDeleted(t *testing.T, hold chan struct{}) *deleted {
	t.Helper()
	d := &deleted{hold: hold, heard: make(map[string]int)}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		if r.Method == http.MethodDelete && r.URL.Path == "/mcp" {
			d.heard[r.Header.Get("Mcp-Session-Id")]++
			d.headers = append(d.headers, r.Header.Clone())
		} else {
			d.other++
		}
		d.mu.Unlock()
		if d.hold != nil {
			select {
			case <-d.hold:
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(http.StatusMethodNotAllowed) // what it answers matters to nobody
	}))
	t.Cleanup(d.Close)
	return d
}

// count tells how many farewells it has heard.
func (d *deleted) count() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, times := range d.heard {
		n += times
	}
	return n
}

// farewells makes a proxy in front of two upstreams. Run starts saying farewell, and returns what stops it.
func farewells(t *testing.T, log *logBuffer, weather, files *deleted) (p *proxy.Proxy, run func() (stop func())) {
	t.Helper()
	at := func(d *deleted) *url.URL {
		u, err := url.Parse(d.URL + "/mcp")
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	p, err := proxy.New(newFleet(t, weather.URL+"/mcp").replica().manager, proxy.Config{
		Upstreams:  []proxy.Upstream{{Name: "weather", URL: at(weather)}, {Name: "files", URL: at(files)}},
		EndTimeout: patience, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.RunFarewells(ctx) }()
		stop := sync.OnceFunc(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("RunFarewells: %v", err)
				}
			case <-time.After(patience):
				t.Error("RunFarewells does not end")
			}
		})
		t.Cleanup(stop)
		return stop
	}
}

func gone(upstream string, n int) cluster.Session {
	return cluster.Session{
		ID: uuid.Must(uuid.NewV7()), Status: cluster.StatusExpired, Upstream: upstream, UpstreamSession: "secret-" + strconv.Itoa(n), Revision: "2025-11-25",
	}
}

func TestUpstreamsAreAskedToForgetSessionsThatEndedWithoutTheirClient(t *testing.T) {
	t.Parallel()
	var log logBuffer
	weather, files := newDeleted(t, nil), newDeleted(t, nil)
	p, run := farewells(t, &log, weather, files)
	run()
	nameless := gone("weather", 3)
	nameless.UpstreamSession = ""
	p.EndUpstream([]cluster.Session{gone("weather", 1), nameless, gone("unknown", 4), gone("", 5), gone("files", 2)})
	p.EndUpstream(nil)
	eventually(t, "two farewells", func() bool {
		return weather.count()+files.count() == 2
	})
	if weather.heard["secret-1"] != 1 || files.heard["secret-2"] != 1 || weather.other+files.other > 0 {
		t.Errorf("the upstreams heard %v and %v", weather.heard, files.heard)
	}
	if got := weather.headers[0].Get("MCP-Protocol-Version"); got != "2025-11-25" {
		t.Errorf("in revision %q", got)
	}
	if strings.Contains(log.String(), "secret-") {
		t.Errorf("the log holds an upstream's session id:\n%s", log.String())
	}
}

func TestFarewellsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	var log logBuffer
	weather, files := newDeleted(t, nil), newDeleted(t, nil)
	p, run := farewells(t, &log, weather, files)
	all := make([]cluster.Session, most+30)
	for i := range all {
		all[i] = gone("weather", i)
	}
	p.EndUpstream(all) // returns, although nobody says any of them yet
	if got := strings.Count(log.String(), "left to its upstream"); got != 30 {
		t.Errorf("%d were left out, want 30", got)
	}
	run()
	eventually(t, "all that fit", func() bool { return weather.count() == most })
	p.EndUpstream(all[:1]) // there is room again
	eventually(t, "one more", func() bool { return weather.count() == most+1 })
	if weather.heard["secret-"+strconv.Itoa(most-1)] != 1 || weather.heard["secret-"+strconv.Itoa(most)] != 0 {
		t.Error("not the first ones were said")
	}
}

// An upstream that does not answer holds up neither the caller nor the stop.
func TestFarewellsStopAtOnce(t *testing.T) {
	t.Parallel()
	var log logBuffer
	hold := make(chan struct{})
	defer close(hold)
	weather, files := newDeleted(t, hold), newDeleted(t, nil)
	p, run := farewells(t, &log, weather, files)
	stop := run()
	for i := range 20 {
		p.EndUpstream([]cluster.Session{gone("weather", i)})
	}
	eventually(t, "the first ones", func() bool { return weather.count() > 0 })
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("the stop took %v", took)
	}
	if n := weather.count(); n > 4 {
		t.Errorf("%d at once, want at most 4", n)
	}
}
