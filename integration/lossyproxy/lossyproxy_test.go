package lossyproxy_test

import (
	"bufio"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/lossyproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startEcho starts a server that sends each line back, and a proxy in front. heard gets each line that the server has read.
func startEcho(t *testing.T) (proxy *lossyproxy.Proxy, heard chan string) {
	t.Helper()
	heard = make(chan string, 10)
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var workers sync.WaitGroup
	workers.Go(func() { // ends with the server
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			workers.Go(func() { // ends with the connection
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					heard <- lines.Text()
					_, _ = io.WriteString(conn, lines.Text()+"\n") // the client may be gone
				}
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		workers.Wait()
	})
	if proxy, err = lossyproxy.Start(server.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // first, so that the server sees its connections end
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return proxy, heard
}

func dial(t *testing.T, proxy *lossyproxy.Proxy) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", proxy.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask sends a line and returns the answer.
func ask(conn net.Conn, line string) (string, error) {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func TestAReplyIsLostAfterTheServerGaveIt(t *testing.T) {
	t.Parallel()
	proxy, heard := startEcho(t)
	proxy.LoseReply("lose", 1)
	conn := dial(t, proxy)
	for _, line := range []string{"keep", "lose the second one"} {
		if got, err := ask(conn, line); err != nil || got != line+"\n" {
			t.Errorf("%q was answered with %q, %v", line, got, err)
		}
	}
	if got, err := ask(conn, "lose this one"); err == nil {
		t.Errorf("the reply %q was not lost", got)
	}
	<-heard
	<-heard
	if got := <-heard; got != "lose this one" {
		t.Errorf("the server heard %q", got)
	}
	if proxy.Spare() {
		t.Error("another reply is waiting to be lost")
	}
	if got, err := ask(dial(t, proxy), "lose"); err != nil || got != "lose\n" {
		t.Errorf("the next reply: %q, %v", got, err)
	}
	if got := proxy.Turns(); got != 4 {
		t.Errorf("%d requests were counted, want 4", got)
	}
}

func TestADelayCountsEachWay(t *testing.T) {
	t.Parallel()
	const delay = 20 * time.Millisecond
	proxy, _ := startEcho(t)
	conn := dial(t, proxy)
	proxy.Delay(delay)
	start := time.Now()
	if _, err := ask(conn, "far away"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 2*delay {
		t.Errorf("the answer came after %s, want at least %s", took, 2*delay)
	}
}

func TestAHeldRequestArrivesAfterItsClientHasGone(t *testing.T) {
	t.Parallel()
	proxy, heard := startEcho(t)
	held, release := proxy.Hold("late")
	conn := dial(t, proxy)
	if _, err := io.WriteString(conn, "late\n"); err != nil {
		t.Fatal(err)
	}
	<-held
	if got, err := ask(dial(t, proxy), "in time"); err != nil || got != "in time\n" {
		t.Errorf("another request: %q, %v", got, err)
	}
	if got := <-heard; got != "in time" {
		t.Errorf("the server heard %q first", got)
	}
	_ = conn.Close()
	release()
	if got := <-heard; got != "late" {
		t.Errorf("the server heard %q", got)
	}
}

func TestNothingPassesAFrozenProxy(t *testing.T) {
	t.Parallel()
	proxy, heard := startEcho(t)
	old := dial(t, proxy)
	if _, err := ask(old, "before"); err != nil {
		t.Fatal(err)
	}
	<-heard
	proxy.Freeze()
	young := dial(t, proxy)
	for _, conn := range []net.Conn{old, young} {
		if _, err := io.WriteString(conn, "frozen\n"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case line := <-heard:
		t.Errorf("the server heard %q", line)
	case <-time.After(50 * time.Millisecond):
	}
	proxy.Thaw()
	for _, conn := range []net.Conn{old, young} {
		if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "frozen\n" {
			t.Errorf("after the thaw: %q, %v", got, err)
		}
	}
}
