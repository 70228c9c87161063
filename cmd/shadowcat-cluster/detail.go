package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// detail is all that session show tells.
type detail struct {
	session  cluster.Session
	pending  []cluster.PendingRequest
	recorded recorded
}

// recorded is what a session's recording tells about it.
type recorded struct {
	total, kept int64
	activated   time.Time // when initialize was answered; zero: not known
}

// readDetail reads all about one session. What is only added to the record may be gone a moment later.
func readDetail(ctx context.Context, manager *cluster.Manager, id cluster.ID) (d detail, err error) {
	if d.session, err = manager.Get(ctx, id); err != nil {
		return d, sessionError(id, err)
	}
	d.pending, err = manager.Pending(ctx, id)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		return d, err
	}
	const enough = 10 // for the answer to initialize
	page, err := manager.Frames(ctx, cluster.FrameQuery{ID: id, Limit: enough})
	if err != nil && !errors.Is(err, cluster.ErrNotFound) {
		return d, err
	}
	if len(page.Frames) > 0 {
		d.recorded = recorded{total: page.Last, kept: page.Last - page.Frames[0].Number + 1, activated: answeredAt(page.Frames)}
	}
	return d, nil
}

// answeredAt is when initialize was answered, by the first frames of a recording; zero when they do not tell.
func answeredAt(frames []cluster.Frame) time.Time {
	first := frames[0]
	i := slices.IndexFunc(frames, func(f cluster.Frame) bool {
		return f.Direction == cluster.FromUpstream && f.Method == "" && f.MessageID == first.MessageID && f.Status/100 == 2
	})
	if first.Number != 1 || first.Direction != cluster.FromClient || i < 0 {
		return time.Time{}
	}
	return frames[i].At
}

// occasion is something that happened to a session.
type occasion struct {
	at   time.Time // zero: not known
	what string
}

// timeline is what is known to have happened to a session, by time. What happened nobody knows when is told after what it followed.
func (d detail) timeline() []occasion {
	type placed struct {
		occasion
		after time.Time // when it happened, or what it followed
	}
	happened := d.occasions()
	all := make([]placed, 0, len(happened))
	var after time.Time
	for _, o := range happened {
		if !o.at.IsZero() {
			after = o.at
		}
		all = append(all, placed{o, after})
	}
	slices.SortStableFunc(all, func(a, b placed) int { return a.after.Compare(b.after) })
	ordered := make([]occasion, len(all))
	for i, p := range all {
		ordered[i] = p.occasion
	}
	return ordered
}

// occasions is the timeline in the order in which they usually happen.
func (d detail) occasions() []occasion {
	s := d.session
	all := []occasion{{s.CreatedAt, "created"}}
	if s.Revision != "" {
		all = append(all, occasion{d.recorded.activated, "activated"})
	}
	if n := s.Recoveries(); n > 0 {
		all = append(all, occasion{what: "upstream session lost and made anew: " + times(n)})
	}
	if s.LastActivityAt.After(s.CreatedAt) {
		all = append(all, occasion{s.LastActivityAt, "last activity"})
	}
	switch {
	case !s.EndedAt.IsZero():
		all = append(all, occasion{s.EndedAt, "ended: " + string(s.Status)})
	case isDue(s, time.Time{}):
		all = append(all, occasion{s.DeadlineAt, "ended: " + string(cluster.StatusExpired)})
	}
	return all
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// pendingTable shows the requests in flight; empty: there are none.
func (d detail) pendingTable(most int) string {
	if len(d.pending) == 0 {
		return ""
	}
	t := newTable("IN FLIGHT", "FOR", "AT")
	for _, p := range d.pending[:min(len(d.pending), most)] {
		t.AppendRow(table.Row{visible(requestName(p.Request())), took(p.Age), visible(p.Owner)})
	}
	shown := render(t)
	if more := len(d.pending) - most; more > 0 {
		shown += fmt.Sprintf("\n%d more, that are younger.", more)
	}
	return shown
}

// requestName says which request a key stands for.
func requestName(key string) string {
	if id, ok := strings.CutPrefix(key, "c:"); ok {
		return "request " + id
	}
	if strings.HasPrefix(key, "b:") {
		return "request of a batch"
	}
	return "request with a long id"
}

func (d detail) timelineTable(now time.Time) string {
	t := newTable("TIMELINE", "", "")
	for _, o := range d.timeline() {
		if o.at.IsZero() {
			t.AppendRow(table.Row{"", "", o.what})
			continue
		}
		t.AppendRow(table.Row{timestamp(o.at), ago(o.at, now), o.what})
	}
	shown := render(t)
	if d.recorded.total > 0 {
		shown += fmt.Sprintf("\n\n%d messages are recorded, the latest %d are kept: session frames %s", d.recorded.total, d.recorded.kept, d.session.ID)
	}
	return shown
}

// detailTables shows it all.
func detailTables(d detail) string {
	const mostPending = 20
	parts := []string{detailTable(d.session), d.pendingTable(mostPending), d.timelineTable(time.Now())}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "\n\n")
}

// pendingView is the JSON of a request in flight.
type pendingView struct {
	Key   string `json:"key"` // c: and its JSON-RPC id, c# and a digest of a long one, b: and a name for each of a batch
	Owner string `json:"owner"`
	AgeMS int64  `json:"age_ms"`
}

// occasionView is the JSON of a line of the timeline.
type occasionView struct {
	At   *string `json:"at"` // null: not known
	What string  `json:"what"`
}

// recordedView is the JSON of what is recorded.
type recordedView struct {
	Total int64 `json:"total"`
	Kept  int64 `json:"kept"`
}

func newDetailView(d detail) detailView {
	s := d.session
	view := detailView{
		// The store tells of its own clock in lists only, and judges the end of a single session itself.
		sessionView: newSessionView(s, time.Time{}),
		Version:     s.Version,
		Client:      clientView{Name: s.ClientName, Version: s.ClientVersion},
		InFlight:    make([]pendingView, 0, len(d.pending)),
		Frames:      recordedView{Total: d.recorded.total, Kept: d.recorded.kept},
	}
	for _, p := range d.pending {
		view.InFlight = append(view.InFlight, pendingView{Key: p.Request(), Owner: p.Owner, AgeMS: p.Age.Milliseconds()})
	}
	for _, o := range d.timeline() {
		line := occasionView{What: o.what}
		if !o.at.IsZero() {
			at := timestamp(o.at)
			line.At = &at
		}
		view.Timeline = append(view.Timeline, line)
	}
	return view
}
