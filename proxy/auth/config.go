package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Mode is how clients prove who they are.
type Mode string

// The modes.
const (
	ModeNone   Mode = "none"   // not at all; the same as the empty mode
	ModeHeader Mode = "header" // a trusted proxy in front says so
	ModeJWT    Mode = "jwt"    // by a signed token
)

// UpstreamToken is what becomes of a client's credential on the way to an upstream.
type UpstreamToken string

// What may become of a credential. The empty value means [UpstreamPass], but [UpstreamStrip] in [ModeJWT]: whoever holds a
// token can use it everywhere it is accepted, so an upstream gets it only when somebody said so.
const (
	UpstreamPass    UpstreamToken = "pass"    // the upstream gets it as it came
	UpstreamStrip   UpstreamToken = "strip"   // the upstream gets none
	UpstreamReplace UpstreamToken = "replace" // the upstream gets the one of Config.UpstreamTokenFile
)

// Bounds of what is configured.
const (
	maxConfigured = 64 // entries of any list
	maxURL        = 2048
	maxHeaderName = 64

	minRefresh = 10 * time.Second
	maxRefresh = 24 * time.Hour
	maxStale   = 7 * 24 * time.Hour
	minTimeout = 100 * time.Millisecond
	maxTimeout = time.Minute
	maxSkew    = 5 * time.Minute
)

// Config configures a [Gate]. The zero value is ModeNone. Start from [DefaultConfig]: a zero duration is not replaced by a
// default.
type Config struct {
	Mode Mode

	// Issuer is the URL of the authorization server, exactly as its tokens name it in iss. Required in ModeJWT.
	Issuer string
	// Audiences are the values of aud of which a token must have one. Required in ModeJWT.
	Audiences []string
	// JWKSURL is where the issuer's keys are: https, or http for a loopback host. When empty, the issuer's metadata says it
	// (OpenID Connect Discovery, or RFC 8414).
	JWKSURL string
	// JWKSRefresh is how often keys are fetched, 10s to 24h. Default 10m. Each replica takes up to a tenth less.
	JWKSRefresh time.Duration
	// JWKSStale is for how long keys are used after they were fetched while no newer ones can be had, JWKSRefresh to 7 days.
	// Default 1h.
	JWKSStale time.Duration
	// JWKSTimeout bounds each request for keys, 100ms to 1m. Default 5s.
	JWKSTimeout time.Duration
	// ClockSkew is how far the issuer's clock may be off, 0 to 5m. Default 30s. A token is believed that much longer.
	ClockSkew time.Duration
	// Algorithms are the signature algorithms that are accepted, of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384,
	// ES512 and EdDSA. When empty: RS256, PS256, ES256 and EdDSA.
	Algorithms []string
	// RequiredScopes are the scopes that a token must have, all of them.
	RequiredScopes []string
	// AllowHTTP allows http URLs of other hosts than loopback ones. Whoever is on the way can then make keys, and so
	// tokens, of their own.
	AllowHTTP bool

	// Header is the header that names the client. Required in ModeHeader.
	Header string
	// TrustedProxies are the networks that the header is believed from. Required in ModeHeader. See [ParseTrustedProxy].
	TrustedProxies []netip.Prefix

	// UpstreamToken is what becomes of the client's credential.
	UpstreamToken UpstreamToken
	// UpstreamTokenFile holds what upstreams get with UpstreamReplace: the value of an Authorization header, or a token
	// alone, which is sent as a bearer token. At most 8 KiB. It is read again every 30 seconds.
	UpstreamTokenFile string

	// Resource is the public URL that clients reach the proxy at, without the paths of upstreams, such as
	// https://mcp.example. Required in ModeJWT: clients are told there where to get tokens (RFC 9728).
	Resource string
	// Paths are the paths below Resource that upstreams are served at, such as /mcp and /files/mcp.
	Paths []string

	// Transport sends the requests for keys. Default: one that keeps no connections.
	Transport http.RoundTripper
	// Logger default: discards.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults: ModeNone, and the times that the fields of Config name.
func DefaultConfig() Config {
	return Config{
		Mode:        ModeNone,
		JWKSRefresh: 10 * time.Minute,
		JWKSStale:   time.Hour,
		JWKSTimeout: 5 * time.Second,
		ClockSkew:   30 * time.Second,
	}
}

// withDefaults returns c with defaults for what is empty.
func (c Config) withDefaults() Config {
	if c.Mode == "" {
		c.Mode = ModeNone
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{string(jose.RS256), string(jose.PS256), string(jose.ES256), string(jose.EdDSA)}
	}
	if c.UpstreamToken == "" {
		c.UpstreamToken = UpstreamPass
		if c.Mode == ModeJWT {
			c.UpstreamToken = UpstreamStrip
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports everything that is wrong with c, by the names of the settings. It prints no URL and no file's content.
func (c Config) Validate() error {
	errs := []error{c.validateUpstreamToken()}
	switch c.Mode {
	case "", ModeNone:
	case ModeHeader:
		errs = append(errs, c.validateHeader()...)
	case ModeJWT:
		errs = append(errs, c.validateJWT()...)
	default:
		errs = append(errs, fmt.Errorf("auth.mode: %q is not known; want none, header or jwt", c.Mode))
	}
	return errors.Join(errs...)
}

func (c Config) validateUpstreamToken() error {
	switch {
	case !slices.Contains([]UpstreamToken{"", UpstreamPass, UpstreamStrip, UpstreamReplace}, c.UpstreamToken):
		return fmt.Errorf("auth.upstream_token: %q is not known; want pass, strip or replace", c.UpstreamToken)
	case c.UpstreamToken == UpstreamReplace && c.UpstreamTokenFile == "":
		return errors.New("auth.upstream_token_file: not set; auth.upstream_token replace needs the file that holds the upstreams' token")
	case c.UpstreamToken != UpstreamReplace && c.UpstreamTokenFile != "":
		return errors.New("auth.upstream_token_file: is used only with auth.upstream_token replace; set that, or leave the file out")
	}
	return nil
}

func (c Config) validateHeader() []error {
	var errs []error
	switch {
	case c.Header == "":
		errs = append(errs, errors.New("auth.header: not set; auth.mode header needs the name of the header that the trusted proxies set"))
	case len(c.Header) > maxHeaderName || !isHeaderName(c.Header):
		errs = append(errs, fmt.Errorf("auth.header: no header has such a name; want at most %d letters, digits and hyphens", maxHeaderName))
	case slices.Contains(takenHeaders, http.CanonicalHeaderKey(c.Header)):
		errs = append(errs, fmt.Errorf("auth.header: %s has another meaning; let the trusted proxies set one of its own, such as X-Forwarded-User", http.CanonicalHeaderKey(c.Header)))
	}
	if len(c.TrustedProxies) == 0 {
		errs = append(errs, errors.New("auth.trusted_proxies: not set; auth.mode header needs the networks that the header is believed from, such as 10.1.0.0/16"))
	}
	if len(c.TrustedProxies) > maxConfigured {
		errs = append(errs, tooMany("auth.trusted_proxies"))
	}
	for _, p := range c.TrustedProxies {
		errs = append(errs, checkTrustedProxy(p))
	}
	return errs
}

func (c Config) validateJWT() []error {
	errs := []error{
		c.checkURL("auth.issuer", c.Issuer, true),
		c.checkURL("auth.jwks_url", c.JWKSURL, false),
		c.checkURL("auth.resource", c.Resource, true),
		inRange("auth.jwks_refresh", c.JWKSRefresh, minRefresh, maxRefresh),
		inRange("auth.jwks_stale", c.JWKSStale, minRefresh, maxStale),
		inRange("auth.jwks_timeout", c.JWKSTimeout, minTimeout, maxTimeout),
		inRange("auth.clock_skew", c.ClockSkew, 0, maxSkew),
	}
	if c.JWKSStale < c.JWKSRefresh {
		errs = append(errs, fmt.Errorf("auth.jwks_stale: %v is shorter than auth.jwks_refresh (%v)", c.JWKSStale, c.JWKSRefresh))
	}
	if u, err := url.Parse(c.Resource); err == nil && (u.RawQuery != "" || u.ForceQuery) {
		errs = append(errs, errors.New("auth.resource: has a query, but paths are appended to it; leave the query out"))
	}
	if u, err := url.Parse(c.Issuer); err == nil && (u.RawQuery != "" || u.ForceQuery) {
		errs = append(errs, errors.New("auth.issuer: has a query, which no issuer has (RFC 8414, section 2)"))
	}
	if len(c.Audiences) == 0 {
		errs = append(errs, errors.New("auth.audience: not set; auth.mode jwt needs at least one, or tokens made for others would be accepted"))
	}
	for _, list := range []struct {
		name   string
		values []string
		valid  func(string) bool
		want   string
	}{
		{"auth.audience", c.Audiences, isPrintable, "a value that tokens have in aud"},
		{"auth.required_scopes", c.RequiredScopes, isScope, `a scope, which has neither spaces nor quotes (RFC 6749, section 3.3)`},
		{"auth.algorithms", c.Algorithms, isAlgorithm, "only the asymmetric " + strings.Join(algorithmNames(), ", ")},
	} {
		if len(list.values) > maxConfigured {
			errs = append(errs, tooMany(list.name))
		}
		for _, v := range list.values {
			if len(v) > maxURL || !list.valid(v) {
				errs = append(errs, fmt.Errorf("%s: %.40q is none; want %s", list.name, v, list.want))
			}
		}
	}
	return append(errs, c.checkPaths()...)
}

// checkPaths checks the paths of upstreams, and that Resource is what they are appended to.
func (c Config) checkPaths() []error {
	var errs []error
	resource, err := url.Parse(c.Resource)
	for _, p := range c.Paths {
		switch {
		case !strings.HasPrefix(p, "/") || path.Clean(p) != p:
			errs = append(errs, fmt.Errorf("auth: %.40q is no path of an upstream", p))
		case err == nil && strings.HasSuffix(strings.TrimSuffix(resource.Path, "/"), p):
			errs = append(errs, fmt.Errorf("auth.resource: ends with the path of an upstream, %s, which is appended to it; leave it out", p))
		}
	}
	return errs
}

// checkURL checks a URL, which it does not print.
func (c Config) checkURL(name, text string, isRequired bool) error {
	if text == "" {
		if isRequired {
			return fmt.Errorf("%s: not set; auth.mode jwt needs it", name)
		}
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "" || len(text) > maxURL || !isPrintable(text):
		return fmt.Errorf("%s: is no URL; want https://host[:port][/path]", name)
	case u.User != nil:
		return fmt.Errorf("%s: has a user or password, which is not supported", name)
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return fmt.Errorf("%s: has a fragment, which no server sees", name)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s: has the scheme %.20q; want https", name, u.Scheme)
	case !c.isSecure(u):
		return fmt.Errorf("%s: is http to another machine, so whoever is on the way could pose as it; use https, or set auth.allow_http", name)
	}
	return nil
}

// isSecure reports whether a URL's answers can be trusted.
func (c Config) isSecure(u *url.URL) bool {
	return u.Scheme == "https" || u.Scheme == "http" && (c.AllowHTTP || isLoopback(u.Hostname()))
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

func inRange(name string, d, least, most time.Duration) error {
	if d < least || d > most {
		return fmt.Errorf("%s: %v is not in %v to %v", name, d, least, most)
	}
	return nil
}

func tooMany(name string) error {
	return fmt.Errorf("%s: has more than %d entries", name, maxConfigured)
}

// isPrintable reports whether s is visible ASCII, and not empty.
func isPrintable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isScope reports whether s is a scope-token.
func isScope(s string) bool { return isPrintable(s) && !strings.ContainsAny(s, `"\`) }

func isHeaderName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}
