package integration_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// tally counts what a sweeper tells.
type tally struct {
	mu     sync.Mutex
	panics map[string]int
	terms  int
}

func (c *tally) LeaderChanged(isLeader bool, _ sweeper.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isLeader {
		c.terms++
	}
}

func (c *tally) Panicked(loop string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.panics[loop]++
}

func (*tally) Renewed(time.Duration, error)  {}
func (*tally) Swept(int, int, time.Duration) {}
func (*tally) SweepFailed()                  {}
func (*tally) Fenced()                       {}
func (*tally) Mended(cluster.RepairKind)     {}
func (*tally) Relieved(int, int, float64)    {}
func (c *tally) seen() (terms, panics int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terms, c.panics["sweep"]
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// What is told of ended sessions panics each time in the first batches. The leader goes on, in the same term.
func TestChaosASweepThatPanicsGoesOn(t *testing.T) {
	t.Parallel()
	const panics = 3
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	due := w.mortals(t, dueSessions)
	w.doom(t, due)
	counts, log, told := &tally{panics: make(map[string]int)}, &lockedBuffer{}, 0
	s, err := sweeper.New(sweeper.Config{
		Store: w.store, Incarnation: "clumsy", Interval: chaosInterval, Slack: chaosSlack, LockTTL: chaosTTL, Batch: 10,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})), Observer: counts,
		Expired: func([]cluster.Session) {
			if told++; told <= panics {
				panic("clumsy")
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	begun := time.Now()
	w.awaitExpired(t, dueSessions)
	within(t, "from the start until what was due is gone, three panics included", time.Since(begun), chaosSlack+time.Second+chaosInterval)
	stop()
	running.Wait()
	if terms, seen := counts.seen(); terms != 1 || seen != panics {
		t.Errorf("%d terms, %d panics were counted; want 1 and %d", terms, seen, panics)
	}
	if text := log.String(); strings.Count(text, "panic=clumsy") != panics || !strings.Contains(text, "goroutine ") {
		t.Errorf("the log does not tell of %d panics with their stacks:\n%s", panics, text)
	}
	w.finish(t)
}
