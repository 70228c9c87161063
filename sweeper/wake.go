package sweeper

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// silence is how long the listener hears nothing before it asks whether its connection still stands.
const silence = 30 * time.Second

// listen wakes the election when another replica resigns, until ctx is done. A message that is missed costs a tick and
// nothing else, so a broken connection is replaced at the pace of ticks.
func (e *Election) listen(ctx context.Context) {
	for ctx.Err() == nil {
		// An error of hear has been dealt with by its end: it subscribes again.
		_ = guard("listener", e.cfg.Logger, e.cfg.Observer, func() error { return e.hear(ctx) })
		select {
		case <-ctx.Done():
		case <-time.After(e.tick()):
		}
	}
}

// hear listens on one connection until that breaks.
func (e *Election) hear(ctx context.Context) error {
	subscription := e.cfg.Store.Client().Subscribe(ctx, e.cfg.Store.ResignedChannel())
	// A read notices a closed connection, but not a context. Started when ctx is done, it ends at once.
	stop := context.AfterFunc(ctx, func() { _ = subscription.Close() })
	defer func() {
		stop()
		_ = subscription.Close()
	}()
	asked := false
	for {
		heard, err := subscription.ReceiveTimeout(ctx, silence)
		if isTimeout(err) && !asked {
			asked = true
			if err := subscription.Ping(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		asked = false
		if m, ok := heard.(*redis.Message); ok && m.Payload != e.cfg.Incarnation {
			select {
			case e.wake <- struct{}{}:
			default: // it has been told
			}
		}
	}
}

func isTimeout(err error) bool {
	failure, ok := err.(net.Error) //nolint:errorlint // the client returns it as it is
	return ok && failure.Timeout()
}
