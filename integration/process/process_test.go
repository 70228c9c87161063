package process_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const grace = 10 * time.Second

// shell starts a shell script that prints "up" once it is set up.
func shell(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Command{Name: "script", Path: "/bin/sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// printed is satisfied once the process has printed the text.
func printed(p *process.Process, text string) process.Probe {
	return func(context.Context) error {
		if !strings.Contains(p.Output(), text) {
			return errors.New("has not printed " + text)
		}
		return nil
	}
}

func waitReady(t *testing.T, p *process.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), grace)
	defer cancel()
	if err := p.WaitReady(ctx, printed(p, "up")); err != nil {
		t.Fatal(err)
	}
}

func TestStopLetsAProcessCleanUp(t *testing.T) {
	t.Parallel()
	p := shell(t, `trap 'echo clean; exit 0' TERM; echo up; while :; do sleep 0.05; done`)
	waitReady(t, p)
	for range 2 {
		if err := p.Stop(grace); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(p.Output(), "clean") || p.ExitCode() != 0 {
		t.Errorf("got exit code %d and output %q, want a clean end", p.ExitCode(), p.Output())
	}
}

func TestStopKillsAProcessThatDoesNotListen(t *testing.T) {
	t.Parallel()
	p := shell(t, `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	waitReady(t, p)
	if err := p.Stop(100 * time.Millisecond); err == nil {
		t.Error("stopping a process that ignores SIGTERM succeeded, want an error")
	}
	if p.Running() {
		t.Error("the process still runs")
	}
}

func TestStopTellsOfAnExitStatus(t *testing.T) {
	t.Parallel()
	p := shell(t, `exit 3`)
	<-p.Done()
	if err := p.Stop(grace); err == nil || p.ExitCode() != 3 {
		t.Errorf("got error %v and exit code %d, want an error and 3", err, p.ExitCode())
	}
}

func TestWaitReadyTellsOfAnEarlyEnd(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]error{
		"echo no such flag >&2; exit 2":                process.ErrEnded,
		"echo bind: Address already in use; exit 1":    process.ErrAddressInUse,
		"echo 'listen: address already in use'; false": process.ErrAddressInUse,
	} {
		p := shell(t, script)
		err := p.WaitReady(t.Context(), func(context.Context) error { return errors.New("never") })
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", script, err, want)
		}
	}
}

func TestWaitReadyGivesUpWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo up; sleep 60`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := p.WaitReady(ctx, func(context.Context) error { return errors.New("never") })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "never") || !strings.Contains(err.Error(), "up") {
		t.Errorf("got %v, want the deadline, the probe's error and the output", err)
	}
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo up; while :; do echo tick; sleep 0.02; done`)
	waitReady(t, p)
	if err := p.Suspend(); err != nil {
		t.Fatal(err)
	}
	// Stop wakes a suspended process, which could not see the signal.
	if err := p.Stop(grace); err != nil {
		t.Error(err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	p := shell(t, `head -c 2000000 /dev/zero | tr '\0' x; echo end`)
	<-p.Done()
	if got := p.Output(); len(got) > 256<<10 || !strings.HasSuffix(got, "end\n") {
		t.Errorf("kept %d bytes, want the last 256 KiB at most", len(got))
	}
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := process.Start(process.Command{Path: "/no/such/program"})
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("got %v, want an error that names the program", err)
	}
}

func TestKilledProcessIsGone(t *testing.T) {
	t.Parallel()
	p := shell(t, `echo up; sleep 60`)
	waitReady(t, p)
	p.Kill()
	if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("looking for the process: got %v, want %v", err, syscall.ESRCH)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.Listener.Addr().String()
	if err := process.Listening(address)(t.Context()); err != nil {
		t.Error(err)
	}
	if err := process.Answering(server.URL, http.StatusNotFound)(t.Context()); err != nil {
		t.Error(err)
	}
	if err := process.Answering(server.URL, http.StatusOK)(t.Context()); err == nil {
		t.Error("a 404 was taken for a 200")
	}
	server.Close()
	if err := process.Listening(address)(t.Context()); err == nil {
		t.Error("a closed port was taken for an open one")
	}
}

func TestFreeAddressesDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 50 {
		address, err := process.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Errorf("%s was given twice", address)
		}
		seen[address] = true
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("%s is not free: %v", address, err)
			continue
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEnvironmentLeavesOutAPrefix(t *testing.T) {
	t.Setenv("SHADOWCAT_TEST", "1")
	t.Setenv("OTHER_TEST", "1")
	env := strings.Join(process.Environment("SHADOWCAT_"), "\n")
	if strings.Contains(env, "SHADOWCAT_TEST") || !strings.Contains(env, "OTHER_TEST=1") {
		t.Error("got SHADOWCAT_TEST or no OTHER_TEST")
	}
}
