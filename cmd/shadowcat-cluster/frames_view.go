package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// framesOutput writes frames as they come.
type framesOutput struct {
	stdout, stderr io.Writer
	isTable        bool
	begun          bool // the header is written
}

// The widths of the columns that are cut; the whole line fits into 100 columns.
const (
	maxMethodColumns = 31
	maxIDColumns     = 10
)

// framesRow is the form of a line of the table. Its columns do not depend on what is in them, so that lines can be written one by one.
const framesRow = "%-18s  %-8s  %-*s  %-*s  %8s  %7s  %s"

// write writes frames.
func (o *framesOutput) write(frames []cluster.Frame) error {
	var b strings.Builder
	if o.isTable && !o.begun {
		o.begun = true
		b.WriteString(framesLine("TIME", "FROM", "METHOD", "ID", "SIZE", "LATENCY", "STATUS"))
	}
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	for _, f := range frames {
		if o.isTable {
			b.WriteString(frameLine(f))
		} else if err := encoder.Encode(newFrameView(f)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(o.stdout, b.String())
	return err
}

// note says something beside the frames: in the table, or where it is in no program's way.
func (o *framesOutput) note(what string) error {
	to, space := o.stderr, ""
	if o.isTable {
		to = o.stdout
	}
	if o.begun {
		space = "\n"
	}
	_, err := fmt.Fprintln(to, space+what)
	return err
}

func framesLine(at, from, method, id, size, latency, status string) string {
	line := fmt.Sprintf(framesRow, at, from, maxMethodColumns, method, maxIDColumns, id, size, latency, status)
	return strings.TrimRight(line, " ") + "\n"
}

func frameLine(f cluster.Frame) string {
	status, latency, id, method := "", "", "", ""
	if f.Status != 0 {
		status, latency = strconv.Itoa(f.Status), took(f.Latency)
	}
	if f.MessageID != "" {
		id = text.Snip(visible(f.MessageID), maxIDColumns, "…")
	}
	if f.Method != "" {
		method = text.Snip(visible(f.Method), maxMethodColumns, "…")
	}
	return framesLine(f.At.UTC().Format("01-02 15:04:05.000"), visible(string(f.Direction)), method, id, strconv.Itoa(f.Size), latency, status)
}

// took writes how long something took, in two or three digits.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return roughly(d)
	}
}

// frameView is the JSON of one frame.
type frameView struct {
	Number    int64           `json:"number"`
	At        string          `json:"at"`
	Direction string          `json:"direction"`
	Method    string          `json:"method"`
	ID        json.RawMessage `json:"id"`         // a string or a number; null: it has none
	Size      int             `json:"size"`       // bytes
	Status    *int            `json:"status"`     // null: it is no answer
	LatencyMS *float64        `json:"latency_ms"` // likewise
	Era       string          `json:"era"`
	Replica   string          `json:"replica"`
	Payload   json.RawMessage `json:"payload,omitempty"`
}

// recordedEra is the era of all that is recorded: what has no session has no recording.
const recordedEra = "session"

func newFrameView(f cluster.Frame) frameView {
	view := frameView{
		Number: f.Number, At: timestamp(f.At), Direction: string(f.Direction), Method: f.Method, ID: json.RawMessage("null"), Size: f.Size,
		Era: recordedEra, Replica: f.Replica,
	}
	switch {
	case f.MessageID == "":
	case json.Valid([]byte(f.MessageID)):
		view.ID = json.RawMessage(f.MessageID)
	default: // it was cut
		view.ID, _ = json.Marshal(strings.Trim(f.MessageID, `"`)) // a string can be written
	}
	if f.Status != 0 {
		ms := float64(f.Latency.Microseconds()) / 1000
		view.Status, view.LatencyMS = &f.Status, &ms
	}
	if json.Valid(f.Payload) {
		view.Payload = f.Payload
	}
	return view
}

// byTime puts frames that several replicas have written into the order in which their messages passed. Those of one replica stay in
// order, whatever their times: each of its calls to the store took its own time.
func byTime(frames []cluster.Frame) []cluster.Frame {
	type placed struct {
		cluster.Frame

		at time.Time
	}
	latest := make(map[string]time.Time)
	all := make([]placed, 0, len(frames))
	for _, f := range frames {
		at := f.At
		if at.Before(latest[f.Replica]) {
			at = latest[f.Replica]
		}
		latest[f.Replica] = at
		all = append(all, placed{f, at})
	}
	slices.SortStableFunc(all, func(a, b placed) int { return a.at.Compare(b.at) })
	sorted := make([]cluster.Frame, 0, len(all))
	for _, p := range all {
		sorted = append(sorted, p.Frame)
	}
	return sorted
}
