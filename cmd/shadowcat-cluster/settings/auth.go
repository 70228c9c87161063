package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

var (
	authModes      = []string{string(auth.ModeNone), string(auth.ModeHeader), string(auth.ModeJWT)}
	upstreamTokens = []string{string(auth.UpstreamPass), string(auth.UpstreamStrip), string(auth.UpstreamReplace)}
)

// authSettings are the rows of authentication. How they fit together is auth.Config's to check.
var authSettings = []Setting{
	{
		Name: "auth.mode", Kind: KindChoice, Default: string(auth.ModeNone), Choices: authModes, set: setAuthMode,
		Meaning: "How clients prove who they are: not at all, by a header that a trusted proxy sets, or by a signed token, as Authorization: Bearer. A session belongs to whoever opened it; with none, to whoever has its id.",
	},
	{
		Name: "auth.issuer", Kind: KindURL, set: authText(authIssuer),
		Meaning: "The authorization server whose tokens are accepted, exactly as they name it in iss. With auth.mode jwt, required.",
	},
	{
		Name: "auth.audience", Kind: KindList, set: authList(authAudience),
		Meaning: "Who the tokens must be made for: one of these in aud. With auth.mode jwt, at least one.",
	},
	{
		Name: "auth.resource", Kind: KindURL, set: authText(authResource),
		Meaning: "The public URL of this server without the paths of upstreams, such as https://mcp.example. Clients without a token are told there where to get one. With auth.mode jwt, required.",
	},
	{
		Name: "auth.jwks_url", Kind: KindURL, DefaultNote: "what the issuer's metadata says", set: authText(authJWKSURL),
		Meaning: "Where the issuer publishes its keys.",
	},
	{
		Name: "auth.jwks_refresh", Kind: KindDuration, Default: "10m", set: authDuration(authJWKSRefresh),
		Meaning: "How often keys are fetched, 10s to 24h. A token with a new key has them fetched earlier, at most once in five seconds.",
	},
	{
		Name: "auth.jwks_stale", Kind: KindDuration, Default: "1h", set: authDuration(authJWKSStale),
		Meaning: "For how long keys are used after they were fetched while no newer ones can be had, at most 7d. Then nobody gets in.",
	},
	{
		Name: "auth.jwks_timeout", Kind: KindDuration, Default: "5s", set: authDuration(authJWKSTimeout),
		Meaning: "How long fetching keys may take, 100ms to 1m.",
	},
	{
		Name: "auth.clock_skew", Kind: KindDuration, Default: "30s", Zero: "none", set: authDuration(authClockSkew),
		Meaning: "How far the issuer's clock may be off, at most 5m. A token is believed that much longer.",
	},
	{
		Name: "auth.algorithms", Kind: KindList, DefaultNote: "RS256, PS256, ES256 and EdDSA", set: authList(authAlgorithms),
		Meaning: "The signature algorithms that are accepted, only asymmetric ones: also RS384, RS512, PS384, PS512, ES384 and ES512.",
	},
	{
		Name: "auth.required_scopes", Kind: KindList, set: authList(authRequiredScopes),
		Meaning: "Scopes that a token must have, all of them.",
	},
	{
		Name: "auth.allow_http", Kind: KindSwitch, Default: "false", set: setSwitch(authAllowHTTP),
		Meaning: "Whether the issuer, its keys and auth.resource may be http on other machines, too. Whoever is on the way can then make tokens.",
	},
	{
		Name: "auth.header", Kind: KindText, set: authText(authHeader),
		Meaning: "The header that names the client, such as X-Forwarded-User. With auth.mode header, required.",
	},
	{
		Name: "auth.trusted_proxies", Kind: KindList, set: setTrustedProxies,
		Meaning: "The networks, such as 10.1.0.0/16, that this header is believed from: those that connect themselves, whatever they say about others. With auth.mode header, at least one. They must set the header, or remove it, in every request.",
	},
	{
		Name: "auth.upstream_token", Kind: KindChoice, DefaultNote: "strip with auth.mode jwt, else pass", Choices: upstreamTokens, set: setUpstreamToken,
		Meaning: "What becomes of what the client has shown on the way to upstreams: it goes on as it is, is left out, or gives way to what auth.upstream_token_file holds.",
	},
	{
		Name: "auth.upstream_token_file", Kind: KindFile, set: file(authUpstreamTokenFile),
		Meaning: "What upstreams get instead: a token, or the value of an Authorization header. Read again every 30s. With auth.upstream_token replace, required.",
	},
}

// Which field a setting of authentication stands for.
func authIssuer(s *Settings) *string             { return &s.Auth.Issuer }
func authAudience(s *Settings) *[]string         { return &s.Auth.Audiences }
func authResource(s *Settings) *string           { return &s.Auth.Resource }
func authJWKSURL(s *Settings) *string            { return &s.Auth.JWKSURL }
func authJWKSRefresh(s *Settings) *time.Duration { return &s.Auth.JWKSRefresh }
func authJWKSStale(s *Settings) *time.Duration   { return &s.Auth.JWKSStale }
func authJWKSTimeout(s *Settings) *time.Duration { return &s.Auth.JWKSTimeout }
func authClockSkew(s *Settings) *time.Duration   { return &s.Auth.ClockSkew }
func authAlgorithms(s *Settings) *[]string       { return &s.Auth.Algorithms }
func authRequiredScopes(s *Settings) *[]string   { return &s.Auth.RequiredScopes }
func authAllowHTTP(s *Settings) *bool            { return &s.Auth.AllowHTTP }
func authHeader(s *Settings) *string             { return &s.Auth.Header }
func authUpstreamTokenFile(s *Settings) *string  { return &s.Auth.UpstreamTokenFile }

func setAuthMode(s *Settings, values []string) error {
	if !slices.Contains(authModes, values[0]) {
		return fmt.Errorf("%s is not known; want %s", quote(values[0]), alternatives(authModes))
	}
	s.Auth.Mode = auth.Mode(values[0])
	return nil
}

func setUpstreamToken(s *Settings, values []string) error {
	if !slices.Contains(upstreamTokens, values[0]) {
		return fmt.Errorf("%s is not known; want %s", quote(values[0]), alternatives(upstreamTokens))
	}
	s.Auth.UpstreamToken = auth.UpstreamToken(values[0])
	return nil
}

func setTrustedProxies(s *Settings, values []string) error {
	networks, errs := make([]netip.Prefix, len(values)), make([]error, len(values))
	for i, v := range values {
		networks[i], errs[i] = auth.ParseTrustedProxy(v)
	}
	s.Auth.TrustedProxies = networks
	return errors.Join(errs...)
}

// authText makes a setter for a text that is checked with all others. It is not quoted in errors: a URL may hold a credential.
func authText(field func(*Settings) *string) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		if values[0] == "" {
			return errors.New("is empty; leave it out")
		}
		*field(s) = values[0]
		return nil
	}
}

// authList makes a setter for a list that is checked with all others.
func authList(field func(*Settings) *[]string) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		*field(s) = values
		return nil
	}
}

// authDuration makes a setter for a duration whose range is checked with all others.
func authDuration(field func(*Settings) *time.Duration) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		d, err := ParseDuration(values[0])
		if err == nil {
			*field(s) = d
		}
		return err
	}
}
