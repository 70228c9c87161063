package main

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestTextFromOutsideCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2J\u202ename\r\n"
	s := cluster.Session{Status: cluster.StatusActive, Upstream: evil, Endpoint: evil, Revision: evil, ClientName: evil, ClientVersion: evil}
	for _, table := range []string{detailTable(s), pageTable(cluster.Page{Sessions: []cluster.Session{s}}, cluster.Query{})} {
		if strings.ContainsAny(table, "\x1b\u202e\r") {
			t.Errorf("a control character reaches the terminal: %q", table)
		}
	}
}

func TestAListFitsInAHundredColumns(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := cluster.Session{
		Status: cluster.StatusInitializing, Upstream: strings.Repeat("n", 63), Requests: 9999,
		CreatedAt: now.Add(-59 * time.Minute), LastActivityAt: now.Add(-59 * time.Minute), DeadlineAt: now.Add(59 * time.Minute),
	}
	for line := range strings.Lines(pageTable(cluster.Page{Sessions: []cluster.Session{s}, Now: now}, cluster.Query{})) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestALiveSessionPastItsEndIsShownAsExpired(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := cluster.Session{Status: cluster.StatusActive, DeadlineAt: now}
	if got := newPageView(cluster.Page{Sessions: []cluster.Session{s}, Now: now}).Sessions[0]; got.Status != "expired" {
		t.Errorf("status is %s", got.Status)
	}
	s.DeadlineAt = time.Time{}
	if got := newSessionView(s, now); got.Status != "active" || got.DeadlineAt != nil {
		t.Errorf("without an end: %+v", got)
	}
}

// The store shows such a session as expired, and its end is not when its record is purged.
func TestASessionThatWaitsForCleanupIsShownWithItsEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	end := now.Add(-3 * time.Minute)
	s := cluster.Session{Status: cluster.StatusExpired, CreatedAt: now.Add(-time.Hour), LastActivityAt: now.Add(-time.Hour), DeadlineAt: end}
	detail := detailTable(s)
	if !strings.Contains(detail, "\nended      "+timestamp(end)+"  3m ago; the record waits for cleanup\n") ||
		!strings.Contains(detail, "\nstatus     expired\n") || strings.Contains(detail, "purged") {
		t.Errorf("show:\n%s", detail)
	}
	for _, s.Status = range []cluster.Status{cluster.StatusActive, cluster.StatusExpired} {
		list := pageTable(cluster.Page{Sessions: []cluster.Session{s}, Now: now}, cluster.Query{})
		if !strings.Contains(list, "3m ago") || !strings.Contains(list, "expired") || !strings.Contains(list, "wait for cleanup") {
			t.Errorf("list, %s:\n%s", s.Status, list)
		}
	}
	swept := cluster.Session{Status: cluster.StatusExpired, EndedAt: end, DeadlineAt: now.Add(10*time.Minute + time.Second)}
	if detail := detailTable(swept); !strings.Contains(detail, "\npurged ") || !strings.Contains(detail, "in 10m") {
		t.Errorf("show, ended:\n%s", detail)
	}
	if list := pageTable(cluster.Page{Sessions: []cluster.Session{swept}, Now: now}, cluster.Query{Ended: true}); strings.Contains(list, "cleanup") {
		t.Errorf("list, ended:\n%s", list)
	}
}

func TestEndpointsAreShownWithoutCredentials(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                  "",
		"127.0.0.1:9000":                    "127.0.0.1:9000",
		"files.internal":                    "files.internal",
		"http://files:8080/mcp":             "http://files:8080/mcp",
		"http://files:8080/mcp?key=hunter2": "http://files:8080/mcp",
		"files:8080?key=hunter2":            "(unreadable)",
		"http://user:hunter2@files/mcp":     "http://files/mcp",
		"user:hunter2@127.0.0.1:9000":       "(unreadable)",
		"http://user:hun/ter2@files/mcp%zz": "(unreadable)",
	} {
		if got := shownEndpoint(address); got != want {
			t.Errorf("shownEndpoint(%q) = %q, want %q", address, got, want)
		}
	}
}
