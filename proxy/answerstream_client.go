package proxy

import (
	"io"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// passRetry passes on what the upstream said about coming back.
func (s *answerStream) passRetry(retry string) {
	if retry == "" {
		return
	}
	s.mu.Lock()
	s.retry = retry
	s.mu.Unlock()
	s.news.wake()
}

// offer lets the client have all that there is.
func (s *answerStream) offer() {
	s.mu.Lock()
	s.offered = s.last
	s.mu.Unlock()
	s.news.wake()
}

// take implements source.
func (s *answerStream) take(dst []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.taken < s.offered {
		s.taken++
		event := s.at(s.taken)
		s.unread -= len(event.data)
		dst = s.encode(dst, event)
	}
	if s.retry != "" {
		dst = append(append(append(dst, "retry: "...), s.retry...), "\n\n"...)
		s.retry = ""
	}
	s.forget()
	s.room.wake()
	if s.over && s.taken == s.last {
		return dst, io.EOF
	}
	return dst, nil
}

// encode appends an event as the client sees it. The caller holds s.mu; s.taken is the event's position.
func (s *answerStream) encode(dst []byte, event answerEvent) []byte {
	if event.kind == keptEnd || event.kind == keptBegun && !s.primes {
		return dst
	}
	id := eventID{stream: s.name, position: s.taken, request: s.request.ID, last: event.last}
	text, err := mcp.AppendEvent(dst, mcp.Event{ID: id.String(), Name: event.name, Data: event.data, Retry: event.retry})
	if err != nil { // a reader of events makes none of these
		return dst
	}
	return text
}

// more implements source.
func (s *answerStream) more() <-chan struct{} { return s.news }

// leave implements source. Unless the client has all of it, the rest is read and stored, for when it comes back.
func (s *answerStream) leave(gone bool) {
	s.mu.Lock()
	s.left = true
	complete := s.over && s.taken == s.last && !gone
	s.mu.Unlock()
	s.room.wake()
	if !complete {
		s.lease.Abandon()
		s.keep()
	}
}
