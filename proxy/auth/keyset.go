package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of a set of keys, which comes from outside.
const (
	maxKeys    = 100
	maxKey     = 32 << 10 // bytes of one key with its certificates
	maxKeyID   = 1024     // bytes
	minRSABits = 2048     // RFC 7518, section 3.3; the library refuses more than 4096
)

// curves are the algorithms of elliptic curves: each has its own (RFC 7518, section 3.4).
var curves = map[jose.SignatureAlgorithm]string{jose.ES256: "P-256", jose.ES384: "P-384", jose.ES512: "P-521"}

// algorithmNames are the algorithms that may be configured: all are asymmetric.
func algorithmNames() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

func isAlgorithm(name string) bool { return slices.Contains(algorithmNames(), name) }

// publicKey is one key of an issuer.
type publicKey struct {
	id        string // kid; may be empty
	algorithm string // the only one it may be used with; empty: any that fits
	key       any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// fits reports whether the key may verify signatures of an algorithm.
func (k publicKey) fits(algorithm jose.SignatureAlgorithm) bool {
	if k.algorithm != "" && k.algorithm != string(algorithm) {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(string(algorithm), "RS") || strings.HasPrefix(string(algorithm), "PS")
	case *ecdsa.PublicKey:
		return curves[algorithm] == key.Curve.Params().Name
	case ed25519.PublicKey:
		return algorithm == jose.EdDSA
	}
	return false
}

// keySet is what an issuer's keys were at one moment. It never changes.
type keySet struct {
	keys        []publicKey
	fetchedAt   time.Time
	fingerprint [sha256.Size]byte // the same for the same keys
}

// parseKeySet reads a JSON Web Key Set. Keys that cannot verify signatures are left out; a set without any other is an error.
func parseKeySet(data []byte, fetchedAt time.Time) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, errors.New("the answer is no JSON Web Key Set")
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("the set has more than %d keys", maxKeys)
	}
	set := &keySet{fetchedAt: fetchedAt}
	sum := sha256.New()
	for _, raw := range document.Keys {
		key, thumbprint, ok := parseKey(raw)
		if !ok {
			continue
		}
		set.keys = append(set.keys, key)
		_, _ = fmt.Fprintf(sum, "%q %q %x\n", key.id, key.algorithm, thumbprint) // a hash takes everything
	}
	if len(set.keys) == 0 {
		return nil, errors.New("the set has no key that could verify a token")
	}
	sum.Sum(set.fingerprint[:0])
	return set, nil
}

// parseKey reads one public signature key, and returns false for everything else.
func parseKey(raw json.RawMessage) (_ publicKey, thumbprint []byte, ok bool) {
	var purpose struct {
		Use        string   `json:"use"`
		Operations []string `json:"key_ops"`
	}
	if len(raw) > maxKey || json.Unmarshal(raw, &purpose) != nil {
		return publicKey{}, nil, false
	}
	isForOthers := purpose.Use != "" && purpose.Use != "sig" ||
		len(purpose.Operations) > 0 && !slices.Contains(purpose.Operations, "verify")
	var jwk jose.JSONWebKey
	if isForOthers || jwk.UnmarshalJSON(raw) != nil || len(jwk.KeyID) > maxKeyID {
		return publicKey{}, nil, false
	}
	// A private or a symmetric key is none of these: what is published can be used by everyone.
	switch key := jwk.Key.(type) {
	case *rsa.PublicKey:
		// An even exponent, or 1, is no RSA; Go's verification bounds it from above.
		ok = key.N.BitLen() >= minRSABits && key.E > 2 && key.E%2 == 1
	case *ecdsa.PublicKey:
		ok = true // the library has checked that it is a point on its curve
	case ed25519.PublicKey:
		ok = len(key) == ed25519.PublicKeySize
	}
	if !ok {
		return publicKey{}, nil, false
	}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	return publicKey{id: jwk.KeyID, algorithm: jwk.Algorithm, key: jwk.Key}, thumbprint, err == nil
}

// candidates are the keys that may have signed a token, by what its header says: those with its kid, which should be one. A token
// without a kid says nothing, so there must be only one key of its kind.
func (s *keySet) candidates(signed *jose.JSONWebSignature) []publicKey {
	header := signed.Signatures[0].Protected
	var fitting []publicKey
	for _, k := range s.keys {
		if (header.KeyID == "" || k.id == header.KeyID) && k.fits(jose.SignatureAlgorithm(header.Algorithm)) {
			fitting = append(fitting, k)
		}
	}
	if header.KeyID == "" && len(fitting) > 1 {
		return nil
	}
	return fitting
}

// has reports whether the set has a key for the token.
func (s *keySet) has(signed *jose.JSONWebSignature) bool { return len(s.candidates(signed)) > 0 }

// verify returns the content of a token that one of the keys has signed.
func (s *keySet) verify(signed *jose.JSONWebSignature) ([]byte, error) {
	for _, k := range s.candidates(signed) {
		if payload, err := signed.Verify(k.key); err == nil {
			return payload, nil
		}
	}
	return nil, &DeniedError{Reason: ReasonSignature}
}
