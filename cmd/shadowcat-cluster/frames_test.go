package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Frames of several replicas are written when each gets to it.
func TestFramesAreShownInTheOrderOfTheirMessages(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)) }
	var got strings.Builder
	for _, f := range byTime([]cluster.Frame{
		{Method: "b", Replica: "1", At: at(20)},
		{Method: "c", Replica: "1", At: at(30)},
		{Method: "a", Replica: "2", At: at(10)},
		{Method: "d", Replica: "1", At: at(29)}, // its replica wrote it later
		{Method: "e", Replica: "2", At: at(40)},
	}) {
		got.WriteString(f.Method)
	}
	if got.String() != "abcde" {
		t.Errorf("the order is %s", &got)
	}
}

func TestFramesFitInAHundredColumnsAndCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2J\u202e\u009b\r\n"
	f := cluster.Frame{
		At: time.Now(), Direction: cluster.Direction(evil), Method: evil + strings.Repeat("m", 100), MessageID: `"` + evil + strings.Repeat("i", 50) + `"`,
		Size: 64 << 20, Status: 503, Latency: 59 * time.Second,
	}
	line := frameLine(f)
	if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\u202e\u009b\r\n") {
		t.Errorf("a control character reaches the terminal: %q", line)
	}
	f.Direction = cluster.FromUpstream
	if n := len([]rune(strings.TrimSuffix(frameLine(f), "\n"))); n > 100 {
		t.Errorf("%d columns: %s", n, frameLine(f))
	}
}

// Whatever a store holds, a line is valid JSON.
func TestALineOfARecordingIsJSONWhateverIsStored(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"": "null", "7": "7", `"7"`: `"7"`, `"cut in the mid`: `"cut in the mid"`, "\"\x00\u202e": "\"\\u0000\u202e\"", "nonsense": `"nonsense"`,
	} {
		var b strings.Builder
		out := framesOutput{stdout: &b}
		if err := out.write([]cluster.Frame{{MessageID: id, Payload: []byte(`{"half`)}}); err != nil {
			t.Fatal(err)
		}
		var line struct {
			ID      json.RawMessage `json:"id"`
			Payload json.RawMessage `json:"payload"`
		}
		if err := json.Unmarshal([]byte(b.String()), &line); err != nil || string(line.ID) != want || line.Payload != nil {
			t.Errorf("id %q: %s (%v); want the id %s and no payload", id, b.String(), err, want)
		}
	}
}

func TestTheTimelineIsOrderedByTime(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Date(2026, 1, 2, 3, 4, s, 0, time.UTC) }
	session := cluster.Session{CreatedAt: at(1), LastActivityAt: at(2), EndedAt: at(9), Revision: "2025-11-25", Status: cluster.StatusClosed, Version: 4}
	for name, c := range map[string]struct {
		activated time.Time
		change    func(*cluster.Session)
		want      []string
	}{
		"activity that was known before the activation": {
			activated: at(3), want: []string{"created", "last activity", "activated", "upstream session lost and made anew: once", "ended: closed"},
		},
		"all at the same time": {
			activated: at(1),
			change:    func(s *cluster.Session) { s.LastActivityAt, s.EndedAt = at(2), at(2) },
			want:      []string{"created", "activated", "upstream session lost and made anew: once", "last activity", "ended: closed"},
		},
		"an activation nobody knows the time of": {
			want: []string{"created", "activated", "upstream session lost and made anew: once", "last activity", "ended: closed"},
		},
		"activity that was reported after the end": {
			activated: at(1),
			change:    func(s *cluster.Session) { s.LastActivityAt, s.Version = at(10), 3 },
			want:      []string{"created", "activated", "ended: closed", "last activity"},
		},
	} {
		d := detail{session: session, recorded: recorded{activated: c.activated}}
		if c.change != nil {
			c.change(&d.session)
		}
		var got []string
		for _, o := range d.timeline() {
			got = append(got, o.what)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTextInATimelineCannotDriveTheTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[2J\u202e\r"
	d := detail{pending: []cluster.PendingRequest{{Key: "c:" + evil, Owner: evil}}}
	if shown := detailTables(d); strings.ContainsAny(shown, evil[:1]+"\u202e\r") {
		t.Errorf("a control character reaches the terminal: %q", shown)
	}
}
