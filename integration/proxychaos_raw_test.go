package integration_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rawChaosClient has one session, and looks at every byte of its streams.
type rawChaosClient struct {
	name  string
	url   string
	token string
	tally *chaosTally
	ticks *tickCheck
	http  *http.Client

	mu       sync.Mutex
	ids      map[string]string // where each event's id was seen
	position map[string]int64  // the last one of each stream
	claim    string            // of the own stream's last event, or of what told where the client is
}

const rawKind = "raw"

func newRawChaosClient(t *testing.T, tally *chaosTally, name, url string, complete bool) *rawChaosClient {
	t.Helper()
	c := &rawChaosClient{
		name: name, url: url, tally: tally, ticks: newTickCheck(tally, rawKind, name, complete),
		http:     &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		ids:      make(map[string]string),
		position: make(map[string]int64),
	}
	c.token = openSession(t, url, "2025-11-25")
	tally.count(rawKind, func(r *chaosRow) { r.clients++ })
	return c
}

// event is one server-sent event.
type rawEvent struct{ id, data string }

// rawEvents reads events. One that is cut short is none.
type rawEvents struct{ lines *bufio.Reader }

func (r rawEvents) next() (rawEvent, error) {
	var e rawEvent
	some := false
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			return rawEvent{}, err
		}
		line = strings.TrimRight(line, "\r\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && some:
			return e, nil
		case line == "" || field == "":
			continue
		case field == "id":
			e.id = value
		case field == "data":
			e.data += value
		}
		some = true
	}
}

// ownStream is how a session's own stream is called here.
const ownStream = "own"

// see checks an event's id: no other event of the session has it, and in its stream it is the next. An event without data
// tells where the client is, so it may repeat the id before it. A new reader of the own stream goes on where the store was, which may be
// told before there is any event: what the one before had passed on, but could not store before both were gone, has numbers that come
// again. That no message does is checked by what is in them.
func (c *rawChaosClient) see(e rawEvent) {
	if e.id == "" {
		return
	}
	parts := strings.Split(e.id, ".")
	at := map[string]int{"g": 2, "p": 3, "a": 3}[parts[0]]
	if at == 0 || len(parts) <= at {
		c.tally.fault("%s: an event has the id %q", c.name, e.id)
		return
	}
	position, err := strconv.ParseInt(parts[at], 36, 64)
	stream, isNewReader := ownStream, false
	c.mu.Lock()
	defer c.mu.Unlock()
	if at == 3 {
		stream = strings.Join(parts[1:at], ".")
	} else {
		isNewReader, c.claim = c.claim != parts[1], parts[1]
	}
	last, known := c.position[stream]
	switch {
	case err != nil:
		c.tally.fault("%s: an event has the id %q", c.name, e.id)
	case e.data == "" && known && position < last && !isNewReader:
		c.tally.fault("%s: stream %s goes back from %d to %d", c.name, stream, last, position)
	case e.data != "" && known && position != last+1 && (!isNewReader || position > last):
		c.tally.fault("%s: event %d of stream %s came after event %d", c.name, position, stream, last)
	case e.data != "" && c.ids[e.id] != "":
		c.tally.fault("%s: two events have the id %s: %s and %s", c.name, e.id, c.ids[e.id], e.data)
	}
	c.position[stream] = position
	if e.data != "" {
		c.ids[e.id] = e.data
	}
}

// forget forgets where the client is in its own stream: it was told that messages are missing.
func (c *rawChaosClient) forget(stream string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.position, stream)
}

func (c *rawChaosClient) request(ctx context.Context, method, body, last string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = post(c.url, c.token, "").header.Clone()
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	return request, nil
}

// rawMessage is what the client needs of a JSON-RPC message.
type rawMessage struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Message  string `json:"message"`
		Progress int    `json:"progress"`
		Data     struct {
			Source string `json:"source"`
			Number int    `json:"number"`
		} `json:"data"`
	} `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    struct {
			Reason string `json:"reason"`
		} `json:"data"`
	} `json:"error"`
}

// listen keeps the session's own stream open until ctx is done. opened is called once it is open for the first time.
func (c *rawChaosClient) listen(ctx context.Context, opened func()) {
	last := ""
	for ctx.Err() == nil {
		status, header, err := c.listenOnce(ctx, &last, opened)
		switch {
		case ctx.Err() != nil:
			return
		case status == http.StatusOK, err != nil:
		case status == http.StatusGone:
			c.tally.count(rawKind, func(r *chaosRow) { r.gone++ })
			c.ticks.gap()
			c.forget(ownStream)
			last = ""
		case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests, header.Get(brokenHeader) != "":
		default:
			c.tally.fault("%s: GET was answered with %d", c.name, status)
			return
		}
		wait := 100 * time.Millisecond
		if header.Get("Retry-After") != "" {
			wait = time.Second
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (c *rawChaosClient) listenOnce(ctx context.Context, last *string, opened func()) (int, http.Header, error) {
	request, err := c.request(ctx, http.MethodGet, "", *last)
	if err != nil {
		return 0, nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, response.Header, nil
	}
	opened()
	if *last != "" {
		c.tally.count(rawKind, func(r *chaosRow) { r.resumed++ })
	}
	events := rawEvents{bufio.NewReader(response.Body)}
	for {
		e, err := events.next()
		if err != nil {
			return http.StatusOK, response.Header, nil // streams end, one way or another
		}
		c.see(e)
		*last = cmp.Or(e.id, *last)
		if e.data == "" {
			continue
		}
		var m rawMessage
		if err := json.Unmarshal([]byte(e.data), &m); err != nil || m.Method != "notifications/message" {
			c.tally.fault("%s: its own stream carries %q", c.name, e.data)
			continue
		}
		c.ticks.tick(m.Params.Data.Source, m.Params.Data.Number)
	}
}

// rawCall is a call on its way.
type rawCall struct {
	c        *rawChaosClient
	id       string // JSON
	end      chaosCall
	breakAt  int // after how many messages the client breaks the connection; 0: it does not
	resumed  bool
	answered bool
}

// call calls a tool and follows the answer wherever it goes on.
func (c *rawChaosClient) call(ctx context.Context, number int, tool string, arguments map[string]any, breakAt int) {
	nonce := fmt.Sprintf("%s-%d", c.name, number)
	arguments["nonce"] = nonce
	id := strconv.Itoa(number)
	if number%2 == 0 {
		id = strconv.Quote(id) // 1 and "1" differ
	}
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": json.RawMessage(id), "method": "tools/call",
		"params": map[string]any{"name": tool, "arguments": arguments, "_meta": map[string]any{"progressToken": nonce}},
	})
	if err != nil {
		c.tally.fault("%s: %v", c.name, err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, chaosCallLimit, errors.New("no answer within "+chaosCallLimit.String()))
	defer cancel()
	call := &rawCall{c: c, id: id, breakAt: breakAt, end: chaosCall{kind: rawKind, client: c.name, tool: tool, nonce: nonce}}
	call.run(ctx, string(body))
	if context.Cause(ctx) != nil && call.end.ended != endedOK {
		call.end.ended, call.end.detail = endedFailed, context.Cause(ctx).Error()
	}
	c.tally.call(call.end)
	if call.resumed {
		c.tally.count(rawKind, func(r *chaosRow) { r.resumed++ })
	}
}

func (k *rawCall) run(ctx context.Context, body string) {
	request, err := k.c.request(ctx, http.MethodPost, body, "")
	if err != nil {
		k.fail("%v", err)
		return
	}
	response, err := k.c.http.Do(request)
	if err != nil {
		k.fail("%v", err)
		return
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		k.whole(response)
		return
	}
	last := k.stream(response)
	for ctx.Err() == nil && !k.answered {
		if last == "" {
			k.end.ended = endedBroken
			return
		}
		k.resumed = true
		last = cmp.Or(k.resume(ctx, last), last)
	}
}

// whole takes an answer that is no stream.
func (k *rawCall) whole(response *http.Response) {
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case response.Header.Get(brokenHeader) != "", err != nil:
		k.end.ended = endedBroken
		return
	case response.StatusCode == http.StatusNotFound:
		k.c.tally.count(rawKind, func(r *chaosRow) { r.lost++ })
	}
	var m rawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		k.fail("%d %.200q", response.StatusCode, text)
		return
	}
	k.message(string(text), m)
	if response.StatusCode != http.StatusOK && (k.end.ended == endedOK || m.Error == nil || m.Error.Code != 1000+response.StatusCode) {
		k.fail("%d %.200q", response.StatusCode, text)
	}
}

// stream takes a stream as far as it goes, and returns the id of the last event.
func (k *rawCall) stream(response *http.Response) (last string) {
	defer response.Body.Close()
	events := rawEvents{bufio.NewReader(response.Body)}
	for {
		e, err := events.next()
		if err != nil {
			return last
		}
		k.c.see(e)
		last = cmp.Or(e.id, last)
		if e.data == "" {
			continue
		}
		var m rawMessage
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			k.fail("an event carries %q", e.data)
			return last
		}
		k.message(e.data, m)
		if k.breakAt > 0 && len(k.end.progress) >= k.breakAt && last != "" {
			k.breakAt = 0
			return last
		}
	}
}

// message takes one message.
func (k *rawCall) message(text string, m rawMessage) {
	switch {
	case k.answered:
		k.fail("after the answer came %s", text)
	case m.Method == "notifications/progress":
		k.end.progress = append(k.end.progress, chaosProgress{m.Params.Message, m.Params.Progress})
	case m.Error != nil && (string(m.ID) == k.id || len(m.ID) == 0):
		k.answered = true
		k.end.ended, k.end.detail = m.Error.Data.Reason, m.Error.Message
	case string(m.ID) == k.id && strings.Contains(string(m.Result), k.end.nonce+" "):
		k.answered = true
		k.end.ended = endedOK
	default:
		k.fail("it was sent %s", text)
	}
}

// resume asks for what follows an event, and returns the id of the last one that came.
func (k *rawCall) resume(ctx context.Context, last string) string {
	request, err := k.c.request(ctx, http.MethodGet, "", last)
	if err != nil {
		k.fail("%v", err)
		return ""
	}
	response, err := k.c.http.Do(request)
	wait := 50 * time.Millisecond
	switch {
	case err != nil: // again
	case response.StatusCode == http.StatusOK:
		if last = k.stream(response); k.answered {
			return last
		}
	default:
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		last, wait = "", time.Second
		if response.Header.Get(brokenHeader) == "" && response.StatusCode != http.StatusServiceUnavailable {
			k.fail("resuming was answered with %d %.200q", response.StatusCode, text)
		}
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	return last
}

func (k *rawCall) fail(format string, args ...any) {
	k.answered = true
	k.end.ended, k.end.detail = endedFailed, fmt.Sprintf(format, args...)
}

// load calls tools until ctx is done. A call that has begun is brought to its end.
func (c *rawChaosClient) load(ctx context.Context, streams bool) {
	for number := 0; ctx.Err() == nil; number++ {
		alone := context.WithoutCancel(ctx)
		switch {
		case number%3 == 0:
			c.call(alone, number, "add", map[string]any{"a": number, "b": 1}, 0)
		case number%3 == 1:
			c.call(alone, number, "effect", map[string]any{}, 0)
		case streams:
			c.call(alone, number, "count", map[string]any{"to": chaosCount, "interval_ms": chaosCountInterval}, number/3%chaosCount)
		}
		select {
		case <-time.After(chaosPause):
		case <-ctx.Done():
		}
	}
}

// last makes sure that the session is still there.
func (c *rawChaosClient) last(ctx context.Context) error {
	answer, err := post(c.url, c.token, pingBody).send(ctx)
	if err != nil {
		return err
	}
	if answer.status != http.StatusOK || answer.reason() != "" {
		return fmt.Errorf("%s: ping: %s", c.name, answer)
	}
	return nil
}
