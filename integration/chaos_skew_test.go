package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

const (
	skewedKept = 6  // sessions that clients keep alive, a third of them opened at each replica
	skewedLeft = 30 // sessions that clients leave
	// skewedFor is how long sessions are kept alive: several times as long as they may be idle.
	skewedFor = 4 * chaosIdle
)

// One replica's clock is an hour ahead, one's an hour behind and one's right; each of the wrong ones leads once. Sessions are used
// through all of them. No session ends early or late.
func TestChaosAReplicaWhoseClockIsAnHourOff(t *testing.T) {
	t.Parallel()
	for name, skews := range map[string][]time.Duration{
		"LeaderAhead":  {time.Hour, -time.Hour, 0},
		"LeaderBehind": {-time.Hour, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
			upstream := newUpstream(t)
			var replicas []*cleaner
			for _, skew := range skews {
				c := w.skewed(t, skew, upstream.URL())
				replicas = append(replicas, c)
				if len(replicas) == 1 {
					w.awaitSweeper(t, c) // the first one leads
				}
			}
			begun := time.Now()
			pings := keepThrough(t, replicas)
			born := w.leaveThrough(t, replicas)
			w.awaitExpired(t, skewedLeft)
			within(t, "from the last activity until what was left is gone", time.Since(born), chaosIdle+chaosSlack+2*chaosInterval)
			pause(t.Context(), skewedFor-time.Since(begun))
			pings()
			w.checkLifetimes(t, skewedLeft)
			if leads, err := replicas[0].metric(t.Context(), "shadowcat_leader"); err != nil || leads != 1 {
				t.Errorf("the replica whose clock is wrong by %s leads no more: %v, %v", skews[0], leads, err)
			}
			w.finish(t)
		})
	}
}

// skewed starts a replica whose own clock is wrong, and sees to it that it is.
func (w *chaosWorld) skewed(t *testing.T, skew time.Duration, upstream string) *cleaner {
	t.Helper()
	c := w.newCleaner(t, w.at.URL(storeUser), "--log-format", "json")
	c.options.Executable = built(t, skewedBinary)
	c.options.Upstreams = []string{upstream}
	c.options.Env = []string{fmt.Sprintf("%s=%.0f", binary.SkewVariable, skew.Seconds())}
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch(t, c.Replica)
	first, _, _ := strings.Cut(c.Output(), "\n")
	var line struct {
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Fatalf("%v: %s", err, first)
	}
	off := time.Until(line.Time) // its start is a moment ago
	t.Logf("a replica says that it is %s later than it is", off.Round(time.Second))
	if off > skew+time.Minute || off < skew-time.Minute {
		t.Fatalf("its clock is wrong by %s, want %s", off, skew)
	}
	return c
}

// keepThrough opens sessions at all replicas and uses each of them at one replica after another, until the function that it
// returns is called. It fails the test when one of them has ended.
func keepThrough(t *testing.T, replicas []*cleaner) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var mu sync.Mutex
	pings, slowest := 0, time.Duration(0)
	for i := range skewedKept {
		token := openSession(t, replicas[i%len(replicas)].URL(), "2025-06-18")
		clients.Go(func() {
			last := time.Now()
			for turn := i; ctx.Err() == nil; turn++ {
				answer, err := post(replicas[turn%len(replicas)].URL(), token, pingBody).send(ctx)
				if ctx.Err() != nil {
					return
				}
				took := time.Since(last)
				last = time.Now()
				mu.Lock()
				pings, slowest = pings+1, max(slowest, took)
				mu.Unlock()
				if (err != nil || answer.status != http.StatusOK) && took < chaosIdle { // else the machine kept it waiting
					t.Errorf("a session that was used %s ago: %v, %v", took, answer, err)
					return
				}
				pause(ctx, keepPause)
			}
		})
	}
	end = sync.OnceFunc(func() {
		stop()
		clients.Wait()
		t.Logf("%d sessions were used %d times, each at one replica after another; the longest gap was %s", skewedKept, pings, slowest.Round(time.Millisecond))
	})
	t.Cleanup(end)
	return end
}

// leaveThrough opens sessions at all replicas, uses each at the next one and leaves it, and returns when the last one was used.
func (w *chaosWorld) leaveThrough(t *testing.T, replicas []*cleaner) time.Time {
	t.Helper()
	for i := range skewedLeft {
		token := openSession(t, replicas[i%len(replicas)].URL(), "2025-06-18")
		if answer := mustSend(t, post(replicas[(i+1)%len(replicas)].URL(), token, pingBody)); answer.status != http.StatusOK {
			t.Fatalf("a session opened at one replica is not served by the next: %s", answer)
		}
	}
	return time.Now()
}
