package auth

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// ErrKeysUnavailable says that a token cannot be judged, because the issuer's keys could not be fetched, or only too long ago.
// It says nothing about the token; the request may be tried again.
var ErrKeysUnavailable = errors.New("the keys that verify tokens are not available")

// ErrKeyNotFetched says that a token cannot be judged yet, because it names a key that the issuer may have published after its keys were
// last fetched. It says nothing about the token; the request may be tried again when they may be fetched again, within five seconds.
var ErrKeyNotFetched = errors.New("the key that a token names is not among the issuer's keys as last fetched")

// Reason is why a request was denied. There are few of them, so they may label metrics.
type Reason string

// The reasons.
const (
	ReasonMissing     Reason = "missing"       // no token
	ReasonAmbiguous   Reason = "ambiguous"     // more than one credential
	ReasonTooLarge    Reason = "too_large"     // over 8 KiB
	ReasonMalformed   Reason = "malformed"     // no signed token, or claims that are none
	ReasonAlgorithm   Reason = "algorithm"     // not one of Config.Algorithms
	ReasonUnknownKey  Reason = "unknown_key"   // not signed with one of the issuer's keys, by its own account
	ReasonSignature   Reason = "signature"     // does not fit the key
	ReasonIssuer      Reason = "issuer"        // another one
	ReasonAudience    Reason = "audience"      // made for others
	ReasonExpired     Reason = "expired"       // or without an expiry
	ReasonNotYetValid Reason = "not_yet_valid" // nbf or iat lies ahead
	ReasonSubject     Reason = "subject"       // none, or one that cannot be told from others
	ReasonBound       Reason = "bound"         // to a key of the client, which is not checked here
	ReasonScope       Reason = "scope"         // not all of Config.RequiredScopes
	ReasonPeer        Reason = "peer"          // not one of Config.TrustedProxies
	ReasonIdentity    Reason = "identity"      // the header names nobody, or several
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{
		ReasonMissing, ReasonAmbiguous, ReasonTooLarge, ReasonMalformed, ReasonAlgorithm, ReasonUnknownKey, ReasonSignature, ReasonIssuer,
		ReasonAudience, ReasonExpired, ReasonNotYetValid, ReasonSubject, ReasonBound, ReasonScope, ReasonPeer, ReasonIdentity,
	}
}

// DeniedError says that a request showed nothing that lets it in. It holds nothing that the request brought.
type DeniedError struct {
	Reason Reason
}

// Error tells the reason, for a log.
func (e *DeniedError) Error() string { return "access denied: " + e.Reason.text() }

// text describes a reason to the client. It goes into a quoted string, so it has neither quotes nor backslashes.
func (r Reason) text() string {
	switch r {
	case ReasonMissing:
		return "a bearer token is required"
	case ReasonAmbiguous:
		return "the request has more than one Authorization header"
	case ReasonTooLarge:
		return "the token is larger than 8 KiB"
	case ReasonAlgorithm:
		return "the token is signed with an algorithm that is not accepted"
	case ReasonUnknownKey:
		return "the token is signed with a key that its issuer does not publish"
	case ReasonSignature:
		return "the token's signature is wrong"
	case ReasonIssuer:
		return "the token is from another issuer"
	case ReasonAudience:
		return "the token is for another audience"
	case ReasonExpired:
		return "the token has expired, or never says when it does"
	case ReasonNotYetValid:
		return "the token is not valid yet"
	case ReasonSubject:
		return "the token names no usable subject"
	case ReasonBound:
		return "the token is bound to a key, which is not supported"
	case ReasonScope:
		return "the token lacks a required scope"
	case ReasonPeer:
		return "this server is reached through a proxy that says who the client is"
	case ReasonIdentity:
		return "the proxy in front did not name one client"
	default:
		return "the token is malformed"
	}
}

// Refusal is the answer to a request that Authenticate gave an error for.
type Refusal struct {
	// Status is 401; 403 where the token is good but not enough, and, in ModeHeader, always: there is nothing that the client could show;
	// 400 for a request that contradicts itself; 503 while nobody can be judged, or not by this token's key.
	Status int
	// Challenge is the value of WWW-Authenticate (RFC 6750, RFC 9728), empty with a 503, and in ModeHeader.
	Challenge string
	// Message says what is wrong and what to do.
	Message string
	// RetryAfter is when to try again, with a 503.
	RetryAfter time.Duration
}

// Refusal returns how to answer a request to this path, which Authenticate gave the error for.
func (g *Gate) Refusal(path string, err error) Refusal {
	var denied *DeniedError
	switch {
	case errors.Is(err, ErrKeyNotFetched):
		return Refusal{
			Status:     http.StatusServiceUnavailable,
			Message:    "the token is signed with a key that is not known yet, and its issuer was asked for keys a moment ago; retry",
			RetryAfter: max(g.keys.untilRefetch(time.Now()), time.Second),
		}
	case !errors.As(err, &denied):
		return Refusal{
			Status:     http.StatusServiceUnavailable,
			Message:    "tokens cannot be verified now, because their issuer's keys are not available; retry",
			RetryAfter: retryFetch,
		}
	}
	f := Refusal{Status: http.StatusUnauthorized, Message: denied.Reason.text()}
	if g.cfg.Mode == ModeHeader {
		// A 401 must have a challenge (RFC 9110, section 15.5.2), and there is none that a client could meet: it would look for an
		// authorization server.
		f.Status = http.StatusForbidden
		return f
	}
	code := "invalid_token"
	switch denied.Reason {
	case ReasonScope:
		f.Status, code = http.StatusForbidden, "insufficient_scope"
	case ReasonAmbiguous:
		f.Status, code = http.StatusBadRequest, "invalid_request"
	case ReasonMissing:
		code = "" // nothing was shown that could be wrong (RFC 6750, section 3.1)
	}
	f.Challenge = g.challenge(path, code, denied.Reason)
	return f
}

// challenge writes the value of WWW-Authenticate in ModeJWT.
func (g *Gate) challenge(path, code string, reason Reason) string {
	var params []string
	add := func(name, value string) {
		if value != "" {
			params = append(params, name+`="`+value+`"`)
		}
	}
	add("error", code)
	if code != "" {
		add("error_description", reason.text())
	}
	add("scope", strings.Join(g.cfg.RequiredScopes, " "))
	add("resource_metadata", g.metadata.urlFor(path))
	return strings.TrimSpace("Bearer " + strings.Join(params, ", "))
}
