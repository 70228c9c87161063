package rows

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

const (
	// proxyCallers call at proxyRate a second together, which two cores answer without a queue: the latency is that of the way, not of
	// waiting for one's turn.
	proxyCallers = 8
	proxyRate    = 400
	// proxySessions are used in turns. So each is used several times a second, and stays below its request rate.
	proxySessions = 64
)

// proxyLatency measures the median latency of requests through a replica, over that through a bare proxy before the same upstream.
func proxyLatency(p Plan) []measure.Experiment {
	const later = 10 * time.Millisecond
	shared := &sharedProxies{}
	return []measure.Experiment{
		shared.latency(p, measure.Row{Name: "proxy-json-0ms", What: "proxy p50 over a bare one: JSON answers, upstream 0 ms", Goal: 1.05}, world.Kind{}, leased),
		shared.latency(p, measure.Row{Name: "proxy-json-10ms", What: "proxy p50 over a bare one: JSON answers, upstream 10 ms", Goal: 1.05}, world.Kind{Delay: later}, leased),
		shared.latency(p, measure.Row{Name: "proxy-sse-0ms", What: "proxy p50 over a bare one: SSE answers, upstream 0 ms", Goal: 1.15}, world.Kind{SSE: true}, leased),
		shared.latency(p, measure.Row{Name: "proxy-sse-10ms", What: "proxy p50 over a bare one: SSE answers, upstream 10 ms", Goal: 1.15}, world.Kind{SSE: true, Delay: later}, leased),
		shared.latency(p, measure.Row{Name: "proxy-strict-10ms", What: "proxy p50 over a bare one: strict mode (every request asks), upstream 10 ms", Goal: 1.05}, world.Kind{Delay: later}, strict),
	}
}

func leased(p *world.Proxies) string { return p.Leased }
func strict(p *world.Proxies) string { return p.Strict }

// sharedProxies are started by the first experiment that needs them, and closed by the last.
type sharedProxies struct {
	proxies *world.Proxies
	users   int
}

// start starts them, unless they run. When that fails, the next experiment tries anew.
func (s *sharedProxies) start(ctx context.Context) error {
	if s.proxies != nil {
		return nil
	}
	started, err := world.StartProxies(ctx)
	if err != nil {
		return errors.Join(err, started.Close())
	}
	s.proxies = started
	return nil
}

// arm is one of the proxies with its sessions.
type arm struct {
	name     string
	client   *world.Client
	sessions []string
	all      *measure.Latencies // of all turns that count
}

func (s *sharedProxies) latency(p Plan, row measure.Row, kind world.Kind, subject func(*world.Proxies) string) measure.Experiment {
	s.users++
	row.Unit = "x"
	length := p.full(2*time.Second, 350*time.Millisecond)
	var arms []*arm
	return measure.Experiment{
		Rows: []measure.Row{row},
		Prepare: func(ctx context.Context) (err error) {
			if err := s.start(ctx); err != nil {
				return err
			}
			for _, to := range []struct{ name, url string }{
				{"a bare proxy", s.proxies.Bare}, {"a replica", subject(s.proxies)}, {"the other bare proxy", s.proxies.Like},
			} {
				client := world.NewClient(to.url, proxyCallers)
				arms = append(arms, &arm{name: to.name, client: client, all: measure.NewLatencies()})
				if arms[len(arms)-1].sessions, err = client.Open(ctx, proxySessions); err != nil {
					return err
				}
			}
			return nil
		},
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			sample, err := measure.Pair(ctx, turn, arms[0].half(turn, kind, length), arms[1].half(turn, kind, length), arms[2].half(turn, kind, length))
			return []measure.Sample{sample}, err
		},
		Curves: func() []measure.Curve {
			if len(arms) < 3 || arms[2].all.Calls() == 0 {
				return nil
			}
			bare := arms[0].all
			bare.Merge(arms[2].all)
			return []measure.Curve{{Row: row.Name, Title: "Latency: " + strings.TrimPrefix(row.What, "proxy p50 over a bare one: "), Lines: []measure.Line{bare.Line("bare ReverseProxy"), arms[1].all.Line("Shadowcat Cluster")}}}
		},
		Close: func() error {
			for _, a := range arms {
				a.client.Close()
			}
			if s.users--; s.users > 0 || s.proxies == nil {
				return nil
			}
			return s.proxies.Close()
		},
	}
}

// half measures the median latency.
func (a *arm) half(turn int, kind world.Kind, length time.Duration) measure.Arm {
	return func(ctx context.Context) (float64, error) {
		latencies, err := measure.Load{
			Callers: proxyCallers, Rate: proxyRate, For: length,
			Do: func(ctx context.Context, caller, n int) error {
				return a.client.Call(ctx, a.sessions[(n*proxyCallers+caller)%proxySessions], kind)
			},
		}.Run(ctx)
		if err != nil {
			return 0, fmt.Errorf("through %s: %w", a.name, err)
		}
		if turn > 0 {
			a.all.Merge(latencies)
		}
		return latencies.Quantile(0.5).Seconds(), nil
	}
}
