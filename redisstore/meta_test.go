package redisstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestReplicasOfAnotherLayoutAreRefused(t *testing.T) {
	t.Parallel()
	_, client, _ := newStore(t)
	open := func(partitions int) *redisstore.Store {
		s, err := redisstore.New(client, redisstore.Options{Config: cluster.DefaultConfig(), Partitions: partitions})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	operator := open(1)
	if err := operator.Adopt(t.Context()); err != nil {
		t.Errorf("adopting the layout of an empty store: %v", err)
	}
	if n := client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("looking at an empty store made %d keys", n)
	}
	if err := open(4).Claim(t.Context()); err != nil {
		t.Errorf("first replica: %v", err)
	}
	if err := open(4).Claim(t.Context()); err != nil {
		t.Errorf("second replica: %v", err)
	}
	if err := open(5).Claim(t.Context()); !errors.Is(err, redisstore.ErrLayout) {
		t.Errorf("replica with 5 partitions on 4: %v, want ErrLayout", err)
	}
	long := cluster.DefaultConfig()
	long.Retention = 3 * time.Hour
	last, err := redisstore.New(client, redisstore.Options{Config: long, Partitions: 4, AuditStream: 70})
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	created, err := open(4).Create(t.Context(), newCreation(t))
	made := created.Session
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := operator.AuditRecords(); n != 70 {
		t.Errorf("an operator keeps %d audit records, want what the replicas say, 70", n)
	}
	if _, err := operator.Get(t.Context(), made.ID); err != nil {
		t.Errorf("an operator does not see the sessions of the layout it adopted: %v", err)
	}
	ended, err := operator.Terminate(t.Context(), made.ID, cluster.StatusTerminated)
	if err != nil || ended.DeadlineAt.Sub(ended.EndedAt) != long.Retention {
		t.Errorf("an operator keeps an ended record for %v, %v; want what the replicas say, %v", ended.DeadlineAt.Sub(ended.EndedAt), err, long.Retention)
	}
	// Replicas of an earlier version say nothing of it.
	if err := client.HDel(t.Context(), "shadowcat:meta", "audit_stream").Err(); err != nil {
		t.Fatal(err)
	}
	if err := operator.Adopt(t.Context()); err != nil || operator.AuditRecords() != 70 {
		t.Errorf("where nothing is said about audit records: %v, %d; want what there was", err, operator.AuditRecords())
	}
	if err := client.HSet(t.Context(), "shadowcat:meta", "schema", "99").Err(); err != nil {
		t.Fatal(err)
	}
	if err := open(4).Claim(t.Context()); !errors.Is(err, redisstore.ErrLayout) {
		t.Errorf("replica on another schema: %v, want ErrLayout", err)
	}
	if err := operator.Adopt(t.Context()); !errors.Is(err, redisstore.ErrLayout) {
		t.Errorf("operator on another schema: %v, want ErrLayout", err)
	}
}
