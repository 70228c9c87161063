package integration_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestPasswordsOfServersAndSentinelsMayBeInFiles(t *testing.T) {
	t.Parallel()
	topology := newSentinel(t, sentinel.Options{})
	dir := t.TempDir()
	file := func(user *url.Userinfo) string {
		name := filepath.Join(dir, user.Username())
		password, _ := user.Password()
		if err := os.WriteFile(name, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	store, err := redisstore.Open(
		topology.Topology.URL(url.User(storeUser.Username()))+"?sentinel_username="+sentinelUser.Username(),
		redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Passwords: redisstore.PasswordFiles{User: file(storeUser), Sentinel: file(sentinelUser)}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, store.Close))
	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
