package proxy

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// maxUpstreamEvent is the most bytes one event of an upstream may have. A stream with a longer one ends.
const maxUpstreamEvent = 32 << 20

// Bounds of asking an upstream for the rest of an answer.
const (
	resumePause    = 500 * time.Millisecond
	maxResumePause = 30 * time.Second
	maxResumes     = 5 // without an event in between
)

// answerReader reads one answer from its upstream. An upstream may close the connection before it has answered, and expect to be
// asked for the rest by the id of the last event it gave.
type answerReader struct {
	stream   *answerStream
	last     string        // the upstream's own id of the last event
	pause    time.Duration // before asking for the rest
	failures int           // in a row
}

// read passes on what comes, up to the end of body.
func (u *answerReader) read(ctx context.Context, body io.ReadCloser) {
	defer func() { _ = body.Close() }() // only read
	u.pause = resumePause
	events := mcp.NewEventReader(body, maxUpstreamEvent)
	for {
		event, err := events.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				u.stream.call.log().Debug("an answer's stream broke off", "error", err)
			}
			return
		}
		u.failures = 0
		if event.ID != "" {
			u.last = event.ID
		}
		if ms, err := strconv.Atoi(event.Retry); err == nil {
			u.pause = min(time.Duration(ms)*time.Millisecond, maxResumePause)
		}
		if len(event.Data) == 0 {
			u.stream.passRetry(event.Retry)
			continue
		}
		answered := u.answeredBy(event)
		response := len(answered) > 0 && u.stream.request.Kind == mcp.KindRequest
		u.stream.call.granted(ctx, event.Data)
		event.Data = asked(event, u.stream.asks)
		u.stream.lease.Touch()
		u.stream.call.recordEvent(cluster.FromUpstream, event.Data, response)
		if !u.stream.add(ctx, answerEvent{
			keptEvent: keptEvent{kind: keptMessage, name: event.Name, data: event.Data}, retry: event.Retry, last: response,
		}) {
			return
		}
		u.stream.unanswered = slices.DeleteFunc(u.stream.unanswered, func(id mcp.ID) bool { return slices.Contains(answered, id) })
	}
}

// answeredBy are those requests that the stream is to answer which an event does answer: one, but for a batch.
func (u *answerReader) answeredBy(event mcp.Event) (ids []mcp.ID) {
	if len(u.stream.unanswered) == 0 || event.Name != "" && event.Name != "message" {
		return nil
	}
	look := func(text []byte) {
		msg, err := mcp.Peek(text)
		if err == nil && msg.Kind == mcp.KindResponse && slices.Contains(u.stream.unanswered, msg.ID) {
			ids = append(ids, msg.ID)
		}
	}
	if u.stream.request.Kind == mcp.KindRequest {
		look(event.Data)
		return ids
	}
	for _, text := range messagesIn(event.Data) {
		look(text)
	}
	return ids
}

// requestsIn are the ids of the requests in a batch.
func requestsIn(batch []byte) (ids []mcp.ID) {
	for _, text := range messagesIn(batch) {
		if msg, err := mcp.Peek(text); err == nil && msg.Kind == mcp.KindRequest {
			ids = append(ids, msg.ID)
		}
	}
	return ids
}

// mayGoOn reports whether it makes sense to ask the upstream for the rest.
func (u *answerReader) mayGoOn(ctx context.Context) bool {
	return u.last != "" && ctx.Err() == nil && u.failures < maxResumes && u.stream.request.Kind == mcp.KindRequest
}

// reopen asks the upstream for the rest of the answer; nil when it does not give it now.
func (u *answerReader) reopen(ctx context.Context) io.ReadCloser {
	u.failures++
	select {
	case <-time.After(u.pause):
	case <-ctx.Done():
		return nil
	}
	body, err := u.stream.call.resume(ctx, u.last)
	if err != nil {
		if ctx.Err() == nil {
			u.stream.call.log().Debug("the upstream does not go on with an answer", "error", err)
		}
		if errors.Is(err, errNoSuchStream) {
			u.failures = maxResumes
		}
		return nil
	}
	return body
}
