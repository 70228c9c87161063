package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	if err := cluster.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestBadLimitsAreNamed(t *testing.T) {
	t.Parallel()
	for setting, spoil := range map[string]func(*cluster.Config){
		"max_sessions":       func(c *cluster.Config) { c.MaxSessions = -1 },
		"idle_timeout":       func(c *cluster.Config) { c.IdleTimeout = -time.Second },
		"max_age":            func(c *cluster.Config) { c.MaxAge = 366 * 24 * time.Hour },
		"initialize_timeout": func(c *cluster.Config) { c.InitializeTimeout = 0 },
		"retention":          func(c *cluster.Config) { c.Retention = -1 },
		"evict_min_idle":     func(c *cluster.Config) { c.EvictMinIdle = -1 },
		"request_rate":       func(c *cluster.Config) { c.RequestRate = 2_000_000 },
		"request_burst":      func(c *cluster.Config) { c.RequestBurst = 0 },
		"lease":              func(c *cluster.Config) { c.Lease = c.ReportInterval },
		"report_interval":    func(c *cluster.Config) { c.ReportInterval = 0 },
		"report_slack":       func(c *cluster.Config) { c.ReportSlack = c.ReportInterval / 2 },
		"store_timeout":      func(c *cluster.Config) { c.StoreTimeout = 0 },
		"outage_grace":       func(c *cluster.Config) { c.OutageGrace = -1 },
	} {
		cfg := cluster.DefaultConfig()
		spoil(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), setting+": ") {
			t.Errorf("%s: %v, want an error that names it", setting, err)
		}
	}
}

// What a replica has not reported yet the store cannot take into account.
func TestEvictMinIdleIsNoShorterThanTheReportInterval(t *testing.T) {
	t.Parallel()
	cfg := cluster.DefaultConfig()
	cfg.EvictMinIdle = cfg.ReportInterval - time.Millisecond
	const want = "evict_min_idle: 999ms is shorter than report_interval (1s)"
	if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	for _, allowed := range []time.Duration{0, cfg.ReportInterval} {
		cfg.EvictMinIdle = allowed
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", allowed, err)
		}
	}
}

func TestZeroTurnsLimitsOff(t *testing.T) {
	t.Parallel()
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.IdleTimeout, cfg.MaxAge, cfg.Retention = 0, 0, 0, 0
	cfg.EvictMinIdle, cfg.RequestRate, cfg.RequestBurst, cfg.Lease, cfg.OutageGrace = 0, 0, 0, 0, 0
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
