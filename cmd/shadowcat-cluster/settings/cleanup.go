package settings

import (
	"fmt"
	"time"
)

func setSweeper(s *Settings, values []string) error {
	switch values[0] {
	case "true", "false":
		s.Sweeper = values[0] == "true"
		return nil
	default:
		return fmt.Errorf("%s is neither true nor false", quote(values[0]))
	}
}

// setCount makes a setter for a number in a range.
func setCount(least, most int, field func(*Settings) *int) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		n, err := parseCount(values[0])
		if err != nil {
			return err
		}
		if n < least || n > most {
			return fmt.Errorf("%s is not in %d to %d", quote(values[0]), least, most)
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

func sweepInterval(s *Settings) *time.Duration { return &s.SweepInterval }
func sweepBatch(s *Settings) *int              { return &s.SweepBatch }
func leaderTTL(s *Settings) *time.Duration     { return &s.LeaderTTL }
func emergencyPercent(s *Settings) *int        { return &s.EmergencyPercent }
func auditStream(s *Settings) *int             { return &s.AuditStream }
func partitions(s *Settings) *int              { return &s.Partitions }
func waitReplicas(s *Settings) *int            { return &s.WaitReplicas }
