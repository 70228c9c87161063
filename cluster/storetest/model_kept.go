package storetest

import (
	"maps"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// keptEvents are the events of all streams of a session, the oldest first.
type keptEvents struct {
	events []keptEvent
	heads  map[string]int64 // the last position of each stream of which something is kept
	newest time.Time        // when the last one was stored
	until  time.Time        // then they are all gone
}

type keptEvent struct {
	stream   string
	position int64
	message  []byte
	stored   time.Time
}

// eventsOf returns what is kept of a session, nil when it does not live.
func (m *model) eventsOf(id cluster.ID) *keptEvents {
	s := m.sessions[id]
	if s == nil || s.EndedAtOrBefore(m.at()) {
		return nil
	}
	if !m.at().Before(s.events.until) {
		s.events = keptEvents{heads: make(map[string]int64)}
	}
	return &s.events
}

// appendEvents stores what is not stored yet, then drops what is too old or too much.
func (m *model) appendEvents(a cluster.EventAppend) error {
	lost := m.asked()
	kept := m.eventsOf(a.ID)
	if kept == nil {
		return cluster.ErrNotFound
	}
	m.appendOnce(kept, a)
	if lost { // what the first call has found too old, the repeated one stores anew
		m.appendOnce(kept, a)
	}
	return nil
}

func (m *model) appendOnce(kept *keptEvents, a cluster.EventAppend) {
	for i, event := range a.Events {
		if position := a.First + int64(i); position > kept.heads[a.Stream] && len(event) <= m.cfg.MaxEventBytes() {
			kept.newest = later(kept.newest, m.at()) // a clock that went back does not disorder them
			kept.events = append(kept.events, keptEvent{stream: a.Stream, position: position, message: event, stored: kept.newest})
			kept.heads[a.Stream] = position
		}
	}
	for len(kept.events) > 0 && m.mustGo(kept) {
		oldest := kept.events[0]
		kept.events = kept.events[1:]
		if kept.heads[oldest.stream] == oldest.position {
			delete(kept.heads, oldest.stream)
		}
	}
	kept.until = m.at().Add(m.cfg.EventsAge)
}

// mustGo reports whether the oldest event must go.
func (m *model) mustGo(kept *keptEvents) bool {
	newer := 0
	for _, e := range kept.events[1:] {
		newer += len(e.message)
	}
	return m.isOld(kept.events[0]) || newer >= m.cfg.EventsBytes || len(kept.events) > m.cfg.EventsCount
}

func (m *model) isOld(e keptEvent) bool { return m.at().Sub(e.stored) >= m.cfg.EventsAge }

// readEvents reads of streams, each on its own.
func (m *model) readEvents(queries []cluster.EventQuery) []cluster.EventPage {
	lost := m.asked()
	pages := make([]cluster.EventPage, len(queries))
	for i, q := range queries {
		if pages[i] = m.readStream(q); lost {
			pages[i] = cluster.EventPage{Err: cluster.ErrStoreUnavailable}
		}
	}
	return pages
}

// readStream reads what follows a position without a gap.
func (m *model) readStream(q cluster.EventQuery) cluster.EventPage {
	kept := m.eventsOf(q.ID)
	if kept == nil {
		return cluster.EventPage{Err: cluster.ErrNotFound}
	}
	page := cluster.EventPage{Last: kept.heads[q.Stream]}
	if q.After == page.Last {
		return page
	}
	next := q.After + 1
	for _, e := range kept.events {
		if e.stream == q.Stream && e.position == next && !m.isOld(e) && len(page.Events) < q.Limit {
			page.Events = append(page.Events, e.message)
			next++
		}
	}
	if len(page.Events) == 0 {
		return cluster.EventPage{Err: cluster.ErrEventsGone}
	}
	return page
}

// streams are the streams of a session of which something is kept.
func (m *model) streams(id cluster.ID) map[string]int64 {
	if kept := m.eventsOf(id); kept != nil {
		return maps.Clone(kept.heads)
	}
	return nil
}

// keptFrames is a session's recording.
type keptFrames struct {
	frames []cluster.Frame
	last   int64
}

// frameOverhead is what a frame without any text counts, in bytes.
const frameOverhead = 64

func frameSize(f cluster.Frame) int {
	return frameOverhead + len(f.Method) + len(f.MessageID) + len(f.Replica) + len(f.Payload)
}

// appendFrames is asked once: when the reply is lost, they are there all the same. The last one is always kept.
func (m *model) appendFrames(id cluster.ID, frames []cluster.Frame) error {
	if len(frames) == 0 || m.cfg.FramesCount == 0 || m.cfg.FramesBytes == 0 {
		return nil
	}
	lost := m.asked()
	s := m.sessions[id]
	if s != nil {
		s.frames.append(m, frames)
	}
	switch {
	case lost:
		return cluster.ErrStoreUnavailable
	case s == nil:
		return cluster.ErrNotFound
	}
	return nil
}

func (k *keptFrames) append(m *model, frames []cluster.Frame) {
	for _, f := range frames {
		k.last++
		f.Number, f.At, f.Age = k.last, m.at().Add(-f.Age), 0
		if len(f.Payload) > m.cfg.FramesBytes {
			f.Payload = []byte{}
		}
		k.frames = append(k.frames, f)
	}
	size := 0
	for _, f := range k.frames {
		size += frameSize(f)
	}
	for len(k.frames) > 1 && (len(k.frames) > m.cfg.FramesCount || size > m.cfg.FramesBytes) {
		size -= frameSize(k.frames[0])
		k.frames = k.frames[1:]
	}
}

// readFrames reads a part of a recording.
func (m *model) readFrames(q cluster.FrameQuery) (cluster.FramePage, error) {
	m.asked()
	s := m.sessions[q.ID]
	if s == nil {
		return cluster.FramePage{}, cluster.ErrNotFound
	}
	page := cluster.FramePage{Last: s.frames.last}
	for _, f := range s.frames.frames {
		if f.Number > q.After && len(page.Frames) < q.Limit {
			page.Frames = append(page.Frames, f)
		}
	}
	if len(page.Frames) > 0 {
		page.Missed = page.Frames[0].Number - q.After - 1
	}
	return page, nil
}
