package storetest

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// placeSettles is after how long a place whose session does not live is nobody's.
	placeSettles = 5 * time.Second
	// keptUnswept is how long what a session leaves behind is kept if nobody ever sweeps.
	keptUnswept = time.Hour
	// years is longer than any check takes.
	years = 10 * cluster.MaxDuration
)

// places are the places of one principal's live sessions, by the moment they were reserved. A place whose giving back was
// lost stays until it is needed.
type places struct {
	of    map[cluster.ID]time.Time
	until time.Time // then nobody has needed any for so long that they are gone
}

func (p *places) has(id cluster.ID) bool {
	_, has := p.of[id]
	return has
}

func (m *model) placesOf(principal cluster.Principal) *places {
	p := m.places[principal]
	if p == nil || !m.at().Before(p.until) {
		p = &places{of: make(map[cluster.ID]time.Time)}
		m.places[principal] = p
	}
	return p
}

// admit checks the limits of creation, the principal's own first.
func (m *model) admit(c cluster.Creation) error {
	if c.Principal != "" {
		if err := m.reserve(c.Principal, c.Token.ID); err != nil {
			return err
		}
	}
	if m.cfg.CreateRate == 0 {
		return nil
	}
	wait := m.take("", m.cfg.CreateRate)
	if m.asked() {
		wait = m.take("", m.cfg.CreateRate) // the limit errs on the safe side
	}
	if wait > 0 {
		m.release(cluster.Session{ID: c.Token.ID, Principal: c.Principal})
		return tooMany("create_rate", wait)
	}
	return nil
}

// reserve gets a session its place. When there is none, settled ones whose sessions do not live are given back first.
func (m *model) reserve(principal cluster.Principal, id cluster.ID) error {
	p, most := m.placesOf(principal), m.cfg.MaxSessionsPerPrincipal
	for {
		m.asked()
		if most == 0 || len(p.of) < most {
			break
		}
		settled := slices.SortedFunc(maps.Keys(p.of), func(a, b cluster.ID) int {
			return cmp.Or(p.of[a].Compare(p.of[b]), bytes.Compare(a[:], b[:]))
		})
		settled = slices.DeleteFunc(settled, func(id cluster.ID) bool { return m.at().Sub(p.of[id]) < placeSettles })
		if len(settled) > 0 && m.asked() { // whether their sessions live
			return cluster.ErrStoreUnavailable
		}
		gone := slices.DeleteFunc(settled, func(id cluster.ID) bool {
			s := m.sessions[id]
			return s != nil && !s.EndedAtOrBefore(m.at())
		})
		if len(gone) == 0 {
			return &cluster.LimitError{Limit: "max_sessions_per_principal", RetryAfter: 5 * time.Second, Err: cluster.ErrPrincipalCapacity}
		}
		m.asked() // to give them back
		for _, id := range gone {
			delete(p.of, id)
		}
	}
	if m.cfg.CreateRatePerPrincipal > 0 {
		if wait := m.take(principal, m.cfg.CreateRatePerPrincipal); wait > 0 {
			return tooMany("create_rate_per_principal", wait)
		}
	}
	p.of[id] = m.at()
	p.until = m.at().Add(cmp.Or(m.cfg.MaxAge, years) + m.cfg.Retention + keptUnswept)
	return nil
}

// release gives the places of sessions back.
func (m *model) release(sessions ...cluster.Session) {
	sessions = slices.DeleteFunc(slices.Clone(sessions), func(s cluster.Session) bool { return s.Principal == "" })
	if len(sessions) > 0 {
		m.asked()
	}
	for _, s := range sessions {
		delete(m.placesOf(s.Principal).of, s.ID)
	}
}

// misplaced are the sessions that have a place and do not live, because giving it back was lost, and those that live without
// one: theirs was given up when they were past their end, and then the clock went back.
func (m *model) misplaced() []cluster.ID {
	var ids []cluster.ID
	for principal := range m.places {
		for id := range m.placesOf(principal).of {
			if s := m.sessions[id]; s == nil || !s.Status.Live() {
				ids = append(ids, id)
			}
		}
	}
	for id, s := range m.sessions {
		if s.Principal != "" && !s.EndedAtOrBefore(m.at()) && !m.placesOf(s.Principal).has(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// bucket is a limit of so many a second, as many at once.
type bucket struct {
	arrival int64     // when the next one would come in if they came evenly, us
	until   time.Time // it has been full for a while
}

// take takes one, or tells how long until there is one again.
func (m *model) take(of cluster.Principal, perSecond int) (wait time.Duration) {
	b := m.creations[of]
	if b == nil {
		b = new(bucket)
		m.creations[of] = b
	}
	interval, now := micros(perSecond), m.now.UnixMicro()
	capacity := int64(perSecond) * interval
	arrival := min(max(b.arrival, now), now+capacity) + interval
	if arrival > now+capacity {
		return time.Duration(arrival-capacity-now) * time.Microsecond
	}
	b.arrival = arrival
	b.until = m.at().Add(time.Duration((arrival-now+999)/1000)*time.Millisecond + time.Second)
	return 0
}

// micros is the time between two of so many a second.
func micros(perSecond int) int64 { return (1_000_000 + int64(perSecond) - 1) / int64(perSecond) }

func tooMany(limit string, wait time.Duration) error {
	return &cluster.LimitError{Limit: limit, RetryAfter: max(wait, time.Millisecond), Err: cluster.ErrCreationLimited}
}

// forgotten are the moments at which the store's server forgets something by itself.
func (m *model) forgotten() []time.Time {
	moments := make([]time.Time, 0, len(m.sessions)+len(m.places)+len(m.creations))
	for _, s := range m.sessions {
		moments = append(moments, s.events.until)
	}
	for _, p := range m.places {
		moments = append(moments, p.until)
	}
	for _, b := range m.creations {
		moments = append(moments, b.until)
	}
	return moments
}
