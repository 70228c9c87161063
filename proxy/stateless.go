package proxy

import (
	"cmp"
	"context"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// stateless forwards a request of the era without sessions: no store is asked, and no session id passes, neither from the
// client, to whom it means nothing, nor from an upstream that mistakes the era. That the client closes its stream cancels the request, as
// this era has it. unread is why the message could not be read; nil when it could.
func (x *exchange) stateless(unread error) {
	if err := cmp.Or(unread, mcp.CheckStateless(x.r.Header, x.msg)); err != nil {
		x.refuseMessage(err)
		return
	}
	if !x.admit() || !x.withinRate() || !x.aim("") {
		return
	}
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	defer x.hurry(cancel)()
	x.forward(ctx, x.sendToEndpoint, func(res *http.Response) error {
		res.Header.Del(mcp.HeaderSessionID)
		res.Body = &answerBody{ReadCloser: res.Body, res: res}
		if isEventStream(res) {
			res.Body = &countedBody{ReadCloser: res.Body, open: count(&x.p.streams.stateless)}
		}
		return nil
	})
}

// withinRate counts the request for its principal. When it returns false, the request is answered: it is one too many.
func (x *exchange) withinRate() bool {
	err := x.p.sessions.Admit(x.r.Context(), x.identity.Principal)
	if err == nil {
		return true
	}
	f := refusalOf(err)
	if f.reason == mcp.ReasonRateLimited {
		f.message = "requests without a session come too fast from this principal"
	}
	x.refuseFor(err, f)
	return false
}
