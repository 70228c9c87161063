package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// limitBody gives the client time to send the body, also to those parts of net/http that read what a refusal left over.
func (x *exchange) limitBody() {
	if x.r.ContentLength != 0 {
		_ = x.w.control.SetReadDeadline(time.Now().Add(x.p.cfg.BodyTimeout))
	}
}

// readBody reads the request's body whole. Forwarding starts after that: net/http closes the inbound body once the answer
// begins, so a body still being streamed would break an answer that starts early. When readBody returns false, the request
// is answered.
func (x *exchange) readBody() bool { return x.readBodyUpTo(x.p.cfg.MaxBody) }

func (x *exchange) readBodyUpTo(limit int64) bool {
	if x.r.ContentLength > limit {
		x.refuseBody(limit)
		return false
	}
	body, err := readAll(weighed{http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, limit), x}, x.r.ContentLength)
	if err == nil {
		// The deadline was the body's. Over HTTP/1 net/http lifts it too, or its watch for the client's departure would end
		// the request; that is not documented.
		_ = x.w.control.SetReadDeadline(time.Time{})
		x.body = body
		return true
	}
	var tooLarge *http.MaxBytesError
	var tooMuch overloadedError
	switch {
	case errors.As(err, &tooLarge):
		x.refuseBody(limit)
	case errors.As(err, &tooMuch):
		x.discardBody()
		x.w.Header().Set("Connection", "close")
		x.refuse(overloaded(tooMuch.reached))
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.w.Header().Set("Connection", "close")
		x.refuse(refusal{
			status:  http.StatusRequestTimeout,
			message: fmt.Sprintf("the request's body did not arrive within %v", x.p.cfg.BodyTimeout),
		})
	default:
		x.refuse(refusal{status: http.StatusBadRequest, message: "the request's body could not be read to its end"})
	}
	return false
}

// discardBody reads what is left of a body that is refused, as far as it goes.
func (x *exchange) discardBody() { _, _ = io.CopyN(io.Discard, x.r.Body, maxDiscard) }

// maxDiscard is how much of a body that is refused is read and thrown away, so that the client hears why it is refused:
// one that is still sending when the connection closes sees only that.
const maxDiscard = 16 << 20

// refuseBody answers a request whose body is over limit. Where the client waits to be asked for the body, it is not.
func (x *exchange) refuseBody(limit int64) {
	if x.r.Header.Get("Expect") == "" {
		x.discardBody()
	}
	x.w.Header().Set("Connection", "close")
	x.refuse(refusal{
		status:  http.StatusRequestEntityTooLarge,
		reason:  mcp.ReasonBodyTooLarge,
		limit:   "max_body",
		message: fmt.Sprintf("the request's body is over %d bytes", limit),
	})
}

// readAll reads r to its end. A known size saves copying; it is not trusted beyond that.
func readAll(r io.Reader, size int64) ([]byte, error) {
	const trusted = 64 << 10
	if size < 0 || size > trusted {
		return io.ReadAll(r)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	// Reading the end as well tells net/http that it may watch for the client's departure.
	_, err := io.Copy(io.Discard, r)
	return body, err
}
