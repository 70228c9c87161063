package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is a configured MCP server with its endpoints: those that were listed, or the addresses that its name has.
type upstream struct {
	Upstream
	log        *slog.Logger
	transports transports        // its own: connections to different upstreams are not mixed, nor are their TLS names
	sender     http.RoundTripper // that, traced or not
	names      *names            // nil: the endpoints are listed

	unfit    seldom // says that initialize finds no MCP server there
	tooLarge seldom // says that a message is too large to be kept

	mu     sync.RWMutex
	listed []*endpoint          // what new sessions may be pinned to; replaced, never changed
	known  map[string]*endpoint // by name: those, and of names also addresses that were listed or asked for lately
}

func newUpstream(configured Upstream, cfg Config) *upstream {
	u := &upstream{
		Upstream:   configured,
		log:        cfg.Logger.With("upstream", configured.Name),
		transports: newTransports(cfg, configured),
		known:      make(map[string]*endpoint),
	}
	u.sender = traced(u.transports, cfg.Tracing)
	if configured.isNamed() {
		u.names = newNames(cfg)
		return u
	}
	for i, target := range configured.targets() {
		e := u.newEndpoint(configured.endpointNames()[i], *target)
		u.listed, u.known[e.name] = append(u.listed, e), e
	}
	return u
}

// seldom is for a log line about one upstream that others like it would say nothing new after: one a minute is enough.
type seldom struct{ last atomic.Int64 } // ns since 1970; 0: never

const seldomQuiet = time.Minute

// again reports whether it is time for another line, which the caller then writes.
func (s *seldom) again() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return (last == 0 || now-last >= int64(seldomQuiet)) && s.last.CompareAndSwap(last, now)
}

// isNoServer reports whether the status of an answer to initialize says that there is no MCP server at that path. Such a request has
// no session that the upstream could have lost.
func isNoServer(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusGone
}

// sayUnfit logs, now and then, that the configured URL seems to be wrong.
func (u *upstream) sayUnfit(log *slog.Logger, status int, endpoint string) {
	if !u.unfit.again() {
		return
	}
	log.Warn("upstream answers initialize as if no MCP server were there: is the path of its URL right?",
		"upstream", u.Name, "endpoint", endpoint, "status", status)
}

// newEndpoint makes an endpoint of an address. Its Host header is the configured URL's.
func (u *upstream) newEndpoint(name string, target url.URL) *endpoint {
	host := target.Host
	if u.isNamed() {
		host = u.URL.Host
	}
	return &endpoint{health: health{name: name, log: u.log}, url: target, host: host, transport: u.sender}
}

// choose returns the endpoint for a new session, or for a request without one: of two random ones the one that fewer
// sessions have been pinned to. Unhealthy endpoints, and those to avoid, are taken only when there are no others. It counts
// nothing: see [endpoint.pin]. The error is that of a name which has not been resolved yet, and cannot be.
func (u *upstream) choose(ctx context.Context, avoid ...string) (*endpoint, error) {
	if err := u.resolveIfNeeded(ctx); err != nil {
		return nil, err
	}
	u.mu.RLock()
	all := u.listed
	u.mu.RUnlock()
	isOther := func(e *endpoint) bool { return !slices.Contains(avoid, e.name) }
	candidates := filter(all, func(e *endpoint) bool { return isOther(e) && e.healthy() })
	if len(candidates) == 0 {
		candidates = filter(all, isOther)
	}
	if len(candidates) == 0 {
		candidates = all
	}
	e := fewerPinned(candidates)
	e.chosen()
	return e, nil
}

func filter(all []*endpoint, fits func(*endpoint) bool) []*endpoint {
	if len(all) == 1 && fits(all[0]) { // as most upstreams are
		return all
	}
	var some []*endpoint
	for _, e := range all {
		if fits(e) {
			some = append(some, e)
		}
	}
	return some
}

// fewerPinned draws two endpoints, of which there is at least one, and returns the one with fewer sessions.
func fewerPinned(candidates []*endpoint) *endpoint {
	n := len(candidates)
	if n == 1 {
		return candidates[0]
	}
	i := rand.IntN(n)                 //nolint:gosec // spreads load, hides nothing
	j := (i + 1 + rand.IntN(n-1)) % n //nolint:gosec // as above
	if candidates[j].sessions() < candidates[i].sessions() {
		return candidates[j]
	}
	return candidates[i]
}

// pinned returns the endpoint that a session's record names. A listed upstream knows the endpoints that are configured, and
// no others. An address of a name may have left the list and still serve its sessions, as a pod does that is being stopped,
// so any is taken that might have been one. When pinned returns false, the session needs another endpoint.
func (u *upstream) pinned(ctx context.Context, name string) (*endpoint, bool) {
	if name == "" {
		return nil, false
	}
	if e := u.knownEndpoint(name); e != nil {
		return e, true
	}
	if !u.isNamed() {
		return nil, false
	}
	return u.unlistedEndpoint(ctx, name)
}

// former returns the endpoint that a listed upstream may have had by a name, nil when it cannot have had one. It is for farewells alone: the
// name comes from the store, and nobody vouches for the place any more. So it is asked for at no address that is no host's, or only this
// one's, unless the upstream is at such a one.
func (u *upstream) former(name string) *endpoint {
	target, err := url.Parse(name)
	if err != nil || target.Host == "" { // most names are host:port
		target = &url.URL{Scheme: u.URL.Scheme, Host: name, Path: u.URL.Path}
	}
	isHTTP := target.Scheme == "http" || target.Scheme == "https"
	if u.isNamed() || name == "" || !isHTTP || isLocal(target) && !slices.ContainsFunc(u.targets(), isLocal) {
		return nil
	}
	return u.newEndpoint(name, *target)
}

// isLocal reports whether a URL's host is an address that means another host to each, or none.
func isLocal(target *url.URL) bool {
	a, err := netip.ParseAddr(target.Hostname())
	return err == nil && (a.Unmap().IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.Unmap().IsLinkLocalUnicast())
}

// aim sets the endpoint that the request goes to: the one that the session's record names, or when there is none, or none
// such any more, a new one. When it returns false, the request is answered.
func (x *exchange) aim(pinned string) bool {
	e, ok := x.upstream.pinned(x.r.Context(), pinned)
	if !ok {
		var err error
		if e, err = x.upstream.choose(x.r.Context()); err != nil {
			x.log().Warn("upstream has no endpoint", "upstream", x.upstream.Name, "session", x.sessionText(), "error", err)
			x.refuseFor(err, upstreamUnavailable("the upstream could not be found; the request was not processed"))
			return false
		}
	}
	x.endpoint = e
	return true
}

func (u *upstream) knownEndpoint(name string) *endpoint {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.known[name]
}

// unpin counts that a session is gone from an endpoint.
func (u *upstream) unpin(name string) {
	if e := u.knownEndpoint(name); e != nil {
		e.unpin()
	}
}

// close closes connections that nothing uses.
func (u *upstream) close() { u.transports.closeIdle() }

// isNamed reports whether the endpoints are the addresses of a name.
func (u Upstream) isNamed() bool { return strings.HasPrefix(u.URL.Scheme, schemeDNS) }

// targets are the configured URLs, the first one first.
func (u Upstream) targets() []*url.URL { return append([]*url.URL{u.URL}, u.More...) }

// endpointNames are the names of the listed endpoints in the order of targets: host:port, as long as that tells them all
// apart.
func (u Upstream) endpointNames() []string {
	targets := u.targets()
	names := make([]string, len(targets))
	for i, target := range targets {
		names[i] = hostPort(target)
	}
	if !hasTwice(names) {
		return names
	}
	for i, target := range targets {
		names[i] = fmt.Sprintf("%s://%s%s", target.Scheme, hostPort(target), target.EscapedPath())
	}
	return names
}

func hasTwice(names []string) bool {
	sorted := slices.Sorted(slices.Values(names))
	return len(slices.Compact(sorted)) < len(names)
}

// hostPort is a URL's host, in lower case, with its port, whether or not that is written out.
func hostPort(u *url.URL) string {
	return net.JoinHostPort(strings.ToLower(u.Hostname()), portOf(u))
}

// portOf is a URL's port, or its scheme's.
func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.TrimPrefix(u.Scheme, schemeDNS) == "https":
		return "443"
	default:
		return "80"
	}
}
