package demo

import (
	"fmt"
	"io"
	"strings"
)

// welcome is what the demo prints when it is ready.
type welcome struct {
	endpoint string         // the front's MCP endpoint
	public   bool           // other machines may reach it
	replicas []replicaPlace // where each replica can be reached by itself
	redis    string         // the store's URL, fit to be shown
	embedded bool           // the store ends with the demo
	prefix   string         // --prefix of the commands that look at the store; empty for the default
	program  string         // how to call this program
}

type replicaPlace struct {
	mcp     string // URL of its MCP endpoint
	metrics string // URL of its metrics
}

// write prints it, in at most 80 columns.
func (w welcome) write(out io.Writer, s style) error {
	var b strings.Builder
	heading := func(text string) { fmt.Fprintf(&b, "\n%s\n", s.paint(bold, text)) }

	fmt.Fprintf(&b, "%s is ready: %s behind one address. Ctrl-C stops it.\n",
		s.paint(bold, "Shadowcat Cluster"), plural(len(w.replicas), "replica"))
	fmt.Fprintf(&b, "\n  %s\n", s.paint(green, w.endpoint))
	b.WriteString("  Each request goes to the next replica, whatever session it belongs to.\n")
	if w.public {
		fmt.Fprintf(&b, "  %s\n", s.paint(yellow, "Other machines may reach it too, and nothing asks them who they are."))
	}

	b.WriteString("\n")
	row := func(cells ...string) {
		fmt.Fprintf(&b, "  %-*s  %-28s  %s\n", replicaWidth, cells[0], cells[1], cells[2])
	}
	b.WriteString(s.paint(faint, fmt.Sprintf("  %-*s  %-28s  %s", replicaWidth, "PART", "ADDRESS", "METRICS")) + "\n")
	for i, place := range w.replicas {
		row(replicaName(i), place.mcp, place.metrics)
	}
	if w.embedded {
		row("redis", w.redis, s.paint(faint, "embedded: gone when the demo stops"))
	} else {
		fmt.Fprintf(&b, "  %-*s  %s\n", replicaWidth, "redis", w.redis)
	}

	heading("Connect a client")
	fmt.Fprintf(&b, "  claude mcp add --transport http shadowcat %s\n", w.endpoint)
	fmt.Fprintf(&b, "  npx @modelcontextprotocol/inspector --transport http \\\n      --server-url %s\n", w.endpoint)

	heading("Or paste this into a shell")
	b.WriteString(indent(w.shell()))

	heading("Look at the sessions")
	for _, command := range []string{"session list", "stats"} {
		fmt.Fprintf(&b, "  %s %s --redis %s%s\n", shellQuote(w.program), command, shellQuote(w.redis), w.prefixFlag())
	}
	fmt.Fprintf(&b, "  curl -s %s | grep ^shadowcat_\n", w.replicas[0].metrics)
	b.WriteString("\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// shell is a session with the demo in POSIX shell and curl: it opens a session and counts to three.
func (w welcome) shell() string {
	return strings.ReplaceAll(`mcp() { curl -s ENDPOINT "$@" \
  -H 'Content-Type: application/json' \
  -H 'Accept: application/json, text/event-stream'; }
session=$(mcp -D - -o /dev/null -d '{"jsonrpc":"2.0","id":1,
  "method":"initialize","params":{"protocolVersion":"2025-11-25",
  "capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' |
  tr -d '\r' | awk 'tolower($1) == "mcp-session-id:" { print $1 $2 }')
mcp -H "$session" -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
for id in 2 3 4; do
  mcp -H "$session" -d '{"jsonrpc":"2.0","id":'$id',
    "method":"tools/call","params":{"name":"counter"}}'
done
`, "ENDPOINT", shellQuote(w.endpoint))
}

func (w welcome) prefixFlag() string {
	if w.prefix == "" {
		return ""
	}
	return " --prefix " + w.prefix
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// shellQuote quotes what a shell would not take as it is.
func shellQuote(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@,%+=", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
