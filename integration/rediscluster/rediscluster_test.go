package rediscluster_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

func TestMain(m *testing.M) {
	logging.Disable() // the client library logs every connection that a test breaks
	goleak.VerifyTestMain(m)
}

func TestAKilledPrimaryIsReplacedAndComesBackAsAReplica(t *testing.T) {
	t.Parallel()
	topology, err := rediscluster.Start(t.Context(), rediscluster.Options{})
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
	client := topology.Client()
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "kept", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := topology.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err := topology.Primary(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	old.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = process.Poll(ctx, func(ctx context.Context) error {
		primary, err := topology.Primary(ctx, "kept")
		if err == nil && primary == old {
			err = errors.New("the dead node is still the primary")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := topology.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys, err := old.Keys(t.Context(), "*"); err != nil || len(keys) != 1 {
		t.Errorf("the node that came back has the keys %v, %v; want the one that was kept", keys, err)
	}
}
