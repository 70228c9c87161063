package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// cleanupKind is what a cleanup picks.
type cleanupKind int

const (
	cleanupDue    cleanupKind = iota // what the leader sweeps
	cleanupLive                      // live sessions that meet conditions
	cleanupEnded                     // records of ended sessions that meet conditions
	cleanupMemory                    // whatever may go first where memory runs out
)

// cleanupJob is what the flags ask for.
type cleanupJob struct {
	kind  cleanupKind
	query cluster.Query // of cleanupLive and cleanupEnded: what is selected, in pages

	// Of cleanupMemory.
	above   float64 // the share of a memory limit that may stay in use
	minIdle time.Duration
	force   bool
}

// cleanupPlan is what would go, as counted a moment before.
type cleanupPlan struct {
	actions []plannedAction
	oldest  []cluster.Session
	now     time.Time
	note    string // what else there is to know
	unknown bool   // nobody has counted
}

// plannedAction is what would happen to some sessions.
type plannedAction struct {
	action   cluster.Action
	why      string
	sessions int64
}

// oldestShown is how many sessions a plan names.
const oldestShown = 5

func (p *cleanupPlan) add(action cluster.Action, why string, sessions int64) {
	if sessions > 0 {
		p.actions = append(p.actions, plannedAction{action, why, sessions})
	}
}

// nothing says that there is nothing to do.
func (p *cleanupPlan) nothing() bool { return p.total() == 0 && !p.unknown }

// total is how many sessions would go, one that would be ended and then purged counted once.
func (p *cleanupPlan) total() (n int64) {
	for _, a := range p.actions {
		n += a.sessions
	}
	return n
}

// purges is how many records of ended sessions would go.
func (p *cleanupPlan) purges() (n int64) {
	for _, a := range p.actions {
		if a.action == cluster.ActionPurged {
			n += a.sessions
		}
	}
	return n
}

// plan counts what would go. Where the store's indexes and counts tell, no record is read; otherwise all are.
func (c *cleaner) plan(ctx context.Context) (cleanupPlan, error) {
	switch c.kind {
	case cleanupMemory:
		return c.planMemory(ctx)
	case cleanupLive, cleanupEnded:
		return c.planSelected(ctx)
	default:
		return c.planDue(ctx)
	}
}

func (c *cleaner) planDue(ctx context.Context) (cleanupPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	backlog, err := c.store.Backlog(ctx, oldestShown)
	if err != nil {
		return cleanupPlan{}, fmt.Errorf("counting what is due: %w", err)
	}
	plan := cleanupPlan{oldest: backlog.Oldest, now: backlog.Now}
	plan.add(cluster.ActionExpired, whyDue, backlog.Due)
	plan.add(cluster.ActionPurged, whyOver, backlog.Over)
	return plan, nil
}

func (c *cleaner) planMemory(ctx context.Context) (cleanupPlan, error) {
	pressureCtx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	pressure, err := c.store.Pressure(pressureCtx, c.above, c.minIdle)
	if err != nil {
		return cleanupPlan{}, fmt.Errorf("looking how full the store is: %w", err)
	}
	switch {
	case pressure.Usage == 0:
		return cleanupPlan{note: "The store has no memory limit (maxmemory is 0), so nothing has to go."}, nil
	case pressure.Usage <= c.above:
		return cleanupPlan{note: fmt.Sprintf("No server uses more than %s of its memory limit (the fullest: %s), so nothing has to go.",
			percent(c.above), percent(pressure.Usage))}, nil
	}
	plan := cleanupPlan{note: fmt.Sprintf("A server uses %s of its memory limit. At most these go, until none uses more than %s.",
		percent(pressure.Usage), percent(c.above))}
	plan.add(cluster.ActionPurged, "ended", pressure.Ended)
	plan.add(cluster.ActionEvicted, "idle for "+plain(c.minIdle), pressure.Idle)
	if plan.total() == 0 {
		return cleanupPlan{}, c.spent(pressure.Usage)
	}
	page, err := c.list(ctx, cluster.Query{Ended: pressure.Ended > 0, IdleFor: c.liveIdle(pressure.Ended), Limit: oldestShown})
	plan.oldest, plan.now = page.Sessions, page.Now
	return plan, err
}

// liveIdle is the idle time by which live sessions are picked; records of ended ones are by age.
func (c *cleaner) liveIdle(ended int64) time.Duration {
	if ended > 0 {
		return 0
	}
	return c.minIdle
}

// planSelected counts the sessions that meet the conditions.
func (c *cleaner) planSelected(ctx context.Context) (cleanupPlan, error) {
	var plan cleanupPlan
	counted, err := c.countIndexed(ctx, &plan)
	if err != nil {
		return plan, err
	}
	if !counted && c.uncounted {
		plan.unknown = true
		return plan, nil
	}
	if !counted {
		if err := c.countRead(ctx, &plan); err != nil {
			return plan, err
		}
	}
	if plan.total() == 0 {
		return plan, nil
	}
	first := c.query
	first.Limit = oldestShown
	page, err := c.list(ctx, first)
	plan.oldest, plan.now = page.Sessions, page.Now
	return plan, err
}

// countIndexed counts what the conditions select where that takes no look at records, and reports whether it could.
func (c *cleaner) countIndexed(ctx context.Context, plan *cleanupPlan) (bool, error) {
	q := c.query
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	switch {
	case q.Principal != "" || q.OlderThan > 0 || q.IdleFor > 0 && (q.Ended || q.Status != ""):
		return false, nil
	case !q.Ended && q.Status == "":
		n, err := c.store.CountIdle(ctx, q.IdleFor)
		plan.add(cluster.ActionTerminated, c.why(), n)
		return true, countingError(err)
	}
	stats, err := c.store.Stats(ctx)
	if err != nil {
		return false, countingError(err)
	}
	if !q.Ended {
		if stats.Due > 0 { // the count of a status holds some that are past their end, and these are expired
			return false, nil
		}
		plan.add(cluster.ActionTerminated, string(q.Status), stats.ByStatus[q.Status])
		return true, nil
	}
	for _, status := range cluster.Statuses() {
		if status.Ended() && (q.Status == "" || q.Status == status) {
			plan.add(cluster.ActionPurged, string(status), stats.ByStatus[status])
		}
	}
	return true, nil
}

func countingError(err error) error {
	if err != nil {
		return fmt.Errorf("counting sessions: %w", err)
	}
	return nil
}

// countRead counts what the conditions select by a look at every session that might be.
func (c *cleaner) countRead(ctx context.Context, plan *cleanupPlan) error {
	c.progress.begin("Counting", -1)
	defer c.progress.end()
	counts, _, err := c.store.Tally(ctx, c.query, c.progress.add)
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		switch {
		case c.query.Ended:
			plan.add(cluster.ActionPurged, string(status), counts[status])
		case status == cluster.StatusExpired:
			plan.add(cluster.ActionExpired, whyDue, counts[status])
		default:
			plan.add(cluster.ActionTerminated, string(status), counts[status])
		}
	}
	return countingError(err)
}

// question is what is asked before anything goes.
func (c *cleaner) question(plan cleanupPlan) string {
	purges := plan.purges()
	ends := plan.total() - purges
	var parts []string
	most := ""
	if c.kind == cleanupMemory {
		most = "up to "
	}
	if ends > 0 {
		parts = append(parts, "end "+most+counted(ends, "session"))
	}
	if purges > 0 {
		parts = append(parts, "purge "+most+counted(purges, "record of ended sessions", "records of ended sessions"))
	}
	if c.kind == cleanupMemory {
		slices.Reverse(parts) // that is the order in which they go
	}
	text := strings.Join(parts, " and ")
	return strings.ToUpper(text[:1]) + text[1:] + "?"
}

// why tells the conditions in a few words.
func (c *cleaner) why() string {
	q := c.query
	var parts []string
	if q.Status != "" {
		parts = append(parts, string(q.Status))
	}
	if q.Principal != "" {
		parts = append(parts, "of principal "+string(q.Principal))
	}
	if q.IdleFor > 0 {
		parts = append(parts, "idle for "+plain(q.IdleFor))
	}
	if q.OlderThan > 0 {
		parts = append(parts, "older than "+plain(q.OlderThan))
	}
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, ", ")
}
