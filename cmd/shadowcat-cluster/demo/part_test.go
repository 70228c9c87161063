package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestPartsStopInReverseOrder(t *testing.T) {
	t.Parallel()
	var stopped []string
	started := make(chan struct{}, 3)
	named := func(name string) part {
		return part{name: name, run: func(ctx context.Context) error {
			started <- struct{}{}
			<-ctx.Done()
			stopped = append(stopped, name) // one at a time, so no lock
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runParts(ctx, named("store"), named("replicas"), named("front")) }()
	for range 3 {
		<-started
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := strings.Join(stopped, " "); got != "front replicas store" {
		t.Errorf("stopped in the order %s", got)
	}
}

func TestAFailedPartStopsTheOthersAndIsNamed(t *testing.T) {
	t.Parallel()
	failure := errors.New("no more")
	waits := part{name: "waits", run: func(ctx context.Context) error { <-ctx.Done(); return nil }}
	fails := part{name: "fails", run: func(context.Context) error { return failure }}
	for name, err := range map[string]error{
		"in order": runParts(t.Context(), waits, fails, waits),
		"together": runParts(t.Context(), waits, together("both", waits, fails)),
	} {
		if !errors.Is(err, failure) || !strings.Contains(err.Error(), "fails: no more") {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
