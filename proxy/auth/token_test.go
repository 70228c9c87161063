package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// mustAdmit returns who a request is from.
func mustAdmit(t *testing.T, g *auth.Gate, r *http.Request) auth.Identity {
	t.Helper()
	identity, err := g.Authenticate(r)
	if err != nil {
		t.Fatalf("Authenticate: %v", err)
	}
	if identity.Principal == "" || !identity.Principal.Valid() {
		t.Fatalf("the principal is %q", identity.Principal)
	}
	return identity
}

// mustRefuse is mustDeny for tests that cannot wait until keys may be fetched again, before which no token is denied for its key.
func mustRefuse(t *testing.T, g *auth.Gate, r *http.Request, want auth.Reason) {
	t.Helper()
	if identity, err := g.Authenticate(r); want == auth.ReasonUnknownKey && errors.Is(err, auth.ErrKeyNotFetched) {
		if identity != (auth.Identity{}) {
			t.Errorf("the request got %+v", identity)
		}
		return
	}
	mustDeny(t, g, r, want)
}

// mustDeny checks that a request gets nothing, and that nothing of it is told.
func mustDeny(t *testing.T, g *auth.Gate, r *http.Request, want auth.Reason) {
	t.Helper()
	credential := r.Header.Get("Authorization")
	identity, err := g.Authenticate(r)
	if identity != (auth.Identity{}) {
		t.Errorf("the request got %+v", identity)
	}
	denied, ok := errors.AsType[*auth.DeniedError](err)
	if !ok {
		t.Fatalf("the error is %v, want a denial", err)
	}
	if denied.Reason != want {
		t.Errorf("denied for %q, want %q", denied.Reason, want)
	}
	f := g.Refusal("/mcp", err)
	isFromProxy := want == auth.ReasonPeer || want == auth.ReasonIdentity // which has nothing to show
	if f.Status < 400 || f.Status > 403 || isFromProxy != (f.Challenge == "") || f.Message == "" {
		t.Errorf("the answer is %+v", f)
	}
	told := err.Error() + f.Challenge + f.Message
	for part := range strings.FieldsFuncSeq(credential, func(r rune) bool { return r == '.' || r == ' ' }) {
		if len(part) > 6 && strings.Contains(told, part) {
			t.Errorf("the answer tells of the token: %s", told)
		}
	}
}

func TestGoodTokensOfEveryAlgorithmAreAdmitted(t *testing.T) {
	t.Parallel()
	rsaSigner := rsaKey().signer
	keys := []signingKey{
		rsaKey(), ecKey(), newKey("ec384", "ES384"), newKey("ec512", "ES512"), newKey("ed", "EdDSA"),
		{id: "rs384", algorithm: "RS384", signer: rsaSigner},
		{id: "rs512", algorithm: "RS512", signer: rsaSigner},
		{id: "ps256", algorithm: "PS256", signer: rsaSigner},
		{id: "ps384", algorithm: "PS384", signer: rsaSigner},
		{id: "ps512", algorithm: "PS512", signer: rsaSigner},
	}
	g := gate(t, func(c *auth.Config) {
		c.Transport = serving(keySet(keys...))
		for _, k := range keys {
			c.Algorithms = append(c.Algorithms, k.algorithm)
		}
	})
	principals := make(map[cluster.Principal]bool)
	for _, k := range keys {
		identity := mustAdmit(t, g, bearing(k.token(nil)))
		principals[identity.Principal] = true
		if left := time.Until(identity.ExpiresAt); left < time.Hour || left > time.Hour+31*time.Second {
			t.Errorf("%s: the identity expires in %v, want an hour and the skew", k.algorithm, left)
		}
	}
	if len(principals) != 1 {
		t.Errorf("one subject is %d principals", len(principals))
	}
}

func TestPrincipalIsADigestOfIssuerAndSubject(t *testing.T) {
	t.Parallel()
	g := gate(t)
	alice := mustAdmit(t, g, bearing(rsaKey().token(nil))).Principal
	again := mustAdmit(t, g, bearing(ecKey().token(object{"jti": "another", "client_id": "another"}))).Principal
	bob := mustAdmit(t, g, bearing(rsaKey().token(object{"sub": "bob"}))).Principal
	if alice != again || alice == bob {
		t.Errorf("alice %s, alice again %s, bob %s", alice, again, bob)
	}
	if len(alice) != 43 || strings.Contains(string(alice), "alice") {
		t.Errorf("the principal is %q, want 43 characters that tell nothing", alice)
	}
}

func TestForgedTokensGetNothing(t *testing.T) {
	t.Parallel()
	// Were one of these URLs asked, the attacker's own keys would be found there.
	var fetched atomic.Int32
	attacker := newKey("rsa", "RS256")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_, _ = w.Write([]byte(keySet(attacker)))
	}))
	t.Cleanup(evil.Close)
	public, _ := rsaKey().signer.Public().(*rsa.PublicKey)
	der, _ := x509.MarshalPKIXPublicKey(public)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	good := rsaKey().token(nil)
	parts := strings.Split(good, ".")
	other := strings.Split(rsaKey().token(object{"sub": "bob"}), ".")
	none := func(alg string) string {
		return encode(marshal(object{"alg": alg, "kid": "rsa"})) + "." + parts[1] + "."
	}
	ec := ecKey()
	ec.id = "rsa"
	rsaAsEC := rsaKey()
	rsaAsEC.id = "ec"
	g := gate(t)
	for _, attack := range []struct {
		name, token string
		want        auth.Reason
	}{
		{"no signature, alg none", none("none"), auth.ReasonAlgorithm},
		{"alg None", none("None"), auth.ReasonAlgorithm},
		{"alg empty", none(""), auth.ReasonAlgorithm},
		{"alg none with a signature", none("none") + parts[2], auth.ReasonAlgorithm},
		{"no alg", encode([]byte(`{"kid":"rsa"}`)) + "." + parts[1] + "." + parts[2], auth.ReasonAlgorithm},
		{"alg in lower case", encode([]byte(`{"alg":"rs256","kid":"rsa"}`)) + "." + parts[1] + "." + parts[2], auth.ReasonAlgorithm},
		{"alg twice", encode([]byte(`{"alg":"RS256","alg":"none","kid":"rsa"}`)) + "." + parts[1] + "." + parts[2], auth.ReasonMalformed},
		{"HS256 with the key's PEM", hmacToken(asPEM), auth.ReasonAlgorithm},
		{"HS256 with the key's DER", hmacToken(der), auth.ReasonAlgorithm},
		{"HS256 with the key's modulus", hmacToken(public.N.Bytes()), auth.ReasonAlgorithm},
		{"HS256 with the key set", hmacToken([]byte(keySet(rsaKey()))), auth.ReasonAlgorithm},
		{"HS256 with nothing", hmacToken(nil), auth.ReasonAlgorithm},
		{"an allowed kind of key, but not the algorithm", signingKey{"rsa", "RS512", rsaKey().signer}.token(nil), auth.ReasonAlgorithm},
		{"another key under a known kid", attacker.token(nil), auth.ReasonSignature},
		{"an elliptic key under the kid of an RSA key", ec.token(nil), auth.ReasonUnknownKey},
		{"an RSA key under the kid of an elliptic key", rsaAsEC.token(nil), auth.ReasonUnknownKey},
		{"the right key with PS256, which its JWK does not allow", signingKey{"rsa", "PS256", rsaKey().signer}.token(nil), auth.ReasonUnknownKey},
		{"kid of a path", attacker.sign(object{"kid": "../../../../dev/null"}, claims(nil)), auth.ReasonUnknownKey},
		{"kid that is no text", attacker.sign(object{"kid": 7}, claims(nil)), auth.ReasonMalformed},
		{"no kid", attacker.sign(object{"kid": nil}, claims(nil)), auth.ReasonSignature},
		{"jku", attacker.sign(object{"jku": evil.URL, "kid": "evil"}, claims(nil)), auth.ReasonUnknownKey},
		{"jku and a known kid", attacker.sign(object{"jku": evil.URL}, claims(nil)), auth.ReasonSignature},
		{"x5u", attacker.sign(object{"x5u": evil.URL}, claims(nil)), auth.ReasonSignature},
		{"jwk", attacker.sign(object{"jwk": attacker.jwk()}, claims(nil)), auth.ReasonSignature},
		{"jwk without kid", attacker.sign(object{"jwk": attacker.jwk(), "kid": "x"}, claims(nil)), auth.ReasonUnknownKey},
		{"x5c", attacker.sign(object{"x5c": []string{"bm8gY2VydGlmaWNhdGU="}}, claims(nil)), auth.ReasonMalformed},
		{"an unknown critical extension", rsaKey().sign(object{"crit": []string{"x"}, "x": 1}, claims(nil)), auth.ReasonMalformed},
		{"the critical extension b64", rsaKey().sign(object{"crit": []string{"b64"}, "b64": false}, claims(nil)), auth.ReasonMalformed},
		{"crit of nothing", rsaKey().sign(object{"crit": []string{}}, claims(nil)), auth.ReasonMalformed},
		{"another kind of signed object", rsaKey().sign(object{"typ": "logout+jwt"}, claims(nil)), auth.ReasonMalformed},
		{"a proof of possession", rsaKey().sign(object{"typ": "dpop+jwt"}, claims(nil)), auth.ReasonMalformed},
		{"a typ that is no text", rsaKey().sign(object{"typ": 1}, claims(nil)), auth.ReasonMalformed},
		{"the content of another token", parts[0] + "." + other[1] + "." + parts[2], auth.ReasonSignature},
		{"no signature", parts[0] + "." + parts[1] + ".", auth.ReasonSignature},
		{"a short signature", parts[0] + "." + parts[1] + "." + parts[2][:40], auth.ReasonSignature},
		{"an elliptic signature of zeros", strings.Join(strings.Split(ecKey().token(nil), ".")[:2], ".") + "." + encode(make([]byte, 64)), auth.ReasonSignature},
		{"two parts", parts[0] + "." + parts[1], auth.ReasonMalformed},
		{"five parts", good + ".." + parts[2], auth.ReasonMalformed},
		{"no header", ".." + parts[2], auth.ReasonAlgorithm},
		{"no content", parts[0] + ".." + parts[2], auth.ReasonSignature},
		{"JSON serialization", `{"payload":"` + parts[1] + `"}`, auth.ReasonMalformed},
		{"padding", good + "==", auth.ReasonMalformed},
		{"a header that is no JSON", encode([]byte("no JSON")) + "." + parts[1] + "." + parts[2], auth.ReasonMalformed},
		{"over 8 KiB", rsaKey().token(object{"filler": strings.Repeat("x", 8<<10)}), auth.ReasonTooLarge},
	} {
		t.Run(attack.name, func(t *testing.T) { mustRefuse(t, g, bearing(attack.token), attack.want) })
	}
	if n := fetched.Load(); n > 0 {
		t.Errorf("the attacker's server was asked %d times", n)
	}
}

func TestTokenWithoutKidNeedsOneKeyOfItsKind(t *testing.T) {
	t.Parallel()
	second := newKey("second", "RS256")
	bare := rsaKey().sign(object{"kid": nil}, claims(nil))
	mustAdmit(t, gate(t), bearing(bare))
	several := gate(t, func(c *auth.Config) { c.Transport = serving(keySet(rsaKey(), second)) })
	mustRefuse(t, several, bearing(bare), auth.ReasonUnknownKey)
}

func TestKeysThatCannotBeTrustedVerifyNothing(t *testing.T) {
	t.Parallel()
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	private, _ := rsaKey().signer.(*rsa.PrivateKey)
	edit := func(k signingKey, changes object) object {
		fields := object{}
		raw, _ := k.jwk().MarshalJSON()
		unmarshal(raw, &fields)
		maps.Copy(fields, changes)
		return fields
	}
	withPrivate := rsaKey().jwk()
	withPrivate.Key = private
	published := object{}
	raw, _ := withPrivate.MarshalJSON()
	unmarshal(raw, &published)
	for _, c := range []struct {
		name string
		key  object
		sign signingKey
	}{
		{"a short RSA key", edit(signingKey{"weak", "RS256", weak}, nil), signingKey{"weak", "RS256", weak}},
		{"a key for encryption", edit(rsaKey(), object{"use": "enc"}), rsaKey()},
		{"a key for signing only", edit(rsaKey(), object{"key_ops": []string{"sign"}}), rsaKey()},
		{"a key for another algorithm", edit(rsaKey(), object{"alg": "RSA-OAEP"}), rsaKey()},
		{"a private key that everybody can read", published, rsaKey()},
		{"an exponent of 1", edit(rsaKey(), object{"e": "AQ"}), rsaKey()},
		{"an even exponent", edit(rsaKey(), object{"e": "BA"}), rsaKey()},
		{"a point that is not on its curve", edit(ecKey(), object{"y": encode(make([]byte, 32))}), ecKey()},
		{"a key of a kind nobody knows", edit(ecKey(), object{"kty": "XYZ"}), ecKey()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// Beside a good one, so that there is a set.
			g := gate(t, func(cfg *auth.Config) {
				cfg.Transport = serving(string(marshal(object{"keys": []object{c.key, edit(newKey("good", "ES256"), nil)}})))
			})
			mustRefuse(t, g, bearing(c.sign.token(nil)), auth.ReasonUnknownKey)
		})
	}
}

func TestSignedClaimsAreChecked(t *testing.T) {
	t.Parallel()
	g := gate(t, func(c *auth.Config) { c.RequiredScopes = []string{"tools:read", "tools:write"} })
	soon, past := time.Now().Add(time.Minute).Unix(), time.Now().Add(-time.Minute).Unix()
	for _, c := range []struct {
		name    string
		changes object
		want    auth.Reason // empty: admitted
	}{
		{"as they should be", object{}, ""},
		{"several audiences", object{"aud": []string{"https://other.example", audience}}, ""},
		{"scopes in scp, a list", object{"scope": nil, "scp": []string{"tools:write", "tools:read", "more"}}, ""},
		{"scopes in scp, a text", object{"scope": nil, "scp": "tools:write tools:read"}, ""},
		{"fractions of seconds", object{"exp": float64(soon) + .5}, ""},
		{"no nbf and no iat", object{"nbf": nil, "iat": nil}, ""},
		{"expired within the skew", object{"exp": time.Now().Add(-10 * time.Second).Unix()}, ""},
		{"not valid yet, within the skew", object{"nbf": time.Now().Add(20 * time.Second).Unix()}, ""},

		{"another issuer", object{"iss": "https://other.example"}, auth.ReasonIssuer},
		{"an issuer that only begins alike", object{"iss": issuerURL + "/"}, auth.ReasonIssuer},
		{"an issuer in other case", object{"iss": strings.ToUpper(issuerURL)}, auth.ReasonIssuer},
		{"no issuer", object{"iss": nil}, auth.ReasonIssuer},
		{"an issuer in a list", object{"iss": []string{issuerURL}}, auth.ReasonMalformed},
		{"another audience", object{"aud": "https://other.example"}, auth.ReasonAudience},
		{"an audience that begins alike", object{"aud": audience + "/x"}, auth.ReasonAudience},
		{"no audience", object{"aud": nil}, auth.ReasonAudience},
		{"an empty audience", object{"aud": ""}, auth.ReasonAudience},
		{"no audience in the list", object{"aud": []string{}}, auth.ReasonAudience},
		{"an audience that is an object", object{"aud": object{"x": audience}}, auth.ReasonMalformed},
		{"expired", object{"exp": past}, auth.ReasonExpired},
		{"no expiry", object{"exp": nil}, auth.ReasonExpired},
		{"an expiry of 0", object{"exp": 0}, auth.ReasonExpired},
		{"a negative expiry", object{"exp": -1}, auth.ReasonExpired},
		{"an expiry after all time", object{"exp": 1e300}, auth.ReasonExpired},
		{"an expiry that is a text", object{"exp": "9999999999"}, auth.ReasonMalformed},
		{"not valid yet", object{"nbf": soon}, auth.ReasonNotYetValid},
		{"valid after all time", object{"nbf": 1e300}, auth.ReasonNotYetValid},
		{"issued in the future", object{"iat": soon}, auth.ReasonNotYetValid},
		{"no subject", object{"sub": nil}, auth.ReasonSubject},
		{"an empty subject", object{"sub": ""}, auth.ReasonSubject},
		{"a long subject", object{"sub": strings.Repeat("a", 1025)}, auth.ReasonSubject},
		{"a subject with a NUL byte", object{"sub": "alice\x00bob"}, auth.ReasonSubject},
		{"a subject that cannot be read", object{"sub": "alice\ufffd"}, auth.ReasonSubject},
		{"a subject that is a number", object{"sub": 7}, auth.ReasonMalformed},
		{"bound to a key", object{"cnf": object{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, auth.ReasonBound},
		{"no scope", object{"scope": nil}, auth.ReasonScope},
		{"one scope of two", object{"scope": "tools:read"}, auth.ReasonScope},
		{"a scope that only begins alike", object{"scope": "tools:read tools:writer"}, auth.ReasonScope},
		{"scopes separated by commas", object{"scope": "tools:read,tools:write"}, auth.ReasonScope},
		{"scopes that are a number", object{"scope": 1}, auth.ReasonMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			token := rsaKey().token(c.changes)
			if c.want == "" {
				mustAdmit(t, g, bearing(token))
				return
			}
			mustDeny(t, g, bearing(token), c.want)
			mustDeny(t, g, bearing(token), c.want) // nor is it remembered as a good one
		})
	}
}

func TestSignedContentThatCouldBeReadInTwoWaysIsRefused(t *testing.T) {
	t.Parallel()
	g := gate(t)
	for name, payload := range map[string]string{
		"a claim twice":        strings.Replace(string(claims(nil)), `{`, `{"sub":"bob",`, 1),
		"no object":            `"claims"`,
		"no JSON":              `claims`,
		"nothing":              ``,
		"what is no UTF-8":     strings.Replace(string(claims(nil)), "alice", "ali\xff", 1),
		"deeply nested arrays": strings.Repeat("[", 3000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustDeny(t, g, bearing(rsaKey().sign(nil, []byte(payload))), auth.ReasonMalformed)
		})
	}
	t.Run("claims in other case", func(t *testing.T) {
		t.Parallel()
		mustDeny(t, g, bearing(rsaKey().token(object{"sub": nil, "Sub": "alice"})), auth.ReasonSubject)
	})
	t.Run("a half of a surrogate", func(t *testing.T) {
		t.Parallel()
		payload := strings.Replace(string(claims(nil)), `"alice"`, `"ali\ud800"`, 1)
		mustDeny(t, g, bearing(rsaKey().sign(nil, []byte(payload))), auth.ReasonSubject)
	})
}

func TestCredentialsAreTakenFromOneAuthorizationHeaderOnly(t *testing.T) {
	t.Parallel()
	g := gate(t)
	good := rsaKey().token(nil)
	request := func(target string, values ...string) *http.Request {
		r := request(http.MethodGet, target)
		r.Header["Authorization"] = values
		return r
	}
	mustAdmit(t, g, request("/mcp", "bearer   "+good))
	mustDeny(t, g, request("/mcp"), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", ""), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", "Bearer"), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", "Bearer "), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", "Basic "+good), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", good), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp?access_token="+good), auth.ReasonMissing)
	mustDeny(t, g, request("/mcp", "Bearer "+good, "Bearer "+good), auth.ReasonAmbiguous)
	mustDeny(t, g, request("/mcp", "Bearer "+good+", Bearer "+good), auth.ReasonMalformed)
	mustDeny(t, g, request("/mcp", "Bearer "+good+"\n"), auth.ReasonMalformed)
	cookie := request("/mcp")
	cookie.AddCookie(&http.Cookie{Name: "access_token", Value: good})
	mustDeny(t, g, cookie, auth.ReasonMissing)
}

func TestTokenIsBelievedUntilItsExpiryAndTheSkewAlthoughRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := gate(t)
		token := rsaKey().token(object{"exp": time.Now().Add(time.Minute).Unix()})
		identity := mustAdmit(t, g, bearing(token))
		if want := time.Now().Add(90 * time.Second); !identity.ExpiresAt.Equal(want) {
			t.Errorf("the identity expires at %v, want %v", identity.ExpiresAt, want)
		}
		time.Sleep(90*time.Second - time.Nanosecond)
		if mustAdmit(t, g, bearing(token)); identity.HasExpired(time.Now()) {
			t.Error("the identity expired early")
		}
		time.Sleep(time.Nanosecond)
		if mustDeny(t, g, bearing(token), auth.ReasonExpired); !identity.HasExpired(time.Now()) {
			t.Error("the identity does not expire")
		}
	})
}

func TestTokenBecomesValidWhenItsTimeComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := gate(t)
		token := rsaKey().token(object{"nbf": time.Now().Add(time.Minute).Unix()})
		time.Sleep(30*time.Second - time.Nanosecond)
		mustDeny(t, g, bearing(token), auth.ReasonNotYetValid)
		time.Sleep(time.Nanosecond)
		mustAdmit(t, g, bearing(token))
	})
}

func TestEllipticKeyOfAnotherCurveVerifiesNothing(t *testing.T) {
	t.Parallel()
	signer, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	key := signingKey{id: "p384", algorithm: "ES384", signer: signer}
	published := key.jwk()
	published.Algorithm = ""
	g := gate(t, func(c *auth.Config) { c.Transport = serving(`{"keys":[` + string(marshal(published)) + `]}`) })
	forged := signingKey{id: "p384", algorithm: "ES256", signer: ecKey().signer}
	mustRefuse(t, g, bearing(forged.token(nil)), auth.ReasonUnknownKey)
}

func TestNobodyIsAnybodyWithoutAuthentication(t *testing.T) {
	t.Parallel()
	g := running(t, auth.DefaultConfig())
	if identity, err := g.Authenticate(bearing("anything")); err != nil || identity != (auth.Identity{}) {
		t.Errorf("Authenticate = %+v, %v", identity, err)
	}
}
