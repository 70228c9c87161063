package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// compare fails the check when a call did not answer as the model says.
func (m *machine) compare(call string, got, want any, gotErr, wantErr error) {
	m.t.Helper()
	if !sameError(gotErr, wantErr) {
		m.t.Fatalf("%s at %s: error %v, want %v", call, m.model.now.Format(time.StampMicro), gotErr, wantErr)
	}
	m.equal(call, got, want)
}

func (m *machine) equal(call string, got, want any) {
	m.t.Helper()
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(cluster.Token{}), gocmp.Comparer(sameError)); diff != "" {
		m.t.Fatalf("%s at %s (- want, + got):\n%s", call, m.model.now.Format(time.StampMicro), diff)
	}
}

// sameError reports whether an error is of the kind that is wanted, and as exact.
func sameError(got, want error) bool {
	if got == nil || want == nil {
		return got == nil && want == nil
	}
	wanted, isLimit := errors.AsType[*cluster.LimitError](want)
	if !isLimit {
		return errors.Is(got, want) || errors.Is(want, got)
	}
	limit, _ := errors.AsType[*cluster.LimitError](got)
	return limit != nil && limit.Limit == wanted.Limit && limit.RetryAfter == wanted.RetryAfter && errors.Is(limit, wanted.Err)
}

// observe compares everything that can be seen from outside.
func (m *machine) observe() {
	ctx := m.t.Context()
	violations, err := m.b.Violations(ctx)
	for _, id := range m.model.misplaced() {
		about := func(violation string) bool { return strings.Contains(violation, id.String()) }
		if i := slices.IndexFunc(violations, about); i >= 0 {
			violations = slices.Delete(violations, i, i+1)
		} else {
			m.t.Fatalf("session %s has no place and lives, or has one and does not, and nobody tells", id)
		}
	}
	m.compare("violations", violations, []string(nil), err, nil)
	for _, ended := range []bool{false, true} {
		m.listAll(cluster.Query{Ended: ended, Limit: 1000})
	}
	stats, err := m.store.Stats(ctx)
	m.compare("stats", stats, m.model.stats(), err, nil)

	latest := m.tokens[max(len(m.tokens)-8, 0):]
	ids := make([]cluster.ID, 0, len(latest))
	for _, token := range latest {
		ids = append(ids, token.ID)
		if m.model.sessions[token.ID] == nil {
			got, err := m.store.Get(ctx, token.ID)
			m.compare("get", got, cluster.Session{}, err, cluster.ErrNotFound)
		}
	}
	if len(ids) > 0 {
		m.equal("check", m.store.Check(ctx, ids), m.model.check(ids))
	}
	for _, principal := range principals[1:] {
		if len(m.model.placesOf(principal).of) > 0 {
			m.listAll(cluster.Query{Principal: principal, Limit: 1000})
		}
	}
	m.observeKept(ctx)
}

// observeKept compares all events and frames.
func (m *machine) observeKept(ctx context.Context) {
	var queries []cluster.EventQuery
	ids := slices.SortedFunc(maps.Keys(m.model.sessions), func(a, b cluster.ID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range ids {
		for stream := range m.model.streams(id) {
			queries = append(queries, cluster.EventQuery{ID: id, Stream: stream, Limit: 1000})
		}
		if kept := m.model.eventsOf(id); kept != nil {
			for i, e := range kept.events { // all that can be read without a gap, from each place where that begins
				if i == 0 || kept.events[i-1].stream != e.stream || kept.events[i-1].position+1 != e.position {
					queries = append(queries, cluster.EventQuery{ID: id, Stream: e.stream, After: e.position - 1, Limit: 1000})
				}
			}
		}
		if m.model.sessions[id].frames.last > 0 {
			q := cluster.FrameQuery{ID: id, Limit: 1000}
			got, gotErr := m.store.ReadFrames(ctx, q)
			want, wantErr := m.model.readFrames(q)
			m.compare("read frames", got, want, gotErr, wantErr)
		}
	}
	if len(queries) > 0 {
		m.equal("read events", m.store.ReadEvents(ctx, queries), m.model.readEvents(queries))
	}
}
