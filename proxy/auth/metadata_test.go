package auth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// ask asks a gate for metadata; nil when it does not serve the path.
func ask(t *testing.T, g *auth.Gate, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if !g.ServeMetadata(w, request(method, path)) {
		if len(w.Header()) > 0 || w.Body.Len() > 0 {
			t.Errorf("%s %s: answered, although it says it did not", method, path)
		}
		return nil
	}
	return w
}

func TestMetadataSaysWhereTokensComeFrom(t *testing.T) {
	t.Parallel()
	const wellKnown = "/.well-known/oauth-protected-resource"
	scoped := func(c *auth.Config) { c.RequiredScopes = []string{"tools:read", "tools:write"} }
	below := func(c *auth.Config) { c.Resource = "https://gateway.example:8443/team/" }
	nested := func(paths ...string) func(*auth.Config) {
		return func(c *auth.Config) { c.Resource, c.Paths = "https://gateway.example/files", paths }
	}
	for _, c := range []struct {
		change         func(*auth.Config)
		path, resource string
	}{
		{scoped, wellKnown, "https://mcp.example"},
		{scoped, wellKnown + "/", "https://mcp.example"},
		{scoped, wellKnown + "/mcp", "https://mcp.example/mcp"},
		{scoped, wellKnown + "/files/mcp", "https://mcp.example/files/mcp"},
		{below, wellKnown + "/team/mcp", "https://gateway.example:8443/team/mcp"},
		{below, wellKnown + "/mcp", "https://gateway.example:8443/team/mcp"},
		{below, wellKnown + "/team", "https://gateway.example:8443/team"},
		{below, wellKnown, "https://gateway.example:8443/team"},
		{nested("/mcp", "/files/mcp"), wellKnown + "/files/mcp", "https://gateway.example/files/mcp"},
		{nested("/files/mcp", "/mcp"), wellKnown + "/files/mcp", "https://gateway.example/files/mcp"},
		{nested("/files/mcp", "/mcp"), wellKnown + "/files/files/mcp", "https://gateway.example/files/files/mcp"},
	} {
		g := gate(t, c.change)
		w := ask(t, g, http.MethodGet, c.path)
		if w == nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %+v", c.path, w)
			continue
		}
		got := object{}
		unmarshal(w.Body.Bytes(), &got)
		want := object{"resource": c.resource, "authorization_servers": []any{issuerURL}, "bearer_methods_supported": []any{"header"}}
		if strings.HasPrefix(c.resource, "https://mcp.example") {
			want["scopes_supported"] = []any{"tools:read", "tools:write"}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.path, d)
		}
	}
}

func TestMetadataIsServedAtItsPathsOnly(t *testing.T) {
	t.Parallel()
	g := gate(t)
	for _, path := range []string{
		"/", "/mcp", "/.well-known", "/.well-known/oauth-protected-resource/other", "/.well-known/oauth-protected-resourcemcp",
		"/.well-known/oauth-authorization-server", "/mcp/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp/../mcp",
	} {
		if ask(t, g, http.MethodGet, path) != nil {
			t.Errorf("%s is served", path)
		}
	}
	for _, g := range []*auth.Gate{running(t, auth.DefaultConfig()), running(t, headerConfig(t, "10.0.0.0/8"))} {
		if ask(t, g, http.MethodGet, "/.well-known/oauth-protected-resource") != nil {
			t.Error("there is metadata of tokens without tokens")
		}
	}
}

func TestMetadataIsReadOnly(t *testing.T) {
	t.Parallel()
	g := gate(t)
	const path = "/.well-known/oauth-protected-resource/mcp"
	get, head := ask(t, g, http.MethodGet, path), ask(t, g, http.MethodHead, path)
	if head.Code != http.StatusOK || head.Body.Len() > 0 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
		t.Errorf("HEAD: %+v", head)
	}
	if preflight := ask(t, g, http.MethodOptions, path); preflight.Code != http.StatusNoContent || preflight.Header().Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("OPTIONS: %+v", preflight)
	}
	if post := ask(t, g, http.MethodPost, path); post.Code != http.StatusMethodNotAllowed || post.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("POST: %+v", post)
	}
}

func TestRefusalsTellClientsWhatToDo(t *testing.T) {
	t.Parallel()
	jwt := gate(t, func(c *auth.Config) { c.RequiredScopes = []string{"tools:read", "tools:write"} })
	header := running(t, headerConfig(t, "10.0.0.0/8"))
	const where = `resource_metadata="https://mcp.example/.well-known/oauth-protected-resource`
	for _, c := range []struct {
		gate   *auth.Gate
		path   string
		reason auth.Reason
		status int
		want   string
	}{
		{jwt, "/mcp", auth.ReasonMissing, 401, `Bearer scope="tools:read tools:write", ` + where + `/mcp"`},
		{jwt, "/files/mcp", auth.ReasonMissing, 401, `Bearer scope="tools:read tools:write", ` + where + `/files/mcp"`},
		{jwt, "/\"evil\r\n", auth.ReasonMissing, 401, `Bearer scope="tools:read tools:write", ` + where + `"`},
		{jwt, "/mcp", auth.ReasonExpired, 401, `Bearer error="invalid_token", error_description="the token has expired, or never says when it does", scope="tools:read tools:write", ` + where + `/mcp"`},
		{jwt, "/mcp", auth.ReasonScope, 403, `Bearer error="insufficient_scope", error_description="the token lacks a required scope", scope="tools:read tools:write", ` + where + `/mcp"`},
		{jwt, "/mcp", auth.ReasonAmbiguous, 400, `Bearer error="invalid_request", error_description="the request has more than one Authorization header", scope="tools:read tools:write", ` + where + `/mcp"`},
		{header, "/mcp", auth.ReasonPeer, 403, ``},
		{header, "/mcp", auth.ReasonIdentity, 403, ``},
	} {
		f := c.gate.Refusal(c.path, errors.Join(errors.New("wrapped"), &auth.DeniedError{Reason: c.reason}))
		if f.Status != c.status || f.Challenge != c.want || f.Message == "" || f.RetryAfter != 0 {
			t.Errorf("%s %s: %+v, want status %d and %s", c.path, c.reason, f, c.status, c.want)
		}
	}
}
