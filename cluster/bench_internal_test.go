package cluster

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// grantingStore grants everything at once, so that what is measured is the Manager alone.
type grantingStore struct{ Store }

func (grantingStore) Lease(_ context.Context, c LeaseCall) (Grant, error) {
	now := time.Now()
	return Grant{
		Session: Session{ID: c.ID, Status: StatusActive, Upstream: c.Upstream, Version: 2, CreatedAt: now, LastActivityAt: now},
		Budget:  c.Want, Left: 1 << 20, EndsIn: time.Hour, At: now,
	}, nil
}

func (grantingStore) Report(_ context.Context, reports []Report) []Renewal {
	renewals := make([]Renewal, len(reports))
	for i, r := range reports {
		renewals[i] = Renewal{Version: 2, Budget: r.Want, Left: 1 << 20, EndsIn: time.Hour, At: time.Now()}
	}
	return renewals
}

// benchManager returns a manager and tokens of sessions that it holds leases of.
func benchManager(b *testing.B, sessions int) (*Manager, []Token) {
	b.Helper()
	cfg := DefaultConfig()
	cfg.RequestRate, cfg.Lease, cfg.IdleTimeout = 0, time.Hour, time.Hour // leases last as long as the benchmark
	m, err := NewManager(grantingStore{}, cfg, Options{})
	if err != nil {
		b.Fatal(err)
	}
	tokens := make([]Token, sessions)
	for i := range tokens {
		if tokens[i], err = NewToken(); err != nil {
			b.Fatal(err)
		}
		benchRequest(b, m, tokens[i])
	}
	return m, tokens
}

func benchRequest(b *testing.B, m *Manager, token Token) {
	b.Helper()
	lease, err := m.Lease(b.Context(), token, Use{Upstream: "files", PendingKey: "c:1"})
	if err != nil {
		b.Fatal(err)
	}
	lease.Touch()
	lease.Release()
}

func BenchmarkParseToken(b *testing.B) {
	token, err := NewToken()
	if err != nil {
		b.Fatal(err)
	}
	text := token.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseToken(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLeaseHit is what the session layer does for a request of a session that its replica holds a lease of.
func BenchmarkLeaseHit(b *testing.B) {
	m, tokens := benchManager(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		benchRequest(b, m, tokens[0])
	}
}

// BenchmarkReport is one round of reports, of sessions that each have served a request since the last; without the store.
func BenchmarkReport(b *testing.B) {
	for _, sessions := range []int{25, 1000} {
		b.Run(strconv.Itoa(sessions)+"_sessions", func(b *testing.B) {
			m, tokens := benchManager(b, sessions)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for _, token := range tokens {
					benchRequest(b, m, token)
				}
				b.StartTimer()
				m.reportAll(b.Context(), false)
			}
		})
	}
}
