package world

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

// Proxies are one upstream and what may stand before it, each a process of its own: two bare proxies, and two replicas, one of them in strict
// mode. The replicas have the defaults, but that they log little, bear a slow store, and let sessions be created as fast as experiments begin.
type Proxies struct {
	Bare, Like, Leased, Strict string // URLs

	closers []func() error
}

// StartProxies starts them all. The caller must close what it returns, with an error, too.
func StartProxies(ctx context.Context) (*Proxies, error) {
	p := &Proxies{}
	upstream, err := p.role(ctx, roleUpstream)
	if err != nil {
		return p, err
	}
	for _, bare := range []*string{&p.Bare, &p.Like} {
		if *bare, err = p.role(ctx, roleBare, upstream); err != nil {
			return p, err
		}
	}
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return p, err
	}
	p.closers = append(p.closers, server.Close)
	executable, remove, err := BuildServe(ctx)
	if err != nil {
		return p, err
	}
	p.closers = append(p.closers, remove)
	for _, r := range []struct {
		url  *string
		args []string
	}{
		{&p.Leased, []string{"--prefix", "leased"}},
		{&p.Strict, []string{"--prefix", "strict", "--lease", "0"}},
	} {
		started, err := replica.New(replica.Options{
			Executable: executable, RedisURL: server.URL(), Upstreams: []string{upstream + "/mcp"}, Args: append(r.args, "--log-level", "warn", "--create-rate", "0", "--store-timeout", Patience.String()),
		})
		if err != nil {
			return p, err
		}
		p.closers = append(p.closers, func() error { started.Kill(); return nil })
		if err := started.Start(ctx); err != nil {
			return p, err
		}
		*r.url = started.URL()
	}
	p.Bare, p.Like = p.Bare+"/mcp", p.Like+"/mcp"
	return p, nil
}

// role starts a role and returns its URL.
func (p *Proxies) role(ctx context.Context, role string, args ...string) (string, error) {
	address, started, err := startRole(ctx, role, args...)
	if err != nil {
		return "", err
	}
	p.closers = append(p.closers, func() error { started.Kill(); return nil })
	return "http://" + address, nil
}

// Close ends them all, in the opposite order.
func (p *Proxies) Close() error {
	var errs []error
	for _, end := range slices.Backward(p.closers) {
		errs = append(errs, end())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// StartUpstream starts an upstream in a process of its own, and returns its URL without a path. The caller must call end.
func StartUpstream(ctx context.Context) (url string, end func() error, err error) {
	p := &Proxies{}
	url, err = p.role(ctx, roleUpstream)
	return url, p.Close, err
}

// BuildServe builds the product. The caller must call remove.
func BuildServe(ctx context.Context) (executable string, remove func() error, err error) {
	dir, err := os.MkdirTemp("", "shadowcat-bench-")
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	if executable, err = binary.Build(ctx, dir, binary.ShadowcatCluster); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return executable, remove, nil
}
