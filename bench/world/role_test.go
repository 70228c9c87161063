package world_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// lateEnd is a request's body, whose reader learns that there is no more of it only once the answer has begun: as on a busy machine.
type lateEnd struct {
	io.ReadCloser
	left    int64
	begun   <-chan struct{} // closed when the answer has begun
	learned func()          // called when the reader has been told
}

func (b *lateEnd) Read(p []byte) (int, error) {
	if b.left <= 0 {
		<-b.begun
		defer b.learned()
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// beginning tells when an answer has begun.
type beginning struct {
	http.ResponseWriter
	begun func()
}

func (b *beginning) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *beginning) FlushError() error {
	defer b.begun()
	return http.NewResponseController(b.ResponseWriter).Flush()
}

func TestTheBareProxyBreaksOffNoAnswer(t *testing.T) {
	t.Parallel()
	ends := make(chan struct{}) // an answer may end: its request has been sent, or has failed to be
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		world.Answer().ServeHTTP(w, r)
		<-ends
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	bare := world.Bare(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, begin := context.WithCancel(t.Context())
		defer begin()
		r.Body = &lateEnd{
			ReadCloser: r.Body, left: r.ContentLength, begun: begun.Done(),
			learned: sync.OnceFunc(func() { go func() { ends <- struct{}{} }() }),
		}
		bare.ServeHTTP(&beginning{ResponseWriter: w, begun: begin}, r)
	}))
	defer front.Close()
	client := world.NewClient(front.URL, 1)
	defer client.Close()
	for range 100 {
		if err := client.Call(t.Context(), "session", world.Kind{SSE: true}); err != nil {
			t.Fatal(err)
		}
	}
}
