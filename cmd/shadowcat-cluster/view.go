package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// The JSON forms are what scripts rely on: fields may be added, none may change or go.

// pageView is the JSON of session list.
type pageView struct {
	Sessions []sessionView `json:"sessions"`
	Next     *string       `json:"next"` // null on the last page
}

// sessionView is the JSON of one session. It leaves out what is a credential: the upstream's session id.
type sessionView struct {
	ID             string  `json:"id"`
	Status         string  `json:"status"`
	Principal      string  `json:"principal"`
	Upstream       string  `json:"upstream"`
	Endpoint       string  `json:"endpoint"`
	Revision       string  `json:"revision"`
	CreatedAt      string  `json:"created_at"`
	LastActivityAt string  `json:"last_activity_at"`
	DeadlineAt     *string `json:"deadline_at"` // null: never
	Requests       int64   `json:"requests"`
	Pending        int     `json:"pending"`
}

// detailView is the JSON of session show.
type detailView struct {
	sessionView

	Version int64      `json:"version"`
	Client  clientView `json:"client"`

	InFlight []pendingView  `json:"in_flight"`
	Timeline []occasionView `json:"timeline"`
	Frames   recordedView   `json:"frames"`
}

type clientView struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// terminationView is the JSON of session terminate.
type terminationView struct {
	Sessions []termination `json:"sessions"`
}

type termination struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"` // terminated, ended_before, not_found
	Status  string `json:"status"`  // empty when not found
}

// statsView is the JSON of stats.
type statsView struct {
	Live         int64                    `json:"live"`
	Due          int64                    `json:"due"`
	Sessions     map[cluster.Status]int64 `json:"sessions"`
	CreatedTotal int64                    `json:"created_total"`
	EndedTotal   map[cluster.Status]int64 `json:"ended_total"`
}

func newPageView(page cluster.Page) pageView {
	view := pageView{Sessions: make([]sessionView, 0, len(page.Sessions))}
	for _, s := range page.Sessions {
		view.Sessions = append(view.Sessions, newSessionView(s, page.Now))
	}
	if page.Next != "" {
		view.Next = &page.Next
	}
	return view
}

func newSessionView(s cluster.Session, now time.Time) sessionView {
	view := sessionView{
		ID:             s.ID.String(),
		Status:         string(statusAt(s, now)),
		Principal:      string(s.Principal),
		Upstream:       s.Upstream,
		Endpoint:       shownEndpoint(s.Endpoint),
		Revision:       s.Revision,
		CreatedAt:      timestamp(s.CreatedAt),
		LastActivityAt: timestamp(s.LastActivityAt),
		Requests:       s.Requests,
		Pending:        s.Pending,
	}
	if !s.DeadlineAt.IsZero() {
		deadline := timestamp(s.DeadlineAt)
		view.DeadlineAt = &deadline
	}
	return view
}

func newStatsView(stats cluster.Stats) statsView {
	return statsView{
		Live:         live(stats),
		Due:          stats.Due,
		Sessions:     stats.ByStatus,
		CreatedTotal: stats.Created,
		EndedTotal:   stats.Ended,
	}
}

func live(stats cluster.Stats) int64 {
	return stats.ByStatus[cluster.StatusInitializing] + stats.ByStatus[cluster.StatusActive]
}

// statusAt is the status by the one rule of time: past its end a session is expired, swept or not.
func statusAt(s cluster.Session, now time.Time) cluster.Status {
	if s.Status.Live() && s.EndedAtOrBefore(now) {
		return cluster.StatusExpired
	}
	return s.Status
}

// isDue reports whether a session is past its end, but its record still waits for cleanup to say so. The store may show it
// as expired already; what it does not have is a moment at which it was ended.
func isDue(s cluster.Session, now time.Time) bool {
	return s.EndedAt.IsZero() && statusAt(s, now) == cluster.StatusExpired
}

// timestamp writes RFC 3339 in UTC with milliseconds, which is what the store knows.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// shownEndpoint drops what may be a credential from an address, which may be a URL or host:port.
func shownEndpoint(address string) string {
	if !strings.ContainsAny(address, "@?#") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "(unreadable)" // where the credentials end cannot be told
	}
	return withoutSecrets(u)
}

// maxUpstreamColumns keeps a list within 100 columns.
const maxUpstreamColumns = 12

// pageTable shows the answer to q.
func pageTable(page cluster.Page, q cluster.Query) string {
	if len(page.Sessions) == 0 {
		kind, suffix := "live", "."
		if q.Ended {
			kind = "ended"
		}
		if q.Status != "" || q.Principal != "" || q.IdleFor > 0 || q.OlderThan > 0 {
			suffix = " that the conditions select."
		}
		return "No " + kind + " sessions" + suffix
	}
	deadline := "ENDS"
	if q.Ended {
		deadline = "PURGED"
	}
	t := newTable("ID", "STATUS", "UPSTREAM", "CREATED", "LAST SEEN", deadline, "REQS")
	due := 0
	for _, s := range page.Sessions {
		end := until(s.DeadlineAt, page.Now)
		if isDue(s, page.Now) {
			due++
			end = ago(s.DeadlineAt, page.Now)
		}
		t.AppendRow(table.Row{
			s.ID, statusAt(s, page.Now), text.Snip(visible(s.Upstream), maxUpstreamColumns, "…"), ago(s.CreatedAt, page.Now),
			ago(s.LastActivityAt, page.Now), end, s.Requests,
		})
	}
	t.SetColumnConfigs(right(7))
	rendered := render(t)
	if due > 0 {
		rendered += "\n\nExpired sessions have ended; their records wait for cleanup."
	}
	if page.Next != "" {
		rendered += "\n\nThere are more: --cursor " + page.Next
	}
	return rendered
}

func detailTable(s cluster.Session) string {
	now := time.Now()
	deadline, distance := "ends", until(s.DeadlineAt, now)
	switch {
	case isDue(s, time.Time{}): // by the store's clock, not by ours
		deadline, distance = "ended", ago(s.DeadlineAt, now)+"; the record waits for cleanup"
	case s.Status.Ended():
		deadline = "purged"
	}
	t := newTable()
	t.AppendRows([]table.Row{
		{"id", s.ID},
		{"status", s.Status},
		{"principal", visible(string(s.Principal))},
		{"upstream", visible(s.Upstream)},
		{"endpoint", visible(shownEndpoint(s.Endpoint))},
		{"revision", visible(s.Revision)},
		{"client", strings.TrimSpace(visible(s.ClientName) + " " + strings.TrimPrefix(visible(s.ClientVersion), "-"))},
		{deadline, moment(s.DeadlineAt, distance)},
		{"requests", s.Requests},
		{"pending", s.Pending},
		{"version", s.Version},
	})
	return render(t)
}

// moment writes a time and how far away it is.
func moment(t time.Time, distance string) string {
	if t.IsZero() {
		return distance
	}
	return timestamp(t) + "  " + distance
}

func terminationLines(outcomes []termination) string {
	lines := make([]string, 0, len(outcomes))
	for _, o := range outcomes {
		switch o.Outcome {
		case "ended_before":
			lines = append(lines, fmt.Sprintf("%s had ended before: %s", o.ID, o.Status))
		case "not_found":
			lines = append(lines, o.ID+" not found")
		default:
			lines = append(lines, o.ID+" terminated")
		}
	}
	return strings.Join(lines, "\n")
}

func statsTable(stats cluster.Stats) string {
	t := newTable("STATUS", "SESSIONS", "ALL TIME")
	for _, status := range cluster.Statuses() {
		total := ""
		if status.Ended() {
			total = strconv.FormatInt(stats.Ended[status], 10)
		}
		t.AppendRow(table.Row{status, stats.ByStatus[status], total})
	}
	t.SetColumnConfigs(right(2, 3))
	return render(t) + fmt.Sprintf("\n\n%d live, %d of them past their end. %d created in all.", live(stats), stats.Due, stats.Created)
}
