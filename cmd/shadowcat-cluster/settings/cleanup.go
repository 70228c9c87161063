package settings

import "time"

// Which field a setting of the cleanup stands for.
func sweeps(s *Settings) *bool                 { return &s.Sweeper }
func sweepInterval(s *Settings) *time.Duration { return &s.SweepInterval }
func sweepBatch(s *Settings) *int              { return &s.SweepBatch }
func leaderTTL(s *Settings) *time.Duration     { return &s.LeaderTTL }
func emergencyPercent(s *Settings) *int        { return &s.EmergencyPercent }
func auditStream(s *Settings) *int             { return &s.AuditStream }
func partitions(s *Settings) *int              { return &s.Partitions }
func waitReplicas(s *Settings) *int            { return &s.WaitReplicas }
