package mcp_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// What is appended is read as one event, and as the same, whatever is in it.
func FuzzAppendEvent(f *testing.F) {
	f.Add("1", "message", "5", []byte("{\"a\":\n1}"))
	f.Add("", "", "", []byte("a\r\nb\rc\n\n"))
	f.Add(" x", "e: y", "1e3", []byte("\n\ndata: x\n\nid: 2\n\n"))
	f.Add("\uFEFF", "a\nb", "-1", []byte{})
	f.Fuzz(func(t *testing.T, id, name, retry string, data []byte) {
		before := []byte("data: before\n\n")
		text, err := mcp.AppendEvent(bytes.Clone(before), mcp.Event{ID: id, Name: name, Retry: retry, Data: data})
		if err != nil {
			if !bytes.Equal(text, before) {
				t.Errorf("refused, but %q was appended", text[len(before):])
			}
			return
		}
		events := mcp.NewEventReader(bytes.NewReader(text), 1<<20)
		if _, err := events.Next(); err != nil {
			t.Fatal(err)
		}
		got, err := events.Next()
		lines := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		switch {
		case errors.Is(err, io.EOF):
			if id != "" || name != "" || len(lines) > 0 {
				t.Errorf("%q is read as nothing", text)
			}
			return
		case err != nil:
			t.Fatal(err)
		}
		if got.ID != id || got.Name != name || !bytes.Equal(got.Data, lines) || got.Retry != "" && got.Retry != retry {
			t.Errorf("%q is read as %+v", text[len(before):], got)
		}
		if more, err := events.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%q holds another event: %+v, %v", text[len(before):], more, err)
		}
	})
}
