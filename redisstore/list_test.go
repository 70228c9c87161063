package redisstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// afterTime is a hook that does something once, right after the server was asked for its clock.
type afterTime struct {
	redis.Hook
	do func()
}

func (a *afterTime) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *afterTime) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a *afterTime) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if do := a.do; cmd.Name() == "time" && do != nil {
			a.do = nil
			do()
		}
		return err
	}
}

// A session that is used while a page is read is on it: under load those are most of them.
func TestAListShowsWhoeverIsActiveMeanwhile(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	server.SetTime(now)
	store, err := redisstore.Open("redis://"+server.Addr(), redisstore.Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	creation := newCreation(t)
	old, err := store.Create(t.Context(), creation)
	if err == nil {
		_, err = store.Update(t.Context(), cluster.Change{ID: old.Session.ID, ExpectedVersion: old.Session.Version, Writer: "w"})
	}
	if err != nil {
		t.Fatal(err)
	}
	hook := &afterTime{}
	store.Client().AddHook(hook)
	list := func(q cluster.Query) int {
		t.Helper()
		hook.do = func() {
			now = now.Add(time.Second)
			server.SetTime(now)
			lease := cluster.LeaseCall{ID: old.Session.ID, Digest: creation.Token.Digest(), Upstream: "u", Need: 1, Want: 1}
			if _, err := store.Lease(t.Context(), lease); err != nil {
				t.Error(err)
			}
			if _, err := store.Create(t.Context(), newCreation(t)); err != nil {
				t.Error(err)
			}
		}
		q.Limit = 100
		page, err := store.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Sessions)
	}
	if n := list(cluster.Query{}); n != 2 {
		t.Errorf("%d of 2 sessions are listed", n)
	}
	if n := list(cluster.Query{OlderThan: time.Millisecond}); n != 1 {
		t.Errorf("%d sessions are older than the page's moment, want 1 of 3", n)
	}
}
