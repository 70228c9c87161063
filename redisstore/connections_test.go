package redisstore_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// path is a way to a server on which connections can be lost without a word.
type path struct {
	net.Listener
	to string

	mu   sync.Mutex
	wg   sync.WaitGroup
	lost chan struct{} // closed when the connections made before are
	open []net.Conn
}

func newPath(t *testing.T, to string) *path {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &path{Listener: listener, to: to, lost: make(chan struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, conn := range p.open {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *path) accept() {
	for {
		from, err := p.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to) //nolint:noctx // a loopback server
		if err != nil {
			_ = from.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, from, to)
		lost := p.lost
		p.mu.Unlock()
		for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
			p.wg.Go(func() { forward(way[1], way[0], lost) })
		}
	}
}

// forward passes on what comes, until the connection is lost.
func forward(to io.Writer, from io.Reader, lost <-chan struct{}) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-lost:
		default:
			_, _ = to.Write(buffer[:n])
		}
	}
}

// lose loses all connections there are.
func (p *path) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.lost)
	p.lost = make(chan struct{})
}

// ask makes n calls at once, and returns how many were not answered.
func ask(ctx context.Context, store *redisstore.Store, n int) (failed int) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
	)
	for range n {
		group.Go(func() {
			_, err := store.Lease(ctx, cluster.LeaseCall{ID: cluster.ID{15: 1}})
			if !errors.Is(err, cluster.ErrNotFound) {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed
}

func TestConnectionsThatAreLostWithoutAWordAreNotTriedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	way := newPath(t, miniredis.RunT(t).Addr())
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = time.Second // the machine may be busy
	store, err := redisstore.Open("redis://"+way.Addr().String()+"?pool_size=40", redisstore.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	const many = 40
	for range 5 { // as many connections as there are calls at once
		if failed := ask(t.Context(), store, many); failed > 0 {
			t.Fatalf("%d calls failed at first", failed)
		}
	}
	way.lose()
	for store.Breakers().Open == 0 {
		ask(t.Context(), store, 1)
	}
	begun := time.Now()
	for store.Breakers().Open > 0 { // somebody asks now and then
		ask(t.Context(), store, 1)
		<-time.After(10 * time.Millisecond)
	}
	if took := time.Since(begun); took > 5*time.Second { // one dead connection after the other would take 20 s
		t.Errorf("the breaker closed after %s, want after one probe", took)
	}
	if failed := ask(t.Context(), store, many); failed > 0 {
		t.Errorf("%d of %d calls failed when the store was back", failed, many)
	}
}

func TestConnectionsThatTheServerHasClosedCostNoCall(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	store, err := redisstore.Open("redis://"+server.Addr(), redisstore.Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if failed := ask(t.Context(), store, 5); failed > 0 {
		t.Fatalf("%d calls failed at first", failed)
	}
	server.Close()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	if failed := ask(t.Context(), store, 5); failed > 0 {
		t.Errorf("%d calls failed after the server had closed their connections", failed)
	}
}
