package auth

import (
	"log/slog"
	"net/http"
	"net/netip"
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
