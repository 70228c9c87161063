// Package replica runs replicas of Shadowcat Cluster, each a `shadowcat-cluster serve` process of its own.
package replica

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

const (
	// A replica started with the race detector on a busy machine takes its time.
	startTimeout = 20 * time.Second
	// Longer than the 25 s in which a replica promises to have drained.
	stopGrace = 30 * time.Second
)

// quickExit keeps the race detector, where there is one, from sleeping a second at the end: how long a stop takes is measured.
const quickExit = "GORACE=atexit_sleep_ms=10"

// Options say what the replica serves.
type Options struct {
	// Executable is the command, built by binary.Build from binary.ShadowcatCluster.
	Executable string
	// ID is the replica's --replica-id. Default: the replica's own choice.
	ID string
	// RedisURL is the store.
	RedisURL string
	// Upstreams are the values of --upstream: a URL, or name=URL.
	Upstreams []string
	// Args are further arguments of serve, such as "--lease=0".
	Args []string
	// Env are further variables of its environment, as "KEY=value".
	Env []string
}

// Replica is one replica, which may be stopped and started again at the same addresses. It is not for use by several
// goroutines at once.
type Replica struct {
	address string
	admin   string
	options Options
	process *process.Process
}

// New chooses addresses without starting anything.
func New(options Options) (*Replica, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	return &Replica{address: address, admin: admin, options: options}, nil
}

// Start starts the replica and waits until it reports itself ready.
func (r *Replica) Start(ctx context.Context) error {
	if err := r.Launch(); err != nil {
		return err
	}
	return r.WaitReady(ctx)
}

// Launch starts the replica without waiting, for those who want to see one that cannot become ready.
func (r *Replica) Launch() error {
	if r.process != nil && r.process.Running() {
		return fmt.Errorf("start the replica at %s: it is running", r.address)
	}
	// Nothing here looks at /readyz before it sends a request, so there is nothing to wait for.
	args := []string{"serve", "--listen", r.address, "--admin-listen", r.admin, "--redis", r.options.RedisURL, "--drain-delay", "0"}
	if r.options.ID != "" {
		args = append(args, "--replica-id", r.options.ID)
	}
	for _, upstream := range r.options.Upstreams {
		args = append(args, "--upstream", upstream)
	}
	started, err := process.Start(process.Command{
		Name: "replica " + strings.TrimSpace(r.options.ID+" at "+r.address),
		Path: r.options.Executable,
		Args: append(args, r.options.Args...),
		Env:  append(append(process.Environment("SHADOWCAT_"), quickExit), r.options.Env...),
	})
	if err != nil {
		return err
	}
	r.process = started
	return nil
}

// WaitReady waits until a launched replica reports itself ready, at most 20 s.
func (r *Replica) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return r.process.WaitReady(ctx, process.Answering(r.AdminURL("/readyz"), http.StatusOK))
}

// WaitListening waits until a launched replica accepts connections on both its ports, ready or not.
func (r *Replica) WaitListening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return r.process.WaitReady(ctx, func(ctx context.Context) error {
		if err := process.Listening(r.address)(ctx); err != nil {
			return err
		}
		return process.Listening(r.admin)(ctx)
	})
}

// Address is the "host:port" at which the replica serves clients.
func (r *Replica) Address() string { return r.address }

// URL is the replica's MCP endpoint for an upstream given without a name.
func (r *Replica) URL() string { return "http://" + r.address + "/mcp" }

// AdminURL is the URL of a path, such as "/readyz", on the replica's admin port.
func (r *Replica) AdminURL(path string) string { return "http://" + r.admin + path }

// Running tells whether the replica has been started and has not ended.
func (r *Replica) Running() bool { return r.process != nil && r.process.Running() }

// Output is the end of what the replica printed since its last start.
func (r *Replica) Output() string {
	if r.process == nil {
		return ""
	}
	return r.process.Output()
}

// Stop ends the replica as a rolling update does (SIGTERM) and waits until it has drained, at most 30 s. Any end but exit status 0
// is an error. A replica that was killed before is left alone.
func (r *Replica) Stop() error {
	if !r.Running() {
		return nil
	}
	return r.process.Stop(stopGrace)
}

// Terminate tells the replica to end (SIGTERM) and does not wait.
func (r *Replica) Terminate() error { return r.process.Terminate() }

// Ended is closed when the replica has ended.
func (r *Replica) Ended() <-chan struct{} { return r.process.Done() }

// ExitCode is the exit status of a replica that has ended; -1 while it runs or when a signal ended it.
func (r *Replica) ExitCode() int { return r.process.ExitCode() }

// Kill ends the replica at once, as a lost machine would.
func (r *Replica) Kill() {
	if r.process != nil {
		r.process.Kill()
	}
}

// Suspend makes the replica hang, as a long pause would, until Resume.
func (r *Replica) Suspend() error { return r.process.Suspend() }

// Resume lets a suspended replica go on.
func (r *Replica) Resume() error { return r.process.Resume() }
