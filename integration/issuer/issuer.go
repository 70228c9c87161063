// Package issuer is an authorization server for tests: it publishes a key on a loopback address, and signs every token that it
// is asked for, however wrong.
package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Audience is what tokens are made for.
const Audience = "https://mcp.example"

// Object is a JSON object.
type Object = map[string]any

// Issuer is one authorization server. It may be used by any number of goroutines.
type Issuer struct {
	server *httptest.Server

	mu     sync.Mutex
	keys   int
	key    *ecdsa.PrivateKey
	answer http.HandlerFunc // instead of the keys; nil: they are served
	asked  int
}

// Start starts an issuer with one key of ES256.
func Start() *Issuer {
	i := &Issuer{}
	i.Rotate()
	i.server = httptest.NewServer(http.HandlerFunc(i.serve))
	return i
}

// Close ends it, together with those who still wait for its answers.
func (i *Issuer) Close() {
	i.server.CloseClientConnections()
	i.server.Close()
}

// URL is its name, as its tokens have it in iss. Its keys are at URL()/keys, which its metadata tell.
func (i *Issuer) URL() string { return i.server.URL }

// Rotate replaces the key by a new one, which is the only one that is published.
func (i *Issuer) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys++
	i.key = key
}

// AnswerWith has all requests for keys answered in another way, until it is called with nil.
func (i *Issuer) AnswerWith(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// Asked is how often its keys were asked for.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		write(w, Object{"issuer": i.server.URL, "jwks_uri": i.server.URL + "/keys"})
	case "/keys":
		i.mu.Lock()
		i.asked++
		answer, key, id := i.answer, i.key, i.keyID()
		i.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		write(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}}})
	default:
		http.NotFound(w, r)
	}
}

// keyID names the key. The caller holds i.mu.
func (i *Issuer) keyID() string { return "key-" + strconv.Itoa(i.keys) }

// Token is a token for a subject that is good for an hour.
func (i *Issuer) Token(subject string) string { return i.TokenWith(Object{"sub": subject}) }

// TokenUntil is a token for a subject that is good until a moment.
func (i *Issuer) TokenUntil(subject string, end time.Time) string {
	return i.TokenWith(Object{"sub": subject, "exp": float64(end.UnixMilli()) / 1000})
}

// TokenWith is a token whose claims are changed; nil removes one.
func (i *Issuer) TokenWith(changes Object) string { return i.Sign(nil, changes) }

// Sign makes a token with changes to its header and its claims; nil removes one.
func (i *Issuer) Sign(header, claims Object) string {
	i.mu.Lock()
	key, id := i.key, i.keyID()
	i.mu.Unlock()
	input := i.unsigned(Object{"alg": "ES256", "kid": id, "typ": "at+jwt"}, header, claims)
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(fmt.Sprintf("sign a token: %v", err)) // of a key that was made here
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Unsigned is a token with the algorithm none, and no signature.
func (i *Issuer) Unsigned(subject string) string {
	return i.unsigned(Object{"alg": "none", "typ": "JWT"}, nil, Object{"sub": subject}) + "."
}

// unsigned is a token without its third part.
func (i *Issuer) unsigned(header, headerChanges, claimChanges Object) string {
	now := time.Now()
	claims := Object{
		"iss": i.URL(), "aud": Audience, "sub": "somebody",
		"iat": now.Add(-time.Second).Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	return encode(changed(header, headerChanges)) + "." + encode(changed(claims, claimChanges))
}

func changed(o, changes Object) Object {
	maps.Copy(o, changes)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // of what tests write out
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}
