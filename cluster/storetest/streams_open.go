package storetest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// opening is a stream of a session; its owner is named after its key.
func opening(id cluster.ID, kind cluster.StreamKind, key string) cluster.OpenStream {
	return cluster.OpenStream{ID: id, Kind: kind, Key: key, Owner: "of-" + key + "/1"}
}

// wantOpen opens a stream, which must be refused by those that are open: none where it is counted.
func (s *suite) wantOpen(o cluster.OpenStream, most int, others ...cluster.OpenStream) {
	s.t.Helper()
	got, err := s.store.OpenStream(s.t.Context(), o, most, 0)
	slices.SortFunc(got, func(a, b cluster.OpenStream) int { return strings.Compare(a.Key, b.Key) })
	if diff := cmp.Diff(others, got); err != nil || diff != "" {
		s.t.Errorf("opening %s:%s: %v (-want +got):\n%s", o.Kind, o.Key, err, diff)
	}
}

// closeAll closes streams.
func (s *suite) closeAll(all ...cluster.OpenStream) {
	s.t.Helper()
	if err := errors.Join(s.store.CloseStreams(s.t.Context(), all)...); err != nil {
		s.t.Errorf("closing streams: %v", err)
	}
}

func streamsOpen(t *testing.T, s *suite) {
	s.open(nil)
	made, other := s.active(), s.active()
	if err := s.note(made.ID, "l:a", "a note is no stream"); err != nil {
		t.Fatal(err)
	}
	a, b, c := opening(made.ID, "l", "a"), opening(made.ID, "l", "b"), opening(made.ID, "l", "c")
	s.wantOpen(a, 2)
	s.wantOpen(b, 2)
	s.wantOpen(a, 2) // repeated, as after a lost reply
	s.wantOpen(c, 2, a, b)
	s.wantOpen(c, 1, a, b)                          // the limit was lowered
	s.wantOpen(opening(made.ID, "r", "c"), 1)       // of another kind
	s.wantOpen(opening(other.ID, "l", "a"), 1)      // of another session
	s.wantOpen(c, 3)                                // the limit was raised
	s.closeAll(a, opening(made.ID, "r", "b"), a, b) // some of them are not open
	s.wantOpen(b, 2)
	s.wantOpen(a, 2, b, c)
	strange := opening(made.ID, "r", "\x00:\n%s")
	s.closeAll(opening(made.ID, "r", "c"))
	s.wantOpen(strange, 1)
	s.wantOpen(a, 1, b, c)
	s.wantOpen(opening(made.ID, "r", "d"), 1, strange)
	for name, o := range map[string]cluster.OpenStream{
		"no key": {ID: made.ID, Kind: "l", Owner: "a/1"}, "no owner": {ID: made.ID, Kind: "l", Key: "k"},
		"a long key": {ID: made.ID, Kind: "l", Key: strings.Repeat("k", 257), Owner: "a/1"},
	} {
		if _, err := s.store.OpenStream(t.Context(), o, 100, 0); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// streamsOpenSuperseded makes room by age, where there is none.
func streamsOpenSuperseded(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	wants := func(key string, most int, superseded time.Duration, others ...string) {
		t.Helper()
		got, err := s.store.OpenStream(t.Context(), opening(made.ID, "l", key), most, superseded)
		keys := make([]string, 0, len(got))
		for _, o := range got {
			keys = append(keys, o.Key)
		}
		slices.Sort(keys)
		if diff := cmp.Diff(others, keys, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("opening %s: %v (-want +got):\n%s", key, err, diff)
		}
		s.settle()
	}
	other := opening(made.ID, "r", "d")
	s.wantOpen(other, 1)
	wants("a", 3, time.Millisecond)
	wants("b", 3, time.Millisecond)
	wants("c", 3, time.Millisecond) // while there is room none makes any
	wants("d", 3, time.Hour, "a", "b", "c")
	wants("d", 3, 0, "a", "b", "c")
	wants("d", 3, time.Millisecond)
	wants("e", 2, time.Hour)
	wants("f", 2, time.Hour, "d", "e")
	wants("d", 1, time.Millisecond) // repeated: it is open already
	wants("f", 2, time.Hour, "d", "e")
	s.wantOpen(opening(made.ID, "r", "e"), 1, other)
}

func streamsOpenConcurrently(t *testing.T, s *suite) {
	const most = 5
	s.open(nil)
	made := s.active()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		opened int
	)
	for i := range 4 * most {
		wg.Go(func() {
			others, err := s.store.OpenStream(t.Context(), opening(made.ID, "l", strconv.Itoa(i)), most, 0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Errorf("OpenStream: %v", err)
			case len(others) == 0:
				opened++
			case len(others) != most:
				t.Errorf("%d streams are told to be open, want %d", len(others), most)
			}
		})
	}
	wg.Wait()
	if opened != most {
		t.Errorf("%d streams were opened, want %d", opened, most)
	}
}

func streamsOpenEnd(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	o := opening(made.ID, "l", "a")
	s.wantOpen(o, 1)
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.OpenStream(t.Context(), o, 1, 0); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("opening a stream of an ended session: %v, want ErrNotFound", err)
	}
	s.closeAll(o)
}
