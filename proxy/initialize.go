package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// initialization is the making of one session: created in the store, then at the upstream, then active. Until the client
// has been sent the answer, everything may fail, and then nothing of it stays.
type initialization struct {
	*exchange
	record   cluster.Session
	pinned   *endpoint // the first that was tried
	active   bool
	failed   bool  // the store was told
	answerAt int64 // how much of the body must reach the client for it to have the answer
}

// initialize serves an initialize request of a revision with sessions. A session id that came with it is ignored: clients
// must not send one, and it grants nothing here.
func (x *exchange) initialize() {
	if !x.admit() || !x.aim("") {
		return
	}
	record, token, err := x.p.sessions.Create(x.r.Context(), cluster.NewSession{
		Upstream:      x.upstream.Name,
		Principal:     x.identity.Principal,
		Endpoint:      x.endpoint.name,
		ClientName:    x.msg.ClientName,
		ClientVersion: x.msg.ClientVersion,
		Initialize:    x.body,
	})
	if err != nil {
		x.refuseFor(err, refusalOfInitialize(err))
		return
	}
	x.endpoint.pin()
	x.session, x.token = record.ID, token
	x.recordRequest()
	i := &initialization{exchange: x, record: record, pinned: x.endpoint}
	defer i.conclude()

	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	// The timer also ends a stream that goes on after the answer: nothing more is due on it.
	timer := time.AfterFunc(x.p.cfg.InitializeTimeout, func() { cancel(errInitializeTimeout) })
	defer timer.Stop()
	x.forward(ctx, x.sendToEndpoint, func(res *http.Response) error { return i.answered(ctx, res) })
}

// conclude undoes what was made, unless the client has it.
func (i *initialization) conclude() {
	i.pinned.unpin() // it may have been opened elsewhere, or not at all
	if i.active && i.w.written >= i.answerAt {
		i.endpoint.pin()
		return
	}
	i.fail()
	i.endUpstream(i.detached(), i.endpoint.name, i.upstreamSession, i.msg.Version)
}

// fail ends the session in the store, once.
func (i *initialization) fail() {
	if i.failed {
		return
	}
	i.failed = true
	sent := time.Now()
	_, err := i.p.sessions.Terminate(i.detached(), i.session, cluster.StatusFailed)
	if err != nil && !errors.Is(err, cluster.ErrIllegalTransition) && !errors.Is(err, cluster.ErrNotFound) {
		i.log().Log(i.r.Context(), i.p.cfg.InOutage.Level(err, sent), "session of a failed initialize could not be ended; it expires", "session", i.sessionText(), "error", err)
	}
}

// answered looks at the upstream's answer. Only when it holds a result, and the session is active, does the client get a
// token. An error of the upstream's is the client's to see.
func (i *initialization) answered(ctx context.Context, res *http.Response) error {
	ids := res.Header.Values(mcp.HeaderSessionID)
	res.Header.Del(mcp.HeaderSessionID)
	body := &answerBody{
		ReadCloser: res.Body,
		res:        res,
		ended:      func() bool { return i.active && errors.Is(context.Cause(ctx), errInitializeTimeout) },
	}
	res.Body = body
	if len(ids) > 1 || len(ids) == 1 && !mcp.ValidSessionID(ids[0]) {
		return i.unusable(errors.New("it names no valid session id"))
	}
	if len(ids) == 1 {
		i.upstreamSession = ids[0]
	}
	if isNoServer(res.StatusCode) {
		i.upstream.sayUnfit(i.log(), res.StatusCode, i.endpoint.name)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		body.ReadCloser = i.recordAnswer(res, body.ReadCloser)
		i.fail()
		return nil
	}
	answer, err := i.read(ctx, res, body)
	if err != nil {
		return err
	}
	if answer.Failed {
		i.fail()
		return nil
	}
	return i.activate(ctx, res, answer)
}

// unusable fails the session and says what is wrong with the upstream's answer.
func (i *initialization) unusable(err error) error {
	i.fail()
	i.log().Warn("upstream's answer to initialize is unusable", "upstream", i.upstream.Name, "session", i.sessionText(), "error", err)
	return upstreamUnavailable("the upstream's answer to initialize is unusable: " + err.Error())
}

// activate makes the session usable and puts the token into the answer.
func (i *initialization) activate(ctx context.Context, res *http.Response, answer mcp.Message) error {
	i.record.Endpoint = i.endpoint.name
	_, err := i.p.sessions.Activate(ctx, i.record, cluster.Activation{
		UpstreamSession: i.upstreamSession,
		Revision:        cmp.Or(answer.Version, i.msg.Version, mcp.Revision20250326),
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // too late, or nobody waits any more: then the session is not wanted, active or not
	case err == nil:
	case errors.Is(err, cluster.ErrStoreUnavailable):
		return refusalOfInitialize(err)
	case errors.Is(err, cluster.ErrNotFound), errors.Is(err, cluster.ErrIllegalTransition), errors.Is(err, cluster.ErrConflict):
		return refusal{
			status: http.StatusServiceUnavailable, reason: mcp.ReasonCapacity,
			message: "the session was ended before it was initialized", retryAfter: retryAfter,
		}
	default:
		return i.unusable(err)
	}
	i.active = true
	res.Header.Set(mcp.HeaderSessionID, i.token.Reveal())
	return nil
}

// read reads the answer far enough to know it, and puts what was read back in front of the rest.
func (i *initialization) read(ctx context.Context, res *http.Response, body *answerBody) (mcp.Message, error) {
	if encoding := res.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return mcp.Message{}, i.unusable(errors.New("it is compressed, which was not asked for"))
	}
	var taken bytes.Buffer
	// One byte more than allowed tells "too large" from "just fits".
	limited := &io.LimitedReader{R: body.ReadCloser, N: i.p.cfg.MaxBody + 1}
	source := io.TeeReader(limited, &taken)
	// The source is bounded, so one event may be as large as all of it.
	answer, err := findAnswer(source, res.Header.Get("Content-Type"), int(i.p.cfg.MaxBody)+1, i.msg.ID)
	if limited.N <= 0 {
		err = fmt.Errorf("it is over %d bytes", i.p.cfg.MaxBody)
	}
	if ctx.Err() != nil {
		return mcp.Message{}, ctx.Err()
	}
	if err != nil {
		return mcp.Message{}, i.unusable(err)
	}
	i.answerAt = int64(taken.Len())
	i.recordInitialized(res, taken.Bytes())
	body.ReadCloser = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&taken, body.ReadCloser), body.ReadCloser}
	return answer, nil
}

// findAnswer reads an upstream's answer to the request with an id, as far as it must. In a stream of events others may come before it,
// each of at most maxEvent bytes.
func findAnswer(source io.Reader, contentType string, maxEvent int, id mcp.ID) (mcp.Message, error) {
	switch {
	case mcp.IsMediaType(contentType, mcp.MediaTypeJSON):
		return answerInJSON(source, id)
	case mcp.IsMediaType(contentType, mcp.MediaTypeEventStream):
		return answerInEvents(mcp.NewEventReader(source, maxEvent), id)
	default:
		return mcp.Message{}, errors.New("it is neither JSON nor an event stream")
	}
}

func answerInJSON(source io.Reader, id mcp.ID) (mcp.Message, error) {
	body, err := io.ReadAll(source)
	if err != nil {
		return mcp.Message{}, errors.New("it broke off")
	}
	answer, err := mcp.Peek(body)
	if err != nil {
		return mcp.Message{}, err
	}
	if !answers(answer, id) {
		return mcp.Message{}, errors.New("it answers no request of this id")
	}
	return answer, nil
}

func answerInEvents(events *mcp.EventReader, id mcp.ID) (mcp.Message, error) {
	for {
		event, err := events.Next()
		if err != nil {
			return mcp.Message{}, errors.New("the stream ended without it")
		}
		if len(event.Data) == 0 || event.Name != "" && event.Name != "message" {
			continue
		}
		answer, err := mcp.Peek(event.Data)
		if err != nil {
			return mcp.Message{}, err
		}
		if answers(answer, id) {
			return answer, nil
		}
	}
}

// answers reports whether a message answers the request with an id. An error without an id does: the upstream could not read the
// request.
func answers(m mcp.Message, id mcp.ID) bool {
	return m.Kind == mcp.KindResponse && (m.ID == id || m.Failed && m.ID == "")
}
