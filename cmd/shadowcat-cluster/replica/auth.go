package replica

import (
	"log/slog"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// newGate returns what finds out who requests are from. It is there without authentication, too: it knows what upstreams get.
func newGate(cfg Config, log *slog.Logger) (*auth.Gate, error) {
	c := cfg.Auth
	c.Logger = log
	for _, u := range cfg.Proxy.Upstreams {
		c.Paths = append(c.Paths, u.Path())
	}
	return auth.New(c)
}

// keys tells how the issuer's keys are; it is nil where none are needed.
func (r *Replica) keys() func() admin.Keys {
	if !r.gate.NeedsKeys() {
		return nil
	}
	return func() admin.Keys {
		fetchedAt, err := r.gate.Keys()
		return admin.Keys{FetchedAt: fetchedAt, Err: err}
	}
}
