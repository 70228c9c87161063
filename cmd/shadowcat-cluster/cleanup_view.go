package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// cleanupView is the JSON of session cleanup.
type cleanupView struct {
	Ended   map[cluster.Status]int `json:"ended"` // the statuses that cleanup ends with, all of them
	Purged  int                    `json:"purged"`
	Failed  int                    `json:"failed"` // sessions of which it is not known whether they went
	Seconds float64                `json:"seconds"`
}

// cleanupPlanView is the JSON of session cleanup --dry-run.
type cleanupPlanView struct {
	DryRun  bool                `json:"dry_run"` // true
	Actions []plannedActionView `json:"actions"`
	Oldest  []sessionView       `json:"oldest"`
	Note    string              `json:"note"` // for people; may be empty
}

type plannedActionView struct {
	Action   cluster.Action `json:"action"` // terminated, expired, evicted, purged
	Why      string         `json:"why"`
	Sessions int64          `json:"sessions"`
}

// cleanupStatuses are those that cleanup ends sessions with.
var cleanupStatuses = []cluster.Status{cluster.StatusTerminated, cluster.StatusExpired, cluster.StatusEvicted}

func newCleanupView(done cleanupResult) cleanupView {
	view := cleanupView{
		Ended: make(map[cluster.Status]int), Purged: done.purged, Failed: done.failed,
		Seconds: math.Round(done.took.Seconds()*1000) / 1000,
	}
	for _, status := range cleanupStatuses {
		view.Ended[status] = done.ended[status]
	}
	return view
}

func newCleanupPlanView(plan cleanupPlan) cleanupPlanView {
	view := cleanupPlanView{
		DryRun: true, Actions: make([]plannedActionView, 0, len(plan.actions)), Oldest: make([]sessionView, 0, len(plan.oldest)),
		Note: plan.note,
	}
	for _, a := range plan.actions {
		view.Actions = append(view.Actions, plannedActionView{a.action, a.why, a.sessions})
	}
	for _, s := range plan.oldest {
		view.Oldest = append(view.Oldest, newSessionView(s, plan.now))
	}
	return view
}

// cleanupTable is the summary at the end.
func cleanupTable(done cleanupResult) string {
	t := newTable("ACTION", "SESSIONS")
	for _, status := range cleanupStatuses {
		if n := done.ended[status]; n > 0 {
			t.AppendRow(table.Row{status, n})
		}
	}
	if done.purged > 0 {
		t.AppendRow(table.Row{cluster.ActionPurged, done.purged})
	}
	if done.failed > 0 {
		t.AppendRow(table.Row{"failed", done.failed})
	}
	if t.Length() == 0 {
		return "Nothing was cleaned up."
	}
	t.SetColumnConfigs(right(2))
	text := render(t) + fmt.Sprintf("\n\nTook %s.", done.took.Round(time.Millisecond))
	if done.more {
		text += " Sessions changed faster than they could be looked at: some may be left."
	}
	return text
}

// cleanupPlanTable is the answer to a dry run.
func cleanupPlanTable(plan cleanupPlan) string {
	if plan.total() == 0 {
		if plan.note != "" {
			return plan.note
		}
		return "Nothing to clean up."
	}
	t := newTable("ACTION", "WHY", "SESSIONS")
	for _, a := range plan.actions {
		t.AppendRow(table.Row{a.action, a.why, a.sessions})
	}
	t.SetColumnConfigs(right(3))
	text := render(t)
	if plan.note != "" {
		text += "\n\n" + plan.note
	}
	if len(plan.oldest) > 0 {
		page := cluster.Page{Sessions: plan.oldest, Now: plan.now}
		text += "\n\nFirst of them:\n\n" + oldestTable(page)
	}
	return text + "\n\nThis was a dry run: nothing was changed."
}

func oldestTable(page cluster.Page) string {
	t := newTable("ID", "STATUS", "CREATED", "LAST SEEN", "REQS")
	for _, s := range page.Sessions {
		t.AppendRow(table.Row{s.ID, statusAt(s, page.Now), ago(s.CreatedAt, page.Now), ago(s.LastActivityAt, page.Now), s.Requests})
	}
	t.SetColumnConfigs(right(5))
	return render(t)
}

// progress shows how far something is that takes long.
type progress interface {
	// begin begins; total is how many steps there are, negative when nobody knows.
	begin(what string, total int64)
	describe(what string)
	add(n int)
	// end takes it away.
	end()
}

// hidden is a progress that nobody sees.
type hidden struct{}

func (hidden) begin(string, int64) {}
func (hidden) describe(string)     {}
func (hidden) add(int)             {}
func (hidden) end()                {}

// visibleProgress is a bar on a terminal, with rate and remaining time.
type visibleProgress struct {
	out   io.Writer
	total int64
	bar   *progressbar.ProgressBar
}

func newProgress(out io.Writer) *visibleProgress { return &visibleProgress{out: out} }

func (p *visibleProgress) begin(what string, total int64) {
	p.total = total
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(total >= 0),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("sessions"),
		progressbar.OptionSetPredictTime(total >= 0),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetWidth(20),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own: it turns with the work
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true), // starts its clock, too
	)
}

func (p *visibleProgress) describe(what string) { p.bar.Describe(what) }

// add moves the total when more went than was counted: more may become due meanwhile.
func (p *visibleProgress) add(n int) {
	if p.total >= 0 {
		if now := p.bar.State().CurrentNum + int64(n); now > p.total {
			p.total = now + 1
			p.bar.ChangeMax64(p.total)
		}
	}
	_ = p.bar.Add(n) // a terminal that cannot be written to is no reason to stop
}

func (p *visibleProgress) end() { _ = p.bar.Clear() }

func isTerminal(stream any) bool {
	file, isFile := stream.(*os.File)
	return isFile && term.IsTerminal(int(file.Fd()))
}

// counted writes a number of things: 1 session, 2 sessions. The plural adds an s unless it is given.
func counted(n int64, singular string, plural ...string) string {
	switch {
	case n == 1:
		return "1 " + singular
	case len(plural) > 0:
		return fmt.Sprintf("%d %s", n, plural[0])
	default:
		return fmt.Sprintf("%d %ss", n, singular)
	}
}

// percent writes a share, rounded up: what is above a threshold must not be shown as just there.
func percent(share float64) string { return fmt.Sprintf("%.0f %%", math.Ceil(share*100-1e-9)) }

// plain writes a duration without the units that say nothing: 10m rather than 10m0s.
func plain(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
