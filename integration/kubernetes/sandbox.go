package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// ownName is what everything that could be left behind is called: the work folder and the cgroups. All else (processes, mounts,
// bridges, tables of nftables) lives in namespaces that end with their first process.
const ownName = "shadowcat-kubernetes"

// stopTime is how long the inner program gets to end by itself.
const stopTime = 30 * time.Second

// enterFake is run as the first thing in the namespaces: $0 is the work folder. So is enter, before there are real nodes: what
// Kubernetes and containerd keep at fixed places goes to the folder, or is gone with the mounts.
const (
	enterFake = `
ip link set lo up
exec "$@"`
	enter = `
mount -t tmpfs own /run
mkdir -p "$0/log" "$0/cni" /var/lib/cni /var/lib/kubelet
mount --bind "$0/log" /var/log
mount --bind "$0/cni" /var/lib/cni
ip link set lo up
exec tini -s -- "$@"`
)

// runInNamespaces prepares what needs the network of the machine, then runs this program anew in namespaces of its own.
func runInNamespaces(ctx context.Context, out io.Writer, o options, args []string) error {
	work := filepath.Join(os.TempDir(), ownName)
	if err := os.Mkdir(work, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	unlock, err := lock(work)
	if err != nil {
		return err
	}
	defer unlock()
	// A run that was killed has left its files and cgroups.
	if err := errors.Join(cleanUp(work), os.RemoveAll(logFolder(work)), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	if err := prepare(ctx, out, work, o.fake); err != nil {
		return errors.Join(err, cleanUp(work))
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	line, script := slices.Clone(namespaces), enter
	if o.fake {
		script = enterFake
	}
	if os.Geteuid() != 0 {
		line = append(line, "--user", "--map-root-user")
	}
	line = append(line, "bash", "-eu", "-c", script, work, program, "-inside", work)
	command := exec.CommandContext(ctx, "unshare", append(line, args...)...)
	command.Stdout, command.Stderr = out, os.Stderr
	// Ctrl-C reaches the inner program by itself, as it is in the same process group; a SIGTERM of this program alone does not.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = stopTime
	err = command.Run()
	if err != nil {
		err = fmt.Errorf("in the namespaces: %w; logs of the last run are in %s until the next", err, keepLogs(work))
	}
	return errors.Join(err, cleanUp(work))
}

// namespaces are arguments of unshare.
var namespaces = []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}

// checkMachine says what the machine lacks for real nodes.
func checkMachine(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can run containers: run this as root, on a machine that you can throw away")
	}
	for _, program := range []string{"unshare", "tini", "ip", "nft", "containerd", "ctr", "runc", "redis-server"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not on PATH: `make kubernetes` installs it from Debian's packages", program)
		}
	}
	if output, err := exec.CommandContext(ctx, "unshare", append(slices.Clone(namespaces), "true")...).CombinedOutput(); err != nil {
		return fmt.Errorf("unshare %v: %w: %s", namespaces, err, output)
	}
	if err := makeGroups("/" + ownName); err != nil {
		return fmt.Errorf("cgroups cannot be made: %w", err)
	}
	return nil
}

// lock makes sure that there is one run at a time: the names are the same for all.
func lock(work string) (unlock func(), err error) {
	file, err := os.OpenFile(work+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := exclusive(file); err != nil {
		return nil, errors.Join(fmt.Errorf("another run is under way (%s.lock): wait for it: %w", work, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// logFolder is where the last failed run's logs are kept.
func logFolder(work string) string { return work + "-logs" }

// keepLogs moves the logs out of the work folder, which is about to go.
func keepLogs(work string) string {
	folder := logFolder(work)
	_ = os.RemoveAll(folder)
	_ = os.Rename(filepath.Join(work, "log"), folder)
	return folder
}

// cleanUp removes what namespaces do not: the work folder, and cgroups, by name. It is for before and after.
func cleanUp(work string) error {
	errs := []error{os.RemoveAll(work)}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + ownName)
	errs = append(errs, err)
	if _, err := os.Stat("/sys/fs/cgroup/" + ownName); err == nil {
		groups = append(groups, "/sys/fs/cgroup/"+ownName)
	}
	for _, group := range groups {
		errs = append(errs, removeGroup(group))
	}
	return errors.Join(errs...)
}

// removeGroup removes a cgroup and those below it: their folders, from the leaves up, have no files that one could remove.
func removeGroup(group string) error {
	entries, err := os.ReadDir(group)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if entry.IsDir() {
			errs = append(errs, removeGroup(filepath.Join(group, entry.Name())))
		}
	}
	return errors.Join(append(errs, os.Remove(group))...)
}
