package proxy

import (
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sync/singleflight"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// What panics for all who wait for it is an error to each of them, and ends nothing else.
func TestAPanicLeavesNobodyWaitingForARecovery(t *testing.T) {
	t.Parallel()
	p := &Proxy{log: slog.New(slog.DiscardHandler)}
	_, err := together(t.Context(), p, new(singleflight.Group), cluster.Session{}, func() (int, error) { panic("a fault of ours") })
	if !errors.Is(err, errNotAnew) {
		t.Errorf("the error is %v, want %v", err, errNotAnew)
	}
	p.running.Wait()
}
