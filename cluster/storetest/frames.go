package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var frameTests = map[string]func(*testing.T, *suite){
	"frames survive the round trip":                   framesRoundTrip,
	"frames are numbered and read page by page":       framesPages,
	"frames are bounded by count":                     framesCount,
	"frames are bounded by bytes, but for the newest": framesBytes,
	"frames stay when their session ends":             framesOfEnded,
	"frames are purged with their session":            framesPurged,
	"frames of unknown sessions are not found":        framesUnknown,
	"without any bound on frames none are kept":       framesOff,
	"a frame's strings are cut":                       framesCut,
}

var timedFrameTests = map[string]func(*testing.T, *suite){
	"frames tell when their messages passed":     framesTell,
	"frames are gone when the retention is over": framesRetention,
}

func (s *suite) record(id cluster.ID, frames ...cluster.Frame) {
	s.t.Helper()
	if err := s.store.AppendFrames(s.t.Context(), id, frames); err != nil {
		s.t.Fatalf("AppendFrames: %v", err)
	}
}

func (s *suite) frames(id cluster.ID, after int64, limit int) cluster.FramePage {
	s.t.Helper()
	page, err := s.store.ReadFrames(s.t.Context(), cluster.FrameQuery{ID: id, After: after, Limit: limit})
	if err != nil {
		s.t.Fatalf("ReadFrames: %v", err)
	}
	return page
}

// named returns frames with one-letter methods.
func named(methods string) []cluster.Frame {
	frames := make([]cluster.Frame, 0, len(methods))
	for _, method := range methods {
		frames = append(frames, cluster.Frame{Direction: cluster.FromClient, Method: string(method)})
	}
	return frames
}

// wantFrames fails the test unless a page has just these frames, numbered from first, and says what is missing.
func (s *suite) wantFrames(page cluster.FramePage, methods string, first, missed, last int64) {
	s.t.Helper()
	var all strings.Builder
	for i, frame := range page.Frames {
		all.WriteString(frame.Method)
		if frame.Number != first+int64(i) {
			s.t.Errorf("frame %s has number %d, want %d", frame.Method, frame.Number, first+int64(i))
		}
	}
	if got := all.String(); got != methods || page.Missed != missed || page.Last != last {
		s.t.Errorf("frames %q, %d missed, last %d; want %q, %d missed, last %d", got, page.Missed, page.Last, methods, missed, last)
	}
}

func framesRoundTrip(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	want := []cluster.Frame{
		{
			Number: 1, Direction: cluster.FromClient, Method: "tools/call", MessageID: `"ä\"1"`, Size: 1234,
			Replica: "replica-1/ABCDEFGH", Payload: all,
		},
		{
			Number: 2, Direction: cluster.FromUpstream, MessageID: "17", Size: 1 << 30, Status: 200,
			Latency: 1234567 * time.Microsecond, Replica: "replica-2/ABCDEFGH", Payload: []byte("{}"),
		},
		{Number: 3, Direction: cluster.FromUpstream, Method: "notifications/progress"},
	}
	s.record(made.ID, want...)
	got := s.frames(made.ID, 0, 10).Frames
	for i := range got {
		if since := got[i].At.Sub(made.LastActivityAt); since < 0 || since > time.Minute {
			t.Errorf("frame %d passed %v after the activation", i, since)
		}
		got[i].At = time.Time{}
		if len(got[i].Payload) == 0 {
			got[i].Payload = nil
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func framesPages(t *testing.T, s *suite) {
	s.open(nil)
	made, other := s.active(), s.create()
	s.wantFrames(s.frames(made.ID, 0, 10), "", 0, 0, 0)
	s.record(made.ID, named("ab")...)
	s.record(other.ID, named("x")...)
	s.record(made.ID)
	s.record(made.ID, named("cde")...)
	s.wantFrames(s.frames(made.ID, 0, 2), "ab", 1, 0, 5)
	s.wantFrames(s.frames(made.ID, 2, 2), "cd", 3, 0, 5)
	s.wantFrames(s.frames(made.ID, 4, 1000), "e", 5, 0, 5)
	s.wantFrames(s.frames(made.ID, 5, 10), "", 0, 0, 5)
	s.wantFrames(s.frames(made.ID, 50, 10), "", 0, 0, 5)
	s.wantFrames(s.frames(other.ID, 0, 10), "x", 1, 0, 1)
	if before := s.get(made.ID); !before.LastActivityAt.Equal(made.LastActivityAt) {
		t.Error("recording touched the session")
	}
}

func framesCount(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.FramesCount = 3 })
	made := s.active()
	s.record(made.ID, named("ab")...)
	s.record(made.ID, named("cd")...)
	s.wantFrames(s.frames(made.ID, 0, 10), "bcd", 2, 1, 4)
	s.record(made.ID, named("efghi")...) // more than are kept, at once
	s.wantFrames(s.frames(made.ID, 0, 10), "ghi", 7, 6, 9)
	s.wantFrames(s.frames(made.ID, 4, 1), "g", 7, 2, 9)
	s.wantFrames(s.frames(made.ID, 7, 10), "hi", 8, 0, 9)
}

func framesBytes(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.FramesBytes = 1000 })
	made := s.active()
	sized := func(method string, n int) cluster.Frame {
		return cluster.Frame{Direction: cluster.FromClient, Method: method, Payload: []byte(strings.Repeat("p", n))}
	}
	for _, method := range []string{"a", "b", "c", "d", "e", "f"} {
		s.record(made.ID, sized(method, 200)) // and something for the rest of a frame
	}
	page := s.frames(made.ID, 0, 10)
	if n := len(page.Frames); n < 2 || n > 4 || page.Frames[n-1].Method != "f" {
		t.Errorf("%d frames of over 200 bytes are kept of 1000 bytes, the last is %d", n, page.Last)
	}
	s.record(made.ID, sized("g", 1000))
	s.wantFrames(s.frames(made.ID, 0, 10), "g", 7, 6, 7)
	s.record(made.ID, sized("h", 1001)) // more than all there is room for: its payload is left out
	page = s.frames(made.ID, 0, 10)
	if n := len(page.Frames); page.Frames[n-1].Method != "h" || len(page.Frames[n-1].Payload) > 0 || page.Last != 8 {
		t.Errorf("after a large one: %+v", page)
	}
	s.record(made.ID, sized("i", 10), sized("j", 10))
	s.wantFrames(s.frames(made.ID, 7, 10), "hij", 8, 0, 10)
	if err := s.store.AppendFrames(t.Context(), made.ID, make([]cluster.Frame, 201)); err == nil {
		t.Error("201 frames at once were taken")
	}
}

func framesOfEnded(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.record(made.ID, named("ab")...)
	s.terminate(made.ID)
	s.wantFrames(s.frames(made.ID, 0, 10), "ab", 1, 0, 2)
	s.record(made.ID, named("c")...) // the answer to the DELETE
	s.wantFrames(s.frames(made.ID, 0, 10), "abc", 1, 0, 3)
}

func framesPurged(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.Retention = 0 })
	made := s.active()
	s.record(made.ID, named("ab")...)
	s.terminate(made.ID)
	s.wantNoFrames(made.ID)
	s.b.Verify(t)
}

func (s *suite) wantNoFrames(id cluster.ID) {
	s.t.Helper()
	if _, err := s.store.ReadFrames(s.t.Context(), cluster.FrameQuery{ID: id, Limit: 1}); !errors.Is(err, cluster.ErrNotFound) {
		s.t.Errorf("ReadFrames: %v, want ErrNotFound", err)
	}
	if err := s.store.AppendFrames(s.t.Context(), id, named("x")); !errors.Is(err, cluster.ErrNotFound) {
		s.t.Errorf("AppendFrames: %v, want ErrNotFound", err)
	}
}

func framesUnknown(_ *testing.T, s *suite) {
	s.open(nil)
	s.wantNoFrames(s.token().ID)
}

func framesOff(_ *testing.T, s *suite) {
	for _, off := range []func(*cluster.Config){
		func(c *cluster.Config) { c.FramesCount = 0 },
		func(c *cluster.Config) { c.FramesBytes = 0 },
	} {
		s.open(off)
		made := s.active()
		s.record(made.ID, named("a")...)
		s.wantFrames(s.frames(made.ID, 0, 10), "", 0, 0, 0)
	}
}

func framesCut(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.record(made.ID, cluster.Frame{
		Direction: cluster.FromClient, Method: strings.Repeat("m", 200), MessageID: strings.Repeat("i", 63) + "ä", Replica: strings.Repeat("r", 65),
	})
	got := s.frames(made.ID, 0, 1).Frames[0]
	if got.Method != strings.Repeat("m", 128) || got.MessageID != strings.Repeat("i", 63) || got.Replica != strings.Repeat("r", 64) {
		t.Errorf("cut to %d, %d and %d bytes: %+v; want 128, 63 (no half letter) and 64", len(got.Method), len(got.MessageID), len(got.Replica), got)
	}
}

func framesTell(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.b.Advance(time.Minute)
	s.record(made.ID, cluster.Frame{Method: "a", Age: 250 * time.Millisecond}, cluster.Frame{Method: "b"})
	now := made.LastActivityAt.Add(time.Minute)
	for i, want := range []time.Time{now.Add(-250 * time.Millisecond), now} {
		if got := s.frames(made.ID, 0, 2).Frames[i].At; !got.Equal(want) {
			t.Errorf("frame %d passed at %v, want %v", i, got, want)
		}
	}
}

func framesRetention(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.record(made.ID, named("ab")...)
	s.terminate(made.ID)
	s.b.Advance(limits().Retention - time.Millisecond)
	s.record(made.ID, named("c")...)
	s.wantFrames(s.frames(made.ID, 0, 10), "abc", 1, 0, 3)
	s.b.Advance(time.Millisecond)
	if swept, err := s.store.Sweep(t.Context(), sweep); err != nil || len(swept.Purged) != 1 {
		t.Fatalf("%v purged, %v; want 1", swept.Purged, err)
	}
	s.wantNoFrames(made.ID)
}
