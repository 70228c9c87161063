package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// pages reads a whole listing, page by page.
func (s *suite) pages(q cluster.Query) []cluster.ID {
	s.t.Helper()
	var ids []cluster.ID
	for range 100 {
		page, err := s.store.List(s.t.Context(), q)
		if err != nil {
			s.t.Fatalf("List: %v", err)
		}
		if len(page.Sessions) > q.Limit {
			s.t.Fatalf("a page of %d sessions, limit %d", len(page.Sessions), q.Limit)
		}
		for _, session := range page.Sessions {
			ids = append(ids, session.ID)
		}
		if page.Next == "" {
			return ids
		}
		q.Cursor = page.Next
	}
	s.t.Fatal("a listing without an end")
	return nil
}

func listPages(t *testing.T, s *suite) {
	s.open(nil)
	if got := s.pages(cluster.Query{Limit: 10}); len(got) != 0 {
		t.Errorf("an empty store lists %v", got)
	}
	var live, ended []cluster.ID
	for i := range 23 { // many within one millisecond: the order of their ids decides
		made := s.active()
		if i%4 == 3 {
			if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
				t.Fatal(err)
			}
			ended = append(ended, made.ID)
			continue
		}
		live = append(live, made.ID)
	}
	sorted := func(ids []cluster.ID) []string {
		names := make([]string, 0, len(ids))
		for _, id := range ids {
			names = append(names, id.String())
		}
		slices.Sort(names)
		return names
	}
	for _, limit := range []int{1, 2, 7, 100} {
		if diff := cmp.Diff(sorted(live), sorted(s.pages(cluster.Query{Limit: limit}))); diff != "" {
			t.Errorf("live sessions in pages of %d (-want +got):\n%s", limit, diff)
		}
		if diff := cmp.Diff(sorted(ended), sorted(s.pages(cluster.Query{Limit: limit, Ended: true}))); diff != "" {
			t.Errorf("ended sessions in pages of %d (-want +got):\n%s", limit, diff)
		}
	}
	s.settle()
	first := known{Session: s.get(live[0])}
	s.report(cluster.Report{ID: first.ID, Idle: 0})
	if got := s.pages(cluster.Query{Limit: 5}); got[len(got)-1] != first.ID {
		t.Error("the session used last is not listed last")
	}
}

func listRefusesCursors(t *testing.T, s *suite) {
	s.open(nil)
	for range 3 {
		s.active()
	}
	page, err := s.store.List(t.Context(), cluster.Query{Limit: 1})
	if err != nil || page.Next == "" {
		t.Fatalf("first page: next %q, %v", page.Next, err)
	}
	for _, q := range []cluster.Query{
		{Limit: 1, Cursor: page.Next, Ended: true}, // of the other listing
		{Limit: 1, Cursor: "nonsense"},
		{Limit: 1, Cursor: "live.1"},
		{Limit: 1, Cursor: "live.x." + s.token().ID.String()},
		{Limit: 1, Cursor: "live.1.*"},
	} {
		if _, err := s.store.List(t.Context(), q); !errors.Is(err, cluster.ErrInvalidCursor) {
			t.Errorf("cursor %q: %v, want ErrInvalidCursor", q.Cursor, err)
		}
	}
	for _, limit := range []int{0, -1, 1001} {
		if _, err := s.store.List(t.Context(), cluster.Query{Limit: limit}); err == nil {
			t.Errorf("a page of %d sessions was not refused", limit)
		}
	}
}

func statsCount(t *testing.T, s *suite) {
	s.open(nil)
	s.create()
	s.active()
	s.active()
	for _, status := range cluster.Statuses() {
		if !status.Ended() {
			continue
		}
		made := s.active()
		if _, err := s.store.Terminate(t.Context(), made.ID, status); err != nil {
			t.Fatal(err)
		}
	}
	want := cluster.Stats{
		ByStatus: map[cluster.Status]int64{cluster.StatusInitializing: 1, cluster.StatusActive: 2},
		Created:  8,
		Ended:    map[cluster.Status]int64{},
	}
	for _, status := range cluster.Statuses() {
		if status.Ended() {
			want.ByStatus[status], want.Ended[status] = 1, 1
		}
	}
	if diff := cmp.Diff(want, s.stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}
