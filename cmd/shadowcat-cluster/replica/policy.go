package replica

import (
	"context"
	"time"
)

const (
	// goodPolicy is the only maxmemory-policy under which Redis keeps what it was given.
	goodPolicy = "noeviction"
	// policyTimeout bounds one look at it, policyRetry is the pause while the store is away.
	policyTimeout = 2 * time.Second
	policyRetry   = 5 * time.Second
)

// checkMemoryPolicy warns, once, when the store may throw sessions away as it fills up. It waits for a store that is
// away, and gives up on one that does not tell, as managed ones often do not.
func (r *Replica) checkMemoryPolicy(ctx context.Context) error {
	for {
		if r.lookAtMemoryPolicy(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(policyRetry):
		}
	}
}

// lookAtMemoryPolicy reports whether there is no need to look again.
func (r *Replica) lookAtMemoryPolicy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	if r.store.Ping(ctx) != nil {
		return false
	}
	policy, err := r.store.MemoryPolicy(ctx)
	switch {
	case err != nil:
		r.log.DebugContext(ctx, "the store does not tell its memory policy: make sure that it is "+goodPolicy, "error", err)
	case policy != goodPolicy:
		r.log.WarnContext(ctx, "the store may evict keys when its memory is full, which loses sessions: set maxmemory-policy to "+goodPolicy,
			"maxmemory_policy", policy)
	}
	return true
}
