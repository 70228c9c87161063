package replica

import (
	"context"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// lookInterval is how often a replica that takes no part asks who leads.
const lookInterval = 2 * time.Second

// lookout tells who leads at a replica that takes no part in it: one goroutine asks the store (run), everyone may look (state).
type lookout struct {
	store   *redisstore.Store
	timeout time.Duration

	mu    sync.Mutex
	known admin.Leadership
}

// run asks once an interval, until ctx ends. While the store is away what was known stays.
func (l *lookout) run(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		l.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *lookout) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	leads, err := l.store.Leadership(ctx)
	if err != nil {
		return
	}
	known := admin.Leadership{Epoch: leads.Epoch}
	if leads.Holder != "" {
		known.Leader = sweeper.HolderIncarnation(leads.Holder)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = known
}

func (l *lookout) state() admin.Leadership {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}
