package settings

import "time"

// Which field a setting of the proxy stands for.
func upstreamCheckInterval(s *Settings) *time.Duration { return &s.UpstreamCheckInterval }
func recovers(s *Settings) *bool                       { return &s.Recover }
func largestBody(s *Settings) *int64                   { return &s.MaxBody }
func largestHeader(s *Settings) *int64                 { return &s.MaxHeader }
func headerTimeout(s *Settings) *time.Duration         { return &s.HeaderTimeout }
func bodyTimeout(s *Settings) *time.Duration           { return &s.BodyTimeout }
func connectionIdle(s *Settings) *time.Duration        { return &s.ConnectionIdleTimeout }
func replicaRequests(s *Settings) *int                 { return &s.ReplicaMaxRequests }
func replicaBytes(s *Settings) *int64                  { return &s.ReplicaMaxBytes }
func replicaStreams(s *Settings) *int                  { return &s.ReplicaMaxStreams }
func followInterval(s *Settings) *time.Duration        { return &s.FollowInterval }
func streamKeepAlive(s *Settings) *time.Duration       { return &s.StreamKeepAlive }
func drainDelay(s *Settings) *time.Duration            { return &s.DrainDelay }
func drainTimeout(s *Settings) *time.Duration          { return &s.DrainTimeout }
