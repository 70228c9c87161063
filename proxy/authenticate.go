package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// authenticate finds out who the request is from, before any of its body is read. When it returns false, the request is answered.
func (x *exchange) authenticate() bool {
	gate := x.p.cfg.Auth
	identity, err := gate.Authenticate(x.r)
	if err == nil {
		x.identity = identity
		return true
	}
	denied, isDenied := errors.AsType[*auth.DeniedError](err)
	switch {
	case isDenied:
		x.denied = string(denied.Reason)
	case errors.Is(err, auth.ErrKeyNotFetched):
		x.denied = denialKey
	default:
		x.denied = denialKeys
	}
	f := gate.Refusal(x.upstream.Path(), err)
	x.refuseFor(err, refusal{status: f.Status, message: f.Message, challenge: f.Challenge, retryAfter: f.RetryAfter})
	return false
}

// What is counted when the request cannot be judged.
const (
	denialKeys = "keys_unavailable" // nobody can: there are no keys
	denialKey  = "key_not_fetched"  // the token names a key that may be newer than those that there are
)

// untilExpiry ends an answer that is a stream of events when the identity that the client has shown must not be believed any longer.
// Any other answer is finished: it was asked for in time.
func (x *exchange) untilExpiry(res *http.Response) {
	if x.identity.ExpiresAt.IsZero() {
		return
	}
	if b, ok := res.Body.(*streamBody); ok {
		b.expires = x.identity.ExpiresAt
		return
	}
	if !mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
		return
	}
	b := &expiringBody{ReadCloser: res.Body}
	b.timer = time.AfterFunc(time.Until(x.identity.ExpiresAt), b.expire)
	res.Body = b
}

// expiringBody is the body of a stream that goes through as the upstream sends it, until a moment.
type expiringBody struct {
	io.ReadCloser
	timer   *time.Timer
	expired atomic.Bool
}

// expire ends the reading of the upstream's answer.
func (b *expiringBody) expire() {
	b.expired.Store(true)
	_ = b.ReadCloser.Close() // only read
}

// Read implements io.Reader. A stream that has expired has a proper end.
func (b *expiringBody) Read(p []byte) (int, error) {
	if b.expired.Load() {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.expired.Load() {
		err = io.EOF
	}
	return n, err
}

// Close implements io.Closer.
func (b *expiringBody) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}
