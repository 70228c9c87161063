package replica

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// rosterInterval is how often a replica tells of itself and looks at the others. A replica that was restarted under its old id is in the
// list twice until the dead one is known to be dead; it is not at the second look.
const rosterInterval = redisstore.ReplicaAlive

// roster tells the other replicas of this one, and looks whether they fit: one goroutine (run).
type roster struct {
	store       *redisstore.Store
	timeout     time.Duration
	log         *slog.Logger
	incarnation string
	about       func() redisstore.About
	disagreeing func(n int) // is told how many others have other limits

	differing, twins told
	same             []string // other incarnations of this replica's id that were alive at the last look
}

// told are the incarnations that a warning has named.
type told []string

// add takes over those that are to be named now, and reports whether that is news: one of them was not named the last time.
func (t *told) add(incarnations []string) (isNews bool) {
	isNews = slices.ContainsFunc(incarnations, func(i string) bool { return !slices.Contains(*t, i) })
	*t = incarnations
	return isNews
}

// run tells at once, and looks and tells once an interval, until ctx ends. While the store is away what was seen stays.
func (r *roster) run(ctx context.Context) error {
	tick := time.NewTicker(rosterInterval)
	defer tick.Stop()
	for {
		r.tell(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.look(ctx)
	}
}

func (r *roster) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if err := r.store.Tell(ctx, r.incarnation, r.about()); err != nil {
		r.log.DebugContext(ctx, "telling the other replicas of this one", "error", err)
	}
}

func (r *roster) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	entries, err := r.store.Roster(ctx)
	if err != nil {
		r.log.DebugContext(ctx, "looking at the other replicas", "error", err)
		return
	}
	others := slices.DeleteFunc(entries, func(e redisstore.RosterEntry) bool { return !e.IsAlive || e.Incarnation == r.incarnation })
	r.compare(ctx, others)
	r.findTwins(ctx, others)
}

// compare warns, once of each, of replicas with other limits: what holds for a session then depends on where its requests go.
func (r *roster) compare(ctx context.Context, others []redisstore.RosterEntry) {
	limits := r.about().Limits
	var differing, settings []string
	for _, e := range others {
		if e.About == nil {
			continue
		}
		if differ := limits.Differ(e.About.Limits); len(differ) > 0 {
			differing, settings = append(differing, e.Incarnation), append(settings, differ...)
		}
	}
	r.disagreeing(len(differing))
	if r.differing.add(differing) {
		slices.Sort(settings)
		r.log.WarnContext(ctx, "replicas have other limits than this one, so that a session may be held to the strictest of them: give all of them the same",
			"replicas", differing, "settings", slices.Compact(settings))
	}
}

// findTwins warns, once of each, of replicas that bear this one's id: nobody can tell them apart in logs and audit records.
func (r *roster) findTwins(ctx context.Context, others []redisstore.RosterEntry) {
	id := replicaID(r.incarnation)
	var same, twins []string
	for _, e := range others {
		if replicaID(e.Incarnation) != id {
			continue
		}
		same = append(same, e.Incarnation)
		if slices.Contains(r.same, e.Incarnation) {
			twins = append(twins, e.Incarnation)
		}
	}
	r.same = same
	if r.twins.add(twins) {
		r.log.WarnContext(ctx, "another replica has the same replica_id: give each its own, or none", "replicas", twins)
	}
}

// replicaID is an incarnation without its random part.
func replicaID(incarnation string) string {
	id, _, _ := strings.Cut(incarnation, "/")
	return id
}

// newRoster returns what tells of r, and warns of what it sees.
func (r *Replica) newRoster(cfg Config) *roster {
	limits := cfg.Cluster.Shared()
	limits["audit_stream"] = strconv.Itoa(r.store.AuditRecords())
	return &roster{
		store: r.store, timeout: r.storeTimeout, log: r.log, incarnation: r.manager.Incarnation(), disagreeing: r.metrics.ReplicasDisagree,
		about: func() redisstore.About {
			open := r.proxy.Streams()
			return redisstore.About{
				Version: cfg.Build.Version, Limits: limits, Sessions: int64(r.manager.Held()),
				Streams: open.Own + open.Answers + open.Resumed + open.Stateless,
			}
		},
	}
}
