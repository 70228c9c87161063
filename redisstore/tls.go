package redisstore

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
)

// TLSFiles names what a store needs for TLS beyond a rediss…:// URL, each file in PEM. They count for every connection, to
// sentinels as well. The zero value trusts the certificate authorities of the system and shows no certificate.
type TLSFiles struct {
	// CA holds the certificates of the authorities that are trusted, instead of the system's. It is read once.
	CA string
	// Certificate is what the client shows, with the certificates in between, and Key belongs to it; both or neither. They
	// are read anew for each connection, so that a renewed certificate is used as soon as the files are replaced. A pair that
	// cannot be read then is logged, and the last good one used instead.
	Certificate, Key string
}

var (
	errTLSNeedsURL = errors.New("redis: a CA, certificate or key file needs a URL that begins with rediss")
	errTLSPair     = errors.New("redis: a client's certificate and key files belong together; name both or neither")
)

// secure makes a target use the files. A nil logger discards.
func (t *target) secure(files TLSFiles, log *slog.Logger) error {
	switch {
	case files == TLSFiles{}:
		return nil
	case t.options.TLSConfig == nil:
		return errTLSNeedsURL
	case (files.Certificate == "") != (files.Key == ""):
		return errTLSPair
	}
	if files.CA != "" {
		roots, err := readRoots(files.CA)
		if err != nil {
			return err
		}
		t.options.TLSConfig.RootCAs = roots
	}
	if files.Certificate == "" {
		return nil
	}
	pair := clientPair{files: files, log: cmp.Or(log, slog.New(slog.DiscardHandler))}
	first, err := pair.read()
	if err != nil {
		return err
	}
	pair.last.Store(first)
	t.options.TLSConfig.GetClientCertificate = pair.get
	return nil
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("redis: read the CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("redis: the CA file %s holds no certificate in PEM", file)
	}
	return roots, nil
}

// clientPair is a client's certificate with its key, which may be renewed at any time.
type clientPair struct {
	files TLSFiles
	log   *slog.Logger
	last  atomic.Pointer[tls.Certificate] // what was read last without an error
}

// get is tls.Config.GetClientCertificate.
func (p *clientPair) get(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	now, err := p.read()
	if err != nil {
		// Files are rarely replaced both at once: the next connection will see both.
		p.log.Warn("the store's client certificate cannot be read anew; using the last good one", "error", err)
		return p.last.Load(), nil
	}
	p.last.Store(now)
	return now, nil
}

func (p *clientPair) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(p.files.Certificate, p.files.Key)
	if err != nil {
		return nil, fmt.Errorf("redis: the certificate file %s and the key file %s: %w", p.files.Certificate, p.files.Key, err)
	}
	return &pair, nil
}
