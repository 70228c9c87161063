package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// keepBatch is how many events one call of the store takes.
	keepBatch = 64
	// keepRetry is the first pause between attempts to store the end of a stream while the store is away, maxKeepRetry the longest. After
	// keepFor, as long as anything is kept by default, nobody could resume it any more.
	keepRetry    = 500 * time.Millisecond
	maxKeepRetry = 5 * time.Second
	keepFor      = 5 * time.Minute
)

// keep stores all of the stream from now on.
func (s *answerStream) keep() {
	s.mu.Lock()
	s.keeping = true
	s.endLocked()
	over := s.over
	s.mu.Unlock()
	_ = s.store() // what could not be stored now is with the next event, or at the end
	if over {
		s.offer() // there is an end more
	}
}

// keepEnd stores what is not stored of a stream that is over and may be needed elsewhere. While the store is away it tries again.
func (s *answerStream) keepEnd(ctx context.Context) {
	wait := keepRetry
	for begun := time.Now(); ; wait = min(2*wait, maxKeepRetry) {
		s.mu.Lock()
		needed := s.keeping || s.left
		s.mu.Unlock()
		if !needed {
			return
		}
		sent := time.Now()
		err := s.store()
		if err == nil {
			return
		}
		s.offer()         // whoever listens here must not wait for the store
		s.lease.Release() // the request is answered, whether or not that is stored
		if time.Since(begun) > keepFor || !pause(ctx, wait) {
			s.call.log().Log(ctx, s.call.p.cfg.InOutage.Level(err, sent), "the end of an answer could not be stored: nobody can resume it", "error", err)
			return
		}
	}
}

// store stores what is not stored yet.
func (s *answerStream) store() error {
	s.storing.Lock()
	defer s.storing.Unlock()
	for {
		first, batch := s.unstored()
		if len(batch) == 0 {
			return nil
		}
		appended, err := s.call.p.sessions.Append(context.Background(), cluster.EventAppend{
			ID: s.call.session.ID, Stream: s.name, First: first, Events: batch,
		})
		if err != nil && !errors.Is(err, cluster.ErrNotFound) { // a session that has ended nobody will resume
			return err
		}
		s.call.sayTooLarge(appended.TooLarge)
		s.mu.Lock()
		s.storedUpTo(first + int64(len(batch)) - 1)
		s.mu.Unlock()
	}
}

// sayTooLarge logs, now and then, that messages are too large to be kept.
func (c *upstreamCall) sayTooLarge(messages int) {
	if messages > 0 && c.upstream.tooLarge.again() {
		c.log().Warn("a message of the upstream is too large to be kept for clients at other replicas and those that come back: they are told events_gone; raise events.bytes, of which a message may have four times as much")
	}
}

// unstored returns the first events that are not stored, and the position of the first of them.
func (s *answerStream) unstored() (first int64, batch [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.stored + 1
	for position := first; position <= s.last && len(batch) < keepBatch; position++ {
		batch = append(batch, s.at(position).encode())
	}
	return first, batch
}

// storedUpTo says that the store has, or never will have, the events up to a position. The caller holds s.mu.
func (s *answerStream) storedUpTo(position int64) {
	for s.stored < position {
		s.stored++
		s.unkept -= len(s.at(s.stored).data)
	}
	s.forget()
}

// giveUp drops the oldest of what could not be stored, when it is too much, but for what the client is still to be given. That leaves a
// hole, of which whoever resumes is told.
func (s *answerStream) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.unkept > maxUnkept && s.stored < s.last-1 && (s.left || s.stored < s.taken) {
		s.storedUpTo(s.stored + 1)
	}
}

// endLocked puts the end of a stream that is over behind its events, once, when somebody may ask the store for it. The caller holds
// s.mu.
func (s *answerStream) endLocked() {
	if s.over && !s.marked && (s.keeping || s.left) {
		s.marked = true
		s.appendLocked(answerEvent{keptEvent: keptEvent{kind: keptEnd}})
	}
}
