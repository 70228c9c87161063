package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// roundRobin sends each request of a client to the next replica.
type roundRobin struct {
	hosts []string
	next  atomic.Int64

	mu   sync.Mutex
	seen map[string]int // requests by host
	base *http.Transport
}

func newRoundRobin(t *testing.T, replicas ...*replica) *roundRobin {
	t.Helper()
	r := &roundRobin{seen: make(map[string]int), base: &http.Transport{}}
	for _, replica := range replicas {
		u, err := url.Parse(replica.url)
		if err != nil {
			t.Fatal(err)
		}
		r.hosts = append(r.hosts, u.Host)
	}
	t.Cleanup(r.base.CloseIdleConnections)
	return r
}

func (r *roundRobin) RoundTrip(req *http.Request) (*http.Response, error) {
	host := r.hosts[int(r.next.Add(1))%len(r.hosts)]
	r.mu.Lock()
	r.seen[host]++
	r.mu.Unlock()
	req = req.Clone(req.Context())
	req.URL.Host, req.Host = host, host
	return r.base.RoundTrip(req)
}

// newSDKServer is a server with a tool that reports progress, and waits to be seen doing it, and one that asks the client
// back.
func newSDKServer(step <-chan struct{}) *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "server", Version: "1"}, nil)
	type none struct{}
	sdk.AddTool(server, &sdk.Tool{Name: "progress"}, func(ctx context.Context, req *sdk.CallToolRequest, _ none) (*sdk.CallToolResult, none, error) {
		for i := range 3 {
			err := req.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{
				ProgressToken: req.Params.GetProgressToken(), Progress: float64(i + 1), Total: 3,
			})
			if err != nil {
				return nil, none{}, err
			}
			select {
			case <-step:
			case <-ctx.Done():
				return nil, none{}, ctx.Err()
			}
		}
		return &sdk.CallToolResult{}, none{}, nil
	})
	sdk.AddTool(server, &sdk.Tool{Name: "ask"}, func(ctx context.Context, req *sdk.CallToolRequest, _ none) (*sdk.CallToolResult, none, error) {
		got, err := req.Session.Elicit(ctx, &sdk.ElicitParams{Message: "your name?"})
		if err != nil {
			return nil, none{}, err
		}
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: fmt.Sprint(got.Action, got.Content["name"])}}}, none{}, nil
	})
	return server
}

// The official client, its requests spread over two replicas, and the official server behind them.
func TestOfficialClientAndServerThroughTwoReplicas(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprintf("JSON=%v", asJSON), func(t *testing.T) {
			t.Parallel()
			step := make(chan struct{})
			server := newSDKServer(step)
			f := newFleet(t, sdkUpstream(t, server, &sdk.StreamableHTTPOptions{JSONResponse: asJSON}))
			a, b := f.replica(), f.replica()
			robin := newRoundRobin(t, a, b)

			progress := make(chan float64, 10)
			changed := make(chan struct{}, 10)
			client := sdk.NewClient(&sdk.Implementation{Name: "client", Version: "1"}, &sdk.ClientOptions{
				ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
					return &sdk.ElicitResult{Action: "accept", Content: map[string]any{"name": "Ada"}}, nil
				},
				ProgressNotificationHandler: func(_ context.Context, req *sdk.ProgressNotificationClientRequest) { progress <- req.Params.Progress },
				ToolListChangedHandler:      func(context.Context, *sdk.ToolListChangedRequest) { changed <- struct{}{} },
			})
			session, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{
				Endpoint: a.url, HTTPClient: &http.Client{Transport: robin},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			called := make(chan error, 1)
			go func() {
				params := &sdk.CallToolParams{Name: "progress"}
				params.SetProgressToken("p")
				_, err := session.CallTool(t.Context(), params)
				called <- err
			}()
			for i := range 3 {
				if got := receive(t, "progress to arrive while the tool runs", progress); got != float64(i+1) {
					t.Errorf("progress %v, want %d", got, i+1)
				}
				step <- struct{}{}
			}
			if err := receive(t, "the tool to finish", called); err != nil {
				t.Errorf("progress tool: %v", err)
			}
			for range 3 { // whichever replica it falls to
				res, err := session.CallTool(t.Context(), &sdk.CallToolParams{Name: "ask"})
				if err != nil {
					t.Fatalf("ask: %v", err)
				}
				if text, ok := res.Content[0].(*sdk.TextContent); !ok || text.Text != "acceptAda" {
					t.Errorf("ask: %+v", res.Content)
				}
			}
			// Reaches the client on its GET stream.
			server.AddTool(&sdk.Tool{Name: "new", InputSchema: map[string]any{"type": "object"}}, func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
				return &sdk.CallToolResult{}, nil
			})
			receive(t, "the news of a tool", changed)

			if err := session.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			for range server.Sessions() {
				t.Error("the session is still open at the server")
			}
			if a.live() != 0 {
				t.Error("the session is still open in the store")
			}
			robin.mu.Lock()
			defer robin.mu.Unlock()
			if len(robin.seen) != 2 {
				t.Errorf("requests by replica: %v, want some at both", robin.seen)
			}
		})
	}
}

// A client that is not told in its own terms never initializes again.
func TestOfficialClientLearnsThatItsSessionEnded(t *testing.T) {
	t.Parallel()
	f := newFleet(t, sdkUpstream(t, newSDKServer(nil), &sdk.StreamableHTTPOptions{}))
	r := f.replica()
	client := sdk.NewClient(&sdk.Implementation{Name: "client", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{
		Endpoint: r.url, HTTPClient: &http.Client{Transport: newRoundRobin(t, r)}, DisableStandaloneSSE: true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := cluster.ParseToken(session.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.manager.Terminate(t.Context(), token.ID, cluster.StatusTerminated); err != nil {
		t.Fatal(err)
	}
	if err := session.Ping(t.Context(), nil); !errors.Is(err, sdk.ErrSessionMissing) {
		t.Errorf("ping after the end: %v, want ErrSessionMissing", err)
	}
	_ = session.Close() // there is nothing left to close
}

func TestStatelessServerIsUsedWithoutASession(t *testing.T) {
	t.Parallel()
	f := newFleet(t, sdkUpstream(t, newSDKServer(nil), &sdk.StreamableHTTPOptions{Stateless: true}))
	r := f.replica()
	robin := newRoundRobin(t, r)
	client := sdk.NewClient(&sdk.Implementation{Name: "client", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{Endpoint: r.url, HTTPClient: &http.Client{Transport: robin}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := session.ListTools(t.Context(), nil)
	if err != nil || len(tools.Tools) != 2 {
		t.Errorf("tools: %v, %v", tools, err)
	}
	if version := session.InitializeResult().ProtocolVersion; version != "2026-07-28" || session.ID() != "" {
		t.Errorf("revision %s, session %q", version, session.ID())
	}
	if err := session.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if stats, err := r.manager.Stats(t.Context()); err != nil || stats.Created != 0 {
		t.Errorf("sessions created: %d, %v", stats.Created, err)
	}
}
