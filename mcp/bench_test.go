package mcp_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

func BenchmarkPeek(b *testing.B) {
	call := func(argument string) []byte {
		return []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"query":"` + argument + `"}}}`)
	}
	for name, body := range map[string][]byte{
		"call_1KiB":  call(strings.Repeat("x", 1<<10)),
		"call_64KiB": call(strings.Repeat("x", 64<<10)),
		"answer":     []byte(`{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hello"}]}}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := mcp.Peek(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCopyEvents reads events and writes them with other ids, as a proxy does with each answer that is a stream.
func BenchmarkCopyEvents(b *testing.B) {
	const events = 100
	stream := []byte(strings.Repeat("event: message\nid: 1\ndata: "+strings.Repeat("x", 1<<10)+"\n\n", events))
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		reader, copied := mcp.NewEventReader(bytes.NewReader(stream), 1<<20), 0
		for {
			event, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			event.ID = "p0-17"
			if err := mcp.WriteEvent(io.Discard, event); err != nil {
				b.Fatal(err)
			}
			copied++
		}
		if copied != events {
			b.Fatalf("copied %d events", copied)
		}
	}
}
