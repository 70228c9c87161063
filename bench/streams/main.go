// Command streams measures what idle streams cost: it opens many sessions, each with a GET stream on which nothing happens, and reads
// what the replica that holds them takes of memory and calls of Redis. Then the clients come back to another replica, which
// follows what the first one reads.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

// The goals for 10,000 streams at one replica.
const (
	goalMemory = 1 << 30 // bytes
	goalCalls  = 200     // a second
)

// leastShown is how often a second something must be called to be shown by itself.
const leastShown = 1

// openers open sessions and streams at once, each with so many tries.
const (
	openers = 32
	tries   = 10
)

const initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`

func main() {
	streams := flag.Int("streams", 10_000, "how many streams to open")
	settle := flag.Duration("settle", 15*time.Second, "how long they are left alone before it is measured")
	measure := flag.Duration("measure", 20*time.Second, "for how long it is measured")
	asUpstream := flag.String("upstream", "", "internal: be the upstream, at this address")
	flag.Parse()
	if *asUpstream != "" {
		server := &http.Server{Addr: *asUpstream, Handler: http.HandlerFunc(silent), ReadHeaderTimeout: time.Minute}
		fmt.Fprintln(os.Stderr, "streams:", server.ListenAndServe())
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := bench{out: os.Stdout, streams: *streams, settle: *settle, measure: *measure}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "streams:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

type bench struct {
	out             io.Writer
	streams         int
	settle, measure time.Duration
	tap             *tap
	tokens          []string
}

var errMissed = errors.New("a goal was missed")

func (b *bench) run(ctx context.Context) (err error) {
	if err := allowFiles(uint64(2*b.streams + 100)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shadowcat-streams-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	executable, err := binary.Build(ctx, dir, binary.ShadowcatCluster)
	if err != nil {
		return err
	}
	redis, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, redis.Close()) }()
	if b.tap, err = startTap(ctx, redis.Address()); err != nil {
		return err
	}
	upstream, err := startUpstream(ctx)
	if err != nil {
		return err
	}
	defer upstream.process.Kill()

	var replicas []*replica.Replica
	defer func() {
		for _, r := range replicas {
			r.Kill()
		}
	}()
	for i := range 2 {
		r, err := replica.New(replica.Options{
			Executable: executable, ID: fmt.Sprint("r-", i), RedisURL: "redis://" + b.tap.address(), Upstreams: []string{"http://" + upstream.address},
			Args: []string{"--max-sessions", strconv.Itoa(2 * b.streams), "--create-rate", "0", "--log-level", "warn"},
		})
		if err != nil {
			return err
		}
		replicas = append(replicas, r)
		if err := r.Start(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "%d idle streams\n\n%-44s  %10s  %12s\n", b.streams, "HELD BY ONE REPLICA", "MEMORY", "REDIS CALLS")
	read, err := b.hold(ctx, replicas[0], "that reads them from their upstream")
	if err != nil {
		return err
	}
	followed, err := b.hold(ctx, replicas[1], "that follows what the other one reads")
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%-44s  %7d MiB  %10d/s\n", "goal", goalMemory>>20, goalCalls)
	if !read || !followed {
		return errMissed
	}
	return nil
}

// upstream is this program as an upstream: a process of its own, because each has so many files open.
type upstream struct {
	address string
	process *process.Process
}

func startUpstream(ctx context.Context) (upstream, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return upstream{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return upstream{}, err
	}
	started, err := process.Start(process.Command{Name: "upstream", Path: self, Args: []string{"-upstream", address}})
	if err != nil {
		return upstream{}, err
	}
	if err := started.WaitReady(ctx, process.Listening(address)); err != nil {
		started.Kill()
		return upstream{}, err
	}
	return upstream{address: address, process: started}, nil
}

// silent is an upstream that answers initialize, and otherwise says nothing.
func silent(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case http.MethodPost:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Mcp-Session-Id", "s")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`)
	}
}

// hold opens all streams at a replica, and reports whether what they cost is within the goals.
func (b *bench) hold(ctx context.Context, r *replica.Replica, name string) (bool, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: openers}}
	defer client.CloseIdleConnections()
	streaming, stop := context.WithCancel(ctx)
	defer stop()
	if b.tokens == nil {
		b.tokens = make([]string, b.streams)
	}
	var group errgroup.Group
	group.SetLimit(openers)
	for i := range b.tokens {
		group.Go(func() error {
			if b.tokens[i] == "" {
				token, err := open(ctx, client, r.URL())
				if err != nil {
					return err
				}
				b.tokens[i] = token
			}
			return stream(streaming, client, r.URL(), b.tokens[i])
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	if err := wait(ctx, b.settle); err != nil {
		return false, err
	}
	before := b.tap.counts()
	if err := wait(ctx, b.measure); err != nil {
		return false, err
	}
	calls, total := b.tap.since(before)
	memory, err := resident(r.PID())
	if err != nil {
		return false, err
	}
	rate := float64(total) / b.measure.Seconds()
	fmt.Fprintf(b.out, "%-44s  %7d MiB  %10.0f/s\n", name, memory>>20, rate)
	for _, c := range calls {
		if each := float64(c.calls) / b.measure.Seconds(); each >= leastShown {
			fmt.Fprintf(b.out, "  %-104.104s  %6.1f/s\n", c.name, each)
		}
	}
	return memory <= goalMemory && rate <= goalCalls, nil
}

// open opens a session and returns its token.
func open(ctx context.Context, client *http.Client, url string) (string, error) {
	res, err := send(ctx, client, http.MethodPost, url, "", initialize)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // only read
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return "", err
	}
	if token := res.Header.Get("Mcp-Session-Id"); token != "" {
		return token, nil
	}
	return "", fmt.Errorf("initialize was answered with %d and no session", res.StatusCode)
}

// stream opens a session's stream, which stays open until ctx ends.
func stream(ctx context.Context, client *http.Client, url, token string) error {
	res, err := send(ctx, client, http.MethodGet, url, token, "") //nolint:bodyclose // it is, when the stream ends
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET was answered with %d", res.StatusCode)
	}
	go func() { // it ends with ctx
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}()
	return nil
}

// send sends a request, again while the replica says that it cannot serve it now: so much at once may be too much for the machine.
func send(ctx context.Context, client *http.Client, method, url, token, body string) (*http.Response, error) {
	for try := 1; ; try++ {
		res, err := sendOnce(ctx, client, method, url, token, body)
		if err != nil || res.StatusCode != http.StatusServiceUnavailable || try == tries {
			return res, err
		}
		_ = res.Body.Close() // another answer is wanted
		if err := wait(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

func sendOnce(ctx context.Context, client *http.Client, method, url, token, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Mcp-Session-Id", token)
	}
	return client.Do(req)
}

// resident is the memory that a process has, in bytes.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the process tells no VmRSS")
}

// allowFiles raises how many files this process, and those that it starts, may have open.
func allowFiles(n uint64) error {
	limit := syscall.Rlimit{Cur: n, Max: n}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err == nil && now.Cur >= n {
		return nil
	} else if err == nil && now.Max >= n {
		limit.Max = now.Max
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d open files are needed, this user may have fewer (ulimit -Hn): %w; use -streams for fewer", n, err)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
