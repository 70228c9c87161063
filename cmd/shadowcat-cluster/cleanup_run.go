package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// cleanupPage is how many sessions are listed at once, cleanupBatch how many one call ends or purges of each slice of the
	// session space: about half a millisecond of a server's time.
	cleanupPage  = 100
	cleanupBatch = 30
	// cleanupPace is the pause between two batches, so that the requests of clients come between.
	cleanupPace = 5 * time.Millisecond
	// cleanupTries is how many batches in a row may fail, or find nothing although there should be something.
	cleanupTries = 3
)

// Why sessions go, as audit records tell it.
const (
	whyDue    = "past its end"
	whyOver   = "past its retention"
	whyMemory = "memory runs out"
	// whyOnTheWay: ending some sessions purges older ones, see docs/adr/0004-cleanup-on-the-way.md.
	whyOnTheWay = "on the way: past its retention, or too many are kept"
)

// cleaner is one run of session cleanup.
type cleaner struct {
	cleanupJob

	store    *redisstore.Store
	timeout  time.Duration // of each call of the store
	trail    cluster.Trail
	progress progress
	// uncounted says that nobody wants to know how many sessions will go, where counting takes a look at each.
	uncounted bool
	epoch     int64 // under which it cleans up: the stored one, which refuses no leader
	done      cleanupResult
}

// cleanupResult is what was done.
type cleanupResult struct {
	ended  map[cluster.Status]int
	purged int
	failed int // sessions of which it is not known whether they went
	more   bool
	took   time.Duration
}

// operatorTrail returns the trail of what an operator does at the command line. log may be nil.
func operatorTrail(log *slog.Logger) cluster.Trail {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := "unknown"
	if who, err := user.Current(); err == nil {
		name = who.Username
	}
	return cluster.Trail{Log: log, Actor: cluster.ActorOperator, By: "operator/" + host + "/" + name}
}

// execute does what was planned, until ctx is done. It returns what went wrong; c.done says how far it came in any case.
func (c *cleaner) execute(ctx context.Context, plan cleanupPlan) error {
	leadership, err := c.leadership(ctx)
	if err != nil {
		return err
	}
	c.epoch = leadership.Epoch
	c.done.ended = make(map[cluster.Status]int)
	total := plan.total()
	if c.kind == cleanupMemory {
		total = -1 // nobody knows how many it takes
	}
	c.progress.begin("Cleaning up", total)
	defer c.progress.end()
	switch c.kind {
	case cleanupMemory:
		return c.relieve(ctx)
	case cleanupLive, cleanupEnded:
		return c.cleanSelected(ctx)
	default:
		return c.sweep(ctx, total)
	}
}

func (c *cleaner) leadership(ctx context.Context) (redisstore.Leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.store.Leadership(ctx)
}

// sweep does what the leader would do, until nothing is due.
func (c *cleaner) sweep(ctx context.Context, total int64) error {
	for ctx.Err() == nil {
		var more bool
		before := c.done.count()
		err := c.call(ctx, func(ctx context.Context, who cluster.Cleanup) error {
			swept, err := c.store.Sweep(ctx, cluster.SweepCall{Cleanup: who, Limit: cleanupBatch})
			c.tookEnded(whyDue, swept.Expired)
			c.tookPurged(whyOver, swept.Purged)
			more = more || swept.More
			return err
		})
		// Where one server is away the others are still swept to the end.
		if err != nil && (!more || c.done.count() == before) {
			c.done.failed = max(int(total)-c.done.count(), 0)
			return fmt.Errorf("sweeping failed: %w", err)
		}
		if !more {
			return nil
		}
		rest(ctx)
	}
	return nil
}

// cleanSelected ends or purges the sessions that meet the conditions.
func (c *cleaner) cleanSelected(ctx context.Context) error {
	var failures []error
	inARow := 0
	err := c.walk(ctx, func(page cluster.Page) error {
		for batch := range slices.Chunk(page.Sessions, cleanupBatch) {
			if ctx.Err() != nil {
				return nil
			}
			before := c.done.count()
			err := c.cleanBatch(ctx, batch)
			went := c.done.count() - before
			c.progress.add(len(batch) - went)
			if err == nil {
				inARow = 0
				rest(ctx)
				continue
			}
			c.done.failed += len(batch) - went
			failures = append(failures[:min(len(failures), cleanupTries-1)], err)
			if inARow++; went == 0 && inARow >= cleanupTries {
				return errGivenUp
			}
			rest(ctx)
		}
		return nil
	})
	if len(failures) > 0 {
		err = errors.Join(fmt.Errorf("%s may not have gone: %w", counted(int64(c.done.failed), "session"), failures[len(failures)-1]), err)
	}
	return err
}

var errGivenUp = errors.New("given up, because several batches in a row failed")

// cleanBatch ends or purges some of the sessions that meet the conditions.
func (c *cleaner) cleanBatch(ctx context.Context, batch []cluster.Session) error {
	ids := make([]cluster.ID, len(batch))
	for i, s := range batch {
		ids[i] = s.ID
	}
	why := "cleanup of sessions: " + c.why()
	return c.call(ctx, func(ctx context.Context, who cluster.Cleanup) error {
		if c.query.Ended {
			purged, err := c.store.Purge(ctx, who, ids)
			c.tookPurged(why, purged)
			return err
		}
		call := cluster.EndCall{
			Cleanup: who, IDs: ids, Status: cluster.StatusTerminated,
			Was: c.query.Status, IdleFor: c.query.IdleFor, OlderThan: c.query.OlderThan,
		}
		ended, err := c.store.End(ctx, call)
		c.tookEnded(why, ended)
		return err
	})
}

// relieve makes room until no server is above the threshold.
func (c *cleaner) relieve(ctx context.Context) error {
	usage := 0.0
	for idle := 0; ctx.Err() == nil && idle < cleanupTries; {
		var relieved cluster.Relieved
		before := c.done.count()
		err := c.call(ctx, func(ctx context.Context, who cluster.Cleanup) (err error) {
			relieved, err = c.store.Relieve(ctx, cluster.RelieveCall{
				Cleanup: who, Above: c.above, Limit: cleanupBatch, IdleFor: c.minIdle, Force: c.force,
			})
			c.tookPurged(whyMemory, relieved.Purged)
			c.tookEnded(whyMemory, relieved.Evicted)
			return err
		})
		c.progress.describe("Memory " + percent(relieved.Usage))
		went := c.done.count() - before + len(relieved.Repairs)
		switch {
		case err != nil && went == 0:
			return fmt.Errorf("making room failed: %w", err)
		case err == nil && relieved.Usage <= c.above:
			return nil
		case err == nil && relieved.Spent:
			return c.spent(relieved.Usage)
		case went == 0: // others were faster
			idle++
		default:
			idle = 0
		}
		usage = relieved.Usage
		rest(ctx)
	}
	if ctx.Err() == nil {
		return fmt.Errorf("a server still uses %s of its memory limit, and others were faster to make room there: run it again", percent(usage))
	}
	return nil
}

// spent says that there is no room although all is gone that may.
func (c *cleaner) spent(usage float64) error {
	var hints []string
	if c.minIdle > 0 {
		hints = append(hints, "lower --idle-for")
	}
	if !c.force {
		hints = append(hints, "say --force")
	}
	return fmt.Errorf("a server still uses %s of its memory limit, and no session is left that may go: %s",
		percent(usage), strings.Join(append(hints, "give the server more memory"), ", or "))
}

// call makes one call of the store that cleans up. An interrupt does not cut it off: what it does is to be told. A leader
// may have begun a term meanwhile; then the call is made once more, under the leader's epoch.
func (c *cleaner) call(ctx context.Context, do func(context.Context, cluster.Cleanup) error) error {
	once := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		return do(ctx, cluster.Cleanup{Epoch: c.epoch})
	}
	err := once()
	if epoch := laterEpoch(err); epoch > c.epoch {
		c.epoch = epoch
		err = once()
	}
	return err
}

// laterEpoch returns the greatest epoch that a call was refused for, 0 when it was not. Each slice of the store has a fence
// of its own.
func laterEpoch(err error) (epoch int64) {
	switch e := err.(type) { //nolint:errorlint // all errors of the tree are looked at, not the first one
	case *cluster.FencedError:
		return e.Epoch
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			epoch = max(epoch, laterEpoch(one))
		}
	case interface{ Unwrap() error }:
		return laterEpoch(e.Unwrap())
	}
	return epoch
}

// walk visits the sessions that meet the conditions, a page at a time, until ctx is done. Sessions created since it began
// are passed over, and however fast others move to the listing's end, it ends: c.done.more then says that it did not see
// all.
func (c *cleaner) walk(ctx context.Context, visit func(cluster.Page) error) error {
	most, err := c.mostPages(ctx)
	if err != nil {
		return err
	}
	q := c.query
	var begun time.Time
	for range most {
		page, err := c.list(ctx, q)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted: a page that did not come is no failure
		}
		if err != nil {
			return err
		}
		if begun.IsZero() {
			begun = page.Now
		}
		if err := visit(page); err != nil || page.Next == "" || ctx.Err() != nil {
			return err
		}
		q.Cursor, q.OlderThan = page.Next, c.query.OlderThan+max(page.Now.Sub(begun), 0)
	}
	c.done.more = true
	return nil
}

// mostPages is twice as many pages as the sessions fill that there are now, and some.
func (c *cleaner) mostPages(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	stats, err := c.store.Stats(ctx)
	if err != nil {
		return 0, countingError(err)
	}
	var records int64
	for _, n := range stats.ByStatus {
		records += n
	}
	return int(2*records/cleanupPage) + 10, nil
}

func (c *cleaner) list(ctx context.Context, q cluster.Query) (cluster.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	page, err := c.store.List(ctx, q)
	if err != nil {
		return page, fmt.Errorf("listing sessions: %w", err)
	}
	return page, nil
}

func (c *cleaner) tookEnded(why string, sessions []cluster.Session) {
	for _, s := range sessions {
		c.done.ended[s.Status]++
	}
	c.trail.Ended(cluster.ActorOperator, why, sessions...)
	c.progress.add(len(sessions))
}

func (c *cleaner) tookPurged(why string, ids []cluster.ID) {
	c.done.purged += len(ids)
	c.trail.Purged(cluster.ActorOperator, why, ids...)
	c.progress.add(len(ids))
}

// count is how many sessions went, one that was ended and then purged counted twice.
func (r cleanupResult) count() int {
	n := r.purged
	for _, ended := range r.ended {
		n += ended
	}
	return n
}

// rest lets others have the store for a moment.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(cleanupPace):
	}
}
