package redisstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestWaitReplicasIsValidated(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // never asked
	t.Cleanup(func() { _ = client.Close() })
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}})
	t.Cleanup(func() { _ = ring.Close() })
	for _, c := range []struct {
		client redis.UniversalClient
		n      int
		wrong  string // part of the error; none: fine
	}{
		{client, 0, ""},
		{client, 1, ""},
		{client, 16, ""},
		{client, -1, "wait_replicas: -1 is not in 0 to 16"},
		{client, 17, "wait_replicas: 17 is not in 0 to 16"},
		{ring, 0, ""},
		{ring, 1, "wait_replicas: not possible with a *redis.Ring"}, // which connection would it wait on?
	} {
		_, err := redisstore.New(c.client, redisstore.Options{Config: cluster.DefaultConfig(), WaitReplicas: c.n})
		if (err != nil) != (c.wrong != "") || (err != nil && !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%d replicas with a %T: %v, want %q", c.n, c.client, err, c.wrong)
		}
	}
}

// A server without replicas confirms nothing: who is told so cannot know whether it happened, and may ask again.
func TestWriteWithoutReplicasIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	open := func(waitReplicas int) *redisstore.Store {
		store, err := redisstore.Open("redis://"+server.Addr(), redisstore.Options{Config: cluster.DefaultConfig(), WaitReplicas: waitReplicas})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		return store
	}
	plain, waiting := open(0), open(2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	want := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, cluster.ErrStoreUnavailable) || !strings.Contains(err.Error(), "only 0 of 2 replicas") || !strings.Contains(err.Error(), "wait_replicas") {
			t.Errorf("%s: %v, want ErrStoreUnavailable that says how many replicas have it and which setting wants more", call, err)
		}
	}
	creation := newCreation(t)
	_, err := waiting.Create(ctx, creation)
	want("create", err)
	made, err := plain.Get(ctx, creation.Token.ID)
	if err != nil {
		t.Fatalf("what was written is there: %v", err)
	}
	_, err = waiting.Create(ctx, creation)
	want("create repeated", err)
	_, err = waiting.Update(ctx, cluster.Change{ID: made.ID, ExpectedVersion: 1, Writer: "w"})
	want("update", err)
	_, err = waiting.AppendEvents(ctx, cluster.EventAppend{ID: made.ID, Stream: "s", First: 1, Events: [][]byte{[]byte("one")}})
	want("events", err)
	_, err = waiting.ClaimStream(ctx, cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true})
	want("claim", err)
	_, err = waiting.ClaimStream(ctx, cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true})
	want("claim repeated", err)
	_, err = waiting.ClaimRecovery(ctx, cluster.RecoveryClaim{ID: made.ID, ExpectedVersion: 2, Writer: "w", For: time.Second})
	want("recovery", err)
	want("note", waiting.Note(ctx, cluster.Note{ID: made.ID, Key: "k", Message: []byte("note")}))
	_, err = waiting.Terminate(ctx, made.ID, cluster.StatusClosed)
	want("terminate", err)
	_, err = waiting.Terminate(ctx, made.ID, cluster.StatusClosed)
	want("terminate repeated", err)
	if got, err := waiting.Get(ctx, made.ID); err != nil || got.Status != cluster.StatusClosed {
		t.Errorf("reading waits for nobody: %s, %v; want closed", got.Status, err)
	}
	if _, err := waiting.Terminate(ctx, newCreation(t).Token.ID, cluster.StatusClosed); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("an unknown session: %v, want ErrNotFound: there was nothing to wait for", err)
	}
}
