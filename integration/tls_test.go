package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// clientFiles are what a store needs to be let in by the authority's servers.
func clientFiles(t *testing.T, ca *authority.Authority) redisstore.TLSFiles {
	t.Helper()
	files, err := ca.Issue(t.TempDir(), "client")
	if err != nil {
		t.Fatal(err)
	}
	return redisstore.TLSFiles(files)
}

// newTLS starts a server that speaks TLS alone, and returns what a store needs to be let in.
func newTLS(t *testing.T) (aStandalone, redisstore.TLSFiles) {
	t.Helper()
	ca := newAuthority(t)
	return aStandalone{newRedis(t, redisserver.Options{Users: storeUsers(), TLS: ca})}, clientFiles(t, ca)
}

// One server over TLS has the whole contract; see TestContract.
func TestEveryTopologyWorksOverTLS(t *testing.T) {
	ca := newAuthority(t)
	for name, start := range map[string]func(*testing.T) server{
		"Sentinel": func(t *testing.T) server {
			t.Helper()
			return newSentinel(t, sentinel.Options{DownAfter: unhurried, TLS: ca})
		},
		"Cluster": func(t *testing.T) server {
			t.Helper()
			return newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried, TLS: ca})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := start(t)
			options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), TLS: clientFiles(t, ca)}
			options.Config.StoreTimeout = patientTimeout
			store := openStore(t, at.URL(storeUser), options)
			if err := store.Claim(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, k := range newSettled(t, store) {
				if _, err := store.Lease(t.Context(), k.lease()); err != nil {
					t.Errorf("lease: %v", err)
				}
				if _, err := store.Terminate(t.Context(), k.ID, cluster.StatusClosed); err != nil {
					t.Errorf("terminate: %v", err)
				}
			}
			checkViolations(t, at, options)
			checkRefusals(t, at)
		})
	}
}

// Whoever is not trusted hears of it, or says so, in an error that an operator can act on.
func TestTLSWithTheWrongCertificatesIsRefused(t *testing.T) {
	t.Parallel()
	at, good := newTLS(t)
	foreign := clientFiles(t, newAuthority(t))
	for name, test := range map[string]struct {
		files redisstore.TLSFiles
		want  string
	}{
		"a server of an unknown authority": {redisstore.TLSFiles{Certificate: good.Certificate, Key: good.Key}, "unknown authority"},
		"a server of another authority":    {redisstore.TLSFiles{CA: foreign.CA, Certificate: good.Certificate, Key: good.Key}, "unknown authority"},
		"no client certificate":            {redisstore.TLSFiles{CA: good.CA}, "certificate required"},
		"a foreign client certificate":     {redisstore.TLSFiles{CA: good.CA, Certificate: foreign.Certificate, Key: foreign.Key}, "unknown certificate authority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), TLS: test.files}
			options.Config.StoreTimeout = patientTimeout
			store := openStore(t, at.URL(storeUser), options)
			for call, do := range map[string]func(context.Context) error{"ping": store.Ping, "claim": store.Claim} {
				// A server that closes the connection at once may be faster than what it says about it.
				eventually(t, recovery, func(ctx context.Context) error {
					err := do(ctx)
					if !errors.Is(err, cluster.ErrStoreUnavailable) {
						t.Fatalf("%s: %v, want ErrStoreUnavailable", call, err)
					}
					if !strings.Contains(err.Error(), test.want) {
						return fmt.Errorf("%s: %w, want one that says %q", call, err, test.want)
					}
					return nil
				})
			}
		})
	}
}

func TestReplicasAndOperatorsReachTheirStoreOverTLS(t *testing.T) {
	t.Parallel()
	at, files := newTLS(t)
	settings := []string{
		"--prefix", freshPrefix(), "--redis-ca-file", files.CA, "--redis-cert-file", files.Certificate, "--redis-key-file", files.Key,
	}
	d := newDeployment(t, at.URL(storeUser), newUpstream(t).URL(), settings...)
	token := openSession(t, d.URL(), "2025-11-25")
	id, _, _ := strings.Cut(token, ".")
	for _, r := range d.Replicas {
		if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusOK {
			t.Errorf("ping: %s, want 200", got)
		}
	}
	settings = append(settings, "--redis", at.URL(storeUser))
	if stats := command(t, 0, append([]string{"stats"}, settings...)...); !strings.Contains(stats, "active") {
		t.Errorf("stats: %s", stats)
	}
	command(t, 0, append([]string{"session", "terminate", id}, settings...)...)
}
