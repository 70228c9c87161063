package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
)

// readyWriter calls ready when it is first written to, and keeps what is written.
type readyWriter struct {
	bytes.Buffer
	ready func()
	once  sync.Once
}

func (w *readyWriter) Write(p []byte) (int, error) {
	defer w.once.Do(w.ready)
	return w.Buffer.Write(p)
}

func TestDemoStopsWithStatusZero(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, stderr := &readyWriter{ready: cancel}, &bytes.Buffer{}
	status := run(ctx, []string{"demo", "--listen", "127.0.0.1:0", "--replicas", "1"}, stdout, stderr)
	if status != exitOK || stderr.Len() > 0 {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{"1 replica behind one address", "TIME ", "\nStopped.\n"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout.String(), "\x1b") {
		t.Error("the output has colours, but is no terminal")
	}
}

func TestDemoRefusesBadFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--replicas: 0 is not in 1 to 16":   {"--replicas", "0"},
		"--replicas: 17 is not in 1 to 16":  {"--replicas", "17"},
		`invalid argument "many"`:           {"--replicas", "many"},
		`--listen: "8080" is not host:port`: {"--listen", "8080"},
		"--redis: ":                         {"--redis", "http://127.0.0.1:6379"},
		"unknown flag: --upstream":          {"--upstream", "http://127.0.0.1:9000/mcp"},
		`unknown command "now"`:             {"now"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), append([]string{"demo"}, args...), &stdout, &stderr)
		if status != exitUsage || !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("%v: status %d, stdout %q, stderr %q, want %q", args, status, &stdout, &stderr, want)
		}
	}
}
