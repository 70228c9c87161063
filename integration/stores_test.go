package integration_test

import (
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// storePrefix begins the prefixes of all stores in tests, so that one ACL rule suits them all.
const storePrefix = "test"

var (
	// storeUser may do exactly what a store needs. Tests use it wherever a store does its work.
	storeUser = url.UserPassword("store", "store-secret")
	// diagnosisUser may also look for violations.
	diagnosisUser = url.UserPassword("diagnosis", "diagnosis-secret")
	// sentinelUser may do exactly what a store needs of a sentinel.
	sentinelUser = url.UserPassword("watcher", "watcher-secret")
)

// aclUser is a user as in a redis.conf.
func aclUser(user *url.Userinfo, rule string) string {
	password, _ := user.Password()
	return user.Username() + " on >" + password + " " + rule
}

func storeUsers() []string {
	rule := redisstore.ACLRule(storePrefix)
	return []string{aclUser(storeUser, rule), aclUser(diagnosisUser, rule+" "+redisstore.DiagnosticACLRule())}
}

var prefixes atomic.Int64

// freshPrefix returns a prefix that no other store has, on whatever server.
func freshPrefix() string { return fmt.Sprintf("%s:%d", storePrefix, prefixes.Add(1)) }

// server is where stores are: one server, a Sentinel topology or a Redis Cluster.
type server interface {
	// URL is how a store reaches it as the given user.
	URL(user *url.Userinfo) string
	// Servers are the servers with data.
	Servers() []*redisserver.Server
}

// database is not the default one.
const database = 1

// aStandalone is a single server.
type aStandalone struct{ *redisserver.Server }

func (s aStandalone) URL(user *url.Userinfo) string {
	return fmt.Sprintf("%s://%s@%s/%d", s.Scheme(), user, s.Address(), database)
}

func (s aStandalone) Servers() []*redisserver.Server { return []*redisserver.Server{s.Server} }

func newStandalone(t *testing.T) aStandalone {
	t.Helper()
	return aStandalone{newRedis(t, redisserver.Options{Users: storeUsers()})}
}

// newClocked is a single server whose clock stands at someDay until the test moves it.
func newClocked(t *testing.T) (aStandalone, *redisserver.Clock) {
	t.Helper()
	clock := newClock(t)
	return aStandalone{newRedis(t, redisserver.Options{Users: storeUsers(), Clock: clock})}, clock
}

// aSentinel is a Sentinel topology whose sentinels ask for a user, too.
type aSentinel struct{ *sentinel.Topology }

func (s aSentinel) URL(user *url.Userinfo) string {
	password, _ := sentinelUser.Password()
	query := url.Values{"sentinel_username": {sentinelUser.Username()}, "sentinel_password": {password}}
	return s.Topology.URL(user) + "?" + query.Encode()
}

func newSentinel(t *testing.T, options sentinel.Options) aSentinel {
	t.Helper()
	requireRedis(t)
	options.Users = storeUsers()
	options.SentinelUsers = []string{aclUser(sentinelUser, redisstore.SentinelACLRule())}
	topology, err := sentinel.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, topology.Close))
	return aSentinel{topology}
}

func newRedisCluster(t *testing.T, options rediscluster.Options) *rediscluster.Topology {
	t.Helper()
	requireRedis(t)
	options.Users = storeUsers()
	topology, err := rediscluster.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, topology.Close))
	return topology
}

// openStore opens a store that is closed with the test.
func openStore(t *testing.T, rawURL string, options redisstore.Options) *redisstore.Store {
	t.Helper()
	store, err := redisstore.Open(rawURL, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, store.Close))
	return store
}

// checkViolations fails the test when records, indexes and counts of a store disagree.
func checkViolations(t *testing.T, at server, options redisstore.Options) {
	t.Helper()
	options.Config.StoreTimeout = 10 * time.Second // it reads everything
	store, err := redisstore.Open(at.URL(diagnosisUser), options)
	if err != nil {
		t.Fatal(err)
	}
	violations, err := store.Violations(t.Context())
	if err = errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// checkRefusals fails the test when a server has refused a user something: not every refusal shows.
func checkRefusals(t *testing.T, at server) {
	t.Helper()
	addresses := make([]string, 0, 6)
	for _, s := range at.Servers() {
		addresses = append(addresses, s.Address())
	}
	if s, ok := at.(aSentinel); ok {
		addresses = append(addresses, s.Sentinels()...)
	}
	for _, address := range addresses {
		client := redis.NewClient(&redis.Options{Addr: address, TLSConfig: at.Servers()[0].TLSConfig(), DisableIdentity: true})
		refused, err := client.ACLLog(t.Context(), 100).Result()
		if err = errors.Join(err, client.Close()); err != nil {
			t.Fatal(err)
		}
		for _, r := range refused {
			// A wrong password is another test's, and that a store may not read the configuration is no secret to it.
			if r.Reason != "auth" && r.Object != "config|get" {
				t.Errorf("%s refused %s: %s %s", address, r.Username, r.Reason, r.Object)
			}
		}
	}
}

// roomyConfig has limits that no test reaches by accident.
func roomyConfig() cluster.Config {
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions = 100_000
	cfg.CreateRate = 0
	cfg.RequestRate = 0
	return cfg
}
