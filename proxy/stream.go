package proxy

import (
	"io"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// answerBody is the body of an upstream's answer on its way to the client.
type answerBody struct {
	io.ReadCloser
	res   *http.Response
	touch func()      // called for every piece; may be nil
	ended func() bool // whether the proxy itself ended the stream; may be nil
}

// Read passes on what comes. An event stream that the proxy ended has a proper end, at which clients drop an unfinished
// event; any other answer that breaks off must look broken, or half of it would be taken for the whole.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.touch != nil {
		b.touch()
	}
	if err != nil && err != io.EOF && b.ended != nil && b.ended() &&
		mcp.IsMediaType(b.res.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
		err = io.EOF
	}
	return n, err
}

// Close also completes the trailers, which are the upstream's, but for the header that is never passed on.
func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.res.Trailer.Del(mcp.HeaderSessionID)
	return err
}
