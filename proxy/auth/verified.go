package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxVerified is how many verified tokens are remembered, about. Each takes some 200 bytes.
const maxVerified = 16384

// verifiedTokens remembers tokens that were found good, by digest, so that a client's next request costs a hash instead of a
// signature. A token is remembered as long as it may be believed, and as long as the issuer's keys stay the same; it is
// forgotten earlier when there are too many.
//
// There are two generations: a full young one becomes the old one, which is dropped. What is used meanwhile moves to the
// young one again.
type verifiedTokens struct {
	most int // in each generation

	mu         sync.RWMutex
	young, old map[[sha256.Size]byte]verifiedToken
}

type verifiedToken struct {
	identity    Identity
	fingerprint [sha256.Size]byte // of the keys it was verified with
}

func newVerifiedTokens(most int) *verifiedTokens {
	return &verifiedTokens{most: max(most/2, 1), young: make(map[[sha256.Size]byte]verifiedToken)}
}

// find returns whose the token with this digest is, if it was verified with the same keys and has not expired.
func (v *verifiedTokens) find(digest, fingerprint [sha256.Size]byte, now time.Time) (Identity, bool) {
	v.mu.RLock()
	t, isYoung := v.young[digest]
	isOld := false
	if !isYoung {
		t, isOld = v.old[digest]
	}
	v.mu.RUnlock()
	if !isYoung && !isOld || t.fingerprint != fingerprint || t.identity.HasExpired(now) {
		return Identity{}, false // what is no good any more goes with its generation, or is replaced
	}
	if isOld {
		v.keep(digest, fingerprint, t.identity)
	}
	return t.identity, true
}

// keep remembers a verified token.
func (v *verifiedTokens) keep(digest, fingerprint [sha256.Size]byte, identity Identity) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.young) >= v.most {
		v.young, v.old = make(map[[sha256.Size]byte]verifiedToken), v.young
	}
	v.young[digest] = verifiedToken{identity: identity, fingerprint: fingerprint}
}
