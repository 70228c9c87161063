package report

import "testing"

func TestTicksOfDecadesAreShort(t *testing.T) {
	t.Parallel()
	var got []string
	for _, tick := range (decades{}).Ticks(0.04, 2e6) {
		got = append(got, tick.Label)
	}
	want := []string{
		"0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500", "1000", "2000", "5000", "10k", "20k", "50k",
		"100k", "200k", "500k", "1M", "2M",
	}
	if len(got) != len(want) {
		t.Fatalf("marked %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("mark %d is %q, want %q", i, got[i], want[i])
		}
	}
}
