package auth

import (
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ParseKeySet parses a set of keys, and returns how many there are.
func ParseKeySet(data []byte) (int, error) {
	set, err := parseKeySet(data, time.Time{})
	if err != nil {
		return 0, err
	}
	return len(set.keys), nil
}

// Forget makes a gate of ModeJWT forget the tokens that it has verified. No request may go on meanwhile.
func Forget(g *Gate) {
	if v, ok := g.mode.(*verifier); ok {
		v.verified = newVerifiedTokens(maxVerified)
	}
}

// RememberedAfter is how many of so many verified tokens are remembered where most may be, and whether one of them that was used
// all the time is.
func RememberedAfter(tokens, most int) (remembered int, isUsedOneRemembered bool) {
	v := newVerifiedTokens(most)
	key := func(i int) [sha256.Size]byte { return sha256.Sum256([]byte(strconv.Itoa(i))) }
	var keys [sha256.Size]byte
	for i := range tokens {
		v.keep(key(i), keys, Identity{})
		_, isUsedOneRemembered = v.find(key(0), keys, time.Time{})
	}
	return len(v.young) + len(v.old), isUsedOneRemembered
}

// UnknownAfter is how many unknown keys are remembered after tokens have named so many.
func UnknownAfter(keys int) int {
	var u unknownKeys
	for i := range keys {
		u.named(&jose.JSONWebSignature{Signatures: []jose.Signature{{Protected: jose.Header{KeyID: strconv.Itoa(i)}}}}, time.Now())
	}
	return len(u.since)
}
