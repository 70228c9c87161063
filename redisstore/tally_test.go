package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// crowd makes sessions of every kind in several partitions: of two principals, ended, idle and past their end.
func crowd(t *testing.T) *redisstore.Store {
	t.Helper()
	return crowdAfter(t, 0)
}

// crowdAfter is a crowd that nobody has touched for a while.
func crowdAfter(t *testing.T, pause time.Duration) *redisstore.Store {
	t.Helper()
	server := miniredis.RunT(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cfg := cluster.DefaultConfig()
	cfg.CreateRate, cfg.CreateRatePerPrincipal, cfg.StoreTimeout = 0, 0, 10*time.Second
	store, err := redisstore.Open("redis://"+server.Addr(), redisstore.Options{Config: cfg, Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	for i := range 30 {
		server.SetTime(now.Add(time.Duration(i) * 70 * time.Second))
		c, err := store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "files", Principal: []cluster.Principal{"alice", "bob"}[i%2]}})
		if err == nil {
			_, err = store.Update(t.Context(), cluster.Change{ID: c.Session.ID, ExpectedVersion: c.Session.Version, Writer: "w"})
		}
		if err == nil && i%5 == 0 {
			_, err = store.Terminate(t.Context(), c.Session.ID, []cluster.Status{cluster.StatusClosed, cluster.StatusFailed}[i%2])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	server.SetTime(now.Add(29*70*time.Second + pause))
	return store
}

func TestATallyCountsWhatAListShows(t *testing.T) {
	t.Parallel()
	store := crowd(t)
	for _, q := range []cluster.Query{
		{},
		{Status: cluster.StatusActive},
		{Status: cluster.StatusExpired},
		{Principal: "alice"},
		{Principal: "bob", OlderThan: 20 * time.Minute, IdleFor: 21 * time.Minute},
		{IdleFor: 10 * time.Minute},
		{Ended: true},
		{Ended: true, Status: cluster.StatusFailed, Principal: "bob"},
		{Ended: true, OlderThan: 5 * time.Minute},
	} {
		t.Run(fmt.Sprintf("%+v", q), func(t *testing.T) {
			t.Parallel()
			listed := q
			listed.Limit = 1000
			page, err := store.List(t.Context(), listed)
			if err != nil {
				t.Fatal(err)
			}
			want := make(map[cluster.Status]int64)
			for _, s := range page.Sessions {
				want[s.Status]++
			}
			looked := 0
			got, at, err := store.Tally(t.Context(), q, func(n int) { looked += n })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" || !at.Equal(page.Now) || looked < len(page.Sessions) {
				t.Errorf("looked at %d at %v (-list +tally):\n%s", looked, at, diff)
			}
		})
	}
}

func TestABacklogIsWhatASweepTakes(t *testing.T) {
	t.Parallel()
	store := crowdAfter(t, 10*time.Minute) // creations end what is due on the way
	before, err := store.Backlog(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	swept, err := store.Sweep(t.Context(), cluster.SweepCall{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if before.Due == 0 || int(before.Due) != len(swept.Expired) || int(before.Over) != len(swept.Purged) {
		t.Errorf("%d due and %d over; swept %d and %d", before.Due, before.Over, len(swept.Expired), len(swept.Purged))
	}
	if len(before.Oldest) != 2 || before.Oldest[1].DeadlineAt.Before(before.Oldest[0].DeadlineAt) {
		t.Errorf("the oldest: %+v", before.Oldest)
	}
}
