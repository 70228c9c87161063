// Package authority certifies the servers and clients of a test, all of which are on 127.0.0.1.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is how long certificates are good, longer than any test runs. They are good for the hour before, too.
const validity = 24 * time.Hour

// Authority is a certificate authority that nobody but the test trusts. It is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New returns a new authority.
func New() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of a certificate authority: %w", err)
	}
	template := template("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority that was made: %w", err)
	}
	return &Authority{certificate: certificate, key: key}, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().Add(validity),
	}
}

// Files are the paths of what one party needs, in PEM.
type Files struct{ CA, Certificate, Key string }

// Issue writes a new certificate for a server or client called name into dir, with its key and the authority. What was
// there under the same name is overwritten.
func (a *Authority) Issue(dir, name string) (Files, error) {
	files := Files{
		CA:          filepath.Join(dir, name+"-ca.pem"),
		Certificate: filepath.Join(dir, name+"-cert.pem"),
		Key:         filepath.Join(dir, name+"-key.pem"),
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Files{}, fmt.Errorf("make the key of %s: %w", name, err)
	}
	template := template(name)
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	// Servers of a cluster are each other's clients.
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	certificate, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Files{}, fmt.Errorf("certify %s: %w", name, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Files{}, fmt.Errorf("encode the key of %s: %w", name, err)
	}
	for _, file := range []struct {
		path, kind string
		der        []byte
	}{
		{files.CA, "CERTIFICATE", a.certificate.Raw},
		{files.Certificate, "CERTIFICATE", certificate},
		{files.Key, "PRIVATE KEY", private},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})
		if err := os.WriteFile(file.path, text, 0o600); err != nil {
			return Files{}, fmt.Errorf("write a certificate of %s: %w", name, err)
		}
	}
	return files, nil
}

// ClientConfig is how a client with the files connects.
func (f Files) ClientConfig() (*tls.Config, error) {
	authority, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read a certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", f.CA)
	}
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("read a client's certificate: %w", err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// RedisArguments make a redis-server, or a sentinel, speak TLS alone, with everybody and only with whom the same authority
// has certified. Its ports are another matter.
func (f Files) RedisArguments() [][2]string {
	return [][2]string{
		{"tls-cert-file", f.Certificate},
		{"tls-key-file", f.Key},
		{"tls-ca-cert-file", f.CA},
		{"tls-auth-clients", "yes"},
		{"tls-replication", "yes"},
		{"tls-cluster", "yes"},
	}
}
