// Package everything runs the everything-server of the official Go SDK: an upstream MCP server with every feature of the
// protocol, which is also what the official conformance runner is made for.
package everything

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

const (
	startTimeout = 10 * time.Second
	stopGrace    = 2 * time.Second
	startTries   = 3
)

// Options say which server to run.
type Options struct {
	// Executable is the command, built by binary.Build from binary.EverythingServer.
	Executable string
	// Stateless serves revision 2026-07-28, without sessions; otherwise the server has sessions and serves the revisions before.
	Stateless bool
}

// Server is one everything-server, which may be stopped and started again at the same address. It is not for use by several
// goroutines at once.
type Server struct {
	address string
	options Options
	process *process.Process
}

// New chooses an address without starting anything.
func New(options Options) (*Server, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	return &Server{address: address, options: options}, nil
}

// Start starts a new server and waits until it listens. The caller must call Close.
func Start(ctx context.Context, options Options) (*Server, error) {
	var failed error
	for range startTries { // another program may take the port first
		server, err := New(options)
		if err != nil {
			return nil, err
		}
		if failed = server.Start(ctx); failed == nil {
			return server, nil
		}
		failed = errors.Join(failed, server.Close())
		if !errors.Is(failed, process.ErrAddressInUse) {
			break
		}
	}
	return nil, failed
}

// Start starts the server and waits until it listens. A server that was stopped has forgotten its sessions.
func (s *Server) Start(ctx context.Context) error {
	started, err := process.Start(process.Command{
		Name: "everything-server at " + s.address,
		Path: s.options.Executable,
		Args: []string{"-http", s.address, fmt.Sprintf("-stateless=%t", s.options.Stateless)},
	})
	if err != nil {
		return err
	}
	s.process = started
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return started.WaitReady(ctx, process.Listening(s.address))
}

// URL is the server's MCP endpoint. The server answers at every path.
func (s *Server) URL() string { return "http://" + s.address + "/mcp" }

// Output is the end of what the server printed.
func (s *Server) Output() string { return s.process.Output() }

// Close ends the server. It has no orderly end of its own, so nothing is lost by closing it more than once.
func (s *Server) Close() error {
	if s.process == nil || !s.process.Running() {
		return nil
	}
	return s.process.Stop(stopGrace)
}
