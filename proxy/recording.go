package proxy

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

// recordRequest records the client's message, which is sent on.
func (x *exchange) recordRequest() { x.recordClient(x.body) }

// recordClient records the client's message, once. payload is nil where only that it came is to be known.
func (x *exchange) recordClient(payload []byte) {
	recorder := x.p.cfg.Recorder
	if recorder == nil || x.recorded || x.r.Method != http.MethodPost {
		return
	}
	x.recorded = true
	recorder.Record(x.session, record.Entry{
		Direction: cluster.FromClient, Method: record.Method(x.msg), MessageID: x.msg.ID, Size: len(x.body), Payload: payload, Secrets: x.secrets(),
	})
}

// recordRefusal records that the proxy itself has answered, if that concerns a session, but not what.
func (x *exchange) recordRefusal(f refusal, size int) {
	recorder := x.p.cfg.Recorder
	if recorder == nil || x.session == (cluster.ID{}) {
		return
	}
	x.recordClient(nil)
	e := record.Entry{
		Direction: cluster.FromProxy, MessageID: x.refusedID(f), Size: size, Status: f.status, Latency: time.Since(x.started),
	}
	if x.r.Method != http.MethodPost {
		e.Method = "(" + methodLabel(x.r.Method) + ")" // it answers no message
	}
	recorder.Record(x.session, e)
}

// recordAnswer has the body of an upstream's answer that is no stream recorded when it has been read. Without a recorder it is left as it
// is.
func (x *exchange) recordAnswer(res *http.Response, body io.ReadCloser) io.ReadCloser {
	recorder := x.p.cfg.Recorder
	if recorder == nil {
		return body
	}
	b := &recordedBody{ReadCloser: body, x: x, status: res.StatusCode, most: recorder.MaxPayload()}
	if n := res.ContentLength; n > 0 && n <= int64(b.most) {
		b.text = make([]byte, 0, n)
	}
	return b
}

// recordInitialized records the part of an upstream's answer to initialize that has been read: JSON, or events up to the answer.
func (x *exchange) recordInitialized(res *http.Response, text []byte) {
	if x.p.cfg.Recorder == nil {
		return
	}
	text = bytes.Clone(text) // it is read on
	if !mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
		x.recordEntry(text, res.StatusCode)
		return
	}
	for events := mcp.NewEventReader(bytes.NewReader(text), len(text)+1); ; {
		event, err := events.Next()
		if err != nil {
			return
		}
		if len(event.Data) == 0 {
			continue
		}
		status := 0
		if msg, err := mcp.Peek(event.Data); err == nil && answers(msg, x.msg.ID) {
			status = res.StatusCode
		}
		x.recordEntry(event.Data, status)
	}
}

// recordEntry records a message of the upstream. status is 0 unless it is the answer.
func (x *exchange) recordEntry(text []byte, status int) {
	e := record.Entry{Direction: cluster.FromUpstream, Size: len(text), Status: status, Payload: text, Secrets: x.secrets()}
	if status != 0 {
		e.MessageID, e.Latency = x.msg.ID, time.Since(x.started)
	}
	x.p.cfg.Recorder.Record(x.session, e)
}

// clientSecrets are what the client has proved itself with, and what its session is called at the upstream: all that must not be in a
// recording of the request, or of what comes of it, as far as the request tells. Nil where no payloads are recorded.
func (x *exchange) clientSecrets() []string {
	if x.p.cfg.Recorder.MaxPayload() == 0 {
		return nil
	}
	var secrets []string
	if _, secret, ok := strings.Cut(x.token.Reveal(), "."); ok {
		secrets = append(secrets, secret)
	}
	secrets = append(secrets, x.record.UpstreamSession, x.upstreamSession)
	return x.p.cfg.Recorder.AppendSecrets(secrets, x.r.Header)
}

// secrets are what must not be in a recording of the request, or of what comes of it.
func (x *exchange) secrets() []string {
	if x.call != nil {
		return x.call.secrets()
	}
	return x.p.withConfiguredSecrets(x.clientSecrets())
}

// secrets are those of the request that the call was made for, and what the upstream has been shown since.
func (c *upstreamCall) secrets() []string {
	return c.p.withConfiguredSecrets(append(slices.Clone(c.clientSecrets), c.current().UpstreamSession))
}

// withConfiguredSecrets adds what upstreams are shown instead of the client's credentials. Nil where no payloads are recorded.
func (p *Proxy) withConfiguredSecrets(secrets []string) []string {
	if p.cfg.Recorder.MaxPayload() == 0 {
		return nil
	}
	configured := make(http.Header)
	p.cfg.Auth.Outbound(configured)
	return p.cfg.Recorder.AppendSecrets(secrets, configured)
}

// recordEvent records a message in a stream. isAnswer: it answers the request that the call was made for.
func (c *upstreamCall) recordEvent(from cluster.Direction, text []byte, isAnswer bool) {
	recorder := c.p.cfg.Recorder
	if recorder == nil {
		return
	}
	e := record.Entry{Direction: from, Size: len(text), Payload: text, Secrets: c.secrets()}
	if isAnswer {
		e.Status, e.Latency = http.StatusOK, time.Since(c.begun)
	}
	recorder.Record(c.current().ID, e)
}

// recordedBody is the body of an answer that is recorded at its end.
type recordedBody struct {
	io.ReadCloser
	x      *exchange
	status int
	most   int    // how much of it is worth keeping
	text   []byte // all of it so far, nil when that is too much
	size   int
	done   bool
}

// Read implements io.Reader.
func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.size += n; b.size <= b.most {
		b.text = append(b.text, p[:n]...)
	} else {
		b.text = nil
	}
	if err == io.EOF {
		b.finish()
	}
	return n, err
}

// Close implements io.Closer. An answer that was not read to its end is recorded as far as it is known: not what it says.
func (b *recordedBody) Close() error {
	b.text = nil
	b.finish()
	return b.ReadCloser.Close()
}

// finish records the answer, once. One that only says that a message was taken is none.
func (b *recordedBody) finish() {
	if b.done || b.size == 0 && b.status >= 200 && b.status <= 299 {
		return
	}
	b.done = true
	e := record.Entry{
		Direction: cluster.FromUpstream, MessageID: b.x.refusedID(refusal{}), Size: b.size, Status: b.status, Latency: time.Since(b.x.started),
		Payload: b.text, Secrets: b.x.secrets(),
	}
	if b.x.msg.Kind == mcp.KindBatch {
		e.Method = cluster.MethodBatch
	}
	b.x.p.cfg.Recorder.Record(b.x.session, e)
}
