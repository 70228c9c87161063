package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/google/uuid"
)

const (
	idLen     = 36 // a UUID as text
	secretLen = 26 // crypto/rand.Text: 128 bits in base32
	// TokenLen is the length of every token in bytes.
	TokenLen = idLen + 1 + secretLen
)

// Digest is the SHA-256 of a token's secret: all that the store keeps of it.
type Digest [sha256.Size]byte

// Equal compares two digests in constant time.
func (d Digest) Equal(other Digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }

// Token is what a client presents in Mcp-Session-Id: `<id>.<secret>`, 63 visible ASCII characters. The id finds the
// session, the secret proves that the client was given it. A Token prints as its ID: the secret appears only through
// [Token.Reveal].
type Token struct {
	ID     ID
	secret string
}

// NewToken mints a token with a new ID (UUIDv7, so that ids sort by age) and 128 random bits of secret.
func NewToken() (Token, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Token{}, fmt.Errorf("minting a session id: %w", err)
	}
	return Token{ID: id, secret: rand.Text()}, nil
}

// ParseToken reads a token as a client sent it. Anything but the exact form that NewToken mints (lower-case hyphenated
// UUID, a dot, 26 characters of base32) is [ErrInvalidToken], which is also [ErrNotFound]: a client must not be able to
// tell a malformed token from an unknown one. The text is never part of the error.
func ParseToken(text string) (Token, error) {
	if len(text) != TokenLen || text[idLen] != '.' {
		return Token{}, ErrInvalidToken
	}
	id, err := uuid.Parse(text[:idLen])
	if err != nil || id.String() != text[:idLen] {
		return Token{}, ErrInvalidToken
	}
	secret := text[idLen+1:]
	for i := range len(secret) {
		if c := secret[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return Token{}, ErrInvalidToken
		}
	}
	return Token{ID: id, secret: secret}, nil
}

// Digest returns what the store keeps of the secret.
func (t Token) Digest() Digest { return sha256.Sum256([]byte(t.secret)) }

// Reveal returns the whole token, for the client it belongs to and nobody else.
func (t Token) Reveal() string { return t.ID.String() + "." + t.secret }

// String returns the ID alone, so that a token is safe in logs and errors.
func (t Token) String() string { return t.ID.String() }

// GoString keeps the secret out of %#v too.
func (t Token) GoString() string { return "cluster.Token(" + t.ID.String() + ")" }
