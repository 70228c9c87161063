package auth_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// headerConfig trusts a few networks.
func headerConfig(t *testing.T, proxies ...string) auth.Config {
	t.Helper()
	cfg := auth.DefaultConfig()
	cfg.Mode, cfg.Header = auth.ModeHeader, "x-forwarded-user"
	for _, text := range proxies {
		p, err := auth.ParseTrustedProxy(text)
		if err != nil {
			t.Fatal(err)
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, p)
	}
	return cfg
}

// from is a request that names a client.
func from(peer string, names ...string) *http.Request {
	r := request(http.MethodPost, "/mcp")
	r.RemoteAddr = peer
	r.Header["X-Forwarded-User"] = names
	return r
}

func TestHeaderIsBelievedFromTrustedNetworksOnly(t *testing.T) {
	t.Parallel()
	g := running(t, headerConfig(t, "10.1.0.0/16", "192.0.2.7", "fd00::/8", "::ffff:172.16.0.0/108"))
	for peer, isTrusted := range map[string]bool{
		"10.1.0.1:4000":              true,
		"10.1.255.255:4000":          true,
		"192.0.2.7:4000":             true,
		"[fd00::1]:4000":             true,
		"[fd12::1%eth0]:4000":        true,
		"[::ffff:10.1.0.1]:4000":     true, // an IPv4 peer of a listener for both
		"172.16.3.4:4000":            true,
		"[::ffff:172.31.0.1]:4000":   true,
		"10.2.0.1:4000":              false,
		"10.0.255.255:4000":          false,
		"192.0.2.8:4000":             false,
		"172.32.0.1:4000":            false,
		"[fe80::1%eth0]:4000":        false,
		"[::ffff:10.2.0.1]:4000":     false,
		"[::10.1.0.1]:4000":          false, // an address that only looks alike
		"[64:ff9b::10.1.0.1]:4000":   false,
		"[::ffff:0:10.1.0.1]:4000":   false,
		"127.0.0.1:4000":             false,
		"[::1]:4000":                 false,
		"10.1.0.1":                   false,
		"@":                          false,
		"":                           false,
		"10.1.0.1:4000, 192.0.2.7:1": false,
	} {
		r := from(peer, "alice")
		// Whatever a stranger says about the way does not matter.
		r.Header.Set("X-Forwarded-For", "10.1.0.1")
		r.Header.Set("Forwarded", "for=10.1.0.1")
		r.Header.Set("X-Real-Ip", "10.1.0.1")
		if isTrusted {
			mustAdmit(t, g, r)
			continue
		}
		mustDeny(t, g, r, auth.ReasonPeer)
		if r.Header.Get("X-Forwarded-User") != "" {
			t.Errorf("%s: the header is still there", peer)
		}
	}
}

func TestHeaderNamesExactlyOneClient(t *testing.T) {
	t.Parallel()
	g := running(t, headerConfig(t, "10.0.0.0/8"))
	const peer = "10.0.0.1:4000"
	alice := mustAdmit(t, g, from(peer, "alice"))
	if !alice.ExpiresAt.IsZero() || len(alice.Principal) != 43 {
		t.Errorf("the identity is %+v", alice)
	}
	if again := mustAdmit(t, g, from("10.0.0.2:4001", "alice")); again != alice {
		t.Error("one client is two principals")
	}
	for _, other := range []string{"bob", "Alice", "alice@example.com", "a", strings.Repeat("a", 512)} {
		if mustAdmit(t, g, from(peer, other)).Principal == alice.Principal {
			t.Errorf("%s is alice", other)
		}
	}
	for name, values := range map[string][]string{
		"none": nil, "empty": {""}, "two": {"alice", "bob"}, "one twice": {"alice", "alice"}, "two in one": {"alice, bob"},
		"spaces": {" "}, "long": {strings.Repeat("a", 513)}, "a control character": {"alice\x00"}, "a tab": {"alice\tbob"},
	} {
		t.Run(name, func(t *testing.T) { mustDeny(t, g, from(peer, values...), auth.ReasonIdentity) })
	}
	bearer := bearing(rsaKey().token(nil))
	bearer.RemoteAddr = peer
	mustDeny(t, g, bearer, auth.ReasonIdentity)
}

func TestPrincipalsOfDifferentOriginsDiffer(t *testing.T) {
	t.Parallel()
	other := headerConfig(t, "10.0.0.0/8")
	other.Header = "X-Remote-User"
	r := from("10.0.0.1:4000")
	r.Header.Set("X-Remote-User", "alice")
	issuer := gate(t, func(c *auth.Config) {
		c.Issuer = "https://other.example"
	})
	seen := make(map[cluster.Principal]bool)
	for _, identity := range []auth.Identity{
		mustAdmit(t, running(t, headerConfig(t, "10.0.0.0/8")), from("10.0.0.1:4000", "alice")),
		mustAdmit(t, running(t, other), r),
		mustAdmit(t, gate(t), bearing(rsaKey().token(nil))),
		mustAdmit(t, issuer, bearing(rsaKey().token(object{"iss": "https://other.example"}))),
		// A name that spells out what is digested for a token.
		mustAdmit(t, running(t, headerConfig(t, "10.0.0.0/8")), from("10.0.0.1:4000", "jwt"+issuerURL+"alice")),
	} {
		if seen[identity.Principal] {
			t.Error("two clients are one principal")
		}
		seen[identity.Principal] = true
	}
}

func TestTrustedProxiesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.1.0.0/16": "10.1.0.0/16", "10.1.2.3": "10.1.2.3/32", "::1": "::1/128", "fd00::/8": "fd00::/8",
		"::ffff:10.1.2.3": "10.1.2.3/32", "::ffff:10.1.0.0/112": "10.1.0.0/16",
	} {
		if p, err := auth.ParseTrustedProxy(text); err != nil || p.String() != want {
			t.Errorf("%s is %v (%v), want %s", text, p, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "no network", "proxy.example": "no network", "10.1.2.3/33": "no network", "10.1.2.3/16": "want 10.1.0.0/16",
		"fe80::1%eth0": "no network", "10.1.0.0/16,10.2.0.0/16": "no network",
	} {
		if _, err := auth.ParseTrustedProxy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
	// One that was made without ParseTrustedProxy is masked, too.
	cfg := headerConfig(t)
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/16")}
	mustAdmit(t, running(t, cfg), from("10.1.9.9:1", "alice"))
}

// Records in the store hold principals: were they made in another way tomorrow, no session would belong to anybody any more.
func TestPrincipalsStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	if p := mustAdmit(t, gate(t), bearing(ecKey().token(nil))).Principal; p != "H1sYocgb0fG8M74jRAi9FJGnt4pILAGZrghkifHS9zI" {
		t.Errorf("a token's is %s", p)
	}
	if p := mustAdmit(t, running(t, headerConfig(t, "10.0.0.0/8")), from("10.0.0.1:4000", "alice")).Principal; p != "NW2_cD-csYMzxR2Jd17FthnF-5J55blZGG87OrsGXdk" {
		t.Errorf("a header's is %s", p)
	}
}
