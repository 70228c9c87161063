package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Identity is who a request is from.
type Identity struct {
	// Principal owns what the request makes. Nobody, in ModeNone.
	Principal cluster.Principal
	// ExpiresAt is when the identity must not be believed any longer, and streams that rest on it must end; the allowed
	// clock skew is part of it. Zero: it does not expire.
	ExpiresAt time.Time
}

// HasExpired reports whether the identity must not be believed any longer at the moment now.
func (i Identity) HasExpired(now time.Time) bool {
	return !i.ExpiresAt.IsZero() && !now.Before(i.ExpiresAt)
}

// principalOf returns the digest of a name: 43 characters of base64url. The kinds of names (mode) and who gave them (namer)
// are kept apart, so that no header makes the principal of a token. Neither holds a NUL byte, so no two triples look alike.
func principalOf(mode Mode, namer, name string) cluster.Principal {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(mode), namer, name}, "\x00")))
	return cluster.Principal(base64.RawURLEncoding.EncodeToString(sum[:]))
}
