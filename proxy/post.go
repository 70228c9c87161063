package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// maxVersion bounds how much of a client's protocol version it is told again, in bytes.
const maxVersion = 64

// post serves a POST: one message, or for old revisions a batch of them, from the client. The era is decided first: each has rules of
// its own.
func (x *exchange) post() {
	x.eraOfHeader() // for what is refused before the body is read
	if !x.checkPostHeaders() || !x.readBody() {
		return
	}
	msg, err := mcp.Peek(x.body)
	x.msg = msg
	x.beginSpan()
	x.era = mcp.EraOf(x.protocolVersion(), msg.MetaVersion)
	if x.era == mcp.EraStateless {
		x.stateless(err)
		return
	}
	switch {
	case err != nil:
		x.refuseMessage(err)
	case x.era == mcp.EraUnknown:
		x.refuse(unsupportedVersion())
	case msg.Kind == mcp.KindBatch && msg.Initializes:
		x.refuse(refusal{status: http.StatusBadRequest, code: mcp.CodeInvalidRequest, message: "initialize must not be part of a batch"})
	case msg.Initializes && msg.Version == "":
		// The upstream would refuse it too, but by then it might have cost another session its place.
		x.refuse(refusal{
			status: http.StatusBadRequest, code: mcp.CodeInvalidParams,
			message: "initialize needs params with the protocolVersion that the client wants, a string",
		})
	case msg.Initializes:
		x.initialize()
	default:
		x.postInSession()
	}
}

// hurry gives the upstream of a message that needs no answer Config.InitializeTimeout to accept it: nobody waits for that, so nobody
// would end it. It returns what ends the watch.
func (x *exchange) hurry(cancel context.CancelCauseFunc) (stop func()) {
	if x.msg.Kind == mcp.KindRequest || x.msg.Requests > 0 {
		return func() {}
	}
	timer := time.AfterFunc(x.p.cfg.InitializeTimeout, func() { cancel(errNotAccepted) })
	return func() { timer.Stop() }
}

// refuseMessage answers a message that is none, or does not fit its headers.
func (x *exchange) refuseMessage(err error) {
	var invalid *mcp.MessageError
	if !errors.As(err, &invalid) {
		x.refuseFor(err, refusalOf(err))
		return
	}
	f := refusal{status: http.StatusBadRequest, code: invalid.Code, message: invalid.Reason}
	switch invalid.Code {
	case mcp.CodeMethodNotFound:
		f.status = http.StatusNotFound
	case mcp.CodeUnsupportedVersion:
		if f.requested = x.protocolVersion(); len(f.requested) > maxVersion { // the body says the same
			f.requested = f.requested[:maxVersion]
		}
	}
	x.refuse(f)
}

// checkPostHeaders checks what the transport demands of every POST. When it returns false, the request is answered.
func (x *exchange) checkPostHeaders() bool {
	if !mcp.IsMediaType(x.r.Header.Get("Content-Type"), mcp.MediaTypeJSON) {
		x.refuse(refusal{status: http.StatusUnsupportedMediaType, message: "Content-Type must be application/json"})
		return false
	}
	if json, eventStream := mcp.Accepts(x.r.Header); !json || !eventStream {
		x.refuse(refusal{status: http.StatusNotAcceptable, message: "Accept must list application/json and text/event-stream"})
		return false
	}
	return true
}
