package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// FuzzToken looks for an Authorization header that makes somebody of nobody, or an error that tells of it.
func FuzzToken(f *testing.F) {
	g := gate(f)
	known := make(map[cluster.Principal]bool)
	for _, subject := range []string{"alice", "bob"} {
		token := ecKey().token(object{"sub": subject})
		identity, err := g.Authenticate(bearing(token))
		if err != nil {
			f.Fatal(err)
		}
		known[identity.Principal] = true
		f.Add("Bearer " + token)
		parts := strings.Split(token, ".")
		f.Add("Bearer " + encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".")
		f.Add("Bearer " + parts[0] + "." + encode([]byte(`{"sub":"mallory"}`)) + "." + parts[2])
	}
	f.Add("Bearer " + hmacToken(nil))
	f.Add("Bearer " + ecKey().sign(object{"kid": "of tomorrow"}, claims(nil)))
	f.Add("Bearer " + ecKey().sign(object{"crit": []string{"exp"}}, claims(nil)))
	f.Add("Bearer " + ecKey().sign(nil, []byte(`{"exp":1e999,"aud":[null]}`)))
	f.Add("Basic eDp5")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		r := request(http.MethodPost, "/mcp")
		r.Header.Set("Authorization", header)
		identity, err := g.Authenticate(r)
		if err == nil {
			if !known[identity.Principal] {
				t.Fatalf("%q makes somebody", header)
			}
			return
		}
		if err == auth.ErrKeyNotFetched && identity == (auth.Identity{}) { //nolint:errorlint // it must tell nothing more
			return // who named a key that nobody has yet
		}
		denied, ok := errors.AsType[*auth.DeniedError](err)
		if !ok || identity != (auth.Identity{}) {
			t.Fatalf("Authenticate = %+v, %v", identity, err)
		}
		if want := (&auth.DeniedError{Reason: denied.Reason}).Error(); err.Error() != want {
			t.Fatalf("the error tells more than its reason: %v", err)
		}
	})
}

// FuzzClaims looks for signed content that makes somebody without being meant for us.
func FuzzClaims(f *testing.F) {
	g := gate(f)
	f.Add(string(claims(nil)))
	f.Add(string(claims(object{"exp": nil})))
	f.Add(`{"iss":"` + issuerURL + `","aud":["` + audience + `"],"exp":1e10,"sub":"a","sub":"b"}`)
	f.Add(`{"iss":"` + issuerURL + `","aud":{"":"` + audience + `"},"exp":1e400,"sub":"\ud800"}`)
	f.Add(`[[[[`)
	f.Fuzz(func(t *testing.T, payload string) {
		identity, err := g.Authenticate(bearing(ecKey().sign(nil, []byte(payload))))
		if err != nil {
			if identity != (auth.Identity{}) {
				t.Fatalf("Authenticate = %+v, %v", identity, err)
			}
			return
		}
		for _, needed := range []string{"iss", "aud", "exp", "sub"} {
			if !strings.Contains(payload, needed) && !strings.Contains(payload, `\u`) {
				t.Fatalf("%q makes somebody without %s", payload, needed)
			}
		}
		if !identity.Principal.Valid() || identity.Principal == "" || identity.ExpiresAt.IsZero() {
			t.Fatalf("%q makes %+v", payload, identity)
		}
	})
}

// FuzzKeySet looks for a set of keys that the parser cannot bear.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(keySet(rsaKey(), ecKey(), newKey("ed", "EdDSA"))))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"Ed25519","x":""}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"AKP","alg":"ML-DSA-44","pub":""}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := auth.ParseKeySet(data)
		if n > 100 || (err == nil) != (n > 0) {
			t.Fatalf("ParseKeySet = %d, %v", n, err)
		}
	})
}
