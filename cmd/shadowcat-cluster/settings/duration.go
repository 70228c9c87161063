package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// durationWant tells what ParseDuration accepts, for error messages.
const durationWant = "want whole numbers with units d, h, m, s or ms, largest first, such as 250ms, 1h30m or 7d, at most 365d"

// durationUnits are the units of a duration, largest first: the order in which they must be written.
var durationUnits = []struct {
	name string
	size time.Duration
}{
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// ParseDuration reads a duration: whole numbers, each with a unit (d, h, m, s, ms), largest unit first, none twice, such as
// 250ms, 1h30m or 7d. A day has 24 hours. At most 365 days; never negative; no fractions, since 1h30m says the same and
// cannot be misread. A bare 0 is accepted as zero: whether zero makes sense is the setting's business. Every other number
// needs a unit. The error quotes the text and says what is accepted.
func ParseDuration(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s %w; %s", quote(text), err, durationWant)
	}
	return d, nil
}

func parseDuration(text string) (time.Duration, error) {
	switch {
	case text == "":
		return 0, errors.New("is empty")
	case text == "0":
		return 0, nil
	case strings.HasPrefix(text, "-"):
		return 0, errors.New("is negative")
	}
	var total time.Duration
	largest := 0 // index of the largest unit that may still come
	for rest := text; rest != ""; {
		digits := leading(rest, isDigit)
		rest = rest[len(digits):]
		unit := leading(rest, isNotDigit)
		rest = rest[len(unit):]
		if digits == "" {
			return 0, fmt.Errorf("has no number before %s", quote(unit))
		}
		index, err := durationUnit(unit, largest)
		if err != nil {
			return 0, err
		}
		largest = index + 1
		size := durationUnits[index].size
		// ParseInt only fails on overflow here: digits are nothing but digits.
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > int64((cluster.MaxDuration-total)/size) {
			return 0, errors.New("is longer than 365d")
		}
		total += time.Duration(n) * size
	}
	return total, nil
}

// durationUnit finds a unit among those from index largest on.
func durationUnit(unit string, largest int) (int, error) {
	for i, u := range durationUnits {
		switch {
		case u.name != unit:
		case i < largest:
			return 0, fmt.Errorf("has the unit %q twice or after a smaller one", unit)
		default:
			return i, nil
		}
	}
	switch {
	case unit == "":
		return 0, errors.New("has no unit")
	case strings.ContainsAny(unit, ".,"):
		return 0, errors.New("has a fraction")
	}
	return 0, fmt.Errorf("has the unknown unit %s", quote(unit))
}

// FormatDuration writes d, cut to whole milliseconds, the way ParseDuration reads it: 30m, 1h30m, 7d; zero is 0.
func FormatDuration(d time.Duration) string {
	if d < time.Millisecond {
		return "0"
	}
	var b strings.Builder
	for _, u := range durationUnits {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d %= u.size
		}
	}
	return b.String()
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isNotDigit(c byte) bool { return !isDigit(c) }

// leading returns the longest prefix of s whose bytes all satisfy is.
func leading(s string, is func(byte) bool) string {
	for i := range len(s) {
		if !is(s[i]) {
			return s[:i]
		}
	}
	return s
}

// quote quotes what a user wrote for an error message, cut so that a message stays readable.
func quote(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}
