package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxTokenFile  = 8 << 10          // bytes
	rereadTokenAt = 30 * time.Second // how often the file is read again
)

// upstreamToken is what upstreams get to see of who the client is.
type upstreamToken struct {
	action UpstreamToken
	named  string                 // the header of ModeHeader, canonical; else empty
	file   string                 // empty but with UpstreamReplace
	value  atomic.Pointer[string] // of the Authorization header, from the file
}

// newUpstreamToken reads the file, if there is one.
func newUpstreamToken(cfg Config) (*upstreamToken, error) {
	u := &upstreamToken{action: cfg.UpstreamToken, file: cfg.UpstreamTokenFile}
	if cfg.Mode == ModeHeader {
		u.named = http.CanonicalHeaderKey(cfg.Header)
	}
	if u.file == "" {
		return u, nil
	}
	value, err := readToken(u.file)
	if err != nil {
		return nil, err
	}
	u.value.Store(&value)
	return u, nil
}

// readToken reads the value of an Authorization header from a file. Errors do not quote it.
func readToken(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err // it names the file and what is wrong
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(content))
	switch {
	case len(content) > maxTokenFile:
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxTokenFile)
	case value == "":
		return "", fmt.Errorf("%s is empty", name)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", fmt.Errorf("%s holds no header value; want one line of ASCII", name)
	}
	if !strings.Contains(value, " ") {
		value = "Bearer " + value
	}
	return value, nil
}

// run reads the file again and again until ctx is done. While it cannot be read, the last value stays.
func (u *upstreamToken) run(ctx context.Context, log *slog.Logger) {
	if u.file == "" {
		return
	}
	ticker := time.NewTicker(rereadTokenAt)
	defer ticker.Stop()
	hasFailed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		value, err := readToken(u.file)
		switch {
		case err == nil:
			u.value.Store(&value)
		case !hasFailed:
			log.Warn("the upstreams' token could not be read again; the last one stays in use", "error", withoutPath(err))
		}
		hasFailed = err != nil
	}
}

// withoutPath is what is wrong with a file; which one it is, is configured.
func withoutPath(err error) error {
	if of, ok := errors.AsType[*os.PathError](err); ok {
		return of.Err
	}
	return err
}

// Outbound makes the header of a request to an upstream hold what Config.UpstreamToken asks for: the client's credential as it
// is, none, or the configured one. It must be called for every request that is sent to an upstream, those that no client
// asked for included. The credential is the Authorization header and, in ModeHeader, the header that names the client.
func (g *Gate) Outbound(h http.Header) {
	u := g.upstream
	u.dropLookalikes(h)
	if u.action == UpstreamPass {
		return
	}
	h.Del("Authorization")
	if u.named != "" {
		h.Del(u.named)
	}
	if value := u.value.Load(); u.action == UpstreamReplace && value != nil {
		h.Set("Authorization", *value)
	}
}

// Credential returns what of a request's header is the client's credential, for a request that is made anew in its name.
func (g *Gate) Credential(h http.Header) http.Header {
	credential := make(http.Header)
	for _, name := range []string{"Authorization", g.upstream.named} {
		if values := h.Values(name); name != "" && len(values) > 0 {
			credential[name] = values
		}
	}
	return credential
}

// Inbound makes the header of an upstream's answer fit for the client: where the upstream does not get the client's credential,
// its own WWW-Authenticate is removed, because no token that the client could fetch for it would ever reach it.
func (g *Gate) Inbound(h http.Header) {
	if g.upstream.action != UpstreamPass {
		h.Del("WWW-Authenticate")
	}
}

// dropLookalikes removes headers that many servers cannot tell from the one that names the client: with underscores.
func (u *upstreamToken) dropLookalikes(h http.Header) {
	if u.named == "" {
		return
	}
	for name := range h {
		if strings.Contains(name, "_") && strings.EqualFold(strings.ReplaceAll(name, "_", "-"), u.named) {
			delete(h, name)
		}
	}
}
