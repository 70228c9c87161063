package auth

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// authenticator is one mode.
type authenticator interface {
	authenticate(r *http.Request) (Identity, error)
}

// Gate finds out who requests are from. It may be used by any number of goroutines.
type Gate struct {
	cfg      Config
	mode     authenticator
	metadata *metadata
	upstream *upstreamToken
	keys     *keyCache // nil but in ModeJWT
}

// New returns a gate. The error says everything that is wrong with cfg. It asks no server; [Gate.Run] does.
func New(cfg Config) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	g := &Gate{cfg: cfg, metadata: newMetadata(cfg)}
	var err error
	if g.upstream, err = newUpstreamToken(cfg); err != nil {
		return nil, fmt.Errorf("auth.upstream_token_file: %w", err)
	}
	switch cfg.Mode {
	case ModeHeader:
		g.mode = newHeaderMode(cfg)
	case ModeJWT:
		g.keys = newKeyCache(cfg)
		g.mode = newVerifier(cfg, g.keys)
	default:
		g.mode = nobody{}
	}
	return g, nil
}

// Off returns a gate that lets everybody in and passes everything on.
func Off() *Gate {
	cfg := Config{}.withDefaults()
	return &Gate{cfg: cfg, mode: nobody{}, metadata: newMetadata(cfg), upstream: &upstreamToken{action: cfg.UpstreamToken}}
}

// Run keeps the issuer's keys and the upstreams' token up to date until ctx is done; it returns nil. It may be called once, and
// the caller owns the goroutine. In ModeJWT nobody is let in before it runs.
func (g *Gate) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	if g.keys != nil {
		loops.Go(func() { g.keys.run(ctx) })
	}
	loops.Go(func() { g.upstream.run(ctx, g.cfg.Logger) })
	<-ctx.Done()
	loops.Wait()
	return nil
}

// NeedsKeys reports whether tokens are verified with an issuer's keys.
func (g *Gate) NeedsKeys() bool { return g.keys != nil }

// Keys tells when the issuer's keys that are in use were fetched, zero if never, and why the last attempt to fetch them failed, nil if
// it did not. The error holds no credentials. Where no keys are needed, both are zero.
func (g *Gate) Keys() (fetchedAt time.Time, failure error) {
	if g.keys == nil {
		return time.Time{}, nil
	}
	return g.keys.state()
}

// Authenticate returns who the request is from. The error is a [DeniedError], [ErrKeysUnavailable] or [ErrKeyNotFetched];
// [Gate.Refusal] turns each into an answer. It waits for the key server only for a token of a key that is not known, or when
// there are no keys, and then for no longer than Config.JWKSTimeout and a little, or the end of the request's context.
//
// It must be called for every request, before anything else is made of it: a header that must not be believed is removed
// from the request.
func (g *Gate) Authenticate(r *http.Request) (Identity, error) { return g.mode.authenticate(r) }

// nobody is ModeNone.
type nobody struct{}

func (nobody) authenticate(*http.Request) (Identity, error) { return Identity{}, nil }
