package proxy

import (
	"net/http"
	"time"
)

// responseWriter gives each write to the client its own deadline: a client that stopped reading is cut, a stream without
// anything to write is not.
type responseWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	// cors is added to the final header, after whoever wrote it: httputil.ReverseProxy clears headers that were set
	// before an informational answer.
	cors http.Header
	// requestID replaces what an upstream calls the request.
	requestID []string
	status    int   // 0 until the header was sent
	written   int64 // bytes of body
	// together sends the header with the first bytes of the body, which come at once: a client whose connection breaks between the two
	// would know of a stream, but not how to go on with it.
	together bool
}

func newResponseWriter(w http.ResponseWriter, timeout time.Duration) *responseWriter {
	return &responseWriter{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout}
}

// extend moves the deadline. An error means that the connection has none, or is gone: the write will tell.
func (w *responseWriter) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) }

// WriteHeader has the header sent with the first bytes of the body, or at the end, except for an informational status: an upstream's 1xx may carry its session id.
func (w *responseWriter) WriteHeader(status int) {
	if status < http.StatusOK || w.status != 0 {
		return
	}
	w.status = status
	w.Header()[headerRequestID] = w.requestID
	for name, values := range w.cors {
		w.Header()[name] = append(w.Header()[name], values...)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.extend()
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if w.together && w.written == 0 {
		return nil
	}
	w.extend()
	return w.control.Flush()
}
