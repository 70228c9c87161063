package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// policy decides which hosts are served and which web pages may use them. It is what stops a page of a stranger from
// talking to an MCP server in the network, or on the machine, of whoever looks at the page.
type policy struct {
	origins  []string // lower case; empty: only pages of the same host
	hosts    []string // lower case; empty: any
	loopback bool     // only loopback hosts
}

func newPolicy(cfg Config) policy {
	return policy{
		origins:  lower(cfg.AllowedOrigins),
		hosts:    lower(cfg.AllowedHosts),
		loopback: len(cfg.AllowedHosts) == 0 && isLoopback(cfg.Listen),
	}
}

// hostAllowed reports whether a request's Host may be served.
func (p policy) hostAllowed(host string) bool {
	host = strings.ToLower(host)
	switch {
	case p.loopback:
		return isLoopback(host)
	case len(p.hosts) == 0:
		return true
	}
	return slices.Contains(p.hosts, "*") || slices.Contains(p.hosts, host) ||
		slices.ContainsFunc(p.hosts, func(allowed string) bool {
			return hostOnly(allowed) == hostOnly(host) && !hasPort(allowed)
		})
}

// originAllowed reports whether a page of this origin may send a request to this host.
func (p policy) originAllowed(origin, host string) bool {
	if len(p.origins) == 0 {
		return sameHost(origin, host)
	}
	return slices.Contains(p.origins, "*") || slices.Contains(p.origins, strings.ToLower(origin))
}

// sameHost reports whether an origin names the host. Its scheme cannot be compared: TLS may end before the proxy.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || !isOrigin(origin) {
		return false
	}
	return withPort(u.Host, u.Scheme) == withPort(host, u.Scheme)
}

// withPort returns host:port in lower case, with the scheme's port where there is none.
func withPort(host, scheme string) string {
	if !hasPort(host) {
		port := "80"
		if scheme == "https" {
			port = "443"
		}
		host = net.JoinHostPort(hostOnly(host), port)
	}
	return strings.ToLower(host)
}

func hasPort(host string) bool {
	_, _, err := net.SplitHostPort(host)
	return err == nil
}

// isLoopback reports whether a host, with or without port, is this machine.
func isLoopback(host string) bool {
	host = hostOnly(host)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// checkOrigin refuses what the policy forbids. When it returns false, the request is answered.
func (x *exchange) checkOrigin() bool {
	if !x.p.policy.hostAllowed(x.r.Host) {
		x.refuse(refusal{status: http.StatusForbidden, message: "this Host is not served here; it can be allowed with allowed_hosts"})
		return false
	}
	origins := x.r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 || !x.p.policy.originAllowed(origins[0], x.r.Host) {
		x.refuse(refusal{status: http.StatusForbidden, message: "this Origin may not use this server; it can be allowed with allowed_origins"})
		return false
	}
	x.allowCORS(origins[0])
	return true
}
