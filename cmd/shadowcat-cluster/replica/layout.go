package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// layoutRetry is the pause between attempts while the store is away.
	layoutRetry = 500 * time.Millisecond
	// layoutInterval is the pause after success: a store that was emptied must be told again, soon.
	layoutInterval = time.Second
)

// keepLayout sees to it that the store is laid out as this replica is configured. It ends, and with it the replica, when
// it is not: replicas of two layouts would not see each other's sessions, and each would allow a cap of its own.
func (r *Replica) keepLayout(ctx context.Context) error {
	for {
		pause := layoutInterval
		if err := r.claimLayout(ctx); errors.Is(err, redisstore.ErrLayout) {
			return err
		} else if err != nil {
			pause = layoutRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (r *Replica) claimLayout(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.storeTimeout)
	defer cancel()
	if err := r.store.Claim(ctx); err != nil {
		return fmt.Errorf("claiming the store: %w", err)
	}
	return nil
}
