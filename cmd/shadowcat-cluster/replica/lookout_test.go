package replica

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// A replica that never leads tells who does all the same.
func TestAReplicaWithoutASweeperTellsWhoLeads(t *testing.T) {
	t.Parallel()
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	leads := newReplicaWith(t, nil, func(c *Config) { c.Store = store })
	watches := newReplicaWith(t, nil, func(c *Config) { c.Store, c.Cleanup.Off = store, true })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, r := range []*Replica{leads, watches} {
		listener := listen(t)
		go func() { ended <- r.Run(ctx, listener, nil) }()
	}
	tell := watches.leadership()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !strings.HasPrefix(tell().Leader, "r-1/") || tell().Epoch == 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s the replica without a sweeper tells %+v", tell())
		}
	}
	if told := tell(); told.IsLeader {
		t.Errorf("told %+v; want somebody else", told)
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
