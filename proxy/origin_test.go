package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy"
)

// newServer serves a handler.
func newServer(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config = proxy.NewServer(h, proxy.ServerLimits{})
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// noSessions has none.
type noSessions struct{ proxy.Sessions }

func (noSessions) Incarnation() string { return "r-1/AAAAAAAA" }

// ask asks a proxy that has no sessions, and whose answer to what its policy allows is therefore 400.
func ask(t *testing.T, cfg proxy.Config, method, host string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	cfg.Upstreams = []proxy.Upstream{{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}}}
	p, err := proxy.New(noSessions{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "/mcp", nil)
	r.Host = host
	r.Header = header
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestHostAndOriginPolicy(t *testing.T) {
	t.Parallel()
	const allowed = http.StatusBadRequest
	for _, tt := range []struct {
		name           string
		listen         string
		hosts, origins []string
		host, origin   string
		want           int
	}{
		{"any host on a public listener", ":8081", nil, nil, "mcp.example", "", allowed},
		{"foreign host on loopback", "127.0.0.1:8081", nil, nil, "evil.example", "", 403},
		{"foreign host on IPv6 loopback", "[::1]:8081", nil, nil, "evil.example:8081", "", 403},
		{"localhost on loopback", "127.0.0.1:8081", nil, nil, "LocalHost:8081", "", allowed},
		{"address on loopback", "localhost:8081", nil, nil, "[::1]:8081", "", allowed},
		{"name that begins like loopback", "localhost:8081", nil, nil, "127.0.0.1.evil.example", "", 403},
		{"allowed host on loopback", "127.0.0.1:8081", []string{"mcp.example"}, nil, "MCP.example:99", "", allowed},
		{"host not in the list", ":8081", []string{"mcp.example"}, nil, "localhost", "", 403},
		{"port not in the list", ":8081", []string{"mcp.example:1"}, nil, "mcp.example:2", "", 403},
		{"every host", "127.0.0.1:8081", []string{"*"}, nil, "evil.example", "", allowed},
		{"no host", ":8081", []string{"mcp.example"}, nil, "", "", 403},

		{"same origin", ":8081", nil, nil, "mcp.example", "https://mcp.example", allowed},
		{"same origin with its port", ":8081", nil, nil, "mcp.example:443", "https://mcp.example", allowed},
		{"another port", ":8081", nil, nil, "mcp.example:8081", "http://mcp.example:8082", 403},
		{"foreign origin", ":8081", nil, nil, "mcp.example", "https://evil.example", 403},
		{"origin that only contains the host", ":8081", nil, nil, "mcp.example", "https://mcp.example.evil", 403},
		{"null origin", ":8081", nil, nil, "mcp.example", "null", 403},
		{"origin with a path", ":8081", nil, nil, "mcp.example", "https://mcp.example/x", 403},
		{"origin with a user", ":8081", nil, nil, "mcp.example", "https://u@mcp.example", 403},
		{"listed origin", ":8081", nil, []string{"https://App.example"}, "mcp.example", "https://app.example", allowed},
		{"origin not in the list", ":8081", nil, []string{"https://app.example"}, "mcp.example", "https://mcp.example", 403},
		{"other scheme than in the list", ":8081", nil, []string{"https://app.example"}, "mcp.example", "http://app.example", 403},
		{"every origin", ":8081", nil, []string{"*"}, "mcp.example", "https://evil.example", allowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{"Accept": {"text/event-stream"}}
			if tt.origin != "" {
				header.Set("Origin", tt.origin)
			}
			got := ask(t, proxy.Config{Listen: tt.listen, AllowedHosts: tt.hosts, AllowedOrigins: tt.origins}, "GET", tt.host, header)
			if got.Code != tt.want {
				t.Errorf("status %d, want %d: %s", got.Code, tt.want, got.Body)
			}
			cors := got.Header().Get("Access-Control-Allow-Origin")
			if want := got.Code == allowed && tt.origins != nil; (cors != "") != want {
				t.Errorf("Access-Control-Allow-Origin is %q", cors)
			}
		})
	}
}

func TestPreflightIsAnsweredToAllowedOriginsOnly(t *testing.T) {
	t.Parallel()
	preflight := func(origin, headers string, allowed ...string) *httptest.ResponseRecorder {
		return ask(t, proxy.Config{AllowedOrigins: allowed}, http.MethodOptions, "mcp.example", http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {headers},
		})
	}
	got := preflight("https://app.example", "content-type,mcp-session-id", "https://app.example")
	h := got.Header()
	if got.Code != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Vary") != "Origin" ||
		h.Get("Access-Control-Allow-Headers") != "content-type,mcp-session-id" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "DELETE") {
		t.Errorf("allowed: %d %v", got.Code, h)
	}
	if got := preflight("https://app.example", "x: y\r\nz", "*"); got.Header().Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(got.Header().Get("Access-Control-Allow-Headers"), "Mcp-Session-Id") {
		t.Errorf("any origin, rubbish headers: %d %v", got.Code, got.Header())
	}
	if got := preflight("https://evil.example", "", "https://app.example"); got.Code != 403 || got.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("foreign: %d %v", got.Code, got.Header())
	}
}

func TestPagesMayReadTheSessionIDAndSeeNoCORSOfTheUpstream(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, _ recorded) bool {
		w.Header().Set("Access-Control-Allow-Origin", "http://upstream")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints) // makes httputil.ReverseProxy clear the header
		return false
	})
	const page = "https://app.example"
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.AllowedOrigins = []string{page} })
	got := post(r.url, "", initializeBody).with("Origin", page).with("Sec-Fetch-Site", "cross-site").send(t)
	if got.status != 200 || got.header.Get("Access-Control-Expose-Headers") != "Mcp-Session-Id, WWW-Authenticate, X-Request-Id" ||
		len(got.header.Values("Access-Control-Allow-Origin")) != 1 || got.header.Get("Access-Control-Allow-Origin") != page ||
		got.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("header: %v", got.header)
	}
	if seen := u.requests()[0].header; seen.Get("Origin") != "" || seen.Get("Sec-Fetch-Site") != "" {
		t.Errorf("the upstream would judge the page again: %v", seen)
	}
}
