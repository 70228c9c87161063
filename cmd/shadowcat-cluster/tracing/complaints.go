package tracing

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// complaintInterval is how often it is logged at most that spans cannot be sent.
const complaintInterval = time.Minute

// complaints logs what goes wrong with spans, now and then: a collector that is away is no news after a while.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	next time.Time
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.next) {
		c.next = now.Add(complaintInterval)
		c.log.Warn("spans are lost: they cannot be sent", "error", reason(err), "again_in", complaintInterval.String())
	}
}

// answer finds the status in the exporter's words for a refusal, which hold the URL and what the collector says, too.
var answer = regexp.MustCompile(`failed to send to \S+: (\d{3}) `)

// reason says why spans were lost, in words that hold neither the collector's URL nor what it answers: keys are in the one, and may be
// repeated in the other.
func reason(err error) string {
	// Whatever wraps these names the URL, so only they are asked.
	if at, ok := errors.AsType[*net.OpError](err); ok {
		return at.Error()
	}
	if at, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return at.Error()
	}
	if at, ok := errors.AsType[net.Error](err); ok && at.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return "no answer in time"
	}
	text := err.Error()
	if found := answer.FindStringSubmatch(text); found != nil {
		status, _ := strconv.Atoi(found[1]) // digits, by the expression
		return strings.TrimSpace("the collector answers " + found[1] + " " + http.StatusText(status))
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the collector speaks HTTP, not HTTPS"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the collector closes the connection"
	case strings.Contains(text, "retry-able request failure"):
		return "the collector is overloaded or away: it answers 429, 502, 503 or 504"
	case strings.Contains(text, "partial success"):
		return "the collector rejects some of them"
	default:
		return "the collector's answer is not understood; is it one for OTLP over HTTP?"
	}
}
