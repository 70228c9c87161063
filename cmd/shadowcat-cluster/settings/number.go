package settings

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are the units of a size, largest first. The decimal units (MB) are refused: whether they mean 1000 or 1024
// depends on who reads them.
var sizeUnits = []struct {
	name string
	size int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"B", 1},
}

// ParseSize reads a number of bytes: a whole number, alone or with the unit B, KiB, MiB or GiB, such as 4MiB. The error
// quotes the text and says what is accepted.
func ParseSize(text string) (int64, error) {
	n, err := parseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%s %w; want a whole number of bytes, alone or with KiB, MiB or GiB, such as 4MiB", quote(text), err)
	}
	return n, nil
}

func parseSize(text string) (int64, error) {
	digits := leading(text, isDigit)
	unit := text[len(digits):]
	switch {
	case text == "":
		return 0, errors.New("is empty")
	case strings.HasPrefix(text, "-"):
		return 0, errors.New("is negative")
	case digits == "":
		return 0, errors.New("has no number")
	}
	size := int64(1)
	if unit != "" {
		size = 0
		for _, u := range sizeUnits {
			if u.name == unit {
				size = u.size
			}
		}
		if size == 0 {
			return 0, fmt.Errorf("has the unknown unit %s", quote(unit))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/size {
		return 0, errors.New("is too large")
	}
	return n * size, nil
}

// FormatSize writes n in the largest unit that divides it, the way ParseSize reads it.
func FormatSize(n int64) string {
	for _, u := range sizeUnits {
		if u.size > 1 && n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseCount reads a whole number that is not negative. Signs, underscores, exponents and leading zeros are refused: they
// mean something else, or nothing, to other readers of the same text.
func parseCount(text string) (int, error) {
	const want = "want a whole number, such as 100"
	switch digits := leading(text, isDigit); {
	case text == "":
		return 0, fmt.Errorf("%s is empty; %s", quote(text), want)
	case strings.HasPrefix(text, "-"):
		return 0, fmt.Errorf("%s is negative; %s", quote(text), want)
	case digits != text:
		return 0, fmt.Errorf("%s is not a whole number; %s", quote(text), want)
	case len(text) > 1 && text[0] == '0':
		return 0, fmt.Errorf("%s begins with 0; %s", quote(text), want)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s is too large; %s", quote(text), want)
	}
	return n, nil
}

// parseRate reads a rate a second: 50 and 50/s are the same.
func parseRate(text string) (int, error) {
	number, per, found := strings.Cut(text, "/")
	if found && per != "s" {
		return 0, fmt.Errorf("%s is not a rate a second; want a whole number, alone or with /s, such as 50/s", quote(text))
	}
	return parseCount(number)
}
