package sentinel_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
)

func TestMain(m *testing.M) {
	logging.Disable() // the client library logs every connection that a test breaks
	goleak.VerifyTestMain(m)
}

func TestAKilledPrimaryIsReplacedAndComesBackAsAReplica(t *testing.T) {
	t.Parallel()
	topology, err := sentinel.Start(t.Context(), sentinel.Options{})
	if errors.Is(err, redisserver.ErrNotInstalled) && os.Getenv("CI") != "true" {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Error(err)
		}
	})
	old, err := topology.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := old.Client()
	defer client.Close()
	if err := client.Set(t.Context(), "kept", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := topology.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	old.Kill()
	if err := topology.Restore(t.Context()); err == nil {
		t.Error("restored before another primary was elected: all data would be lost")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = process.Poll(ctx, func(ctx context.Context) error {
		primary, err := topology.Primary(ctx)
		if err == nil && primary == old {
			err = errors.New("the dead server is still the primary")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := topology.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, server := range topology.Servers() {
		if keys, err := server.Keys(t.Context(), "*"); err != nil || len(keys) != 1 {
			t.Errorf("%s has the keys %v, %v; want the one that was kept", server.Address(), keys, err)
		}
	}
}
