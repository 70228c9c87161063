package settings

import (
	"fmt"
	"math"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Which field of the session limits a setting stands for.
func clusterMaxSessions(c *cluster.Config) *int { return &c.MaxSessions }

func clusterMaxSessionsPerPrincipal(c *cluster.Config) *int     { return &c.MaxSessionsPerPrincipal }
func clusterCreateRatePerPrincipal(c *cluster.Config) *int      { return &c.CreateRatePerPrincipal }
func clusterIdleTimeout(c *cluster.Config) *time.Duration       { return &c.IdleTimeout }
func clusterMaxAge(c *cluster.Config) *time.Duration            { return &c.MaxAge }
func clusterInitializeTimeout(c *cluster.Config) *time.Duration { return &c.InitializeTimeout }
func clusterRetention(c *cluster.Config) *time.Duration         { return &c.Retention }
func clusterEvictMinIdle(c *cluster.Config) *time.Duration      { return &c.EvictMinIdle }
func clusterStatelessRate(c *cluster.Config) *int               { return &c.StatelessRatePerPrincipal }
func clusterRequestRate(c *cluster.Config) *int                 { return &c.RequestRate }
func clusterRequestBurst(c *cluster.Config) *int                { return &c.RequestBurst }
func clusterMaxPending(c *cluster.Config) *int                  { return &c.MaxPending }
func clusterMaxStreams(c *cluster.Config) *int                  { return &c.MaxStreams }
func clusterCreateRate(c *cluster.Config) *int                  { return &c.CreateRate }
func clusterEventsCount(c *cluster.Config) *int                 { return &c.EventsCount }
func clusterEventsBytes(c *cluster.Config) *int                 { return &c.EventsBytes }
func clusterEventsAge(c *cluster.Config) *time.Duration         { return &c.EventsAge }
func clusterFramesCount(c *cluster.Config) *int                 { return &c.FramesCount }
func clusterFramesBytes(c *cluster.Config) *int                 { return &c.FramesBytes }
func clusterLease(c *cluster.Config) *time.Duration             { return &c.Lease }
func clusterReportInterval(c *cluster.Config) *time.Duration    { return &c.ReportInterval }
func clusterReportSlack(c *cluster.Config) *time.Duration       { return &c.ReportSlack }
func clusterStoreTimeout(c *cluster.Config) *time.Duration      { return &c.StoreTimeout }
func clusterOutageGrace(c *cluster.Config) *time.Duration       { return &c.OutageGrace }

func count(field func(*cluster.Config) *int) func(*Settings, []string) error {
	return limit(field, parseCount)
}

func rate(field func(*cluster.Config) *int) func(*Settings, []string) error {
	return limit(field, parseRate)
}

// size makes a setter for a number of bytes, which is small: Config bounds it.
func size(field func(*cluster.Config) *int) func(*Settings, []string) error {
	return limit(field, func(text string) (int, error) {
		n, err := ParseSize(text)
		if err == nil && n > math.MaxInt32 {
			err = fmt.Errorf("%s is too large", quote(text))
		}
		return int(n), err
	})
}

func duration(field func(*cluster.Config) *time.Duration) func(*Settings, []string) error {
	return limit(field, ParseDuration)
}

// limit makes a setter for one field of the session limits. Ranges are cluster.Config's to check.
func limit[T any](field func(*cluster.Config) *T, parse func(string) (T, error)) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		v, err := parse(values[0])
		if err == nil {
			*field(&s.Cluster) = v
		}
		return err
	}
}
