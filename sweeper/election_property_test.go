package sweeper_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// TestAtMostOneLeaderIsTrustedAtAnyInstant lets links fail in every way, and replicas die, stop, fail and join, and looks
// whether any two reigns overlap, epochs fall, or nobody leads once all is well again. Only the lock itself is never lost:
// that is where trust ends and the fence begins.
func TestAtMostOneLeaderIsTrustedAtAnyInstant(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// Drawn before the bubble begins: rapid stops a test by a panic, which must not leave the bubble's goroutine.
		replicas := rapid.IntRange(1, 4).Draw(rt, "replicas")
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 10).Draw(rt, "steps")
		var faults []string
		var reigns int
		synctest.Test(t, func(t *testing.T) {
			w := newElectorate(t)
			faults = w.suffer(replicas, steps)
			reigns = len(w.history())
		})
		for _, fault := range faults {
			rt.Errorf("%s", fault)
		}
		if reigns == 0 {
			rt.Error("nobody ever led")
		}
	})
}

// step is one thing that happens to one replica, and how much time then goes by.
type step struct {
	Do      string
	Replica int // modulo how many there are
	Link    linkState
	Delay   time.Duration
	Then    time.Duration
}

func (s step) String() string {
	if s.Do == "link" {
		return fmt.Sprintf("link of %d: %q, %v; then %v", s.Replica, s.Link, s.Delay, s.Then)
	}
	return fmt.Sprintf("%s %d; then %v", s.Do, s.Replica, s.Then)
}

func drawStep(rt *rapid.T) step {
	return step{
		Do:      rapid.SampledFrom([]string{"link", "link", "link", "link", "heal", "kill", "stop", "fail", "start"}).Draw(rt, "do"),
		Replica: rapid.IntRange(0, 3).Draw(rt, "replica"),
		Link:    rapid.SampledFrom([]linkState{whole, cut, hanging, tardy, deaf, lost, late}).Draw(rt, "link"),
		Delay:   time.Duration(rapid.IntRange(0, int(ttl.Milliseconds())).Draw(rt, "delay_ms")) * time.Millisecond,
		Then:    time.Duration(rapid.IntRange(0, int(ttl.Milliseconds()*3/2)).Draw(rt, "then_ms")) * time.Millisecond,
	}
}

// suffer takes the steps, makes everything well again, and tells what should not have happened.
func (w *electorate) suffer(replicas int, steps []step) (faults []string) {
	var all []*candidate
	join := func() {
		all = append(all, w.failing(fmt.Sprintf("r%d", len(all))).start())
	}
	for range replicas {
		join()
	}
	for _, s := range steps {
		c := all[s.Replica%len(all)]
		switch s.Do {
		case "link":
			c.link.change(s.Link, s.Delay)
		case "heal":
			c.link.set(whole)
		case "kill":
			c.kill()
		case "stop":
			c.stop()
		case "fail":
			select {
			case c.fail <- struct{}{}:
			default:
			}
		case "start":
			if len(all) < 6 {
				join()
			}
		}
		w.pass(s.Then)
	}
	for _, c := range all {
		c.link.set(whole)
	}
	join() // all others may be dead
	// A call under way may still take the lock for nobody (a delay, and a TTL), and a replica that could not lead does
	// not stand for a TTL and a tick.
	w.pass(4 * ttl)
	if n := len(leaders(all)); n != 1 {
		faults = append(faults, fmt.Sprintf("%d leaders after all was well again", n))
	}
	for _, c := range all {
		c.stop()
	}
	return append(faults, w.overlaps()...)
}

// failing makes a replica whose work fails when told to.
func (w *electorate) failing(name string) *candidate {
	c := w.candidate(name)
	c.fail = make(chan struct{}, 1)
	c.work = func(ctx context.Context, term *sweeper.Term) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.work(name)(ctx, term)
		}()
		select {
		case <-done:
			return nil
		case <-c.fail:
			cancel()
			<-done
			return errors.New("told to fail")
		}
	}
	return c
}
