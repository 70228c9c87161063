package rows

import "testing"

// BenchmarkCleanup ends sessions that are all due, in a Redis of its own, one script after the other. Those of a million take a minute to
// make each time: -short leaves out all above ten thousand.
func BenchmarkCleanup(b *testing.B) {
	for _, c := range []struct {
		name string
		due  int
	}{{"cleanup_1000_sessions", 1000}, {"cleanup_10k_sessions", 10_000}, {"cleanup_100k_sessions", 100_000}, {"cleanup_1M_sessions", 1_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			if testing.Short() && c.due > 10_000 {
				b.Skipf("skipped: %d sessions take long to make; measured without -short", c.due)
			}
			s, err := newSwept(b.Context(), 0)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := s.store.Close(); err != nil {
					b.Error(err)
				}
			})
			for b.Loop() {
				b.StopTimer()
				if err := s.makeDue(b.Context(), c.due); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := s.sweep(c.due)(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.due), "µs/session")
		})
	}
}
