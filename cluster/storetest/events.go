package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var eventTests = map[string]func(*testing.T, *suite){
	"events are read in order after any position":        eventsRead,
	"events stored already are passed over":              eventsRepeated,
	"events appended by many at once are stored once":    eventsConcurrent,
	"streams of a session do not mix":                    eventsInterleaved,
	"a hole in a stream is told where it is":             eventsHole,
	"readers of nothing are told so":                     eventsNone,
	"an append that is refused stores nothing":           eventsAllOrNone,
	"events end with their session":                      eventsEnd,
	"events are binary and large":                        eventsBinary,
	"events of many sessions are read at once, in order": eventsPipelined,
	"events are bounded by count":                        eventsCount,
	"events are bounded by bytes":                        eventsBytes,
	"an event that is too large is a hole":               eventsTooLarge,
	"events that are too large push none out":            eventsTooLargePushNoneOut,
	"a page of events is bounded by bytes":               eventsPages,
	"without any bound on events none are kept":          eventsOff,
}

var timedEventTests = map[string]func(*testing.T, *suite){
	"events are bounded by age":                        eventsAge,
	"events dropped by a repeated append stay dropped": eventsAgeOnRepeat,
}

func (s *suite) appendEvents(id cluster.ID, stream string, first int64, events ...string) error {
	s.t.Helper()
	a := cluster.EventAppend{ID: id, Stream: stream, First: first}
	for _, event := range events {
		a.Events = append(a.Events, []byte(event))
	}
	_, err := s.store.AppendEvents(s.t.Context(), a)
	return err
}

func (s *suite) mustAppend(id cluster.ID, stream string, first int64, events ...string) {
	s.t.Helper()
	if err := s.appendEvents(id, stream, first, events...); err != nil {
		s.t.Fatalf("AppendEvents: %v", err)
	}
}

func (s *suite) readEvents(id cluster.ID, stream string, after int64, limit int) cluster.EventPage {
	s.t.Helper()
	pages := s.store.ReadEvents(s.t.Context(), []cluster.EventQuery{{ID: id, Stream: stream, After: after, Limit: limit}})
	if len(pages) != 1 {
		s.t.Fatalf("ReadEvents of one stream answered with %d pages", len(pages))
	}
	return pages[0]
}

// wantEvents fails the test unless just these events follow a position.
func (s *suite) wantEvents(id cluster.ID, stream string, after, last int64, want ...string) {
	s.t.Helper()
	page := s.readEvents(id, stream, after, 1000)
	got := make([]string, 0, len(page.Events))
	for _, event := range page.Events {
		got = append(got, string(event))
	}
	if page.Err != nil || page.Last != last {
		s.t.Errorf("stream %q after %d: last is %d, %v; want %d", stream, after, page.Last, page.Err, last)
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		s.t.Errorf("stream %q after %d (-want +got):\n%s", stream, after, diff)
	}
}

func (s *suite) wantGone(id cluster.ID, stream string, after int64) {
	s.t.Helper()
	if page := s.readEvents(id, stream, after, 1000); !errors.Is(page.Err, cluster.ErrEventsGone) || len(page.Events) > 0 {
		s.t.Errorf("stream %q after %d: %d events, %v; want ErrEventsGone", stream, after, len(page.Events), page.Err)
	}
}

func eventsRead(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustAppend(made.ID, "get", 1, "one", "two")
	s.mustAppend(made.ID, "get", 3, "three")
	s.wantEvents(made.ID, "get", 0, 3, "one", "two", "three")
	s.wantEvents(made.ID, "get", 2, 3, "three")
	s.wantEvents(made.ID, "get", 3, 3)
	if page := s.readEvents(made.ID, "get", 0, 2); page.Err != nil || len(page.Events) != 2 || page.Last != 3 {
		t.Errorf("two of three: %d events, last %d, %v", len(page.Events), page.Last, page.Err)
	}
	early := s.create() // an initializing session has events, too
	s.mustAppend(early.ID, "get", 1, "one")
	s.wantEvents(early.ID, "get", 0, 1, "one")
	many := make([]string, 150) // more than a script reads in one go
	for i := range many {
		many[i] = fmt.Sprint("event ", i)
	}
	s.mustAppend(made.ID, "many", 1, many...)
	s.wantEvents(made.ID, "many", 0, 150, many...)
	s.wantEvents(made.ID, "many", 70, 150, many[70:]...)
	s.wantEvents(made.ID, "get", 0, 3, "one", "two", "three")
}

func eventsRepeated(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	for range 2 {
		s.mustAppend(made.ID, "s", 1, "one", "two")
	}
	s.mustAppend(made.ID, "s", 2, "not two", "three") // what is there stays
	s.mustAppend(made.ID, "s", 1, "not one")
	s.wantEvents(made.ID, "s", 0, 3, "one", "two", "three")
}

func eventsConcurrent(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	var wg sync.WaitGroup
	for first := range int64(8) {
		wg.Go(func() {
			var events [][]byte
			for position := first/2 + 1; position <= 10; position++ {
				events = append(events, fmt.Append(nil, position))
			}
			_, err := s.store.AppendEvents(t.Context(), cluster.EventAppend{ID: made.ID, Stream: "s", First: first/2 + 1, Events: events})
			if err != nil {
				t.Errorf("AppendEvents: %v", err)
			}
		})
	}
	wg.Wait()
	page := s.readEvents(made.ID, "s", 9, 10)
	if page.Err != nil || page.Last != 10 || len(page.Events) != 1 || string(page.Events[0]) != "10" {
		t.Errorf("after all: %q, last %d, %v; want event 10 once", page.Events, page.Last, page.Err)
	}
}

func eventsInterleaved(_ *testing.T, s *suite) {
	s.open(nil)
	a, b := s.active(), s.active()
	long := strings.Repeat("s", 64)
	for i := range int64(5) {
		s.mustAppend(a.ID, "x", i+1, fmt.Sprint("ax", i))
		s.mustAppend(b.ID, "x", i+1, fmt.Sprint("bx", i))
		s.mustAppend(a.ID, "0", i+1, fmt.Sprint("a0", i))
		s.mustAppend(a.ID, long, i+1, fmt.Sprint("al", i))
	}
	s.wantEvents(a.ID, "x", 2, 5, "ax2", "ax3", "ax4")
	s.wantEvents(b.ID, "x", 3, 5, "bx3", "bx4")
	s.wantEvents(a.ID, "0", 0, 5, "a00", "a01", "a02", "a03", "a04")
	s.wantEvents(a.ID, long, 4, 5, "al4")
	s.wantEvents(b.ID, "0", 0, 0)
}

func eventsHole(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustAppend(made.ID, "s", 1, "one", "two")
	s.mustAppend(made.ID, "s", 5, "five")
	s.wantEvents(made.ID, "s", 0, 5, "one", "two") // up to the hole
	s.wantEvents(made.ID, "s", 1, 5, "two")
	s.wantGone(made.ID, "s", 2)
	s.wantGone(made.ID, "s", 3)
	s.wantEvents(made.ID, "s", 4, 5, "five")
	s.wantEvents(made.ID, "s", 5, 5)
	s.mustAppend(made.ID, "s", 3, "three", "four", "five") // too late: a hole stays one
	s.wantGone(made.ID, "s", 2)
	s.mustAppend(made.ID, "late", 7, "seven") // whose begin was never stored
	s.wantGone(made.ID, "late", 0)
	s.wantEvents(made.ID, "late", 6, 7, "seven")
}

func eventsNone(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.wantEvents(made.ID, "s", 0, 0)
	s.wantGone(made.ID, "s", 3) // the reader had some, the store knows of none
	s.mustAppend(made.ID, "s", 1, "one", "two")
	s.wantGone(made.ID, "s", 3) // the reader has more than the store
	if page := s.readEvents(s.token().ID, "s", 0, 1); !errors.Is(page.Err, cluster.ErrNotFound) {
		t.Errorf("reading of an unknown session: %v, want ErrNotFound", page.Err)
	}
	if err := s.appendEvents(s.token().ID, "s", 1, "one"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("appending to an unknown session: %v, want ErrNotFound", err)
	}
	if pages := s.store.ReadEvents(t.Context(), nil); len(pages) != 0 {
		t.Errorf("no queries were answered with %d pages", len(pages))
	}
}

func eventsAllOrNone(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	for name, a := range map[string]cluster.EventAppend{
		"no stream":     {First: 1, Events: [][]byte{[]byte("x")}},
		"a long stream": {Stream: strings.Repeat("s", 65), First: 1, Events: [][]byte{[]byte("x")}},
		"position 0":    {Stream: "s", First: 0, Events: [][]byte{[]byte("x")}},
		"position -1":   {Stream: "s", First: -1, Events: [][]byte{[]byte("x")}},
		"no events":     {Stream: "s", First: 1},
		"an empty one":  {Stream: "s", First: 1, Events: [][]byte{[]byte("x"), {}}},
		"beyond count":  {Stream: "s", First: 1<<53 - 1, Events: [][]byte{[]byte("x"), []byte("y")}},
	} {
		a.ID = made.ID
		_, err := s.store.AppendEvents(t.Context(), a)
		if err == nil || errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrStoreUnavailable) {
			t.Errorf("%s: %v, want a refusal that says so", name, err)
		}
	}
	s.wantEvents(made.ID, "s", 0, 0)
	s.mustAppend(made.ID, "s", 1<<53-1, "ten bytes.")
	s.wantEvents(made.ID, "s", 1<<53-2, 1<<53-1, "ten bytes.")
}

func eventsEnd(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustAppend(made.ID, "s", 1, "one")
	s.terminate(made.ID)
	if page := s.readEvents(made.ID, "s", 0, 1); !errors.Is(page.Err, cluster.ErrNotFound) {
		t.Errorf("reading of an ended session: %v, want ErrNotFound", page.Err)
	}
	if err := s.appendEvents(made.ID, "s", 2, "two"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("appending to an ended session: %v, want ErrNotFound", err)
	}
	s.b.Verify(t) // that nothing is left is looked up there
}

func eventsBinary(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := bytes.Repeat(all, limits().EventsBytes/len(all))
	for i, event := range [][]byte{all, []byte("\r\n"), {0}, large} { // the large one is all that is kept
		a := cluster.EventAppend{ID: made.ID, Stream: "\x00{}\r\n*", First: int64(i + 1), Events: [][]byte{event}}
		if _, err := s.store.AppendEvents(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if page := s.readEvents(made.ID, a.Stream, int64(i), 1); page.Err != nil || len(page.Events) != 1 || !bytes.Equal(page.Events[0], event) {
			t.Errorf("event %d of %d bytes did not survive: %v", i, len(event), page.Err)
		}
	}
	s.wantGone(made.ID, "\x00{}\r\n*", 2)
}

func eventsPipelined(t *testing.T, s *suite) {
	s.open(nil)
	queries := make([]cluster.EventQuery, 0, 60)
	for i := range 60 {
		made := known{Session: cluster.Session{ID: s.token().ID}}
		if i%4 != 0 {
			made = s.active()
			s.mustAppend(made.ID, "s", 1, fmt.Sprint("event ", i))
		}
		queries = append(queries, cluster.EventQuery{ID: made.ID, Stream: "s", After: int64(i % 4 / 3 * 5), Limit: 10})
	}
	for i, page := range s.store.ReadEvents(t.Context(), queries) {
		var ok bool
		switch i % 4 {
		case 0:
			ok = errors.Is(page.Err, cluster.ErrNotFound)
		case 3:
			ok = errors.Is(page.Err, cluster.ErrEventsGone)
		default:
			ok = page.Err == nil && page.Last == 1 && len(page.Events) == 1 && string(page.Events[0]) == fmt.Sprint("event ", i)
		}
		if !ok {
			t.Errorf("page %d: %q, last %d, %v", i, page.Events, page.Last, page.Err)
		}
	}
}

func eventsCount(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsCount = 4 })
	made := s.active()
	s.mustAppend(made.ID, "a", 1, "a1", "a2")
	s.mustAppend(made.ID, "b", 1, "b1")
	s.mustAppend(made.ID, "a", 3, "a3")
	s.wantEvents(made.ID, "a", 0, 3, "a1", "a2", "a3")
	s.mustAppend(made.ID, "b", 2, "b2") // the oldest of all goes: a1
	s.wantGone(made.ID, "a", 0)
	s.wantEvents(made.ID, "a", 1, 3, "a2", "a3")
	s.mustAppend(made.ID, "c", 1, "c1", "c2", "c3") // all but b2
	s.wantGone(made.ID, "a", 2)
	s.wantEvents(made.ID, "a", 0, 0) // forgotten altogether
	s.wantGone(made.ID, "b", 0)
	s.wantEvents(made.ID, "b", 1, 2, "b2")
	s.mustAppend(made.ID, "d", 1, "d1", "d2", "d3", "d4", "d5", "d6") // more than are kept, at once
	s.wantGone(made.ID, "d", 1)
	s.wantEvents(made.ID, "d", 2, 6, "d3", "d4", "d5", "d6")
	s.wantEvents(made.ID, "c", 0, 0)
	s.mustAppend(made.ID, "d", 1, "d1", "d2", "d3", "d4", "d5", "d6")
	s.wantEvents(made.ID, "d", 2, 6, "d3", "d4", "d5", "d6")
}

func eventsBytes(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsBytes = 100 })
	made := s.active()
	of := func(size int) string { return strings.Repeat("x", size) }
	s.mustAppend(made.ID, "a", 1, of(41), of(40))
	s.mustAppend(made.ID, "b", 1, of(59))
	s.wantEvents(made.ID, "a", 0, 2, of(41), of(40)) // 99 have come after the first
	s.mustAppend(made.ID, "b", 2, "4")
	s.wantGone(made.ID, "a", 0)
	s.wantEvents(made.ID, "a", 1, 2, of(40))
	s.mustAppend(made.ID, "b", 3, of(40), of(20))
	s.wantEvents(made.ID, "a", 0, 0)
	s.wantEvents(made.ID, "b", 0, 4, of(59), "4", of(40), of(20))
	s.mustAppend(made.ID, "c", 1, of(400)) // as large as one may be
	s.wantGone(made.ID, "b", 3)
	s.mustAppend(made.ID, "c", 2, of(99))
	s.wantEvents(made.ID, "c", 0, 2, of(400), of(99)) // it is not gone before anybody could read it
	s.mustAppend(made.ID, "c", 3, "1")
	s.wantGone(made.ID, "c", 0)
	s.wantEvents(made.ID, "c", 1, 3, of(99), "1")
}

// eventsTooLarge: what is too large is a hole. In the own stream it is known at once, in others once something follows.
func eventsTooLarge(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsBytes = 10 })
	made := s.active()
	large := strings.Repeat("x", 41)
	claim := s.read(made.ID, "a/1")
	for stream, number := range map[string]int64{"s": 0, cluster.OwnStream: claim} {
		store := func(first int64, want int, events ...string) {
			t.Helper()
			a := cluster.EventAppend{ID: made.ID, Stream: stream, First: first, Claim: number}
			for _, event := range events {
				a.Events = append(a.Events, []byte(event))
			}
			if appended, err := s.store.AppendEvents(t.Context(), a); err != nil || appended.TooLarge != want {
				t.Errorf("stream %q from %d: %d too large, %v; want %d", stream, first, appended.TooLarge, err, want)
			}
		}
		store(1, 0, "one")
		for range 2 { // again, after a lost reply
			store(2, 1, large)
		}
		s.wantEvents(made.ID, stream, 0, map[bool]int64{true: 2, false: 1}[number != 0], "one")
		if number != 0 {
			s.wantGone(made.ID, stream, 1)
			s.wantEvents(made.ID, stream, 2, 2)
		}
		store(3, 1, "three", large, "five")
		s.wantEvents(made.ID, stream, 0, 5, "one")
		s.wantGone(made.ID, stream, 1)
		s.wantEvents(made.ID, stream, 2, 5, "three")
		s.wantGone(made.ID, stream, 3)
		s.wantEvents(made.ID, stream, 4, 5, "five")
	}
}

// eventsTooLargePushNoneOut: of many messages at once, those that are too large are not among the last that are kept.
func eventsTooLargePushNoneOut(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsCount, c.EventsBytes = 2, 10 })
	made := s.active()
	large := strings.Repeat("x", 41)
	s.mustAppend(made.ID, "s", 1, "1", large, "3", large, large, large)
	s.wantEvents(made.ID, "s", 0, 3, "1")
	s.wantEvents(made.ID, "s", 2, 3, "3")
	s.mustAppend(made.ID, "s", 7, large, "8", large)
	s.wantGone(made.ID, "s", 0)
	s.wantEvents(made.ID, "s", 2, 8, "3")
	s.wantEvents(made.ID, "s", 7, 8, "8")
}

// eventsPages: a page has so many bytes, about, and one event at least.
func eventsPages(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsBytes = 4 << 20 })
	made := s.active()
	large, huge := strings.Repeat("x", 600<<10), strings.Repeat("x", 2<<20)
	s.mustAppend(made.ID, "s", 1, large, large, large, huge)
	for after, want := range []int{2, 2, 2, 1, 0} {
		if page := s.readEvents(made.ID, "s", int64(after), 1000); page.Err != nil || len(page.Events) != want || page.Last != 4 {
			t.Errorf("after %d: %d events, last %d, %v; want %d", after, len(page.Events), page.Last, page.Err, want)
		}
	}
}

func eventsOff(t *testing.T, s *suite) {
	for name, off := range map[string]func(*cluster.Config){
		"count": func(c *cluster.Config) { c.EventsCount = 0 },
		"bytes": func(c *cluster.Config) { c.EventsBytes = 0 },
		"age":   func(c *cluster.Config) { c.EventsAge = 0 },
	} {
		s.open(off)
		made := s.active()
		appended, err := s.store.AppendEvents(t.Context(), cluster.EventAppend{ID: made.ID, Stream: "s", First: 1, Events: [][]byte{[]byte("one")}})
		if err != nil || appended.TooLarge != 0 {
			t.Errorf("no %s: %+v, %v", name, appended, err)
		}
		s.wantEvents(made.ID, "s", 0, 0)
		s.wantGone(made.ID, "s", 1)
		s.mustAppendOwn(made.ID, s.read(made.ID, "a/1"), 1, "one", "two")
		s.wantOwn(made.ID, 2, 2)
		s.wantGone(made.ID, cluster.OwnStream, 1)
	}
}

func eventsAge(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsAge = time.Minute })
	made := s.active()
	s.mustAppend(made.ID, "a", 1, "a1", "a2")
	s.b.Advance(30 * time.Second)
	s.mustAppend(made.ID, "b", 1, "b1")
	s.b.Advance(30*time.Second - time.Millisecond)
	s.wantEvents(made.ID, "a", 0, 2, "a1", "a2")
	s.b.Advance(time.Millisecond)
	s.wantGone(made.ID, "a", 0) // though nothing has been appended since
	s.wantEvents(made.ID, "a", 2, 2)
	s.mustAppend(made.ID, "b", 2, "b2")
	s.wantEvents(made.ID, "a", 0, 0)
	s.wantGone(made.ID, "a", 1)
	s.wantEvents(made.ID, "b", 0, 2, "b1", "b2")
	s.b.Advance(30 * time.Second)
	s.wantGone(made.ID, "b", 0)
	s.wantEvents(made.ID, "b", 1, 2, "b2")
	s.b.Advance(time.Minute)
	s.wantGone(made.ID, "b", 1)
	s.mustAppend(made.ID, "b", 3, "b3") // the writer goes on
	s.wantGone(made.ID, "b", 1)
	s.wantEvents(made.ID, "b", 2, 3, "b3")
}

// eventsAgeOnRepeat: what an append drops that has nothing new to store is no part of the sum of bytes any more.
func eventsAgeOnRepeat(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EventsAge = time.Minute; c.EventsBytes = 100 })
	made := s.active()
	forty := strings.Repeat("x", 40)
	s.mustAppend(made.ID, "a", 1, forty, forty)
	s.b.Advance(40 * time.Second)
	s.mustAppend(made.ID, "b", 1, "b1")
	s.b.Advance(30 * time.Second)
	s.mustAppend(made.ID, "b", 1, "b1") // drops those of a
	s.b.Verify(t)
	s.mustAppend(made.ID, "c", 1, forty, forty)
	s.wantEvents(made.ID, "b", 0, 1, "b1")
}
