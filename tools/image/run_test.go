package main

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readOnlyRoot runs a program of $0, a folder, as the image's user, with the folder as its root, which nobody can write to: what a
// runtime does with readOnlyRootFilesystem. The mount is in a namespace of its own, and gone with the program.
const readOnlyRoot = `mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec chroot --userspec=` + userID + ":" + userID + ` "$0" "$@"`

// inImage is a command of the program in the unpacked image of this machine's architecture.
func inImage(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()

	if os.Geteuid() != 0 {
		t.Skip("needs root, to become the image's user in the image's root folder")
	}
	image := images(t, filepath.Join(target, "image.tar"))[runtime.GOARCH]
	if image == nil {
		t.Skip("the image is not for " + runtime.GOARCH)
	}
	root := t.TempDir()
	for name, file := range contents(t, image) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(path, file.content, os.FileMode(file.mode)); err != nil {
			t.Fatal(err)
		}
	}
	config := configOf(t, image)
	line := append([]string{"--mount", "--propagation", "private", "sh", "-ec", readOnlyRoot, root}, config.Entrypoint...)
	command := exec.CommandContext(t.Context(), "unshare", append(line, args...)...)
	command.Env = config.Env
	return command
}

func TestProgramTellsItsVersion(t *testing.T) {
	t.Parallel()

	output, err := inImage(t, "version").CombinedOutput()
	if err != nil {
		t.Fatalf("version: %v\n%s", err, output)
	}
	if want := "shadowcat-cluster " + testVersion + "\ncommit " + testCommit + "\n"; !strings.HasPrefix(string(output), want) {
		t.Errorf("version says\n%s, want\n%s", output, want)
	}
}

// TestClusterRunsInTheImage runs three replicas and the rest of the demo as the image's user: nothing that they do needs more than a
// root that cannot be written to.
func TestClusterRunsInTheImage(t *testing.T) {
	t.Parallel()

	command := inImage(t, "demo", "--listen", "127.0.0.1:0")
	var complaints bytes.Buffer
	command.Stderr = &complaints
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
	defer watchdog.Stop()

	lines, url := bufio.NewScanner(output), ""
	for pattern := regexp.MustCompile(`http://127\.0\.0\.1:\d+/mcp`); url == "" && lines.Scan(); {
		url = pattern.FindString(lines.Text())
	}
	if url == "" {
		t.Fatalf("the demo named no address: %v\n%s", command.Wait(), complaints.String())
	}
	initialize(t, url)

	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // Until it has closed its output.
		continue
	}
	if err := command.Wait(); err != nil {
		t.Errorf("the demo was told to stop: %v\n%s", err, complaints.String())
	}
}

func initialize(t *testing.T, url string) {
	t.Helper()

	body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},` +
		`"clientInfo":{"name":"image-test","version":"1"}}}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Mcp-Session-Id") == "" {
		t.Errorf("initialize: %s, session %q", response.Status, response.Header.Get("Mcp-Session-Id"))
	}
}

func mustTime(t *testing.T, text string) time.Time {
	t.Helper()

	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
