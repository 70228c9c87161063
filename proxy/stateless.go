package proxy

import (
	"net/http"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// stateless forwards a request of the era without sessions: no store is asked, and no session id passes, neither from the
// client, to whom it means nothing, nor from an upstream that mistakes the era.
func (x *exchange) stateless() {
	if !x.aim("") {
		return
	}
	x.forward(x.r.Context(), x.sendToEndpoint, func(res *http.Response) error {
		res.Header.Del(mcp.HeaderSessionID)
		res.Body = &answerBody{ReadCloser: res.Body, res: res}
		if isEventStream(res) {
			res.Body = &countedBody{ReadCloser: res.Body, open: count(&x.p.streams.stateless)}
		}
		return nil
	})
}
