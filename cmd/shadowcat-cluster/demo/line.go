package demo

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// line is what the demo shows of one finished request. It holds names and numbers only, no payload and no token.
type line struct {
	at       time.Time
	replica  int    // from 0
	session  string // the ID, empty for a request without a session
	verb     string // the HTTP method
	rpc      string // the JSON-RPC method, empty if the request carried none
	status   int
	duration time.Duration
}

// Widths of the columns, in characters. The widest method that the protocol has is notifications/initialized; a longer
// one is cut.
const (
	timeWidth     = len("15:04:05")
	replicaWidth  = len("replica-16")
	fullIDWidth   = len("0198c0de-0000-7000-8000-000000000000")
	shortIDWidth  = len(".") + len("000000000000")
	methodWidth   = len("notifications/initialized")
	statusWidth   = len("code")
	durationWidth = len("59m59s")
	gap           = "  "

	// fullWidth is how many columns a line takes that shows the whole session ID.
	fullWidth = timeWidth + replicaWidth + fullIDWidth + methodWidth + statusWidth + durationWidth + 5*len(gap)
)

// style is how lines are written: it depends on where they go.
type style struct {
	colour bool
	// shortIDs shows the last group of a session's ID only. It is the random part: the first groups are a clock, and much
	// alike in all sessions of one demo.
	shortIDs bool
}

// styleFor returns the style for a terminal of this many columns, or for a file or pipe if columns is 0: full IDs
// then, so that they can be searched for.
func styleFor(columns int, colour bool) style {
	return style{colour: colour, shortIDs: columns > 0 && columns < fullWidth}
}

// header names the columns.
func (s style) header() string {
	return s.paint(faint, s.row("TIME", "REPLICA", "SESSION", "METHOD", "CODE", "TOOK"))
}

// format writes a line without its newline.
func (s style) format(l line) string {
	cells := [...]cell{
		{text: l.at.Format(time.TimeOnly), width: timeWidth, colour: faint},
		{text: replicaName(l.replica), width: replicaWidth, colour: replicaColours[l.replica%len(replicaColours)]},
		{text: s.sessionID(l.session), width: s.idWidth(), colour: sessionColour(l.session)},
		{text: methodOf(l), width: methodWidth},
		{text: strconv.Itoa(l.status), width: statusWidth, colour: statusColour(l.status)},
		{text: formatDuration(l.duration), width: durationWidth, right: true, colour: faint},
	}
	return s.join(cells[:])
}

func (s style) row(time, replica, session, method, status, duration string) string {
	return style{}.join([]cell{
		{text: time, width: timeWidth},
		{text: replica, width: replicaWidth},
		{text: session, width: s.idWidth()},
		{text: method, width: methodWidth},
		{text: status, width: statusWidth},
		{text: duration, width: durationWidth, right: true},
	})
}

func (s style) idWidth() int {
	if s.shortIDs {
		return shortIDWidth
	}
	return fullIDWidth
}

func (s style) sessionID(id string) string {
	if id == "" {
		return "-"
	}
	if s.shortIDs && len(id) == fullIDWidth {
		return "…" + id[fullIDWidth-shortIDWidth+1:]
	}
	return id
}

type cell struct {
	text   string
	width  int
	right  bool
	colour colour
}

func (s style) join(cells []cell) string {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteString(gap)
		}
		shown := cut(c.text, c.width)
		padding := strings.Repeat(" ", c.width-utf8.RuneCountInString(shown))
		if c.right {
			b.WriteString(padding)
		}
		b.WriteString(s.paint(c.colour, shown))
		if !c.right {
			b.WriteString(padding)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// cut shortens text to width characters, the last of which then says so.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// replicaName is the name of a replica, counted from 0: the first is replica-1.
func replicaName(index int) string { return fmt.Sprintf("replica-%d", index+1) }

// methodOf says what the request was: its JSON-RPC method, or what stands in for one.
func methodOf(l line) string {
	switch {
	case l.rpc != "":
		return l.rpc
	case l.verb == http.MethodGet:
		return "(GET stream)"
	case l.verb == http.MethodDelete:
		return "(DELETE session)"
	case l.verb == http.MethodPost && l.status == http.StatusAccepted:
		return "(answer to the server)"
	default:
		return "(" + l.verb + ")"
	}
}

// formatDuration writes d in at most six characters, with the precision that a person reads.
func formatDuration(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 9.95:
		return fmt.Sprintf("%.1fms", max(ms, 0))
	case ms < 999.5:
		return fmt.Sprintf("%.0fms", ms)
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}

// colour is the parameter of an ANSI "select graphic rendition" sequence; empty is none. The sixteen basic colours are
// used and no others, so that a terminal's own theme decides how they look.
type colour string

const (
	faint  colour = "2"
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// Replicas and sessions take different colours: a session that wanders shows as one colour beside many.
var (
	replicaColours = []colour{"36", "35", "34", "96", "95", "94"}
	sessionColours = []colour{"", "33", "32", "93", "92", "37"}
)

func sessionColour(id string) colour {
	if id == "" {
		return faint
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id))
	return sessionColours[hash.Sum32()%uint32(len(sessionColours))]
}

func statusColour(status int) colour {
	switch {
	case status >= 500:
		return red
	case status >= 400:
		return yellow
	default:
		return green
	}
}

func (s style) paint(c colour, text string) string {
	if !s.colour || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}
