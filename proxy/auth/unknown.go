package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// maxUnknown is how many unknown keys are remembered. Each takes some 100 bytes.
const maxUnknown = 4096

// unknownKeys remembers since when tokens have named keys that the issuer has not published as far as is known. Only a fetch that
// began later tells whether it has: a key may be newer than the last fetch.
type unknownKeys struct {
	mu    sync.Mutex
	since map[[sha256.Size]byte]time.Time
}

// named returns when a token first named the key that this one names, which is now if it has been forgotten. When there are too many
// all are: their tokens wait for one more fetch then, which any other's will do for.
func (u *unknownKeys) named(signed *jose.JSONWebSignature, now time.Time) time.Time {
	header := signed.Signatures[0].Protected
	key := sha256.Sum256([]byte(header.Algorithm + " " + header.KeyID))
	u.mu.Lock()
	defer u.mu.Unlock()
	if since, ok := u.since[key]; ok {
		return since
	}
	if u.since == nil || len(u.since) >= maxUnknown {
		u.since = make(map[[sha256.Size]byte]time.Time)
	}
	u.since[key] = now
	return now
}
