package proxy

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// chatter is a source that always has more.
type chatter struct{ left bool }

func (*chatter) take(dst []byte) ([]byte, error) { return append(dst, "data: x\n\n"...), nil }
func (*chatter) more() <-chan struct{}           { return nil }
func (c *chatter) leave(gone bool)               { c.left = !gone }

func TestAStreamThatAlwaysHasMoreExpiresToo(t *testing.T) {
	t.Parallel()
	c := &chatter{}
	b := &streamBody{source: c, open: new(atomic.Int64), expires: time.Now().Add(20 * time.Millisecond)}
	var last []byte
	deadline := time.Now().Add(10 * time.Second)
	for p := make([]byte, 100); ; {
		n, err := b.Read(p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("after its end the stream goes on: %v", err)
		}
		last = append(last[:0], p[:n]...)
	}
	if time.Now().Before(b.expires) {
		t.Error("it ended too early")
	}
	if text := string(last); !strings.HasPrefix(text, "retry: ") || !strings.HasSuffix(text, "\n\n") {
		t.Errorf("the last of it is %q, want the time to come back", text)
	}
	if err := b.Close(); err != nil || !c.left {
		t.Errorf("the source was not left: %v", err)
	}
}
