package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// wire is what lies between a client and the Service: it behaves as the proxies of an Ingress or Gateway commonly do. A connection
// that is refused is tried again, elsewhere; one that breaks before there is an answer is a 502, unless the request is no POST.
// It also notes what refusals said, which the SDK keeps to itself.
type wire struct {
	next *http.Transport

	mu   sync.Mutex
	said map[string]string // the reason of a refusal, by nonce
}

const (
	dialLimit  = 2 * time.Second  // for one connection
	retryLimit = 10 * time.Second // for all tries of a request

	// Proxies let go of idle connections to a pod that leaves the Service. This one does not know of pods, so it keeps none for
	// as long as a replica that stops serves on: such a connection may be closed just as a request is sent on it.
	idleLimit = 2 * time.Second
)

func newWire(keepAlive bool) *wire {
	return &wire{
		next: &http.Transport{DialContext: (&net.Dialer{Timeout: dialLimit}).DialContext, DisableKeepAlives: !keepAlive, IdleConnTimeout: idleLimit},
		said: make(map[string]string),
	}
}

var (
	nonceIn  = regexp.MustCompile(`"nonce":"([^"]+)"`)
	reasonIn = regexp.MustCompile(`"reason":"([a-z_]+)"`)
)

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		var err error
		if body, err = io.ReadAll(request.Body); err != nil {
			return nil, err
		}
		_ = request.Body.Close() // it is in memory
	}
	response, err := w.send(request, body)
	if err != nil || response.StatusCode < http.StatusMultipleChoices {
		return response, err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	if nonce := nonceIn.FindSubmatch(body); nonce != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.said[string(nonce[1])] = reason(response.StatusCode, text)
	}
	return response, nil
}

// send tries until there is an answer, or none is to be had.
func (w *wire) send(request *http.Request, body []byte) (*http.Response, error) {
	for deadline := time.Now().Add(retryLimit); ; {
		attempt := request.Clone(request.Context())
		if body != nil {
			attempt.Body, attempt.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		response, err := w.next.RoundTrip(attempt)
		if err == nil || request.Context().Err() != nil || time.Now().After(deadline) {
			return response, err
		}
		var dialled *net.OpError
		isUnsent := errors.As(err, &dialled) && dialled.Op == "dial"
		if !isUnsent && request.Method == http.MethodPost {
			return &http.Response{
				Status: "502 Bad Gateway", StatusCode: http.StatusBadGateway, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: http.Header{}, Body: http.NoBody, Request: request,
			}, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-request.Context().Done():
		}
	}
}

// reason is what a refusal says, in a word.
func reason(status int, text []byte) string {
	found := reasonIn.FindSubmatch(text)
	switch {
	case status == http.StatusNotFound:
		return endedSessionGone
	case status == http.StatusBadGateway && len(text) == 0:
		return endedBroken // our own
	case found != nil:
		return string(found[1])
	default:
		return fmt.Sprintf("%d %.200q", status, text)
	}
}

// take returns, once, what a refusal of the request with this nonce said; empty: it was not refused.
func (w *wire) take(nonce string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer delete(w.said, nonce)
	return w.said[nonce]
}
