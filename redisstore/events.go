package redisstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	maxStreamName = 64 // bytes
	// maxPosition is the highest position of an event: numbers in scripts are exact up to it.
	maxPosition = 1<<53 - 1
	// maxRead bounds how many events or frames one read returns.
	maxRead = 1000
	// maxReadBytes bounds their size, but for the last of events.
	maxReadBytes = 1 << 20
)

// AppendEvents implements [cluster.EventStore].
func (s *Store) AppendEvents(ctx context.Context, a cluster.EventAppend) (cluster.Appended, error) {
	if err := checkAppend(a); err != nil {
		return cluster.Appended{}, err
	}
	events, tooLarge := s.keepable(a.Events)
	skip := len(a.Events) - len(events)
	p := s.partitionOf(a.ID)
	c := call{
		script: eventsAppend,
		keys:   []string{p.session(a.ID), p.deadlines(), p.events(a.ID), p.heads(a.ID), p.more(a.ID)},
		args: []any{
			a.ID.String(), a.Stream, a.First + int64(skip), s.cfg.EventsCount, s.cfg.EventsBytes, s.cfg.EventsAge.Milliseconds(),
			flag(a.Stream == cluster.OwnStream), a.Claim, keptUpstreamEvent(a.UpstreamEvent), s.lifetimeMillis(), s.leewayMillis(), s.cfg.MaxAge.Milliseconds(), a.Version,
		},
	}
	for _, event := range events {
		c.args = append(c.args, event)
	}
	reply, _, err := s.acknowledged(ctx, c)
	if err != nil {
		return cluster.Appended{}, err
	}
	appended, err := decodeAppended(reply)
	appended.TooLarge = tooLarge
	return appended, err
}

// keepable returns the messages from the first on that is not dropped at once by those after it, with nothing in the place of one
// that is too large to be kept, and how many of all are too large: none when none is kept.
func (s *Store) keepable(messages [][]byte) (events [][]byte, tooLarge int) {
	largest := s.cfg.MaxEventBytes()
	events = slices.Clone(messages)
	for i, message := range messages {
		if len(message) > largest {
			events[i] = nil
			if largest > 0 {
				tooLarge++
			}
		}
	}
	first, kept := len(events), 0
	for first > 0 && kept < max(s.cfg.EventsCount, 1) {
		first--
		if len(events[first]) > 0 {
			kept++
		}
	}
	return events[first:], tooLarge
}

// keptUpstreamEvent is what is kept of an upstream's id of an event.
func keptUpstreamEvent(id string) string {
	if len(id) > cluster.MaxUpstreamEvent {
		return ""
	}
	return id
}

// decodeAppended reads the reply of events_append: how far the stream moved on, and the listener.
func decodeAppended(reply []any) (cluster.Appended, error) {
	if len(reply) != 2 {
		return cluster.Appended{}, unavailable(errMalformedReply)
	}
	var d decoder
	appended := cluster.Appended{Listener: d.number(reply[1])}
	if d.err != nil {
		return cluster.Appended{}, unavailable(d.err)
	}
	return appended, nil
}

func checkAppend(a cluster.EventAppend) error {
	if a.Stream == "" || len(a.Stream) > maxStreamName {
		return fmt.Errorf("events of session %s: the stream's name has %d bytes, want 1 to %d", a.ID, len(a.Stream), maxStreamName)
	}
	if isOwn := a.Stream == cluster.OwnStream; isOwn != (a.Claim > 0) || !isOwn && a.UpstreamEvent != "" {
		return fmt.Errorf("events of session %s: a claim to stream %q by number %d; the own stream needs one, no other has one", a.ID, a.Stream, a.Claim)
	}
	if a.First < 1 || len(a.Events) == 0 || a.First > maxPosition-int64(len(a.Events))+1 {
		return fmt.Errorf("events of session %s: %d events from position %d, want at least one, from 1 to %d", a.ID, len(a.Events), a.First, int64(maxPosition))
	}
	for _, event := range a.Events {
		if len(event) == 0 {
			return fmt.Errorf("events of session %s: one is empty", a.ID)
		}
	}
	return nil
}

// ReadEvents implements [cluster.EventStore].
func (s *Store) ReadEvents(ctx context.Context, queries []cluster.EventQuery) []cluster.EventPage {
	calls := make([]call, len(queries))
	for i, q := range queries {
		p := s.partitionOf(q.ID)
		calls[i] = call{
			script: eventsRead,
			keys:   []string{p.session(q.ID), p.deadlines(), p.events(q.ID), p.heads(q.ID), p.more(q.ID)},
			args: []any{
				q.ID.String(), q.Stream, max(q.After, 0), min(max(q.Limit, 1), maxRead), s.cfg.EventsAge.Milliseconds(),
				flag(q.Stream == cluster.OwnStream), s.leewayMillis(), s.cfg.MaxAge.Milliseconds(), maxReadBytes,
			},
		}
	}
	pages := make([]cluster.EventPage, len(queries))
	for i, result := range s.pipeline(ctx, calls) {
		pages[i] = decodeEvents(result)
	}
	return pages
}

// decodeEvents reads the reply of events_read.
func decodeEvents(result pipelined) cluster.EventPage {
	if result.err == nil && len(result.reply) < 3 {
		result.err = unavailable(errMalformedReply)
	}
	if result.err != nil {
		return cluster.EventPage{Err: result.err}
	}
	var d decoder
	page := cluster.EventPage{Last: d.number(result.reply[0]), Listener: d.number(result.reply[1]), Claim: d.number(result.reply[2])}
	for _, event := range result.reply[3:] {
		page.Events = append(page.Events, []byte(d.text(event)))
	}
	if d.err != nil {
		return cluster.EventPage{Err: unavailable(d.err)}
	}
	return page
}
