package integration_test

import (
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// forget calls change, and takes back what that has changed of the keys that a session has, at whichever of the servers is their primary.
func forget(t *testing.T, servers []*redisserver.Server, id cluster.ID, change func()) {
	t.Helper()
	for _, s := range servers {
		rest := change
		change = func() { forgetAt(t, s, id, rest) }
	}
	change()
}

// forgetAt is forget for one server, in whichever of its databases.
func forgetAt(t *testing.T, s *redisserver.Server, id cluster.ID, change func()) {
	t.Helper()
	client := s.Client()
	defer client.Close()
	role, err := client.Do(t.Context(), "role").Slice()
	if err != nil {
		t.Fatal(err)
	}
	if role[0] != "master" {
		change()
		return
	}
	conn := client.Conn()
	defer func() { _ = conn.Close() }()
	var keys []string
	for db := 0; len(keys) == 0 && db <= database && conn.Select(t.Context(), db).Err() == nil; db++ { // a Redis Cluster has one only
		keys = conn.Keys(t.Context(), "*:"+id.String()).Val()
	}
	move := func(from, to string) {
		for _, key := range keys {
			if err := conn.Do(t.Context(), "copy", key+from, key+to, "replace").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	move("", ":kept")
	change()
	move(":kept", "")
	for _, key := range keys {
		conn.Del(t.Context(), key+":kept")
	}
}
