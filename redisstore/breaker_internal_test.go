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
		p := newPart(t)
		p.wants(0)
		p.answers()
		p.wants(0)
		p.fails(1)
		<-time.After(10 * time.Second)
		p.fails(1)
		p.wants(11 * time.Second) // it may have begun a second before anybody noticed
		<-time.After(10 * time.Second)
		p.answers()
		p.wants(21 * time.Second)
		<-time.After(2 * p.store.cfg.ReportSlack)
		p.answers()
		p.wants(21 * time.Second)
		<-time.After(time.Millisecond)
		p.wants(0)
	})
}

// What a call runs into that meets the end of an outage, or follows it, makes nobody forget the outage.
func TestAFaultSoonAfterAnOutageLeavesItsLeeway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPart(t)
		p.isAway(20 * time.Second)
		p.wants(21 * time.Second)
		for range 3 { // each is in time for the one before
			<-time.After(3 * time.Second)
			p.fails(breakAfter - 1)
			p.wants(21 * time.Second)
			<-time.After(3 * time.Second)
			p.wants(21 * time.Second)
			p.answers()
			p.wants(21 * time.Second)
		}
		<-time.After(2*p.store.cfg.ReportSlack + time.Millisecond)
		p.wants(0)
		p.fails(1)
		p.answers()
		p.wants(time.Second) // nothing is left of the outage before
	})
}

// A part that goes away again before anybody could report has been away all the time.
func TestOutagesWithoutATimeToReportAreOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPart(t)
		p.isAway(20 * time.Second)
		<-time.After(2 * p.store.cfg.ReportSlack)
		p.fails(breakAfter)
		p.wants(25 * time.Second)
		<-time.After(5 * time.Second)
		p.wants(30 * time.Second)
		p.answers()
		p.wants(30 * time.Second)
		<-time.After(2*p.store.cfg.ReportSlack + time.Millisecond)
		p.fails(breakAfter)
		p.wants(time.Second)
	})
}

// part is the one part of a store that is never asked.
type part struct {
	t     *testing.T
	store *Store
}

func newPart(t *testing.T) part {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	s, err := New(client, Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	return part{t, s}
}

func (p part) answers() { p.store.tell(p.store.breakers.parts[0], answered, nil, time.Now()) }

// fails has so many calls fail in a row, which begin now.
func (p part) fails(n int) {
	for range n {
		p.store.tell(p.store.breakers.parts[0], failed, cluster.ErrStoreUnavailable, time.Now())
	}
}

// isAway has it be away for a time.
func (p part) isAway(length time.Duration) {
	p.fails(breakAfter)
	<-time.After(length)
	p.answers()
}

func (p part) wants(leeway time.Duration) {
	p.t.Helper()
	if got := p.store.leewayMillis(); got != leeway.Milliseconds() {
		p.t.Errorf("%d ms of leeway, want %d", got, leeway.Milliseconds())
	}
}
