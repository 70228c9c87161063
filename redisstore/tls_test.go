package redisstore_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestOpenRefusesTLSFilesThatDoNotFit(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ours, other := issue(t, ca, dir, "ours"), issue(t, ca, dir, "other")
	const secret = "not a key, but a secret"
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	for name, test := range map[string]struct {
		url   string
		files redisstore.TLSFiles
		want  string
	}{
		"a URL without TLS":          {"redis://h", redisstore.TLSFiles{CA: ours.CA}, "rediss"},
		"the store in this process":  {redisstore.EmbeddedURL, redisstore.TLSFiles{CA: ours.CA}, "rediss"},
		"a CA that is missing":       {"rediss://h", redisstore.TLSFiles{CA: missing}, missing},
		"a CA that is none":          {"rediss-sentinel://h/m", redisstore.TLSFiles{CA: garbage}, garbage},
		"a certificate without key":  {"rediss://h", redisstore.TLSFiles{Certificate: ours.Certificate}, "both"},
		"a key without certificate":  {"rediss-cluster://h", redisstore.TLSFiles{Key: ours.Key}, "both"},
		"a key that is missing":      {"rediss://h", redisstore.TLSFiles{Certificate: ours.Certificate, Key: missing}, missing},
		"a key that is none":         {"rediss://h", redisstore.TLSFiles{Certificate: ours.Certificate, Key: garbage}, garbage},
		"somebody else's key":        {"rediss://h", redisstore.TLSFiles{Certificate: ours.Certificate, Key: other.Key}, other.Key},
		"a certificate that is none": {"rediss://h", redisstore.TLSFiles{Certificate: garbage, Key: ours.Key}, garbage},
	} {
		store, err := redisstore.Open(test.url, redisstore.Options{Config: cluster.DefaultConfig(), TLS: test.files})
		if err == nil {
			_ = store.Close()
			t.Errorf("%s was accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v; want an error that says %q and not what is in a file", name, err, test.want)
		}
	}
}

// A certificate is renewed while the store is open, file by file.
func TestARenewedClientCertificateIsShownToTheNextConnection(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	server := startTLSServer(t, ca)
	files := issue(t, ca, dir, "first")
	var log bytes.Buffer
	store, err := redisstore.Open("rediss://"+server.Addr(), redisstore.Options{
		Config: cluster.DefaultConfig(),
		TLS:    redisstore.TLSFiles(files),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })

	check := func(want string) {
		t.Helper()
		server.restart(t) // so that the next call needs a new connection
		for range 3 {     // one may meet a connection that died with the old server
			if err = store.Ping(t.Context()); err == nil {
				break
			}
		}
		if got := server.shown(); err != nil || got != want {
			t.Errorf("the store showed the certificate of %q, %v; want that of %q", got, err, want)
		}
	}
	check("first")
	second := issue(t, ca, dir, "second")
	rename(t, second.Certificate, files.Certificate) // does not fit the key
	check("first")
	if !strings.Contains(log.String(), files.Certificate) {
		t.Errorf("the log does not name the certificate that cannot be used: %s", log.String())
	}
	rename(t, second.Key, files.Key)
	check("second")
}

// tlsServer is a Redis that remembers whose certificate it has seen last.
type tlsServer struct {
	*miniredis.Miniredis
	config *tls.Config

	mu   sync.Mutex
	last string
}

func startTLSServer(t *testing.T, ca *authority.Authority) *tlsServer {
	t.Helper()
	config, err := issue(t, ca, t.TempDir(), "server").ClientConfig() // a server needs the same
	if err != nil {
		t.Fatal(err)
	}
	s := &tlsServer{Miniredis: miniredis.NewMiniRedis(), config: config}
	config.ClientCAs, config.ClientAuth = config.RootCAs, tls.RequireAndVerifyClientCert
	config.VerifyConnection = func(state tls.ConnectionState) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = state.PeerCertificates[0].Subject.CommonName
		return nil
	}
	if err := s.StartTLS(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *tlsServer) restart(t *testing.T) {
	t.Helper()
	address := s.Addr()
	s.Close()
	s.mu.Lock()
	s.last = ""
	s.mu.Unlock()
	if err := s.StartAddrTLS(address, s.config); err != nil {
		t.Fatal(err)
	}
}

func (s *tlsServer) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *authority.Authority, dir, name string) authority.Files {
	t.Helper()
	files, err := ca.Issue(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
