package replica

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// Cleanup says how a replica cleans up. The zero value of all but Off is the default of [sweeper.Config].
type Cleanup struct {
	Off            bool // this replica never leads
	Interval       time.Duration
	Batch          int
	LockTTL        time.Duration
	EmergencyAbove float64
}

// addSweeper makes the sweeper, unless there is to be none.
func (r *Replica) addSweeper(cfg Config, auditor cluster.Auditor) error {
	if cfg.Cleanup.Off {
		r.lookout = &lookout{store: cfg.Store, timeout: cfg.Cluster.StoreTimeout}
		return nil
	}
	var err error
	r.sweeper, err = sweeper.New(sweeper.Config{
		Store:          cfg.Store,
		Incarnation:    r.manager.Incarnation(),
		Interval:       cfg.Cleanup.Interval,
		Batch:          cfg.Cleanup.Batch,
		Slack:          cfg.Cluster.ReportSlack,
		LockTTL:        cfg.Cleanup.LockTTL,
		EmergencyAbove: cfg.Cleanup.EmergencyAbove,
		EvictMinIdle:   cfg.Cluster.EvictMinIdle,
		Expired:        r.endUpstream,
		InOutage:       r.inOutage,
		Logger:         r.log,
		Auditor:        auditor,
		Observer:       cleanupObserver{r.metrics},
		Tracing:        cfg.Tracing,
	})
	return err
}

// endUpstream passes on sessions that ended without their client.
func (r *Replica) endUpstream(sessions []cluster.Session) { r.proxy.EndUpstream(sessions) }

// leadership is what /readyz tells of the leader.
func (r *Replica) leadership() func() admin.Leadership {
	if r.sweeper == nil {
		return r.lookout.state
	}
	return func() admin.Leadership {
		s := r.sweeper.Status()
		return admin.Leadership{IsLeader: s.IsLeader, Leader: s.Leader, Epoch: s.Epoch, Since: s.Since, TrustedUntil: s.TrustedUntil}
	}
}

// cleanupObserver counts what the sweeper does.
type cleanupObserver struct{ *admin.Metrics }

// LeaderChanged counts a change of leadership.
func (o cleanupObserver) LeaderChanged(isLeader bool, reason sweeper.Reason) {
	o.Metrics.LeaderChanged(isLeader, string(reason))
}
