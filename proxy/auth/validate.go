package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
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

// Validate reports everything that is wrong with c, by the names of the settings. It prints no URL and no file's content.
func (c Config) Validate() error {
	errs := append(c.validateUnused(), c.validateUpstreamToken())
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

// validateUnused refuses what the mode does not use: whoever sets an issuer and forgets the mode would let everybody in.
func (c Config) validateUnused() []error {
	var errs []error
	for _, setting := range []struct {
		name  string
		mode  Mode
		isSet bool
	}{
		{"auth.issuer", ModeJWT, c.Issuer != ""},
		{"auth.audience", ModeJWT, len(c.Audiences) > 0},
		{"auth.jwks_url", ModeJWT, c.JWKSURL != ""},
		{"auth.algorithms", ModeJWT, len(c.Algorithms) > 0},
		{"auth.required_scopes", ModeJWT, len(c.RequiredScopes) > 0},
		{"auth.resource", ModeJWT, c.Resource != ""},
		{"auth.header", ModeHeader, c.Header != ""},
		{"auth.trusted_proxies", ModeHeader, len(c.TrustedProxies) > 0},
	} {
		if setting.isSet && c.Mode != setting.mode {
			errs = append(errs, fmt.Errorf("%s: is used only with auth.mode %s; set that, or leave it out", setting.name, setting.mode))
		}
	}
	return errs
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
