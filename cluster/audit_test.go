package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// auditor remembers audit records.
type auditor struct {
	mu      sync.Mutex
	records []cluster.Audit
}

func (a *auditor) Audited(record cluster.Audit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.records = append(a.records, record)
}

// told are the records of a session, each in a few words.
func (a *auditor) told(id cluster.ID) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var told []string
	for _, r := range a.records {
		if r.Session == id {
			told = append(told, fmt.Sprintf("%s by %s: %s", r.Action, r.Actor, r.Reason))
		}
	}
	return told
}

// audited is a manager whose records are kept, in the log, too.
type audited struct {
	*cluster.Manager

	auditor auditor
	log     bytes.Buffer
	ended   []cluster.Session
}

func (w *world) audited() *audited {
	w.t.Helper()
	a := &audited{}
	var err error
	a.Manager, err = cluster.NewManager(w.store, w.cfg, cluster.Options{
		ReplicaID: "r-1", Logger: slog.New(slog.NewJSONHandler(&a.log, nil)), Auditor: &a.auditor,
		Ended: func(s []cluster.Session) { a.ended = append(a.ended, s...) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// make is a session that has all that must not be told.
func (a *audited) make(t *testing.T) (cluster.Session, cluster.Token) {
	t.Helper()
	s, token, err := a.Create(t.Context(), cluster.NewSession{
		Upstream: "files", Endpoint: "http://user:hunter2@files:80/mcp", Principal: "ann", ClientName: "secret-client", Initialize: []byte(`{"secret":"init"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, token
}

func (a *audited) makeActive(t *testing.T) (cluster.Session, cluster.Token) {
	t.Helper()
	s, token := a.make(t)
	s, err := a.Activate(t.Context(), s, cluster.Activation{UpstreamSession: "secret-upstream", Revision: "2025-11-25"})
	if err != nil {
		t.Fatal(err)
	}
	return s, token
}

func wantTold(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +told):\n%s", what, diff)
	}
}

const (
	toldCreated   = "created by client: initialize"
	toldActivated = "activated by client: the upstream has answered"
)

func TestEachEndIsAuditedOnceWithWhoAndWhy(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a := w.audited()
		for status, want := range map[cluster.Status]string{
			cluster.StatusClosed:     "closed by client: the client has ended it",
			cluster.StatusTerminated: "terminated by operator: an operator has ended it",
			cluster.StatusFailed:     "failed by replica: it could not be initialized",
		} {
			s, _ := a.makeActive(t)
			if _, err := a.Terminate(t.Context(), s.ID, status); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Terminate(t.Context(), s.ID, cluster.StatusClosed); err == nil {
				t.Error("it ended twice")
			}
			wantTold(t, string(status), a.auditor.told(s.ID), toldCreated, toldActivated, want)
		}
		stillborn, _ := a.make(t)
		if _, err := a.Terminate(t.Context(), stillborn.ID, cluster.StatusFailed); err != nil {
			t.Fatal(err)
		}
		wantTold(t, "not initialized", a.auditor.told(stillborn.ID), toldCreated, "failed by replica: it could not be initialized")
	})
}

// A session that nobody has swept yet expires when someone ends it otherwise: that is told, too, and once.
func TestAnEndThatComesTooLateIsAuditedAsExpiry(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a := w.audited()
		s, _ := a.makeActive(t)
		w.pass(w.cfg.IdleTimeout + w.cfg.ReportSlack)
		for range 2 {
			if _, err := a.Terminate(t.Context(), s.ID, cluster.StatusClosed); err == nil {
				t.Error("it was closed")
			}
		}
		wantTold(t, "closed too late", a.auditor.told(s.ID), toldCreated, toldActivated, "expired by replica: past its end")
	})
}

func TestWhomACreationEndsIsAuditedAndTold(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxSessions, c.EvictMinIdle = 2, time.Second }, func(t *testing.T, w *world) {
		a := w.audited()
		oldest, _ := a.makeActive(t)
		w.pass(2 * time.Second)
		second, _ := a.makeActive(t)
		w.pass(2 * time.Second)
		third, _ := a.makeActive(t)
		wantTold(t, "evicted", a.auditor.told(oldest.ID), toldCreated, toldActivated, "evicted by replica: made room for a new session")
		w.pass(w.cfg.IdleTimeout + w.cfg.ReportSlack)
		fourth, _ := a.makeActive(t)
		for _, due := range []cluster.Session{second, third} {
			wantTold(t, "expired", a.auditor.told(due.ID), toldCreated, toldActivated, "expired by replica: past its end")
		}
		wantTold(t, "the new one", a.auditor.told(fourth.ID), toldCreated, toldActivated)
		if len(a.ended) != 3 || a.ended[0].ID != oldest.ID || a.ended[0].UpstreamSession != "secret-upstream" {
			t.Errorf("Ended was told of %+v", a.ended)
		}
	})
}

func TestWhatFailsIsNotAudited(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxSessions = 1 }, func(t *testing.T, w *world) {
		a := w.audited()
		s, _ := a.makeActive(t)
		if _, _, err := a.Create(t.Context(), cluster.NewSession{Upstream: "files"}); err == nil {
			t.Error("created beyond the cap")
		}
		if _, err := a.Activate(t.Context(), cluster.Session{ID: s.ID, Version: 9}, cluster.Activation{}); err == nil {
			t.Error("activated in the wrong version")
		}
		if n := len(a.auditor.records); n != 2 {
			t.Errorf("%d records, want 2: %v", n, a.auditor.records)
		}
	})
}

func TestAuditRecordsSayWhenAndByWhomAndHoldNoSecret(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a := w.audited()
		w.pass(time.Hour)
		s, token := a.makeActive(t)
		w.pass(time.Second)
		if _, err := a.Terminate(t.Context(), s.ID, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
		for i, r := range a.auditor.records {
			want := cluster.Audit{
				At: s.CreatedAt, Action: r.Action, Session: s.ID, Principal: "ann", Upstream: "files",
				Actor: cluster.ActorClient, By: a.Incarnation(), Reason: r.Reason,
			}
			if i == 2 {
				want.At = s.CreatedAt.Add(time.Second)
			}
			if diff := cmp.Diff(want, r); diff != "" {
				t.Errorf("record %d (-want +got):\n%s", i, diff)
			}
		}
		all := fmt.Sprintf("%+v\n%s", a.auditor.records, a.log.String())
		secret := strings.TrimPrefix(token.Reveal(), s.ID.String()+".")
		for _, hidden := range []string{secret, "hunter2", "secret-"} {
			if strings.Contains(all, hidden) {
				t.Errorf("%q is told in\n%s", hidden, all)
			}
		}
		wantLogged(t, &a.log, s.ID, "created", "activated", "closed")
	})
}

// wantLogged fails the test unless the log has just these lines, each with the fields of an audit record.
func wantLogged(t *testing.T, log *bytes.Buffer, id cluster.ID, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(log.String()) {
		var entry struct {
			Level     string `json:"level"`
			Msg       string `json:"msg"`
			Action    string `json:"action"`
			Session   string `json:"session"`
			Principal string `json:"principal"`
			Upstream  string `json:"upstream"`
			Actor     string `json:"actor"`
			By        string `json:"by"`
			Reason    string `json:"reason"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		got = append(got, entry.Action)
		if entry.Level != "INFO" || entry.Msg != "audit" || entry.Session != id.String() || entry.Principal != "ann" || entry.Upstream != "files" ||
			entry.Actor != "client" || !strings.HasPrefix(entry.By, "r-1/") || entry.Reason == "" {
			t.Errorf("the log says %s", line)
		}
	}
	wantTold(t, "the log", got, want...)
}

func TestATrailFillsInWhatIsNotSaid(t *testing.T) {
	t.Parallel()
	var seen auditor
	trail := cluster.Trail{Auditor: &seen, Actor: cluster.ActorReplica, By: "r/1"}
	trail.Record(cluster.Audit{Action: cluster.ActionRecovered})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	trail.Record(cluster.Audit{At: at, Action: cluster.ActionRecovered, Actor: cluster.ActorOperator, By: "x"})
	trail.Purged(cluster.ActorSweeper, "past its retention", cluster.ID{1}, cluster.ID{2})
	trail.Ended(cluster.ActorSweeper, "past its end", cluster.Session{Status: cluster.StatusExpired, EndedAt: at})
	var got []string
	for _, r := range seen.records {
		if r.At.IsZero() || r.At.Location() != time.UTC {
			t.Errorf("at %v", r.At)
		}
		got = append(got, fmt.Sprint(r.Action, " ", r.Actor, " ", r.By))
	}
	wantTold(t, "records", got, "recovered replica r/1", "recovered operator x", "purged sweeper r/1", "purged sweeper r/1", "expired sweeper r/1")
	if !seen.records[1].At.Equal(at) || !seen.records[4].At.Equal(at) {
		t.Error("a time was changed")
	}
	cluster.Trail{}.Record(cluster.Audit{Action: cluster.ActionClosed}) // writes nowhere
}

func TestActionsThatEndAreNamedLikeTheirStatus(t *testing.T) {
	t.Parallel()
	actions := make(map[string]bool)
	for _, action := range cluster.Actions() {
		actions[string(action)] = true
	}
	for _, status := range cluster.Statuses() {
		if status.Ended() && !actions[string(status)] {
			t.Errorf("no action is called %s", status)
		}
	}
}
