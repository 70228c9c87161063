package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

func TestParseDurationAccepts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0":             0,
		"0s":            0,
		"1ms":           time.Millisecond,
		"250ms":         250 * time.Millisecond,
		"90s":           90 * time.Second,
		"1h30m":         90 * time.Minute,
		"7d":            7 * 24 * time.Hour,
		"1d2h3m4s5ms":   26*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond,
		"1s1ms":         1001 * time.Millisecond,
		"365d":          cluster.MaxDuration,
		"364d24h":       cluster.MaxDuration,
		"31536000s":     cluster.MaxDuration,
		"31536000000ms": cluster.MaxDuration,
	} {
		got, err := settings.ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseDurationRefusesAndSaysWhy(t *testing.T) {
	t.Parallel()
	for text, reason := range map[string]string{
		"":                              "is empty",
		"5":                             "has no unit",
		"00":                            "has no unit",
		"1h30":                          "has no unit",
		"-5s":                           "is negative",
		"-":                             "is negative",
		"+5s":                           `has no number before "+"`,
		"h":                             `has no number before "h"`,
		" 5s":                           `has no number before " "`,
		"5s ":                           `has the unknown unit "s "`,
		"1h 30m":                        `has the unknown unit "h "`,
		"5x":                            `has the unknown unit "x"`,
		"5S":                            `has the unknown unit "S"`,
		"5us":                           `has the unknown unit "us"`,
		"5w":                            `has the unknown unit "w"`,
		"٥s":                            "has no number before",
		"1.5h":                          "has a fraction",
		"1,5h":                          "has a fraction",
		"30m1h":                         `has the unit "h" twice or after a smaller one`,
		"1h1h":                          `has the unit "h" twice or after a smaller one`,
		"366d":                          "is longer than 365d",
		"365d1ms":                       "is longer than 365d",
		"9223372036854775807ms":         "is longer than 365d",
		"99999999999999999999999999ms":  "is longer than 365d",
		"106751991168d":                 "is longer than 365d",
		"1h" + strings.Repeat("0", 999): "has no unit",
	} {
		_, err := settings.ParseDuration(text)
		if err == nil {
			t.Errorf("ParseDuration(%q) was accepted", text)
			continue
		}
		for _, part := range []string{reason, "1h30m"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("ParseDuration(%q): %v; want it to say %q", text, err, part)
			}
		}
		if len(err.Error()) > 400 {
			t.Errorf("ParseDuration of %d bytes: the message has %d", len(text), len(err.Error()))
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"0", "250ms", "1h30m", "7d", "365d", "1.5h", "-1s", "99999999999999999999s", "1m1ms", "٥s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := settings.ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 || d > cluster.MaxDuration {
			t.Fatalf("ParseDuration(%q) = %v: out of range", text, d)
		}
		if d%time.Millisecond != 0 {
			t.Fatalf("ParseDuration(%q) = %v: finer than a millisecond", text, d)
		}
		again, err := settings.ParseDuration(settings.FormatDuration(d))
		if err != nil || again != d {
			t.Fatalf("%q: %v is written as %q, which is read as %v, %v", text, d, settings.FormatDuration(d), again, err)
		}
		// The standard library's parser knows no days; where both read a text, they agree.
		if std, err := time.ParseDuration(text); err == nil && std != d {
			t.Fatalf("ParseDuration(%q) = %v; time.ParseDuration says %v", text, d, std)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"0", "4MiB", "512KiB", "1GiB", "100B", "9223372036854775807", "8589934592GiB", "4MB", "-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := settings.ParseSize(text)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q) = %d: overflow", text, n)
		}
		if again, err := settings.ParseSize(settings.FormatSize(n)); err != nil || again != n {
			t.Fatalf("%q: %d is written as %q, which is read as %d, %v", text, n, settings.FormatSize(n), again, err)
		}
	})
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "17": 17, "17B": 17, "4MiB": 4 << 20, "512KiB": 512 << 10, "1GiB": 1 << 30} {
		if got, err := settings.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, reason := range map[string]string{
		"":                     "is empty",
		"MiB":                  "has no number",
		"-1":                   "is negative",
		"4MB":                  `unknown unit "MB"`,
		"4 MiB":                `unknown unit " MiB"`,
		"4mib":                 `unknown unit "mib"`,
		"1.5MiB":               `unknown unit ".5MiB"`,
		"9223372036854775808":  "is too large",
		"8589934592GiB":        "is too large",
		"99999999999999999KiB": "is too large",
	} {
		if _, err := settings.ParseSize(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseSize(%q): %v; want it to say %q", text, err, reason)
		}
	}
}
