package integration_test

import (
	"context"
	"errors"
	"flag"
	"net/url"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// modelChecks is how many random histories are enough for every day: more are run with -rapid.checks.
const modelChecks = "40"

// A store on a real Redis behaves like its model, wherever the clock jumps and whichever reply is lost, as a user with no
// more than redisstore.ACLRule.
func TestStoreBehavesLikeItsModel(t *testing.T) {
	setChecks(t, modelChecks)
	at, clock := newClocked(t)
	dialer := new(storetest.LossyDialer)
	client := modelClient(t, at, storeUser, dialer)
	diagnosis := modelClient(t, at, diagnosisUser, new(storetest.LossyDialer))
	owner := modelClient(t, at, nil, new(storetest.LossyDialer))
	var options redisstore.Options
	var violations func(context.Context) ([]string, error)
	storetest.CheckModel(t, storetest.ModelBackend{
		Open: func(cfg cluster.Config) (cluster.Store, error) {
			if err := removeStore(owner, options.Prefix); err != nil {
				return nil, err
			}
			options = redisstore.Options{Prefix: freshPrefix(), Config: cfg}
			observer, errObserver := redisstore.New(diagnosis, options)
			store, errStore := redisstore.New(client, options)
			violations = observer.Violations
			return store, errors.Join(errObserver, errStore)
		},
		Set:        clock.Set,
		GoesBack:   true,
		Violations: func(ctx context.Context) ([]string, error) { return violations(ctx) },
		Lose:       dialer.Lose,
	})
	checkRefusals(t, at)
}

// modelClient makes a client of a server, as a user, nil for the default one, who may do anything.
func modelClient(t *testing.T, at aStandalone, user *url.Userinfo, dialer *storetest.LossyDialer) *redis.Client {
	t.Helper()
	options := &redis.Options{
		Addr: at.Address(), DB: database, Dialer: dialer.Dial, MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true,
	}
	if user != nil {
		options.Username = user.Username()
		options.Password, _ = user.Password()
	}
	client := redis.NewClient(options)
	t.Cleanup(closer(t, client.Close))
	return client
}

// removeStore removes what a store holds, so that looking at all keys does not take longer with each store.
func removeStore(owner *redis.Client, prefix string) error {
	if prefix == "" {
		return nil
	}
	ctx := context.Background()
	keys, err := owner.Keys(ctx, prefix+":*").Result()
	if err != nil || len(keys) == 0 {
		return err
	}
	return owner.Unlink(ctx, keys...).Err()
}

// setChecks sets how many checks properties of this test have to pass, unless the command line does.
func setChecks(t *testing.T, checks string) {
	t.Helper()
	const name = "rapid.checks"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	before := flag.Lookup(name).Value.String()
	if err := flag.Set(name, checks); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flag.Set(name, before); err != nil {
			t.Error(err)
		}
	})
}
