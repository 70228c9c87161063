package binary

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// DNSVariable names the environment variable that tells a command from [BuildResolving] which DNS server to ask, a "host:port".
const DNSVariable = "TEST_DNS_SERVER"

// resolving is what such a command has more than the others.
const resolving = `package main

import (
	"context"
	"net"
	"os"
)

func init() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", os.Getenv("` + DNSVariable + `"))
	}}
}
`

// BuildResolving is Build for a command that asks the DNS server of [DNSVariable] for names, instead of the machine's: which that is,
// only files of the whole machine say, and none of them can name a port.
func BuildResolving(ctx context.Context, dir, importPath string) (string, error) {
	folder, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", importPath).Output()
	if err != nil {
		return "", fmt.Errorf("build %s with a DNS server of its own: go list: %w", importPath, err)
	}
	source, overlay := filepath.Join(dir, "resolving.go"), filepath.Join(dir, "resolving.json")
	added := filepath.Join(strings.TrimSpace(string(folder)), "resolving_for_tests.go")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {added: source}})
	if err != nil {
		return "", err
	}
	for file, text := range map[string][]byte{source: []byte(resolving), overlay: replace} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
	}
	return build(ctx, filepath.Join(dir, path.Base(importPath)+"-resolving"), importPath, "-overlay", overlay)
}
