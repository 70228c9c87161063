package replica

import (
	"log/slog"

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
