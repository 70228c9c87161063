package redisstore_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestContractAfterOutages(t *testing.T) {
	t.Parallel()
	var server *miniredis.Miniredis
	storetest.RunOutages(t, storetest.OutageBackend{
		Open: func(t *testing.T, cfg cluster.Config) cluster.Store {
			t.Helper()
			client, s := bubbleServer(t)
			server = s
			store, err := redisstore.New(client, redisstore.Options{Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			return store
		},
		SetAway: func(isAway bool) {
			server.SetError("")
			if isAway {
				server.SetError("LOADING Redis is loading the dataset in memory")
			}
		},
	})
}
