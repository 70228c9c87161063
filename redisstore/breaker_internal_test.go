package redisstore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestPartsOfAClusterFailByThemselves(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 16, 64} {
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
		t.Cleanup(func() { _ = client.Close() })
		s, err := New(client, Options{Config: cluster.DefaultConfig(), Partitions: partitions})
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[*breaker]bool)
		for i, p := range s.partitions {
			part := s.breakerOf(p.lru())
			if part != s.breakerOf(p.session(cluster.ID{1})) || part != s.breakerOf(probeOf(s, i, partitions)) || seen[part] {
				t.Errorf("%d partitions: number %d does not have one part of its own for its keys and its probe", partitions, i)
			}
			seen[part] = true
		}
		for n, part := range s.breakers.parts {
			if s.breakerOf(part.probeKey) != part {
				t.Errorf("%d partitions: part %d is probed elsewhere, by %s", partitions, n, part.probeKey)
			}
		}
		now := time.Now()
		for range breakAfter {
			s.tell(s.breakerOf(s.partitions[0].lru()), failed, nil, now)
		}
		for i, p := range s.partitions {
			if refusal := s.checkKey(p.lru()); (refusal != nil) != (i == 0) {
				t.Errorf("%d partitions: number 0 is away, and number %d: %v", partitions, i, refusal)
			}
		}
		if a, b, err := s.twoPartitions(); partitions > 1 && (err != nil || a == 0 || b == 0 || a == b) {
			t.Errorf("%d partitions, 0 is away: a session may be made in %d and %d, %v", partitions, a, b, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// probeOf is the probe of the part that has partition i of n.
func probeOf(s *Store, i, n int) string {
	if n < minBreakers {
		return s.breakerOf(s.partitions[i].lru()).probeKey
	}
	return s.breakers.parts[i].probeKey
}

func TestLeewayIsAsLongAsTheOutageForTwoSlacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		t.Cleanup(func() { _ = client.Close() })
		s, err := New(client, Options{Config: cluster.DefaultConfig()})
		if err != nil {
			t.Fatal(err)
		}
		part := s.breakers.parts[0]
		want := func(ms int64) {
			t.Helper()
			if got := s.leewayMillis(); got != ms {
				t.Errorf("%d ms of leeway, want %d", got, ms)
			}
		}
		want(0)
		s.tell(part, answered, nil, time.Now())
		want(0)
		s.tell(part, failed, nil, time.Now())
		<-time.After(10 * time.Second)
		s.tell(part, failed, nil, time.Now())
		want(11_000) // it may have begun a second before anybody noticed
		<-time.After(10 * time.Second)
		s.tell(part, answered, nil, time.Now())
		want(21_000)
		<-time.After(2 * s.cfg.ReportSlack)
		s.tell(part, answered, nil, time.Now())
		want(21_000)
		<-time.After(time.Millisecond)
		want(0)
	})
}
