package proxy

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// headerRequestID carries a request's id: the client's, or one that is made here. Upstreams and clients are told it.
const headerRequestID = "X-Request-Id"

// maxRequestID bounds the request ids of clients, in bytes.
const maxRequestID = 128

// identify gives the request the id that log lines, the upstream and the client know it by. A client's own is kept if there is just one
// and nothing about it is odd, for it goes into logs: up to 128 letters, digits and - _ . : / + = signs.
func (x *exchange) identify() {
	ids := x.r.Header.Values(headerRequestID)
	if len(ids) != 1 || !validRequestID(ids[0]) {
		ids = []string{newRequestID()}
	}
	x.request.id, x.w.requestID = ids[0], ids[:1:1]
}

func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, c := range []byte(id) {
		isAlphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !isAlphanumeric && !strings.ContainsRune("-_.:/+=", rune(c)) {
			return false
		}
	}
	return true
}

// newRequestID makes an id that hardly ever comes twice, and need not be hard to guess.
func newRequestID() string {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64()) //nolint:gosec // it names, and hides nothing
	return hex.EncodeToString(id[:])
}

// requestRef is how log lines name a client's request. Zero is what no request is the cause of.
type requestRef struct {
	id   string
	span trace.SpanContext // invalid without tracing
}

// in returns the logger for what concerns the request. It costs something: call it where there is something to say.
func (r requestRef) in(log *slog.Logger) *slog.Logger {
	if r.id == "" {
		return log
	}
	log = log.With("request_id", r.id)
	if r.span.IsValid() {
		log = log.With("trace_id", r.span.TraceID().String(), "span_id", r.span.SpanID().String())
	}
	return log
}

// log is for what concerns the request.
func (x *exchange) log() *slog.Logger { return x.request.in(x.p.log) }

// failureLog takes in what net/http has to say of an answer that broke off. It makes the request's logger only then: most requests never
// need it.
type failureLog struct{ x *exchange }

// Enabled implements slog.Handler.
func (l failureLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.x.p.log.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l failureLog) Handle(ctx context.Context, record slog.Record) error {
	return l.x.log().Handler().Handle(ctx, record)
}

// WithAttrs implements slog.Handler. Nobody asks for it.
func (l failureLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler. Nobody asks for it.
func (l failureLog) WithGroup(string) slog.Handler { return l }
