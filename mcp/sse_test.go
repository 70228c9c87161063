package mcp_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

func readAll(r io.Reader, limit int) ([]mcp.Event, error) {
	var events []mcp.Event
	reader := mcp.NewEventReader(r, limit)
	for {
		e, err := reader.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestEventReaderReadsAsTheStandardSays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, stream string
		want         []mcp.Event
	}{
		{"one event", "event: message\nid: 5\ndata: {}\n\n", []mcp.Event{{Name: "message", ID: "5", Data: []byte("{}")}}},
		{"three line ends", "data: a\r\n\r\ndata: b\r\rdata: c\n\n", []mcp.Event{{Data: []byte("a")}, {Data: []byte("b")}, {Data: []byte("c")}}},
		{"lines of data", "data: a\ndata\ndata:b\n\n", []mcp.Event{{Data: []byte("a\n\nb")}}},
		{"only the first space", "data:  a\n\n", []mcp.Event{{Data: []byte(" a")}}},
		{"comments and unknown fields", ": ok\n\n:\nfoo: bar\ndata: a\n\n", []mcp.Event{{Data: []byte("a")}}},
		{"priming event", "id: 1\ndata:\n\n", []mcp.Event{{ID: "1"}}},
		{"retry", "retry: 3000\n\nretry: -1\n\nretry: x\n\n", []mcp.Event{{Retry: "3000"}}},
		{"id with NUL is ignored", "id: a\x00b\ndata: a\n\n", []mcp.Event{{Data: []byte("a")}}},
		{"byte order mark", "\uFEFFdata: a\n\n", []mcp.Event{{Data: []byte("a")}}},
		{"unfinished event is dropped", "data: a\n\ndata: b\n", []mcp.Event{{Data: []byte("a")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := readAll(iotest.OneByteReader(strings.NewReader(tt.stream)), 1024)
			if !errors.Is(err, io.EOF) {
				t.Fatalf("err = %v, want EOF", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// endless never ends, and fails the test when it is read far beyond the limit.
type endless struct {
	t    *testing.T
	text string
	read int
}

func (r *endless) Read(p []byte) (int, error) {
	if r.read += len(p); r.read > 1<<20 {
		r.t.Error("read a megabyte of an event that may have a kilobyte")
		return 0, io.EOF
	}
	return copy(p, strings.Repeat(r.text, len(p)/len(r.text)+1)), nil
}

func TestEventReaderIsBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x", "data: x\n", ": comment\n", "\nx"} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := readAll(&endless{t: t, text: text}, 1024)
			if !errors.Is(err, mcp.ErrEventTooLarge) && text != "\nx" {
				t.Errorf("err = %v, want ErrEventTooLarge", err)
			}
		})
	}
}

func TestWriteEventRefusesToBreakOutOfALine(t *testing.T) {
	t.Parallel()
	for _, e := range []mcp.Event{{ID: "a\nb"}, {ID: "a\x00"}, {Name: "a\rb"}, {Retry: "1\n2"}} {
		if err := mcp.WriteEvent(io.Discard, e); err == nil {
			t.Errorf("WriteEvent(%+v) succeeded", e)
		}
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("event: message\nid: 1\nretry: 5\ndata: {\"a\":\ndata: 1}\n\n"))
	f.Add([]byte(":\r\rdata\r\n\r\n\uFEFFid: \x00\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		events, err := readAll(bytes.NewReader(stream), 4096)
		if err == nil {
			t.Fatal("no error at the end")
		}
		for _, e := range events {
			var buf bytes.Buffer
			if err := mcp.WriteEvent(&buf, e); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			again, err := mcp.NewEventReader(&buf, 1<<20).Next()
			if err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
			if diff := cmp.Diff(e, again); diff != "" {
				t.Errorf("round trip (-read +again):\n%s", diff)
			}
		}
	})
}
