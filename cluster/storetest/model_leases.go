package storetest

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// forever is EndsIn of a session without an end.
const forever = -time.Millisecond

// serves reports whether a session serves requests.
func (m *model) serves(s *modelled) bool {
	return s != nil && s.Status == cluster.StatusActive && !m.due(s)
}

func (m *model) endsIn(s *modelled) time.Duration {
	if s.DeadlineAt.IsZero() {
		return forever
	}
	return s.DeadlineAt.Sub(m.at())
}

// lease is asked once: when the reply is lost, the requests count all the same.
func (m *model) lease(c cluster.LeaseCall) (cluster.Grant, error) {
	lost := m.asked()
	grant, err := m.grant(c)
	if lost {
		return cluster.Grant{}, cluster.ErrStoreUnavailable
	}
	return grant, err
}

func (m *model) grant(c cluster.LeaseCall) (cluster.Grant, error) {
	s := m.sessions[c.ID]
	if !m.serves(s) || s.digest != c.Digest || s.Upstream != c.Upstream || s.Principal != c.Principal {
		return cluster.Grant{}, cluster.ErrNotFound
	}
	if m.cfg.MaxPending > 0 && c.Pending > 0 && len(s.pending)+c.Pending > m.cfg.MaxPending {
		return cluster.Grant{}, &cluster.LimitError{Limit: "max_pending", RetryAfter: time.Second, Err: cluster.ErrPendingLimited}
	}
	need := int64(max(c.Need, 1))
	granted, left := max(int64(c.Want), need), int64(0)
	if m.cfg.RequestRate > 0 {
		interval, now := micros(m.cfg.RequestRate), m.now.UnixMicro()
		capacity := int64(m.cfg.RequestBurst) * interval
		from := min(max(s.arrival, now), now+capacity) // a clock that went back leaves the bucket empty, not more than empty
		room := (now + capacity - from) / interval
		if room < need {
			wait := time.Duration((from+need*interval-capacity-now+999)/1000) * time.Millisecond
			return cluster.Grant{}, &cluster.LimitError{Limit: "request_rate", RetryAfter: wait, Err: cluster.ErrRateLimited}
		}
		granted = need + min(granted-need, (room-need)/4) // most of the rest is for others
		s.arrival, left = from+granted*interval, room-granted
	}
	s.Requests += need
	m.touch(s)
	grant := cluster.Grant{Budget: int(granted), Left: int(left), EndsIn: m.endsIn(s), At: m.now, Pending: len(s.pending)}
	if grant.IsKnown = s.Version == c.KnownVersion; !grant.IsKnown {
		grant.Session = s.record()
	}
	return grant, nil
}

// report is asked once, as lease is.
func (m *model) report(reports []cluster.Report) []cluster.Renewal {
	lost := m.asked()
	renewals := make([]cluster.Renewal, len(reports))
	for i, r := range reports {
		if renewals[i] = m.renew(r); lost {
			renewals[i] = cluster.Renewal{Err: cluster.ErrStoreUnavailable}
		}
	}
	return renewals
}

func (m *model) renew(r cluster.Report) cluster.Renewal {
	s := m.sessions[r.ID]
	if !m.serves(s) {
		return cluster.Renewal{Err: cluster.ErrNotFound}
	}
	if r.Idle >= 0 {
		s.LastActivityAt = later(s.LastActivityAt, m.at().Add(-r.Idle.Truncate(time.Millisecond)))
		s.DeadlineAt = m.endAfter(s, s.LastActivityAt, s.DeadlineAt)
	} else { // an open stream holds it
		s.DeadlineAt = m.endAfter(s, m.at(), s.DeadlineAt)
	}
	s.Requests += int64(r.Requests)
	granted, left := r.Want, 0
	if m.cfg.RequestRate > 0 {
		granted, left = m.spend(s, r)
	}
	for _, started := range r.Started {
		if s.pending == nil {
			s.pending = make(map[string]string)
		}
		s.pending[started.Key] = started.Owner
	}
	for _, key := range r.Finished {
		delete(s.pending, key)
	}
	return cluster.Renewal{Version: s.Version, Budget: granted, Left: left, EndsIn: m.endsIn(s), At: m.now, Pending: len(s.pending)}
}

// spend takes back what is left of requests granted before, less what has been refilled since, and grants some of those
// wanted.
func (m *model) spend(s *modelled, r cluster.Report) (granted, left int) {
	interval, now := micros(m.cfg.RequestRate), m.now.UnixMicro()
	capacity := int64(m.cfg.RequestBurst) * interval
	held := max(now-r.UnspentSince.UnixMicro(), 0)
	s.arrival = min(s.arrival, now+capacity) - max(int64(r.Unspent)*interval-held, 0)
	from := max(s.arrival, now)
	taken := max(min(int64(r.Want), (now+capacity-from)/interval/4), 0)
	if taken > 0 {
		s.arrival = from + taken*interval
	}
	return int(taken), int((now + capacity - max(s.arrival, now)) / interval)
}

// check tells which sessions serve requests.
func (m *model) check(ids []cluster.ID) []error {
	lost := m.asked()
	errs := make([]error, len(ids))
	for i, id := range ids {
		if lost {
			errs[i] = cluster.ErrStoreUnavailable
		} else if !m.serves(m.sessions[id]) {
			errs[i] = cluster.ErrNotFound
		}
	}
	return errs
}

// prune forgets what dead incarnations had in flight. Asked again, it finds nothing more.
func (m *model) prune(id cluster.ID, dead []string) (forgotten int) {
	if s := m.sessions[id]; s != nil {
		for key, owner := range s.pending {
			for _, incarnation := range dead {
				if owner == incarnation {
					delete(s.pending, key)
					forgotten++
				}
			}
		}
	}
	if m.asked() {
		return 0
	}
	return forgotten
}
