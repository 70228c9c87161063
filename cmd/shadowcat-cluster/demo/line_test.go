package demo

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const someID = "0198c0de-0000-7000-8000-f3a9c41d0b72"

var someTime = time.Date(2026, 9, 1, 12, 30, 45, 0, time.UTC)

func TestLineFormat(t *testing.T) {
	t.Parallel()
	initialize := line{at: someTime, session: someID, verb: http.MethodPost, rpc: "initialize", status: 200, duration: 12345 * time.Microsecond}
	widest := line{
		at: someTime, replica: 15, session: someID, verb: http.MethodPost, rpc: "notifications/initialized",
		status: 202, duration: 59*time.Minute + 59*time.Second,
	}
	for name, test := range map[string]struct {
		style style
		line  line
		want  string
	}{
		"full IDs": {
			style{},
			initialize,
			"12:30:45  replica-1   0198c0de-0000-7000-8000-f3a9c41d0b72  initialize                 200     12ms",
		},
		"short IDs": {
			style{shortIDs: true},
			initialize,
			"12:30:45  replica-1   …f3a9c41d0b72  initialize                 200     12ms",
		},
		"widest": {
			style{},
			widest,
			"12:30:45  replica-16  0198c0de-0000-7000-8000-f3a9c41d0b72  notifications/initialized  202   59m59s",
		},
		"no session": {
			style{shortIDs: true},
			line{at: someTime, verb: http.MethodPost, rpc: "server/discover", status: 400, duration: time.Millisecond},
			"12:30:45  replica-1   -              server/discover            400    1.0ms",
		},
		"method too long": {
			style{shortIDs: true},
			line{at: someTime, rpc: "notifications/elicitation/complete", status: 202},
			"12:30:45  replica-1   -              notifications/elicitatio…  202    0.0ms",
		},
		"stream": {
			style{shortIDs: true},
			line{at: someTime, session: someID, verb: http.MethodGet, status: 200, duration: 90 * time.Second},
			"12:30:45  replica-1   …f3a9c41d0b72  (GET stream)               200    1m30s",
		},
		"answer": {
			style{shortIDs: true},
			line{at: someTime, session: someID, verb: http.MethodPost, status: 202},
			"12:30:45  replica-1   …f3a9c41d0b72  (answer to the server)     202    0.0ms",
		},
		"unreadable": {
			style{shortIDs: true},
			line{at: someTime, session: someID, verb: http.MethodPost, status: 400},
			"12:30:45  replica-1   …f3a9c41d0b72  (POST)                     400    0.0ms",
		},
		"colour": {
			style{shortIDs: true, colour: true},
			line{at: someTime, verb: http.MethodDelete, status: 503, duration: time.Second},
			"\x1b[2m12:30:45\x1b[0m  \x1b[36mreplica-1\x1b[0m   \x1b[2m-\x1b[0m              (DELETE session)           \x1b[31m503\x1b[0m     \x1b[2m1.0s\x1b[0m",
		},
	} {
		if got := test.style.format(test.line); got != test.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, test.want)
		}
	}
	if got := utf8.RuneCountInString(style{}.format(widest)); got != fullWidth || got > 100 {
		t.Errorf("the widest line takes %d columns, want %d and at most 100", got, fullWidth)
	}
	if got := utf8.RuneCountInString(style{shortIDs: true}.format(widest)); got > 80 {
		t.Errorf("the widest short line takes %d columns, want at most 80", got)
	}
}

func TestHeaderNamesTheColumns(t *testing.T) {
	t.Parallel()
	want := "TIME      REPLICA     SESSION        METHOD                     CODE    TOOK"
	if got := (style{shortIDs: true}).header(); got != want {
		t.Errorf(" got %q\nwant %q", got, want)
	}
}

func TestIDsAreShortOnNarrowTerminalsOnly(t *testing.T) {
	t.Parallel()
	for columns, want := range map[int]bool{0: false, 80: true, 98: true, 99: false, 200: false} {
		if got := styleFor(columns, false).shortIDs; got != want {
			t.Errorf("%d columns: short IDs %v, want %v", columns, got, want)
		}
	}
}

func TestDurationsAreShortAndRounded(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second:                           "0.0ms",
		400 * time.Microsecond:                 "0.4ms",
		9949 * time.Microsecond:                "9.9ms",
		9950 * time.Microsecond:                "10ms",
		999 * time.Millisecond:                 "999ms",
		999600 * time.Microsecond:              "1.0s",
		59949 * time.Millisecond:               "59.9s",
		59950 * time.Millisecond:               "1m00s",
		time.Hour - time.Second:                "59m59s",
		time.Hour - 500*time.Millisecond:       "1h00m",
		24*time.Hour - time.Minute/2:           "24h00m",
		99*time.Hour + 59*time.Minute:          "99h59m",
		3*time.Minute + 5*time.Second + 499999: "3m05s",
	} {
		if got := formatDuration(d); got != want || len(got) > durationWidth {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}

func TestPrinterNeverBlocksARequest(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPrinter(&out, style{})
	for range printQueue + 3 { // nobody reads yet
		p.add(line{at: someTime, rpc: "ping", status: 200})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.run(ctx); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != printQueue+1 || lines[0] != "(3 lines not shown)" {
		t.Errorf("%d lines, the first is %q", len(lines), lines[0])
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestPrinterStopsWhenItsOutputBreaks(t *testing.T) {
	t.Parallel()
	p := newPrinter(brokenWriter{}, style{})
	p.add(line{})
	if err := p.run(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("run returned %v", err)
	}
}
