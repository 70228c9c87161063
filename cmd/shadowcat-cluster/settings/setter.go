package settings

import (
	"fmt"
	"time"
)

// setSwitch makes a setter for what is on or off.
func setSwitch(field func(*Settings) *bool) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		switch values[0] {
		case "true", "false":
			*field(s) = values[0] == "true"
			return nil
		default:
			return fmt.Errorf("%s is neither true nor false", quote(values[0]))
		}
	}
}

// setCount makes a setter for a number in a range; unit is what it counts.
func setCount(least, most int, field func(*Settings) *int, unit string) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		n, err := parseCount(values[0])
		if err != nil {
			return err
		}
		if n < least || n > most {
			return fmt.Errorf("%s is not in %d to %d %s", quote(values[0]), least, most, unit)
		}
		*field(s) = n
		return nil
	}
}

// setSize makes a setter for a number of bytes in a range.
func setSize(least, most int64, field func(*Settings) *int64) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		n, err := ParseSize(values[0])
		if err != nil {
			return err
		}
		if n < least || n > most {
			return fmt.Errorf("%s is not in %s to %s", quote(values[0]), FormatSize(least), FormatSize(most))
		}
		*field(s) = n
		return nil
	}
}

// setDuration makes a setter for a duration in a range.
func setDuration(least, most time.Duration, field func(*Settings) *time.Duration) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		d, err := ParseDuration(values[0])
		if err != nil {
			return err
		}
		if d < least || d > most {
			return fmt.Errorf("%s is not in %s to %s", quote(values[0]), least, most)
		}
		*field(s) = d
		return nil
	}
}

// setDurationOrOff makes a setter for a duration that is 0 or in a range.
func setDurationOrOff(least, most time.Duration, field func(*Settings) *time.Duration) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		d, err := ParseDuration(values[0])
		if err != nil {
			return err
		}
		if d != 0 && (d < least || d > most) {
			return fmt.Errorf("%s is neither 0 nor in %s to %s", quote(values[0]), least, most)
		}
		*field(s) = d
		return nil
	}
}
