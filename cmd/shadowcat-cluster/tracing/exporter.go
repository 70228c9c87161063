package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// checkExporter looks at how to reach the collector. The exporter reads the general variables even where one for traces wins, so both
// are checked. No error holds a value: passwords and keys are in URLs and headers, and by mistake in the names of files.
func checkExporter() (err error) {
	for _, prefix := range []string{"OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"} {
		err = errors.Join(err,
			checkEndpoint(prefix+"ENDPOINT"),
			checkPairs(prefix+"HEADERS", "headers", func(name, value string) bool {
				return httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value)
			}),
			checkOneOf(prefix+"COMPRESSION", value(prefix+"COMPRESSION"), "gzip", "none"),
			checkAuthority(prefix+"CERTIFICATE"),
			checkClientCertificate(prefix+"CLIENT_CERTIFICATE", prefix+"CLIENT_KEY"),
		)
	}
	return err
}

// checkEndpoint refuses what the exporter would leave out of a URL.
func checkEndpoint(name string) error {
	set := value(name)
	if set == "" {
		return nil
	}
	u, err := url.Parse(set)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s: it must be a URL such as http://collector:4318", name)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: no user, password, query or fragment of a URL is sent; what the collector asks for goes into OTEL_EXPORTER_OTLP_HEADERS", name)
	}
	return nil
}

// collectorHost is where spans go, without the path, which may hold a key.
func collectorHost() string {
	if _, set := effective("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"); set != "" {
		if u, err := url.Parse(set); err == nil {
			return u.Host
		}
	}
	return "localhost:4318" // the specification's default
}

func checkAttributes() error {
	return checkPairs("OTEL_RESOURCE_ATTRIBUTES", "attributes", func(name, _ string) bool { return name != "" })
}

// checkPairs looks at name=value,name=value with percent encoded values.
func checkPairs(variable, what string, valid func(name, value string) bool) error {
	set := value(variable)
	if set == "" {
		return nil
	}
	n := 0
	for pair := range strings.SplitSeq(set, ",") {
		n++
		name, encoded, found := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(encoded)
		if !found || err != nil || !valid(strings.TrimSpace(name), strings.TrimSpace(decoded)) {
			return fmt.Errorf("%s: number %d of its %s is not understood; wanted is name=value,name=value with percent encoded values", variable, n, what)
		}
	}
	return nil
}

func checkAuthority(name string) error {
	text, err := readFile(name)
	if err == nil && text != nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("%s: the file holds no certificate that is understood; wanted is PEM", name)
	}
	return err
}

func checkClientCertificate(certificateName, keyName string) error {
	certificate, certificateErr := readFile(certificateName)
	key, keyErr := readFile(keyName)
	if err := errors.Join(certificateErr, keyErr); err != nil {
		return err
	}
	if (certificate == nil) != (key == nil) {
		return fmt.Errorf("%s: it goes with %s, and one of them is not set", certificateName, keyName)
	}
	if certificate == nil {
		return nil
	}
	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		return fmt.Errorf("%s: with the file of %s it makes no pair of certificate and key: %w", certificateName, keyName, err)
	}
	return nil
}

// readFile is the content of the file that a variable names, nil when it names none.
func readFile(name string) ([]byte, error) {
	path := value(name)
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err // without the path
	}
	if err != nil {
		return nil, fmt.Errorf("%s: it must name a file that can be read: %w", name, err)
	}
	if text == nil {
		text = []byte{}
	}
	return text, nil
}
