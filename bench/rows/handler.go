package rows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/peers"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

const (
	handlerSessions = 1000
	handlerCallers  = 64
)

// handlers measures how many requests a second one handler serves with its sessions in ours, over in those of others. Nothing goes over
// HTTP: a request is a call of the handler.
func handlers(p Plan) measure.Experiment {
	length := p.full(time.Second, 200*time.Millisecond)
	s := &served{}
	over := func(name string, goal float64, what string) measure.Row {
		return measure.Row{Name: name, What: what, Unit: "x", Goal: goal, AtLeast: true}
	}
	return measure.Experiment{
		Rows: []measure.Row{
			over("handler-over-scs", 5, "requests/s of one handler, 1k sessions, 64 callers: leased over scs (goredisstore)"),
			over("handler-over-gorilla", 0, "the same: leased over gorilla/sessions (rbcervilla/redisstore)"),
			over("handler-over-fiber", 0, "the same: leased over gofiber/storage (redis)"),
			over("handler-over-memory", 0, "the same: leased over a map in memory, which no other replica sees"),
		},
		Prepare: s.start,
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			ours := 0.0
			sample, err := measure.Pair(ctx, turn, s.rate(0, length), func(ctx context.Context) (float64, error) {
				var err error
				ours, err = s.rate(1, length)(ctx)
				return ours, err
			}, s.rate(2, length))
			samples := []measure.Sample{sample}
			for peer := 3; peer < len(s.handlers) && err == nil; peer++ {
				var theirs float64
				theirs, err = s.rate(peer, length)(ctx)
				samples = append(samples, measure.Sample{Value: ours / theirs})
			}
			return samples, err
		},
		Close: s.close,
	}
}

// served are the handlers: scs, ours, scs once more, and then the others.
type served struct {
	store    *world.Store
	fleet    *fleet
	handlers []peers.Handler
}

func (s *served) start(ctx context.Context) (err error) {
	// 1,000 sessions may make 50,000 requests a second together by default. The limit is off, or that would be the figure.
	cfg := world.Limits()
	if s.store, err = world.StartStore(ctx, cfg, handlerCallers); err != nil {
		return err
	}
	if s.fleet, err = startFleet(ctx, s.store.Store, cfg, 1); err != nil {
		return err
	}
	ours := &peers.Shadowcat{Manager: s.fleet.managers[0], Upstream: world.Upstream}
	for range handlerSessions {
		token, _, err := s.store.NewSession(ctx, world.Initialize)
		if err != nil {
			return err
		}
		ours.Tokens = append(ours.Tokens, token)
	}
	scs, err := peers.NewSCS(ctx, s.store.Client, "scs:a:", handlerSessions)
	if err != nil {
		return err
	}
	again, err := peers.NewSCS(ctx, s.store.Client, "scs:b:", handlerSessions)
	if err != nil {
		return err
	}
	gorilla, err := peers.NewGorilla(ctx, s.store.Client, handlerSessions)
	if err != nil {
		return err
	}
	fiber, err := peers.NewFiber(ctx, s.store.Client, handlerSessions)
	if err != nil {
		return err
	}
	s.handlers = []peers.Handler{scs, ours, again, gorilla, fiber, peers.NewMemory(handlerSessions)}
	return nil
}

func (s *served) close() error {
	if s.fleet != nil {
		s.fleet.stop()
	}
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// rate measures how many requests a second a handler serves.
func (s *served) rate(i int, length time.Duration) measure.Arm {
	h := s.handlers[i]
	handler := h.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	}))
	return func(ctx context.Context) (float64, error) {
		latencies, err := measure.Load{Callers: handlerCallers, For: length, Do: func(ctx context.Context, caller, n int) error {
			w := peers.NewResponse()
			handler.ServeHTTP(w, h.Request(ctx, (n*handlerCallers+caller)%handlerSessions))
			if w.Status != 0 {
				return fmt.Errorf("%T answered with %d", h, w.Status)
			}
			return nil
		}}.Run(ctx)
		if err == nil && latencies.Calls() == 0 {
			err = errors.New("no request was served")
		}
		return latencies.PerSecond(), err
	}
}
