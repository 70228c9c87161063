package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

func wait(ctx context.Context, d time.Duration) error { return measure.Wait(ctx, d) }

// load is what clients did.
type load struct {
	opened, requests, streams, closed, abandoned, lost, refused atomic.Int64
}

// String tells it.
func (l *load) String() string {
	return fmt.Sprintf("%d sessions opened, %d requests and %d streams; %d sessions closed, %d abandoned, %d lost to others at the cap; %d calls refused",
		l.opened.Load(), l.requests.Load(), l.streams.Load(), l.closed.Load(), l.abandoned.Load(), l.lost.Load(), l.refused.Load())
}

// check complains when more was refused than a machine explains that stands still for two seconds now and then: that is the store's timeout.
func (l *load) check() error {
	if all := l.opened.Load() + l.requests.Load(); l.refused.Load() > all/50 {
		return fmt.Errorf("%d of about %d calls were refused", l.refused.Load(), all)
	}
	return nil
}

// soak runs the load and looks every second.
func (s *stage) soak(ctx context.Context, p plan) ([]sample, *load, error) {
	clients := make([]*world.Client, len(s.replicas))
	for i, r := range s.replicas {
		clients[i] = world.NewClient(r.URL(), p.clients)
	}
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	l := &load{}
	group, ctx := errgroup.WithContext(ctx)
	over := make(chan struct{})
	for range p.clients {
		group.Go(func() error { // ends when over is closed
			for {
				select {
				case <-over:
					return nil
				default:
				}
				if err := l.converse(ctx, clients); err != nil {
					return err
				}
			}
		})
	}
	var seen []sample
	group.Go(func() error {
		defer close(over)
		for begun := time.Now(); time.Since(begun) < p.length; {
			if err := wait(ctx, time.Second); err != nil {
				return err
			}
			now, err := s.look(ctx)
			if err != nil {
				return err
			}
			now.At = time.Since(begun).Seconds()
			seen = append(seen, now)
		}
		return nil
	})
	return seen, l, group.Wait()
}

// converse is one client's conversation: it opens a session, calls at any replica, and then closes the session, leaves it, or listens for a while
// and leaves it.
func (l *load) converse(ctx context.Context, clients []*world.Client) error {
	anywhere := func() *world.Client { return clients[rand.N(len(clients))] } //nolint:gosec // no secret
	session, err := anywhere().Post(ctx, "", world.Initialize)
	if err != nil {
		return l.unlessLost(err)
	}
	l.opened.Add(1)
	for range 1 + rand.N(20) { //nolint:gosec // as above
		kind := world.Kind{SSE: rand.N(2) == 0} //nolint:gosec // as above
		if err := anywhere().Call(ctx, session, kind); err != nil {
			return l.unlessLost(err)
		}
		l.requests.Add(1)
		if err := wait(ctx, rand.N(30*time.Millisecond)); err != nil { //nolint:gosec // as above
			return err
		}
	}
	switch rand.N(5) { //nolint:gosec // as above
	case 0, 1:
		l.closed.Add(1)
		return l.unlessLost(anywhere().Delete(ctx, session))
	case 2:
		l.streams.Add(1)
		listening, stop := context.WithTimeout(ctx, rand.N(time.Second)) //nolint:gosec // as above
		defer stop()
		if err := anywhere().Listen(listening, session); err != nil {
			return l.unlessLost(err)
		}
	}
	l.abandoned.Add(1)
	return nil
}

// unlessLost returns an error but for that of a session which was evicted, and that of a call which was refused and may be repeated.
func (l *load) unlessLost(err error) error {
	var status *world.StatusError
	if !errors.As(err, &status) {
		return err
	}
	switch status.Status {
	case http.StatusNotFound:
		l.lost.Add(1)
	case http.StatusServiceUnavailable:
		l.refused.Add(1)
	default:
		return err
	}
	return nil
}
