package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrEventTooLarge means that a server-sent event is larger than its reader allows.
var ErrEventTooLarge = errors.New("server-sent event is too large")

// Event is a server-sent event.
type Event struct {
	ID    string // empty: none
	Name  string // empty means "message"
	Data  []byte // lines are joined by \n
	Retry string // decimal milliseconds, empty: none
}

func (e Event) empty() bool { return e.ID == "" && e.Name == "" && len(e.Data) == 0 && e.Retry == "" }

// EventReader reads server-sent events as the WHATWG HTML standard interprets them (section 9.2.6), with one difference:
// events without data are returned too, since the transport primes streams with them.
type EventReader struct {
	r       *bufio.Reader
	max     int
	started bool
	skipLF  bool // the last line ended in \r: a \n that follows belongs to it
}

// NewEventReader returns a reader of events of at most maxEvent bytes, comments and field names included.
func NewEventReader(r io.Reader, maxEvent int) *EventReader {
	return &EventReader{r: bufio.NewReader(r), max: maxEvent}
}

// Next returns the next event. At the end of the stream the error is io.EOF, and what is left of an unfinished event is
// dropped, as the standard demands. Other errors are [ErrEventTooLarge] and those of the stream.
func (r *EventReader) Next() (Event, error) {
	var e Event
	size, hasData := 0, false
	for {
		line, err := r.line(r.max - size)
		if err != nil {
			return Event{}, err
		}
		size += len(line) + 1
		if len(line) == 0 {
			if e.empty() {
				size = 0 // a comment, or an empty line between events
				continue
			}
			return e, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if hasData {
				e.Data = append(e.Data, '\n')
			}
			hasData = true
			e.Data = append(e.Data, value...)
		case "event":
			e.Name = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				e.ID = string(value)
			}
		case "retry":
			if isInteger(value) && value[0] != '-' {
				e.Retry = string(value)
			}
		}
	}
}

// line reads one line of at most limit bytes, without its end: \n, \r\n or \r. A line that the stream ends in is dropped.
func (r *EventReader) line(limit int) ([]byte, error) {
	var line []byte
	for {
		c, err := r.r.ReadByte()
		if err != nil {
			return nil, err
		}
		skip := r.skipLF && c == '\n'
		r.skipLF = false
		switch {
		case skip:
		case c == '\n' || c == '\r':
			r.skipLF = c == '\r'
			if !r.started {
				r.started = true
				line = bytes.TrimPrefix(line, []byte("\uFEFF"))
			}
			return line, nil
		case len(line) >= limit:
			return nil, fmt.Errorf("%w: over %d bytes", ErrEventTooLarge, r.max)
		default:
			line = append(line, c)
		}
	}
}

// WriteEvent writes one event, in a single Write. It refuses an ID, Name or Retry that would break out of its line.
func WriteEvent(w io.Writer, e Event) error {
	text, err := AppendEvent(nil, e)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("writing server-sent event: %w", err)
	}
	return nil
}

// AppendEvent appends the text of one event to dst. It refuses an ID, Name or Retry that would break out of its line; then dst
// is returned as it was.
func AppendEvent(dst []byte, e Event) ([]byte, error) {
	if strings.ContainsAny(e.ID, "\r\n\x00") || strings.ContainsAny(e.Name, "\r\n") || strings.ContainsAny(e.Retry, "\r\n") {
		return dst, errors.New("server-sent event: a line break in its id, name or retry")
	}
	field := func(name, value string) {
		if value != "" {
			dst = append(append(append(append(dst, name...), ": "...), value...), '\n')
		}
	}
	field("event", e.Name)
	field("id", e.ID)
	field("retry", e.Retry)
	data := e.Data
	if bytes.IndexByte(data, '\r') >= 0 {
		// The reader on the other side takes each of the three line ends for one; \n is what it gives back.
		data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	}
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		dst = append(append(append(dst, "data: "...), line...), '\n')
	}
	return append(dst, '\n'), nil
}
