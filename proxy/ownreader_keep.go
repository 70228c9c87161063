package proxy

import (
	"context"
	"errors"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// unstored is an event that the store may not have yet.
type unstored struct {
	text []byte
	from origin
}

// took takes in one message.
func (r *ownReader) took(ctx context.Context, event mcp.Event) {
	event.Data = asked(event, r.asks)
	r.call.recordEvent(cluster.FromUpstream, event.Data, false)
	text := keptEvent{kind: keptMessage, name: event.Name, data: event.Data}.encode()
	r.mu.Lock()
	r.last++
	if event.ID != "" {
		r.from.event = event.ID
	}
	message := unstored{text, origin{event: event.ID, version: r.from.version, session: r.from.session}}
	r.backlog = append(r.backlog, message)
	r.size += len(text)
	for r.size > maxUnkept && len(r.backlog) > 1 { // a hole, of which whoever resumes is told
		r.size -= len(r.backlog[0].text)
		r.backlog = r.backlog[1:]
	}
	position := r.last
	r.mu.Unlock()
	if err := r.flush(ctx); err != nil && ctx.Err() == nil {
		// The client that listens here must not wait for the store. That it has the event is told by its id, should it come back.
		r.feed(position, message)
	}
}

// flush stores what is not stored, and passes it on.
func (r *ownReader) flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock() // also orders what is stored
	for len(r.backlog) > 0 {
		first := r.last - int64(len(r.backlog)) + 1
		events, texts := r.batch()
		from := events[len(events)-1].from
		appended, err := r.p.sessions.Append(ctx, cluster.EventAppend{
			ID: r.call.current().ID, Stream: cluster.OwnStream, First: first, Events: texts, Claim: r.claim, UpstreamEvent: from.event, Version: from.version,
		})
		switch {
		case errors.Is(err, cluster.ErrStaleClaim), errors.Is(err, cluster.ErrNotFound):
			r.stop(err)
			return err
		case err != nil:
			return err
		}
		r.call.sayTooLarge(appended.TooLarge)
		if l := r.listener; l != nil && appended.Listener != l.number {
			r.letGo() // its client has opened another stream since
		}
		r.offer(first, events...)
		for _, text := range texts {
			r.size -= len(text)
		}
		r.backlog = r.backlog[len(texts):]
	}
	return nil
}

// batch is what is to be stored next. The caller holds r.mu.
func (r *ownReader) batch() (events []unstored, texts [][]byte) {
	events = r.backlog[:min(len(r.backlog), keepBatch)]
	for _, e := range events {
		texts = append(texts, e.text)
	}
	return events, texts
}
