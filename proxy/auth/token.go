package auth

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// verifier is ModeJWT.
type verifier struct {
	algorithms []jose.SignatureAlgorithm
	rules      claimRules
	keys       *keyCache
	verified   *verifiedTokens
	unknown    unknownKeys
}

func newVerifier(cfg Config, keys *keyCache) *verifier {
	v := &verifier{rules: newClaimRules(cfg), keys: keys, verified: newVerifiedTokens(maxVerified)}
	for _, name := range cfg.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(name))
	}
	return v
}

func (v *verifier) authenticate(r *http.Request) (Identity, error) {
	token, err := bearerToken(r)
	if err != nil {
		return Identity{}, err
	}
	digest := sha256.Sum256([]byte(token))
	if set := v.keys.usable(time.Now()); set != nil {
		if identity, ok := v.verified.find(digest, set.fingerprint, time.Now()); ok {
			return identity, nil
		}
	}
	signed, err := v.parse(token)
	if err != nil {
		return Identity{}, err
	}
	set, err := v.keysFor(r, signed)
	if err != nil {
		return Identity{}, err
	}
	payload, err := set.verify(signed)
	if err != nil {
		return Identity{}, err
	}
	identity, err := v.rules.check(payload, time.Now())
	if err != nil {
		return Identity{}, err
	}
	v.verified.keep(digest, set.fingerprint, identity)
	return identity, nil
}

// parse takes a token apart, and checks what its header says. Errors of the library are not passed on, for they quote the
// token.
func (v *verifier) parse(token string) (*jose.JSONWebSignature, error) {
	signed, err := jose.ParseSignedCompact(token, v.algorithms)
	if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return nil, &DeniedError{Reason: ReasonAlgorithm}
	}
	if err != nil || len(signed.Signatures) != 1 {
		return nil, &DeniedError{Reason: ReasonMalformed}
	}
	extra := signed.Signatures[0].Protected.ExtraHeaders
	// No extension is understood here, and so none that is critical (RFC 7515, section 4.1.11). The library knows one, b64.
	_, isExtended := extra["crit"]
	_, isRaw := extra["b64"]
	if isExtended || isRaw || !isAccessTokenType(extra["typ"]) {
		return nil, &DeniedError{Reason: ReasonMalformed}
	}
	return signed, nil
}

// isAccessTokenType reports whether a token's typ is that of an access token: those of RFC 9068, or the general one, which many
// servers use. Signed objects of other kinds (logout tokens, security events, proofs) name their own.
func isAccessTokenType(typ any) bool {
	if typ == nil {
		return true
	}
	name, ok := typ.(string)
	if !ok {
		return false
	}
	switch strings.TrimPrefix(strings.ToLower(name), "application/") {
	case "", "jwt", "at+jwt":
		return true
	}
	return false
}

// keysFor returns a set of keys that has those that the token needs. That the issuer has no such key is said only after a fetch that
// began when the token was here.
func (v *verifier) keysFor(r *http.Request, signed *jose.JSONWebSignature) (*keySet, error) {
	now := time.Now()
	if set := v.keys.usable(now); set != nil && set.has(signed) {
		return set, nil
	}
	// There are no keys, or the issuer has a new one.
	named := v.unknown.named(signed, now)
	v.keys.refetch(r.Context())
	set := v.keys.usable(time.Now())
	switch {
	case set == nil:
		return nil, ErrKeysUnavailable
	case set.has(signed):
		return set, nil
	case set.fetchedAt.Before(named):
		return nil, ErrKeyNotFetched
	}
	return nil, &DeniedError{Reason: ReasonUnknownKey}
}
