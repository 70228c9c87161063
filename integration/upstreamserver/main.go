// Command upstreamserver is an MCP server to be killed: what its tools do can be counted afterwards, whoever was asking.
//
//	upstreamserver -listen 127.0.0.1:9000 -effects FILE
//
// It serves the same tools three times, with sessions: at /stored its streams can be resumed, at /plain they cannot, and at
// /json answers are JSON. What it knows of sessions is gone with its process.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "upstreamserver:", err)
		os.Exit(1)
	}
}

// run serves until the process is told to end.
func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("upstreamserver", flag.ContinueOnError)
	address := flags.String("listen", "127.0.0.1:0", "`host:port` to listen on")
	effects := flags.String("effects", "", "`file` to which each run of the tool effect adds a line")
	interval := flags.Duration("tick", 250*time.Millisecond, "how often sessions that have set a log level are sent a message")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file, err := os.OpenFile(*effects, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the file of effects: %w", err)
	}
	defer func() { _ = file.Close() }() // each line was written whole

	process := rand.Text()[:8]
	mux := http.NewServeMux()
	for path, options := range map[string]mcp.StreamableHTTPOptions{
		"/plain":  {},
		"/stored": {EventStore: mcp.NewMemoryEventStore(nil)},
		"/json":   {JSONResponse: true},
	} {
		ticks := newTicker(process)
		server := newServer(file, ticks)
		mux.Handle(path, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &options))
		go ticks.run(ctx, *interval)
	}
	return serve(ctx, *address, mux)
}

func serve(ctx context.Context, address string, handler http.Handler) error {
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	// Whoever ends this server wants to see what that breaks.
	unlink := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer unlink()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
