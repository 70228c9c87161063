// Package process runs child processes for tests and tools: it starts one, waits until it is ready, keeps the end of its
// output, and makes sure that it is gone afterwards.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// outputDelay is how long a finished process's output is still read when a grandchild holds the pipe open.
const outputDelay = 2 * time.Second

var (
	// ErrEnded says that a process ended before it was ready.
	ErrEnded = errors.New("ended before it was ready")
	// ErrAddressInUse says that it did so because another program had taken its port: try again with another.
	ErrAddressInUse = fmt.Errorf("%w: its address is in use", ErrEnded)
)

// Command says what to run.
type Command struct {
	// Name is what errors call the process. Default: Path.
	Name string
	// Path is the executable.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Dir is its working directory. Default: that of the caller.
	Dir string
	// Env is its whole environment, as "KEY=value". Default: that of the caller.
	Env []string
}

// Process is a running or finished child process. Its methods may be called from several goroutines.
type Process struct {
	name   string
	cmd    *exec.Cmd
	output *tail
	done   chan struct{} // closed once the process has been waited for
	err    error         // how it ended; read only after done is closed
}

// Start starts a process and returns without waiting for it to be ready. The caller must call Stop or Kill. On Linux the
// kernel kills the process when the caller dies first, so that even a crashed test leaves nothing behind.
func Start(command Command) (*Process, error) {
	name := command.Name
	if name == "" {
		name = command.Path
	}
	p := &Process{name: name, output: &tail{}, done: make(chan struct{})}
	//nolint:noctx // The process outlives the call that starts it: Stop and Kill end it, not a context.
	p.cmd = exec.Command(command.Path, command.Args...)
	p.cmd.Dir = command.Dir
	p.cmd.Env = command.Env
	p.cmd.Stdout = p.output
	p.cmd.Stderr = p.output
	p.cmd.WaitDelay = outputDelay
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	// Ends when the process does, which Stop and Kill see to.
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode is the exit status of an ended process; -1 while it runs or when a signal ended it.
func (p *Process) ExitCode() int {
	if p.Running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Output returns the end of what the process wrote to standard output and standard error, at most 256 KiB.
func (p *Process) Output() string { return p.output.String() }

// Stop asks the process to end (SIGTERM), waits up to grace, then kills it. It returns once the process is gone. A process that
// had to be killed, or that ended with a status other than 0, is an error; so is one that was gone before with such a status.
// Stop may be called again and answers the same.
func (p *Process) Stop(grace time.Duration) error {
	if p.Running() {
		// A suspended process would not notice the signal.
		_ = p.signal(syscall.SIGCONT)
		if err := p.signal(syscall.SIGTERM); err != nil {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
			p.Kill()
			return fmt.Errorf("stop %s: still running %s after SIGTERM, killed", p.name, grace)
		}
	}
	// A program without a handler for SIGTERM ends by that very signal: it did as it was told.
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	if p.err != nil {
		return fmt.Errorf("%s ended: %w", p.name, p.err)
	}
	return nil
}

// Terminate asks the process to end (SIGTERM) without waiting for it.
func (p *Process) Terminate() error { return p.signal(syscall.SIGTERM) }

// Kill ends the process at once (SIGKILL) and returns when it is gone.
func (p *Process) Kill() {
	// The only error is that it has ended already.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Suspend stops the process in its tracks (SIGSTOP): its connections stay open and nothing answers. Resume lets it go on.
func (p *Process) Suspend() error { return p.signal(syscall.SIGSTOP) }

// Resume lets a suspended process go on (SIGCONT).
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// exited describes a process that ended when it should not have.
func (p *Process) exited() error {
	cause := ErrEnded
	if strings.Contains(strings.ToLower(p.Output()), "address already in use") {
		cause = ErrAddressInUse
	}
	return fmt.Errorf("%s: %w (%s); its output:\n%s", p.name, cause, p.cmd.ProcessState, lastLines(p.Output(), 20))
}

// WaitReady calls probe every 20 ms until it returns nil. It gives up when ctx ends, or as soon as the process has ended, and
// says then why the last probe failed and what the process printed.
func (p *Process) WaitReady(ctx context.Context, probe Probe) error {
	err := Poll(ctx, func(ctx context.Context) error {
		if !p.Running() {
			return finalError{p.exited()}
		}
		return probe(ctx)
	})
	var ended finalError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ended):
		return ended.error
	default:
		return fmt.Errorf("%s is not ready: %w; its output:\n%s", p.name, err, lastLines(p.Output(), 20))
	}
}

// Environment returns the caller's environment without the variables whose names begin with prefix, so that the settings of
// whoever runs the tests do not reach the processes under test.
func Environment(withoutPrefix string) []string {
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, withoutPrefix) {
			env = append(env, variable)
		}
	}
	return env
}
