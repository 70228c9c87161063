package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerURL = "https://issuer.example/realm"
	keysURL   = "https://issuer.example/keys?hidden-query"
	audience  = "https://mcp.example/mcp"
)

// object is JSON.
type object = map[string]any

// signingKey is a key of an issuer.
type signingKey struct {
	id        string
	algorithm string
	signer    crypto.Signer
}

func newKey(id, algorithm string) signingKey {
	var signer crypto.Signer
	switch algorithm {
	case "ES256":
		signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		signer, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		signer, _ = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, signer, _ = ed25519.GenerateKey(rand.Reader)
	default:
		signer, _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return signingKey{id: id, algorithm: algorithm, signer: signer}
}

// Keys that are slow to make, or that tests agree on.
var (
	rsaKey = sync.OnceValue(func() signingKey { return newKey("rsa", "RS256") })
	ecKey  = sync.OnceValue(func() signingKey { return newKey("ec", "ES256") })
)

// jwk is the public part.
func (k signingKey) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.signer.Public(), KeyID: k.id, Algorithm: k.algorithm, Use: "sig"}
}

// sign signs any header and any content, however wrong they are.
func (k signingKey) sign(header object, payload []byte) string {
	head := object{"alg": k.algorithm, "kid": k.id, "typ": "at+jwt"}
	maps.Copy(head, header)
	for name, v := range head {
		if v == nil {
			delete(head, name)
		}
	}
	input := encode(marshal(head)) + "." + encode(payload)
	return input + "." + encode(k.signature([]byte(input)))
}

func (k signingKey) signature(input []byte) []byte {
	if k.algorithm == "EdDSA" {
		sig, _ := k.signer.Sign(nil, input, crypto.Hash(0))
		return sig
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[k.algorithm[2:]]
	h := hash.New()
	_, _ = h.Write(input)
	switch private := k.signer.(type) {
	case *ecdsa.PrivateKey:
		r, s, _ := ecdsa.Sign(rand.Reader, private, h.Sum(nil))
		size := (private.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = hash
		if strings.HasPrefix(k.algorithm, "PS") {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		sig, _ := private.Sign(rand.Reader, h.Sum(nil), opts)
		return sig
	}
	panic("no such key")
}

// token signs good claims with changes; a nil value removes one.
func (k signingKey) token(changes object) string { return k.sign(nil, claims(changes)) }

// claims are those of a good token, with changes.
func claims(changes object) []byte {
	now := time.Now()
	c := object{
		"iss": issuerURL, "sub": "alice", "aud": audience, "scope": "tools:read tools:write",
		"exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Add(-time.Minute).Unix(),
	}
	maps.Copy(c, changes)
	for name, v := range c {
		if v == nil {
			delete(c, name)
		}
	}
	return marshal(c)
}

// hmacToken signs with a secret.
func hmacToken(secret []byte) string {
	input := encode(marshal(object{"alg": "HS256", "kid": "rsa", "typ": "JWT"})) + "." + encode(claims(nil))
	mac := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(mac, input)
	return input + "." + encode(mac.Sum(nil))
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// keySet is the document that publishes keys.
func keySet(keys ...signingKey) string {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, k.jwk())
	}
	return string(marshal(set))
}

// reply is what a server says.
type reply struct {
	status int
	body   io.Reader
}

// answer makes a reply; the request's context ends when nobody waits for it any more.
type answer func(*http.Request) (reply, error)

// always says the same.
func always(document string) answer { return saying(http.StatusOK, document) }

func saying(status int, document string) answer {
	return func(*http.Request) (reply, error) { return reply{status, strings.NewReader(document)}, nil }
}

// server answers requests for keys without a network.
type server struct {
	mu       sync.Mutex
	answer   answer
	requests int
}

// serving answers all with one document.
func serving(document string) *server { return &server{answer: always(document)} }

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests++
	answer := s.answer
	s.mu.Unlock()
	said, err := answer(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: said.status, Header: http.Header{}, Body: io.NopCloser(said.body), Request: r}, nil
}

func (s *server) set(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
}

// asked is how many requests there were.
func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// jwtConfig is a valid configuration.
func jwtConfig(transport http.RoundTripper) auth.Config {
	cfg := auth.DefaultConfig()
	cfg.Mode = auth.ModeJWT
	cfg.Issuer, cfg.Audiences, cfg.JWKSURL = issuerURL, []string{audience}, keysURL
	cfg.Resource, cfg.Paths = "https://mcp.example", []string{"/mcp", "/files/mcp"}
	cfg.Transport = transport
	return cfg
}

// running returns a gate that runs until the test ends.
func running(tb testing.TB, cfg auth.Config) *auth.Gate {
	tb.Helper()
	g, err := auth.New(cfg)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it must end after the test's own context
	var run sync.WaitGroup
	run.Go(func() { _ = g.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return g
}

// gate returns a running gate that knows the usual keys; more changes its configuration.
func gate(tb testing.TB, more ...func(*auth.Config)) *auth.Gate {
	tb.Helper()
	cfg := jwtConfig(serving(keySet(rsaKey(), ecKey())))
	for _, change := range more {
		change(&cfg)
	}
	return running(tb, cfg)
}

// request is one without anything.
func request(method, target string) *http.Request {
	return httptest.NewRequestWithContext(context.Background(), method, target, http.NoBody)
}

// bearing is a request with a token.
func bearing(token string) *http.Request {
	r := request(http.MethodPost, "/mcp")
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func unmarshal(data []byte, into any) {
	if err := json.Unmarshal(data, into); err != nil {
		panic(err)
	}
}
