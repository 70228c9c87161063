package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// part is one thing that runs as long as the demo does. Its run blocks, returns nil when its context ends, and leaves
// nothing behind.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// runParts runs parts until ctx ends or one of them does, and then stops them one by one, the last one first: what is
// nearest to the client goes before what it depends on. It owns the goroutines it starts and waits for them.
func runParts(ctx context.Context, parts ...part) error {
	ctx, stopAll := context.WithCancel(ctx)
	defer stopAll()
	stops := make([]func() error, 0, len(parts))
	for _, p := range parts {
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() {
			defer stopAll()
			done <- p.run(partCtx)
		}()
		stops = append(stops, func() error {
			stop()
			if err := <-done; err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	<-ctx.Done()
	var errs []error
	for _, stop := range slices.Backward(stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// together makes one part of several, which are stopped at the same time.
func together(name string, parts ...part) part {
	return part{name: name, run: func(ctx context.Context) error {
		ctx, stopAll := context.WithCancel(ctx)
		defer stopAll()
		results := make(chan error, len(parts))
		for _, p := range parts {
			go func() {
				defer stopAll()
				err := p.run(ctx)
				if err != nil {
					err = fmt.Errorf("%s: %w", p.name, err)
				}
				results <- err
			}()
		}
		errs := make([]error, 0, len(parts))
		for range parts {
			errs = append(errs, <-results)
		}
		return errors.Join(errs...)
	}}
}

// closeGrace is how long a server waits for its handlers after their contexts have ended.
const closeGrace = 2 * time.Second

// serveUntil serves until ctx ends. Then requests in flight are ended by their contexts, streams included, and onStop is
// called before the handlers are waited for.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener, onStop func() error) error {
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case err := <-served:
		return errors.Join(err, onStop())
	case <-ctx.Done():
	}
	endRequests()
	err := onStop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if shutdownErr := server.Shutdown(grace); shutdownErr != nil {
		err = errors.Join(err, server.Close())
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
