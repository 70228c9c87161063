package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by it
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// tap stands between replicas and Redis and counts what they send, by what it is. Redis' own statistics also count the commands that
// scripts run, and do not tell one script from another.
type tap struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	calls   map[string]int64  // by name
	scripts map[string]string // names by digest
}

// startTap lets replicas reach the Redis at target through the tap, until ctx ends.
func startTap(ctx context.Context, target string) (*tap, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{listener: listener, target: target, calls: make(map[string]int64), scripts: make(map[string]string)}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go t.accept(ctx) // it ends with ctx
	return t, nil
}

func (t *tap) address() string { return t.listener.Addr().String() }

func (t *tap) accept(ctx context.Context) {
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		go func() { // it ends with the connection
			_, _ = io.Copy(client, server)
			_ = client.Close()
		}()
		go func() {
			_ = t.count(bufio.NewReader(io.TeeReader(client, server)))
			_ = server.Close()
		}()
	}
}

// count reads commands to the end of their connection.
func (t *tap) count(r *bufio.Reader) error {
	for {
		n, err := readNumber(r, '*')
		if err != nil {
			return err
		}
		words := make([]string, n)
		for i := range words {
			length, err := readNumber(r, '$')
			if err != nil {
				return err
			}
			word := make([]byte, length+len("\r\n"))
			if _, err := io.ReadFull(r, word); err != nil {
				return err
			}
			words[i] = string(word[:length])
		}
		t.called(words)
	}
}

// readNumber reads a line that begins with a mark and tells a number.
func readNumber(r *bufio.Reader, mark byte) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || line[0] != mark || n < 0 {
		return 0, fmt.Errorf("the replica sent %q, want %q and a number", line, mark)
	}
	return n, nil
}

// called counts one command.
func (t *tap) called(words []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := strings.ToUpper(words[0])
	switch {
	case name == "EVAL" && len(words) > 1:
		sum := sha1.Sum([]byte(words[1])) //nolint:gosec // see the import
		name = purpose(words[1])
		t.scripts[hex.EncodeToString(sum[:])] = name
	case name == "EVALSHA" && len(words) > 1:
		name = cmp.Or(t.scripts[words[1]], name)
	}
	t.calls[name]++
}

// purpose is the first sentence of a script's header.
func purpose(script string) string {
	header := strings.TrimPrefix(script, "-- ")
	sentence, _, _ := strings.Cut(strings.ReplaceAll(header, "\n-- ", " "), ".")
	return sentence
}

// count is how often something was called.
type count struct {
	name  string
	calls int64
}

// counts is what was called so far.
func (t *tap) counts() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.calls)
}

// since is what was called since an earlier look, most calls first, and how many that is.
func (t *tap) since(before map[string]int64) (all []count, total int64) {
	for name, n := range t.counts() {
		if n -= before[name]; n > 0 {
			all = append(all, count{name, n})
			total += n
		}
	}
	slices.SortFunc(all, func(a, b count) int { return cmp.Or(cmp.Compare(b.calls, a.calls), strings.Compare(a.name, b.name)) })
	return all, total
}
