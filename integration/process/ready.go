package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// pollInterval is the pause between two looks at a condition.
const pollInterval = 20 * time.Millisecond

// probeTimeout bounds one look, so that a process that accepts and never answers is asked again.
const probeTimeout = time.Second

// Probe looks once whether something is so. Its error says what is not.
type Probe func(ctx context.Context) error

// finalError is an error that ends polling at once.
type finalError struct{ error }

// Poll calls probe every 20 ms until it returns nil or ctx ends; the error then joins the reason and what probe said last.
// Each call of probe gets at most a second.
func Poll(ctx context.Context, probe Probe) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		look, cancel := context.WithTimeout(ctx, probeTimeout)
		err := probe(look)
		cancel()
		var ended finalError
		if err == nil || errors.As(err, &ended) {
			return err
		}
		// A look that was cut short by the end of ctx has less to say than the one before.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// Listening is satisfied once something accepts TCP connections at address.
func Listening(address string) Probe {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Answering is satisfied once a GET of url has the given status.
func Answering(url string, status int) Probe {
	// Each look dials anew: a connection kept from before says nothing about now.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		if err := response.Body.Close(); err != nil {
			return err
		}
		if response.StatusCode != status {
			return fmt.Errorf("GET %s: %s, want %d", url, response.Status, status)
		}
		return nil
	}
}
