package auth

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// wellKnown is where clients look for what a resource says of itself (RFC 9728, section 3).
const wellKnown = "/.well-known/oauth-protected-resource"

// metadata are the documents that tell clients where to get tokens, made once.
type metadata struct {
	urls      map[string]string // upstream's path -> public URL of its document
	documents map[string][]byte // path as it reaches us -> document
}

// resourceMetadata is one document: RFC 9728, section 2.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
}

// newMetadata makes a document for each upstream, and one for all of them: some clients ask at the root only.
func newMetadata(cfg Config) *metadata {
	m := &metadata{urls: make(map[string]string), documents: make(map[string][]byte)}
	base, err := url.Parse(cfg.Resource)
	if cfg.Mode != ModeJWT || err != nil {
		return m
	}
	origin := base.Scheme + "://" + base.Host
	prefix := strings.TrimSuffix(base.EscapedPath(), "/")
	paths := append([]string{""}, cfg.Paths...)
	for _, path := range paths {
		document, err := json.Marshal(resourceMetadata{
			Resource:             origin + prefix + path,
			AuthorizationServers: []string{cfg.Issuer},
			ScopesSupported:      cfg.RequiredScopes,
			BearerMethods:        []string{"header"},
		})
		if err != nil {
			continue // texts can always be written
		}
		m.urls[path] = origin + wellKnown + prefix + path
		m.documents[wellKnown+prefix+path] = document
	}
	// A gateway in front that serves us below a prefix may take it away. What is asked for by its full path goes first.
	for _, path := range paths {
		if _, isTaken := m.documents[wellKnown+path]; !isTaken {
			m.documents[wellKnown+path] = m.documents[wellKnown+prefix+path]
		}
	}
	return m
}

// urlFor returns where the document of an upstream is, or that of all of them.
func (m *metadata) urlFor(path string) string {
	if u, ok := m.urls[path]; ok {
		return u
	}
	return m.urls[""]
}

// ServeMetadata answers a request for the metadata of a protected resource, at /.well-known/oauth-protected-resource and the
// same followed by an upstream's path. It returns false, and has answered nothing, for every other path, and when there is
// none, as in modes without tokens. What it serves is public, to every web page, so no host, origin or token needs to be
// checked before.
func (g *Gate) ServeMetadata(w http.ResponseWriter, r *http.Request) bool {
	document, ok := g.metadata.documents[strings.TrimSuffix(r.URL.Path, "/")]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "max-age=300")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Length", strconv.Itoa(len(document)))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			_, _ = w.Write(document) // a client that is gone needs no answer
		}
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "Mcp-Protocol-Version")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
	return true
}
