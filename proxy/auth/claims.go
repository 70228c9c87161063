package auth

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	// maxSubject is how many bytes a subject may have. OpenID Connect allows 255; workload identities are longer.
	maxSubject = 1024
	// lastSecond is the end of the year 9999, after which no token is believed to expire.
	lastSecond = 253402300799
)

// claims are what of a token's content is looked at. The decoder is the library's: unlike Go's own it tells names by case, and
// refuses an object that has one twice, so no two parties read a token differently.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  oneOrMore       `json:"aud"`
	Expiry    *float64        `json:"exp"`
	NotBefore *float64        `json:"nbf"`
	IssuedAt  *float64        `json:"iat"`
	Scope     scopes          `json:"scope"` // RFC 9068: a string
	Scp       scopes          `json:"scp"`   // what some servers call it
	Confirm   json.RawMessage `json:"cnf"`
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *oneOrMore) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]string)(l))
	}
	var one string
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*l = oneOrMore{one}
	return nil
}

// scopes are a text of scopes with spaces between them, or a list of scopes.
type scopes []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *scopes) UnmarshalJSON(data []byte) error {
	var list oneOrMore
	if err := list.UnmarshalJSON(data); err != nil {
		return err
	}
	for _, text := range list {
		*s = append(*s, strings.Split(text, " ")...)
	}
	return nil
}

// claimRules say what a verified token must claim.
type claimRules struct {
	issuer    string
	audiences []string
	scopes    []string
	skew      time.Duration
}

func newClaimRules(cfg Config) claimRules {
	return claimRules{issuer: cfg.Issuer, audiences: cfg.Audiences, scopes: cfg.RequiredScopes, skew: cfg.ClockSkew}
}

// check returns who the content of a verified token is about, if it is good for this server at the moment now.
func (r claimRules) check(payload []byte, now time.Time) (Identity, error) {
	var c claims
	// What is no UTF-8 would be read as U+FFFD, and so two subjects as one.
	if !utf8.Valid(payload) || json.Unmarshal(payload, &c) != nil {
		return Identity{}, &DeniedError{Reason: ReasonMalformed}
	}
	deny := func(reason Reason) (Identity, error) { return Identity{}, &DeniedError{Reason: reason} }
	expiry, hasExpiry := moment(c.Expiry)
	switch {
	case c.Issuer != r.issuer:
		return deny(ReasonIssuer)
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(r.audiences, a) }):
		return deny(ReasonAudience)
	case !hasExpiry || !now.Before(expiry.Add(r.skew)):
		return deny(ReasonExpired)
	case r.isAhead(c.NotBefore, now) || r.isAhead(c.IssuedAt, now):
		return deny(ReasonNotYetValid)
	case !isSubject(c.Subject):
		return deny(ReasonSubject)
	case len(c.Confirm) > 0 && string(c.Confirm) != "null":
		return deny(ReasonBound)
	}
	for _, scope := range r.scopes {
		if !slices.Contains(c.Scope, scope) && !slices.Contains(c.Scp, scope) {
			return deny(ReasonScope)
		}
	}
	return Identity{
		Principal: principalOf(ModeJWT, r.issuer, c.Subject),
		ExpiresAt: expiry.Add(r.skew),
	}, nil
}

// isAhead reports whether a moment, if there is one, is still to come. One that is none is always ahead.
func (r claimRules) isAhead(seconds *float64, now time.Time) bool {
	if seconds == nil {
		return false
	}
	at, ok := moment(seconds)
	return !ok || at.After(now.Add(r.skew))
}

// moment reads a NumericDate (RFC 7519, section 2). It returns false when there is none, or none between 1970 and 9999.
func moment(seconds *float64) (time.Time, bool) {
	if seconds == nil || !(*seconds > 0 && *seconds <= lastSecond) {
		return time.Time{}, false
	}
	whole, part := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(part*1e9)), true
}

// isSubject reports whether a subject can be told from all others. U+FFFD stands for what could not be read.
func isSubject(s string) bool {
	return s != "" && len(s) <= maxSubject && !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) })
}
