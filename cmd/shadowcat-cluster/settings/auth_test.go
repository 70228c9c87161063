package settings_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func TestAuthenticationIsReadFromEverySource(t *testing.T) {
	t.Parallel()
	jwt := auth.DefaultConfig()
	jwt.Mode, jwt.Issuer, jwt.Resource = auth.ModeJWT, "http://login.internal/realm", "https://mcp.example"
	jwt.Audiences, jwt.RequiredScopes, jwt.Algorithms = []string{"https://mcp.example/mcp", "mcp"}, []string{"tools"}, []string{"ES256"}
	jwt.JWKSURL, jwt.AllowHTTP = "http://login.internal/keys", true
	jwt.JWKSRefresh, jwt.JWKSStale, jwt.JWKSTimeout, jwt.ClockSkew = time.Minute, 2*time.Hour, time.Second, 0
	jwt.UpstreamToken, jwt.UpstreamTokenFile = auth.UpstreamReplace, "token"
	header := auth.DefaultConfig()
	header.Mode, header.Header = auth.ModeHeader, "X-Forwarded-User"
	header.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::1/128")}
	for name, c := range map[string]struct {
		src  settings.Sources
		want auth.Config
	}{
		"jwt in a file": {settings.Sources{File: yamlFile(t, `
auth:
  mode: jwt
  issuer: http://login.internal/realm
  audience: [https://mcp.example/mcp, mcp]
  resource: https://mcp.example
  jwks_url: http://login.internal/keys
  jwks_refresh: 1m
  jwks_stale: 2h
  jwks_timeout: 1s
  clock_skew: 0
  algorithms: ES256
  required_scopes: [tools]
  allow_http: true
  upstream_token: replace
  upstream_token_file: token
`)}, jwt},
		"jwt in flags": {flags("auth.mode", "jwt", "auth.issuer", jwt.Issuer, "auth.audience", "https://mcp.example/mcp", "auth.audience", "mcp",
			"auth.resource", jwt.Resource, "auth.jwks_url", jwt.JWKSURL, "auth.jwks_refresh", "60s", "auth.jwks_stale", "2h", "auth.jwks_timeout", "1s",
			"auth.clock_skew", "0s", "auth.algorithms", "ES256", "auth.required_scopes", "tools", "auth.allow_http", "true",
			"auth.upstream_token", "replace", "auth.upstream_token_file", "token"), jwt},
		"header in the environment": {settings.Sources{Environ: []string{
			"SHADOWCAT_AUTH_MODE=header", "SHADOWCAT_AUTH_HEADER=X-Forwarded-User", "SHADOWCAT_AUTH_TRUSTED_PROXIES=10.1.0.0/16, ::1",
		}}, header},
	} {
		if got := load(t, c.src).Auth; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A mode that lacks something, and a forgotten mode, let nobody start: the one would refuse everybody, the other nobody.
func TestAuthenticationIsCheckedAsAWhole(t *testing.T) {
	t.Parallel()
	for want, src := range map[string]settings.Sources{
		"auth.audience: not set":                                  flags("auth.mode", "jwt", "auth.issuer", "https://i", "auth.resource", "https://r"),
		"auth.trusted_proxies: not set":                           flags("auth.mode", "header", "auth.header", "X-User"),
		"auth.header: is used only with auth.mode header":         flags("auth.header", "X-User"),
		"auth.upstream_token_file: not set":                       flags("auth.upstream_token", "replace"),
		"auth.clock_skew: 1h0m0s is not in 0s to 5m0s":            flags("auth.mode", "jwt", "auth.issuer", "https://i", "auth.resource", "https://r", "auth.audience", "a", "auth.clock_skew", "1h"),
		"auth.issuer: is http to another machine":                 flags("auth.mode", "jwt", "auth.issuer", "http://i", "auth.resource", "https://r", "auth.audience", "a"),
		`auth.algorithms: "HS256" is none; want only the asymmet`: flags("auth.mode", "jwt", "auth.issuer", "https://i", "auth.resource", "https://r", "auth.audience", "a", "auth.algorithms", "HS256"),
		// Nothing more is said of how they fit together when one cannot be read.
		`auth.clock_skew: "soon"`: flags("auth.mode", "jwt", "auth.clock_skew", "soon"),
	} {
		if problems := refused(t, src); len(problems) != 1 || !strings.HasPrefix(problems[0], want) {
			t.Errorf("%q, want one problem with %q", problems, want)
		}
	}
	secret := "https://user:hunter2@login.example?key=hunter2#hunter2"
	problems := refused(t, flags("auth.mode", "jwt", "auth.issuer", secret, "auth.jwks_url", secret, "auth.resource", secret, "auth.audience", "a"))
	if text := strings.Join(problems, " "); strings.Contains(text, "hunter2") {
		t.Errorf("the errors show a password: %s", text)
	}
}
