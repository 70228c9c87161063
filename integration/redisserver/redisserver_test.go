package redisserver_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(tb testing.TB, options redisserver.Options) *redisserver.Server {
	tb.Helper()
	server, err := redisserver.Start(tb.Context(), options)
	if errors.Is(err, redisserver.ErrNotInstalled) && os.Getenv("CI") != "true" {
		tb.Skipf("skipped: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
	})
	return server
}

func set(t *testing.T, server *redisserver.Server, key, value string) error {
	t.Helper()
	client := server.Client()
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return client.Set(ctx, key, value, 0).Err()
}

func mustSet(t *testing.T, server *redisserver.Server, key, value string) {
	t.Helper()
	if err := set(t, server, key, value); err != nil {
		t.Fatal(err)
	}
}

func TestARestartForgetsUnlessPersistent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options redisserver.Options
		want    int
	}{
		"default":    {redisserver.Options{}, 0},
		"persistent": {redisserver.Options{Persistent: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, test.options)
			before := server.URL()
			mustSet(t, server, "kept", "1")
			server.Kill()
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			keys, err := server.Keys(t.Context(), "*")
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) != test.want || server.URL() != before {
				t.Errorf("got the keys %v at %s, want %d of them at %s", keys, server.URL(), test.want, before)
			}
		})
	}
}

func TestASuspendedServerHangsAndGoesOnWithAllItHeld(t *testing.T) {
	t.Parallel()
	server := start(t, redisserver.Options{})
	mustSet(t, server, "kept", "1")
	if err := server.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := set(t, server, "lost", "1"); err == nil {
		t.Error("a suspended server answered")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	mustSet(t, server, "kept", "2")
}

func TestAFullServerRefusesWritesAndEvictsNothing(t *testing.T) {
	t.Parallel()
	server := start(t, redisserver.Options{MaxMemory: "100kb"}) // less than an empty server takes
	if err := set(t, server, "key", "value"); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("got %v, want OOM", err)
	}
}

func TestAServerWithTLSAnswersOnlyWhomItsAuthorityCertified(t *testing.T) {
	t.Parallel()
	server := start(t, redisserver.Options{TLS: newAuthority(t)})
	mustSet(t, server, "key", "1")
	if want := "rediss://" + server.Address(); server.URL() != want {
		t.Errorf("the URL is %s, want %s", server.URL(), want)
	}
	files, err := newAuthority(t).Issue(t.TempDir(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	config, err := files.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.InsecureSkipVerify = true // it is the server that refuses
	stranger := redis.NewClient(&redis.Options{Addr: server.Address(), TLSConfig: config, MaxRetries: -1})
	defer stranger.Close()
	if err := stranger.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("a client of another authority: %v, want a refusal by TLS", err)
	}
}

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestStopEndsInAnOrderlyWay(t *testing.T) {
	t.Parallel()
	server := start(t, redisserver.Options{})
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := server.Keys(t.Context(), "*"); err == nil {
		t.Error("a stopped server answered")
	}
}
