package proxy

import (
	"io"
	"sync/atomic"
)

// Streams is how many streams are open at one moment.
type Streams struct {
	// To clients: sessions' own streams, answers to requests, answers that are resumed, and answers without a session.
	Own, Answers, Resumed, Stateless int64
	// From upstreams: sessions' own streams, and answers, those included whose client has gone.
	ReadOwn, ReadAnswers int64
}

// Streams tells how many streams this replica has open.
func (p *Proxy) Streams() Streams {
	return Streams{
		Own: p.streams.own.Load(), Answers: p.streams.answers.Load(), Resumed: p.streams.resumed.Load(), Stateless: p.streams.stateless.Load(),
		ReadOwn: int64(p.own.count()), ReadAnswers: int64(p.answering.count()),
	}
}

// openStreams counts the streams to clients.
type openStreams struct{ own, answers, resumed, stateless atomic.Int64 }

// count counts one more.
func count(open *atomic.Int64) *atomic.Int64 {
	open.Add(1)
	return open
}

// countedBody is the body of a stream that goes through as the upstream sends it, counted while it is open.
type countedBody struct {
	io.ReadCloser
	open   *atomic.Int64
	closed atomic.Bool
}

// Close implements io.Closer.
func (b *countedBody) Close() error {
	if !b.closed.Swap(true) {
		b.open.Add(-1)
	}
	return b.ReadCloser.Close()
}
