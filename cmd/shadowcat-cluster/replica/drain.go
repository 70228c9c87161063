package replica

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"time"
)

// DefaultDrainTimeout is how long stopping may take unless it is told otherwise.
const DefaultDrainTimeout = 25 * time.Second

// Drain says how a replica stops.
type Drain struct {
	// Delay is how long it serves on as before while it is not ready, so that balancers look away before anything is
	// refused. Default: not at all. It must be shorter than Timeout.
	Delay time.Duration
	// Timeout bounds stopping in all, Delay included. Default 25s.
	Timeout time.Duration
}

// schedule is when each step of a drain is due at the latest.
type schedule struct {
	quiet time.Time // until then the replica serves on as before
	cut   time.Time // requests still in flight are answered by the replica itself
	tell  time.Time // the store is told what is left to tell, and the leader resigns
	end   time.Time // over
}

// Of the timeout a fiftieth is kept for the process to end; before that a fifth, or two seconds if that is less, for the
// store, which may be slow; and before that a tenth, or one second, for the last answers to reach their clients.
const (
	longestTelling = 2 * time.Second
	longestCutting = time.Second
)

func (d Drain) schedule(now time.Time) schedule {
	timeout := cmp.Or(d.Timeout, DefaultDrainTimeout)
	end := now.Add(timeout - timeout/50)
	tell := end.Add(-min(timeout/5, longestTelling))
	cut := tell.Add(-min(timeout/10, longestCutting))
	quiet := now.Add(d.Delay)
	if quiet.After(cut) {
		quiet = cut
	}
	return schedule{quiet: quiet, cut: cut, tell: tell, end: end}
}

// front is the server that clients see.
type front struct {
	server      *http.Server
	listener    net.Listener
	connections connections
	served      chan struct{} // closed when nothing is accepted any more
}

func newFront(server *http.Server, listener net.Listener) *front {
	f := &front{server: server, listener: listener, served: make(chan struct{})}
	f.connections.busy = make(map[net.Conn]time.Time)
	server.ConnState = f.connections.track
	return f
}

// serve accepts connections until it is stopped, or fails.
func (f *front) serve() error {
	defer close(f.served)
	return serve(f.server, f.listener)
}

// drain ends the front, and everything that goes on for its clients: not ready, but serving on for a while; then no new
// connections, streams told to come back, requests in flight finished; shortly before the end those that are left are
// answered as it is. A replica in which a part has failed does not serve on.
func (r *Replica) drain(failed context.Context, f *front, s schedule) {
	r.admin.SetServing(false)
	r.stopping.Store(true)
	quiet, cancel := context.WithDeadline(failed, s.quiet)
	<-quiet.Done()
	cancel()

	// Not by the server's Shutdown: it drops requests that are just arriving.
	_ = f.listener.Close() // it may be closed already
	<-f.served             // a connection that was being accepted is known now
	r.proxy.Drain()
	if !r.await(f, s.cut) {
		r.log.Warn("drain_timeout is nearly over, and requests are still in flight: they are cut off, and their clients told whether they may have run",
			"requests", r.proxy.InFlight().Requests, "streams", r.proxy.Streams().ReadAnswers,
			"drain_timeout", cmp.Or(r.timing.Timeout, DefaultDrainTimeout).String())
		r.proxy.Cut()
		r.await(f, s.tell)
	}
	_ = f.server.Close() // what clients may still do on a connection, a server that stops cannot know
}

// await lets requests in flight finish, and what goes on for clients that broke off. It reports whether they have.
func (r *Replica) await(f *front, until time.Time) bool {
	bounded, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for f.connections.wait(bounded) && r.proxy.Wait(bounded) == nil {
		// A connection that had been idle may have brought a request meanwhile.
		if f.connections.quiet(time.Now()) {
			return true
		}
	}
	return false
}

// closeWhenStopping has clients let go of their connections with the next answer, so that none is closed while a request is
// on its way.
func (r *Replica) closeWhenStopping(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if r.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, request)
	})
}
