package main

import (
	"io"
	"strings"
	"testing"
)

// during returns samples of a minute in which goroutines and heap go as told; the rest stays.
func during(goroutines, heap func(second float64) float64) []sample {
	seen := make([]sample, 60)
	for i := range seen {
		at := float64(i)
		seen[i] = sample{At: at, Goroutines: goroutines(at), Heap: heap(at) * (1 << 20), Files: 100, Connections: 20, Memory: 3 << 20}
	}
	return seen
}

func steady(float64) float64 { return 300 }

func TestWhatGrowsIsTold(t *testing.T) {
	t.Parallel()
	wavy := func(at float64) float64 { return 10 + float64(int(at)%7) }
	before, left := sample{Goroutines: 60, Heap: 5 << 20, Files: 30, Connections: 10, Memory: 2 << 20}, sample{Goroutines: 65, Heap: 6 << 20, Files: 30, Connections: 20, Memory: 2 << 20}
	leaking := left
	leaking.Goroutines = 600
	for name, c := range map[string]struct {
		seen []sample
		left sample
		want string // empty: nothing
	}{
		"nothing":                 {during(steady, wavy), left, ""},
		"goroutines":              {during(func(at float64) float64 { return 300 + 4*at }, wavy), left, "goroutines grew"},
		"the heap":                {during(steady, func(at float64) float64 { return wavy(at) + at/4 }), left, "live heap, MiB grew"},
		"what is left at the end": {during(steady, wavy), leaking, "goroutines: 600.0 are left"},
	} {
		faults := tell(io.Discard, before, c.seen, c.left)
		switch {
		case c.want == "" && len(faults) > 0, c.want != "" && len(faults) != 1:
			t.Errorf("%s: found %v", name, faults)
		case c.want != "" && !strings.HasPrefix(faults[0].Error(), c.want):
			t.Errorf("%s: %v, want %q", name, faults[0], c.want)
		}
	}
}
