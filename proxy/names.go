package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// schemeDNS before http or https asks for all addresses of a name instead of one.
	schemeDNS = "dns+"
	// maxEndpoints is how many endpoints an upstream may have; a name's further addresses are left out.
	maxEndpoints = 256
	// maxKnown is how many addresses of a name are remembered, those included that are no longer listed.
	maxKnown = 4 * maxEndpoints
	// forgetAfter is how long an address is remembered that is not listed.
	forgetAfter = 10 * time.Minute
	// resolveInterval is the pause between two resolutions, give or take a fifth.
	resolveInterval = 5 * time.Second
	// resolveTimeout bounds a resolution.
	resolveTimeout = 5 * time.Second
	// resolveLate is the age of a resolution at which a request renews it itself: nobody seems to run RunEndpoints.
	resolveLate = 4 * resolveInterval
	// resolveAgain is the shortest pause between two resolutions of a name that never had an address.
	resolveAgain = 500 * time.Millisecond
)

// Resolver looks up the addresses of names. [net.Resolver] is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip". An error, and likewise an empty answer, leaves the
	// addresses that are known in use.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var (
	errUnresolved  = errors.New("the upstream's name has no address yet")
	errNoAddresses = errors.New("the name has no address")
)

// names is what an upstream needs to know its name's addresses.
type names struct {
	resolver Resolver
	turn     chan struct{} // holds a token while somebody resolves

	mu      sync.Mutex
	tried   time.Time // the last resolution, well or not
	err     error     // what it ended with
	dropped bool      // addresses were left out, which was logged; guarded by the turn
}

func newNames(cfg Config) *names {
	return &names{resolver: cfg.Resolver, turn: make(chan struct{}, 1)}
}

// resolveIfNeeded resolves the name when it has not been, or not for long: a proxy whose RunEndpoints is run finds that
// done. Of several callers one resolves and the others wait. The error is that there is no address to go to.
func (u *upstream) resolveIfNeeded(ctx context.Context) error {
	if u.isNamed() && u.needsResolving() {
		u.resolveInTurn(ctx, u.needsResolving) // it may have been done while we waited
	}
	return u.unresolved()
}

// resolveInTurn resolves the name when nobody else does, if it is needed then.
func (u *upstream) resolveInTurn(ctx context.Context, needed func() bool) {
	select {
	case u.names.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-u.names.turn }()
	if needed() {
		u.resolve(ctx)
	}
}

func (u *upstream) needsResolving() bool {
	u.mu.RLock()
	late := resolveLate
	if len(u.listed) == 0 {
		late = resolveAgain
	}
	u.mu.RUnlock()
	u.names.mu.Lock()
	defer u.names.mu.Unlock()
	return u.names.tried.IsZero() || time.Since(u.names.tried) >= late
}

// unresolved returns an error if there is no endpoint, with the reason.
func (u *upstream) unresolved() error {
	u.mu.RLock()
	n := len(u.listed)
	u.mu.RUnlock()
	if n > 0 {
		return nil
	}
	u.names.mu.Lock()
	defer u.names.mu.Unlock()
	if u.names.err == nil {
		return errUnresolved
	}
	return fmt.Errorf("%w: %w", errUnresolved, u.names.err)
}

// resolve looks the name up once and takes in what it finds. Whoever calls it holds the turn.
func (u *upstream) resolve(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := u.names.resolver.LookupNetIP(bounded, "ip", u.URL.Hostname())
	if ctx.Err() != nil {
		return // the caller has left, which says nothing about the name
	}
	if err == nil && len(found) == 0 {
		err = errNoAddresses
	}
	u.names.mu.Lock()
	before := u.names.err
	u.names.tried, u.names.err = time.Now(), err
	u.names.mu.Unlock()
	switch {
	case err == nil:
		u.list(u.addresses(found))
		if before != nil {
			u.log.Info("upstream's name is resolved again", "host", u.URL.Hostname())
		}
	case before == nil:
		u.log.Warn("upstream's name cannot be resolved; the addresses known so far stay in use", "host", u.URL.Hostname(), "error", err)
	}
}

// addresses makes a bounded set of what a resolver found, the same at all replicas.
func (u *upstream) addresses(found []netip.Addr) []netip.Addr {
	set := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		set = append(set, a.Unmap().WithZone("")) // resolvers write IPv4 in either way
	}
	slices.SortFunc(set, netip.Addr.Compare)
	set = slices.Compact(set)
	if len(set) <= maxEndpoints {
		return set
	}
	if !u.names.dropped {
		u.names.dropped = true
		u.log.Warn("upstream's name has more addresses than are used", "host", u.URL.Hostname(), "addresses", len(set), "used", maxEndpoints)
	}
	return set[:maxEndpoints]
}

// list makes the addresses the endpoints of new sessions. Endpoints that stay keep what is known of them; those that go are
// remembered for a while, because sessions are pinned to them.
func (u *upstream) list(addresses []netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for _, e := range u.listed {
		e.unlisted = now
	}
	listed := make([]*endpoint, 0, len(addresses))
	added := 0
	for _, a := range addresses {
		e := u.endpointAt(a)
		if u.known[e.name] == nil {
			u.known[e.name] = e
			added++
		}
		e.unlisted = time.Time{}
		listed = append(listed, e)
	}
	if added > 0 || len(listed) != len(u.listed) {
		u.log.Info("upstream's endpoints have changed", "host", u.URL.Hostname(), "endpoints", len(listed), "new", added)
	}
	u.listed = listed
	for name, e := range u.known {
		if !e.unlisted.IsZero() && (now.Sub(e.unlisted) >= forgetAfter || len(u.known) > maxKnown) {
			delete(u.known, name)
		}
	}
}

// endpointAt returns the endpoint of an address: the one that is known, or a new one, which is not yet known then. The
// caller holds u.mu.
func (u *upstream) endpointAt(a netip.Addr) *endpoint {
	target := *u.URL
	target.Scheme = strings.TrimPrefix(target.Scheme, schemeDNS)
	target.Host = joinPort(a, portOf(u.URL))
	if e := u.known[target.Host]; e != nil {
		return e
	}
	return u.newEndpoint(target.Host, target)
}

// unlistedEndpoint returns the endpoint of an address that is not known: it may have left the list before this replica
// started, or come to the list just now. What cannot have been on it is refused: another port, and addresses that are no
// host's, or only this one's, unless the name has just them.
func (u *upstream) unlistedEndpoint(ctx context.Context, name string) (*endpoint, bool) {
	at, err := netip.ParseAddrPort(name)
	a := at.Addr()
	if err != nil || a.Zone() != "" || a.Is4In6() || joinPort(a, portOf(u.URL)) != name {
		return nil, false
	}
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		if u.resolveIfNeeded(ctx) != nil {
			return nil, false
		}
		e := u.knownEndpoint(name)
		return e, e != nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.endpointAt(a)
	if u.known[name] == nil && len(u.known) < maxKnown {
		e.unlisted = time.Now()
		u.known[name] = e
	}
	return e, true
}

func joinPort(a netip.Addr, port string) string {
	if a.Is4() {
		return a.String() + ":" + port
	}
	return "[" + a.String() + "]:" + port
}

// follow resolves the name again and again until ctx is done.
func (u *upstream) follow(ctx context.Context) {
	for always := func() bool { return true }; ; {
		u.resolveInTurn(ctx, always)
		if !pause(ctx, jittered(resolveInterval)) {
			return
		}
	}
}
