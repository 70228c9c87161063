package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// A handler asks the gate first, and answers with its refusal.
func Example() {
	cfg := auth.DefaultConfig()
	cfg.Mode = auth.ModeJWT
	cfg.Issuer = "https://login.example"
	cfg.Audiences = []string{"https://mcp.example/mcp"}
	cfg.Resource, cfg.Paths = "https://mcp.example", []string{"/mcp"}
	cfg.Transport = serving(keySet(ecKey())) // in place of the network
	gate, err := auth.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = gate.Run(ctx) })
	defer run.Wait()
	defer cancel()

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gate.ServeMetadata(w, r) {
			return
		}
		identity, err := gate.Authenticate(r)
		if err != nil {
			f := gate.Refusal(r.URL.Path, err)
			if f.Challenge != "" {
				w.Header().Set("WWW-Authenticate", f.Challenge)
			}
			http.Error(w, f.Message, f.Status)
			return
		}
		gate.Outbound(r.Header) // before it goes on to the upstream
		_ = identity.Principal  // owns what the request makes
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, request(http.MethodPost, "/mcp"))
	fmt.Println(w.Code)
	fmt.Println(w.Header().Get("WWW-Authenticate"))
	// Output:
	// 401
	// Bearer resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"
}
