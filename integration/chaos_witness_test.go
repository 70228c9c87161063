package integration_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/lua"
)

// fencedScripts are the scripts that carry an epoch: by their text, and by the digest a server knows them by, which of their
// arguments it is, from 1.
var fencedScripts = func() map[string]int {
	byName := make(map[string]int)
	for text, epoch := range map[string]int{
		lua.SessionsSweep: 10, lua.SessionsEnd: 10, lua.SessionsPurge: 10, lua.SessionsMend: 7, lua.CountsMend: 1,
	} {
		byName[text], byName[digestOf(text)] = epoch, epoch
	}
	return byName
}()

// digestOf is the name under which a server knows a script: its SHA-1.
func digestOf(script string) string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

// witness sees every script of cleanup that any server runs, in order, and whether the fence let it.
type witness struct {
	mu      sync.Mutex
	servers map[string]*seen // by the server's address
}

// seen is what one server has been seen to do.
type seen struct {
	deeds  []deed
	isDeed bool // the script that runs is the last of deeds
}

// deed is one run of a script of cleanup.
type deed struct {
	epoch    int64
	isLeader bool
	ran      bool // the server had the script, and it has read the fence
	passed   bool // the fence has let it look further
}

func newWitness(t *testing.T, at server) *witness {
	t.Helper()
	w := &witness{servers: make(map[string]*seen)}
	for _, s := range at.Servers() {
		w.watch(t, s)
	}
	return w
}

// watch follows what a server does until the test ends. Sentinel breaks all connections of a server that it promotes.
func (w *witness) watch(t *testing.T, server *redisserver.Server) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &seen{}
	w.servers[server.Address()] = s
	watching := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		told := sync.OnceFunc(func() { close(watching) })
		for ctx.Err() == nil {
			_ = w.follow(ctx, server, s, told) // it ends with the connection, and another one follows
			pause(ctx, 5*time.Millisecond)
		}
	})
	t.Cleanup(func() {
		stop()
		following.Wait()
	})
	select {
	case <-watching:
	case <-time.After(recovery):
		t.Fatalf("%s cannot be watched", server.Address())
	}
}

// follow reads what a server does until the connection breaks, or ctx ends. It calls told when it sees everything.
func (w *witness) follow(ctx context.Context, server *redisserver.Server, s *seen, told func()) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", server.Address())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		return err
	}
	lines := bufio.NewReader(conn)
	if ok, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(ok, "+OK") {
		return fmt.Errorf("MONITOR: %q, %w", ok, err)
	}
	told()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		w.see(s, line)
	}
}

// see reads one line of MONITOR: +<time> [<database> <client>] "<command>" "<argument>"... What a script does follows it, with
// "lua" for the client.
func (w *witness) see(s *seen, line string) {
	_, rest, found := strings.Cut(line, "] ")
	if !found {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if isScript := strings.HasSuffix(line[:len(line)-len(rest)], " lua] "); isScript {
		if s.isDeed {
			last := &s.deeds[len(s.deeds)-1]
			// The fence itself is read first, and nothing else by those whom it refuses.
			last.ran, last.passed = true, last.passed || !strings.HasPrefix(rest, `"GET"`)
		}
		return
	}
	d, isDeed := readDeed(rest)
	if s.isDeed = isDeed; isDeed {
		s.deeds = append(s.deeds, d)
	}
}

// readDeed reads a command, and reports whether it runs a script of cleanup.
func readDeed(command string) (deed, bool) {
	var words []string
	for rest := strings.TrimSpace(command); rest != ""; rest = strings.TrimSpace(rest) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return deed{}, false
		}
		word, _ := strconv.Unquote(quoted) // it is well formed
		words = append(words, word)
		rest = rest[len(quoted):]
		if len(words) == 2 && fencedScripts[word] == 0 {
			return deed{}, false
		}
	}
	if len(words) < 3 {
		return deed{}, false
	}
	keys, _ := strconv.Atoi(words[2])
	at := 2 + keys + fencedScripts[words[1]]
	if at+1 >= len(words) {
		return deed{}, false
	}
	epoch, err := strconv.ParseInt(words[at], 10, 64)
	return deed{epoch: epoch, isLeader: words[at+1] == "1"}, err == nil
}

// deeds returns what leaders have been seen to do at a server.
func (w *witness) deeds(server string) []deed {
	w.mu.Lock()
	defer w.mu.Unlock()
	var done []deed
	for _, d := range w.servers[server].deeds {
		if d.isLeader && d.ran {
			done = append(done, d)
		}
	}
	return done
}

// refused counts the scripts of leaders that a fence has refused.
func (w *witness) refused(server string) int {
	n := 0
	for _, d := range w.deeds(server) {
		if !d.passed {
			n++
		}
	}
	return n
}

// check fails the test when, on any server, an older leader's script has passed the fence after a newer one's.
func (w *witness) check(t *testing.T) {
	t.Helper()
	var told []string
	for server := range w.servers {
		var newest int64
		passed, epochs := 0, 0
		for _, d := range w.deeds(server) {
			if !d.passed {
				continue
			}
			passed++
			if d.epoch < newest {
				t.Errorf("%s ran a script of epoch %d after one of epoch %d", server, d.epoch, newest)
			}
			if d.epoch > newest {
				newest, epochs = d.epoch, epochs+1
			}
		}
		if passed > 0 {
			told = append(told, fmt.Sprintf("%d scripts of %d epochs passed, %d were refused", passed, epochs, w.refused(server)))
		}
	}
	t.Logf("cleanup: %s", strings.Join(told, "; on another server "))
}
