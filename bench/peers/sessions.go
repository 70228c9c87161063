package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	fiber "github.com/gofiber/storage/redis/v3"
	gorilla "github.com/rbcervilla/redisstore/v9"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// lifetime is how long a peer keeps a session that nobody uses.
const lifetime = 30 * time.Minute

// Handler serves requests of n sessions: Serve wraps next in what a session costs, and Request makes a request of session i.
type Handler interface {
	Serve(next http.Handler) http.Handler
	Request(ctx context.Context, i int) *http.Request
}

// request is one that names its session by a cookie.
func request(ctx context.Context, cookie, value string) *http.Request {
	r := post(ctx)
	r.AddCookie(&http.Cookie{Name: cookie, Value: value}) //nolint:gosec // a client's, which has no attributes
	return r
}

func post(ctx context.Context) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/mcp", http.NoBody)
	if err != nil {
		panic(err) // method and URL are constants
	}
	return r
}

// SCS is alexedwards/scs with goredisstore: each request loads its session, writes down when that was, and commits it.
type SCS struct {
	manager *scs.SessionManager
	tokens  []string
}

// NewSCS makes n sessions.
func NewSCS(ctx context.Context, client *redis.Client, prefix string, n int) (*SCS, error) {
	s := &SCS{manager: scs.New()}
	s.manager.Store = goredisstore.NewWithPrefix(client, prefix)
	s.manager.IdleTimeout = lifetime
	for range n {
		session, err := s.manager.Load(ctx, "")
		if err != nil {
			return nil, err
		}
		s.manager.Put(session, "upstream", "files")
		token, _, err := s.manager.Commit(session)
		if err != nil {
			return nil, err
		}
		s.tokens = append(s.tokens, token)
	}
	return s, nil
}

// Serve loads and commits, without the buffering of the answer that LoadAndSave adds.
func (s *SCS) Serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		if err != nil {
			fail(w, err)
			return
		}
		ctx, err := s.manager.Load(r.Context(), cookie.Value)
		if err != nil || s.manager.GetString(ctx, "upstream") == "" {
			fail(w, err)
			return
		}
		s.manager.Put(ctx, "active", time.Now().UnixMilli())
		next.ServeHTTP(w, r.WithContext(ctx))
		if _, _, err := s.manager.Commit(ctx); err != nil {
			fail(w, err)
		}
	})
}

// Request names the session by a cookie.
func (s *SCS) Request(ctx context.Context, i int) *http.Request {
	return request(ctx, "session", s.tokens[i])
}

// Gorilla is gorilla/sessions with rbcervilla/redisstore: each request gets its session and saves it.
type Gorilla struct {
	store *gorilla.RedisStore
	ids   []string
}

// NewGorilla makes n sessions.
func NewGorilla(ctx context.Context, client *redis.Client, n int) (*Gorilla, error) {
	store, err := gorilla.NewRedisStore(ctx, client)
	if err != nil {
		return nil, err
	}
	store.KeyPrefix("gorilla:")
	g := &Gorilla{store: store}
	for range n {
		r := post(ctx)
		session, err := store.New(r, "session")
		if err != nil {
			return nil, err
		}
		session.Values["upstream"] = "files"
		if err := store.Save(r, NewResponse(), session); err != nil {
			return nil, err
		}
		g.ids = append(g.ids, session.ID)
	}
	return g, nil
}

// Serve gets and saves.
func (g *Gorilla) Serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := g.store.New(r, "session")
		if err != nil || session.IsNew {
			fail(w, err)
			return
		}
		session.Values["active"] = time.Now().UnixMilli()
		next.ServeHTTP(w, r)
		if err := g.store.Save(r, w, session); err != nil {
			fail(w, err)
		}
	})
}

// Request names the session by a cookie.
func (g *Gorilla) Request(ctx context.Context, i int) *http.Request {
	return request(ctx, "session", g.ids[i])
}

// Fiber is gofiber/storage on Redis, as fiber's session middleware uses it: a key is read before each request, and written after it.
type Fiber struct {
	storage *fiber.Storage
	n       int
}

// fiberSession is what is stored, as JSON.
type fiberSession struct {
	Upstream string `json:"upstream"`
	Active   int64  `json:"active"`
}

// NewFiber makes n sessions.
func NewFiber(ctx context.Context, client *redis.Client, n int) (*Fiber, error) {
	f := &Fiber{storage: fiber.NewFromConnection(client), n: n}
	for i := range n {
		if err := f.save(ctx, strconv.Itoa(i), fiberSession{Upstream: "files"}); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Fiber) save(ctx context.Context, id string, session fiberSession) error {
	encoded, err := json.Marshal(session)
	if err != nil {
		return err
	}
	return f.storage.SetWithContext(ctx, "fiber:"+id, encoded, lifetime)
}

// Serve reads and writes.
func (f *Fiber) Serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		if err != nil {
			fail(w, err)
			return
		}
		encoded, err := f.storage.GetWithContext(r.Context(), "fiber:"+cookie.Value)
		if err != nil {
			fail(w, err)
			return
		}
		var session fiberSession
		if err := json.Unmarshal(encoded, &session); err != nil {
			fail(w, err)
			return
		}
		session.Active = time.Now().UnixMilli()
		next.ServeHTTP(w, r)
		if err := f.save(r.Context(), cookie.Value, session); err != nil {
			fail(w, err)
		}
	})
}

// Request names the session by a cookie.
func (f *Fiber) Request(ctx context.Context, i int) *http.Request {
	return request(ctx, "session", strconv.Itoa(i%f.n))
}

// Memory is a map in this process: what one replica can do that shares nothing.
type Memory struct {
	mu       sync.Mutex
	sessions map[string]fiberSession // guarded by mu
	ids      []string
}

// NewMemory makes n sessions.
func NewMemory(n int) *Memory {
	m := &Memory{sessions: map[string]fiberSession{}}
	for i := range n {
		m.ids = append(m.ids, fmt.Sprintf("%032x", i))
		m.sessions[m.ids[i]] = fiberSession{Upstream: "files"}
	}
	return m
}

// Serve looks the session up and writes down when that was.
func (m *Memory) Serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("Mcp-Session-Id")
		m.mu.Lock()
		session, found := m.sessions[id]
		session.Active = time.Now().UnixMilli()
		if found {
			m.sessions[id] = session
		}
		m.mu.Unlock()
		if !found {
			fail(w, nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Request names the session by MCP's header.
func (m *Memory) Request(ctx context.Context, i int) *http.Request {
	r := post(ctx)
	r.Header.Set("Mcp-Session-Id", m.ids[i])
	return r
}

// Shadowcat is the session layer that all this is about, as a proxy uses it.
type Shadowcat struct {
	Manager  *cluster.Manager
	Upstream string
	Tokens   []cluster.Token
}

// Serve takes a lease for the time of the request.
func (s *Shadowcat) Serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := cluster.ParseToken(r.Header.Get("Mcp-Session-Id"))
		if err != nil {
			fail(w, err)
			return
		}
		lease, err := s.Manager.Lease(r.Context(), token, cluster.Use{Upstream: s.Upstream})
		if err != nil {
			fail(w, err)
			return
		}
		defer lease.Release()
		next.ServeHTTP(w, r)
		lease.Touch()
	})
}

// Request names the session by MCP's header.
func (s *Shadowcat) Request(ctx context.Context, i int) *http.Request {
	r := post(ctx)
	r.Header.Set("Mcp-Session-Id", s.Tokens[i].Reveal())
	return r
}

// fail answers a request that should have succeeded; nil: its session was not there.
func fail(w http.ResponseWriter, err error) {
	text := "the session is not there"
	if err != nil {
		text = err.Error()
	}
	http.Error(w, text, http.StatusInternalServerError)
}

// Response takes an answer and forgets it.
type Response struct {
	header http.Header
	Status int // 0: nothing was written
}

// NewResponse returns an empty one.
func NewResponse() *Response { return &Response{header: http.Header{}} }

// Header returns the answer's header.
func (r *Response) Header() http.Header { return r.header }

// Write forgets.
func (r *Response) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader keeps the status. The last one counts, so that a failure after the answer is seen.
func (r *Response) WriteHeader(status int) { r.Status = status }
