package settings

import "time"

// Which field a setting of the proxy stands for.
func upstreamCheckInterval(s *Settings) *time.Duration { return &s.UpstreamCheckInterval }
func recovers(s *Settings) *bool                       { return &s.Recover }
func followInterval(s *Settings) *time.Duration        { return &s.FollowInterval }
func streamKeepAlive(s *Settings) *time.Duration       { return &s.StreamKeepAlive }
func drainDelay(s *Settings) *time.Duration            { return &s.DrainDelay }
func drainTimeout(s *Settings) *time.Duration          { return &s.DrainTimeout }
