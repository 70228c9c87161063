package auth_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	jwt := jwtConfig(nil)
	header := headerConfig(t, "10.0.0.0/8")
	for _, good := range []auth.Config{{}, auth.DefaultConfig(), jwt, header} {
		if err := good.Validate(); err != nil {
			t.Errorf("a good configuration: %v", err)
		}
	}
	for _, c := range []struct {
		base   auth.Config
		change func(*auth.Config)
		want   string // empty: it is good
	}{
		{auth.Config{}, func(c *auth.Config) { c.Mode = "magic" }, `auth.mode: "magic" is not known; want none, header or jwt`},
		{jwt, func(c *auth.Config) { c.Issuer = "" }, "auth.issuer: not set"},
		{jwt, func(c *auth.Config) { c.Issuer = "issuer.example" }, "auth.issuer: is no URL"},
		{jwt, func(c *auth.Config) { c.Issuer = "ftp://issuer.example" }, "auth.issuer: has the scheme"},
		{jwt, func(c *auth.Config) { c.Issuer = "http://issuer.example" }, "auth.issuer: is http to another machine"},
		{jwt, func(c *auth.Config) { c.Issuer, c.AllowHTTP = "http://issuer.example", true }, ""},
		{jwt, func(c *auth.Config) { c.Issuer = "http://127.0.0.1:8080/realm" }, ""},
		{jwt, func(c *auth.Config) { c.Issuer = "http://[::1]:8080" }, ""},
		{jwt, func(c *auth.Config) { c.Issuer = "http://127.0.0.1.issuer.example" }, "auth.issuer: is http to another machine"},
		{jwt, func(c *auth.Config) { c.Issuer = "https://issuer.example?hidden" }, "auth.issuer: has a query"},
		{jwt, func(c *auth.Config) { c.Issuer = "https://issuer.example/#hidden" }, "auth.issuer: has a fragment"},
		{jwt, func(c *auth.Config) { c.Issuer = "https://" + strings.Repeat("x", 2048) }, "auth.issuer: is no URL"},
		{jwt, func(c *auth.Config) { c.JWKSURL = "" }, ""},
		{jwt, func(c *auth.Config) { c.JWKSURL = "https://hidden:hidden@issuer.example/keys" }, "auth.jwks_url: has a user or password"},
		{jwt, func(c *auth.Config) { c.JWKSURL = "http://hidden.example/keys" }, "auth.jwks_url: is http to another machine"},
		{jwt, func(c *auth.Config) { c.JWKSURL = "file:///hidden" }, "auth.jwks_url: is no URL"},
		{jwt, func(c *auth.Config) { c.Audiences = nil }, "auth.audience: not set"},
		{jwt, func(c *auth.Config) { c.Audiences = []string{"a b"} }, "auth.audience: \"a b\" is none"},
		{jwt, func(c *auth.Config) { c.Audiences = slices.Repeat([]string{"a"}, 65) }, "auth.audience: has more than 64"},
		{jwt, func(c *auth.Config) { c.RequiredScopes = []string{`a"b`} }, "auth.required_scopes: "},
		{jwt, func(c *auth.Config) { c.RequiredScopes = []string{""} }, "auth.required_scopes: "},
		{jwt, func(c *auth.Config) { c.Algorithms = []string{"none"} }, `auth.algorithms: "none" is none; want only the asymmetric RS256`},
		{jwt, func(c *auth.Config) { c.Algorithms = []string{"ES256", "HS256"} }, `auth.algorithms: "HS256" is none`},
		{jwt, func(c *auth.Config) { c.Algorithms = []string{"EdDSA"} }, ""},
		{jwt, func(c *auth.Config) { c.JWKSRefresh = time.Second }, "auth.jwks_refresh: 1s is not in 10s to 24h0m0s"},
		{jwt, func(c *auth.Config) { c.JWKSRefresh = 2 * time.Hour }, "auth.jwks_stale: 1h0m0s is shorter than auth.jwks_refresh (2h0m0s)"},
		{jwt, func(c *auth.Config) { c.JWKSTimeout = 0 }, "auth.jwks_timeout: 0s is not in"},
		{jwt, func(c *auth.Config) { c.ClockSkew = -time.Second }, "auth.clock_skew: -1s is not in"},
		{jwt, func(c *auth.Config) { c.ClockSkew = time.Hour }, "auth.clock_skew: 1h0m0s is not in"},
		{jwt, func(c *auth.Config) { c.ClockSkew = 0 }, ""},
		{jwt, func(c *auth.Config) { c.Resource = "" }, "auth.resource: not set"},
		{jwt, func(c *auth.Config) { c.Resource = "https://mcp.example?x" }, "auth.resource: has a query"},
		{jwt, func(c *auth.Config) { c.Resource = "https://mcp.example/mcp" }, "auth.resource: ends with the path of an upstream, /mcp"},
		{jwt, func(c *auth.Config) { c.Resource = "http://localhost:8081" }, ""},
		{jwt, func(c *auth.Config) { c.Paths = []string{"mcp"} }, "no path of an upstream"},

		{header, func(c *auth.Config) { c.Header = "" }, "auth.header: not set"},
		{header, func(c *auth.Config) { c.Header = "X User" }, "auth.header: no header has such a name"},
		{header, func(c *auth.Config) { c.Header = "X_User" }, "auth.header: no header has such a name"},
		{header, func(c *auth.Config) { c.Header = "authorization" }, "auth.header: Authorization has another meaning"},
		{header, func(c *auth.Config) { c.Header = "x-forwarded-for" }, "auth.header: X-Forwarded-For has another meaning"},
		{header, func(c *auth.Config) { c.TrustedProxies = nil }, "auth.trusted_proxies: not set"},
		{header, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{{}} }, "auth.trusted_proxies: invalid Prefix is no network"},
		{header, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} }, "auth.trusted_proxies: 0.0.0.0/0 is everybody"},
		{header, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::/0")} }, "auth.trusted_proxies: ::/0 is everybody"},
		{header, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/96")} }, "auth.trusted_proxies: 0.0.0.0/0 is everybody"},

		{auth.Config{}, func(c *auth.Config) { c.UpstreamToken = "keep" }, `auth.upstream_token: "keep" is not known; want pass, strip or replace`},
		{auth.Config{}, func(c *auth.Config) { c.UpstreamToken = auth.UpstreamReplace }, "auth.upstream_token_file: not set"},
		{auth.Config{}, func(c *auth.Config) { c.UpstreamTokenFile = "/file" }, "auth.upstream_token_file: is used only with auth.upstream_token replace"},
	} {
		cfg := c.base
		c.change(&cfg)
		err := cfg.Validate()
		if c.want == "" {
			if err != nil {
				t.Errorf("a good configuration: %v", err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error is %v, want %q in it and no URL", err, c.want)
		}
		if _, newErr := auth.New(cfg); newErr == nil {
			t.Errorf("New accepts what is refused: %s", c.want)
		}
	}
}

func TestEverythingThatIsWrongIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	cfg := auth.DefaultConfig()
	cfg.Mode = auth.ModeJWT
	err := cfg.Validate()
	for _, name := range []string{"auth.issuer", "auth.audience", "auth.resource"} {
		if err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

// Whoever forgets the mode, or names another one, would let in others than they think.
func TestSettingsOfAnotherModeAreRefused(t *testing.T) {
	t.Parallel()
	jwt, header := jwtConfig(nil), headerConfig(t, "10.0.0.0/8")
	for want, cfg := range map[string]auth.Config{
		"auth.issuer: is used only with auth.mode jwt; set that, or leave it out": {Issuer: jwt.Issuer},
		"auth.audience: is used only with auth.mode jwt":                          {Audiences: jwt.Audiences},
		"auth.jwks_url: is used only with auth.mode jwt":                          {JWKSURL: jwt.JWKSURL},
		"auth.algorithms: is used only with auth.mode jwt":                        {Algorithms: []string{"ES256"}},
		"auth.required_scopes: is used only with auth.mode jwt":                   {RequiredScopes: []string{"tools"}},
		"auth.resource: is used only with auth.mode jwt":                          {Resource: jwt.Resource},
		"auth.header: is used only with auth.mode header":                         {Header: header.Header},
		"auth.trusted_proxies: is used only with auth.mode header":                {TrustedProxies: header.TrustedProxies},
	} {
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	jwt.Header = header.Header
	if err := jwt.Validate(); err == nil {
		t.Error("a header is taken for what it is not with tokens")
	}
}
