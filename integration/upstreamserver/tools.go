package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// effectTime is how long the tool effect takes to answer once it has run.
const effectTime = 50 * time.Millisecond

type addition struct {
	A     int    `json:"a"`
	B     int    `json:"b"`
	Nonce string `json:"nonce"`
}

type counting struct {
	To       int    `json:"to"`
	Interval int    `json:"interval_ms"`
	Nonce    string `json:"nonce"`
}

type effect struct {
	Nonce string `json:"nonce"`
}

func newServer(effects *os.File, ticks *ticker) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "upstreamserver", Version: "1"}, &mcp.ServerOptions{
		Capabilities: &mcp.ServerCapabilities{Logging: &mcp.LoggingCapabilities{}},
	})
	server.AddReceivingMiddleware(ticks.watch)

	mcp.AddTool(server, &mcp.Tool{Name: "add", Description: "answers at once"},
		func(_ context.Context, _ *mcp.CallToolRequest, in addition) (*mcp.CallToolResult, any, error) {
			return text("%s %d", in.Nonce, in.A+in.B), nil, nil
		})

	mcp.AddTool(server, &mcp.Tool{Name: "count", Description: "tells its progress, then answers"},
		func(ctx context.Context, request *mcp.CallToolRequest, in counting) (*mcp.CallToolResult, any, error) {
			tick := time.NewTicker(time.Duration(max(in.Interval, 1)) * time.Millisecond)
			defer tick.Stop()
			for i := 1; i <= in.To; i++ {
				// A client that is away now may ask for it later, so that it could not be told is no reason to stop.
				_ = request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
					ProgressToken: request.Params.GetProgressToken(), Progress: float64(i), Total: float64(in.To), Message: in.Nonce,
				})
				select {
				case <-tick.C:
				case <-ctx.Done():
					return nil, nil, ctx.Err()
				}
			}
			return text("%s %d", in.Nonce, in.To), nil, nil
		})

	mcp.AddTool(server, &mcp.Tool{Name: "effect", Description: "leaves a trace of having run"},
		func(ctx context.Context, _ *mcp.CallToolRequest, in effect) (*mcp.CallToolResult, any, error) {
			// One write, appended: lines of several processes do not mix.
			if _, err := fmt.Fprintln(effects, in.Nonce); err != nil {
				return nil, nil, fmt.Errorf("note the effect: %w", err)
			}
			// A while in which this process may die.
			select {
			case <-time.After(effectTime):
			case <-ctx.Done():
			}
			return text("%s done", in.Nonce), nil, nil
		})
	return server
}

func text(format string, args ...any) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf(format, args...)}}}
}
