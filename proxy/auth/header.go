package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// maxIdentity is how many bytes a trusted header's value may have.
const maxIdentity = 512

// takenHeaders are headers that cannot name a client, because they mean something else, or are rewritten on the way.
var takenHeaders = []string{
	"Accept", "Authorization", "Connection", "Content-Length", "Content-Type", "Cookie", "Forwarded", "Host", "Last-Event-Id",
	"Mcp-Protocol-Version", "Mcp-Session-Id", "Origin", "Transfer-Encoding", "Upgrade", "Via", "X-Forwarded-For", "X-Forwarded-Host",
	"X-Forwarded-Proto",
}

// headerMode is ModeHeader.
type headerMode struct {
	name    string // canonical
	proxies []netip.Prefix
}

func newHeaderMode(cfg Config) *headerMode {
	m := &headerMode{name: http.CanonicalHeaderKey(cfg.Header)}
	for _, p := range cfg.TrustedProxies {
		m.proxies = append(m.proxies, unmapped(p).Masked())
	}
	return m
}

func (m *headerMode) authenticate(r *http.Request) (Identity, error) {
	if !m.isTrusted(r.RemoteAddr) {
		r.Header.Del(m.name) // nobody may take it for the truth later
		return Identity{}, &DeniedError{Reason: ReasonPeer}
	}
	values := r.Header.Values(m.name)
	// A comma may have come from two headers made one on the way, of which the first was the client's.
	if len(values) != 1 || !isName(values[0]) {
		return Identity{}, &DeniedError{Reason: ReasonIdentity}
	}
	return Identity{Principal: principalOf(ModeHeader, m.name, values[0])}, nil
}

// isTrusted reports whether the other end of a connection, as net/http names it, is one of the proxies.
func (m *headerMode) isTrusted(remote string) bool {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, p := range m.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// isName reports whether a header's value names one client: it is not empty, and has neither commas nor control characters.
func isName(value string) bool {
	return value != "" && len(value) <= maxIdentity && strings.TrimSpace(value) == value &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' })
}

// ParseTrustedProxy reads a network such as 10.1.0.0/16, or a single address, which is one of its own.
func ParseTrustedProxy(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.50q is no network; want address/bits, such as 10.1.0.0/16 or fd00::/8, or one address", text)
	}
	p = unmapped(p)
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%s has bits after its mask; want %s", p, p.Masked())
	}
	return p, nil
}

// checkTrustedProxy refuses networks that are none, and those that everybody is in.
func checkTrustedProxy(p netip.Prefix) error {
	switch p = unmapped(p); {
	case !p.IsValid():
		return fmt.Errorf("auth.trusted_proxies: %s is no network", p)
	case p.Bits() == 0:
		return fmt.Errorf("auth.trusted_proxies: %s is everybody, who could then pose as anybody; name the networks of your proxies", p)
	}
	return nil
}

// unmapped is a network of IPv4-mapped IPv6 addresses as the IPv4 network that it is.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
