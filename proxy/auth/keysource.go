package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxAnswer    = 1 << 20  // bytes of a body that are read
	maxHeader    = 64 << 10 // bytes of an answer's header
	maxRedirects = 3
	maxErrorText = 200 // bytes
)

// keySource is where keys come from: a server that may be down, slow, or not what it was.
type keySource struct {
	cfg    Config
	client *http.Client
}

func newKeySource(cfg Config) *keySource {
	transport := cfg.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: cfg.JWKSTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    cfg.JWKSTimeout,
			MaxResponseHeaderBytes: maxHeader,
			ForceAttemptHTTP2:      true,
			// Minutes pass between two fetches.
			DisableKeepAlives: true,
			// What is counted is what was sent.
			DisableCompression: true,
		}
	}
	s := &keySource{cfg: cfg}
	s.client = &http.Client{Transport: transport, CheckRedirect: s.checkRedirect}
	return s
}

// checkRedirect lets a server send us to another path of its own, and nowhere else.
func (s *keySource) checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	case !strings.EqualFold(req.URL.Host, first.Host) || req.URL.Scheme != first.Scheme:
		return errors.New("it redirects to another server; configure the URL that it redirects to")
	}
	return nil
}

// fetch gets the keys that the issuer has now. All of it takes at most Config.JWKSTimeout.
func (s *keySource) fetch(ctx context.Context) (*keySet, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.JWKSTimeout)
	defer cancel()
	where := s.cfg.JWKSURL
	if where == "" {
		var err error
		if where, err = s.discover(ctx); err != nil {
			return nil, err
		}
	}
	asked := time.Now()
	body, err := s.get(ctx, where)
	if err != nil {
		return nil, err
	}
	set, err := parseKeySet(body, asked)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(where), err)
	}
	return set, nil
}

// discover asks the issuer where its keys are: by OpenID Connect Discovery, and where there is no such document, by RFC 8414.
func (s *keySource) discover(ctx context.Context) (string, error) {
	issuer, err := url.Parse(s.cfg.Issuer)
	if err != nil {
		return "", errors.New("the issuer is no URL") // Validate has checked it
	}
	place := strings.TrimSuffix(issuer.EscapedPath(), "/")
	base := issuer.Scheme + "://" + issuer.Host
	where := base + place + "/.well-known/openid-configuration"
	body, err := s.get(ctx, where)
	if status, ok := errors.AsType[*statusError](err); ok && status.code >= 400 && status.code < 500 {
		where = base + "/.well-known/oauth-authorization-server" + place
		body, err = s.get(ctx, where)
	}
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if json.Unmarshal(body, &document) != nil {
		return "", fmt.Errorf("%s: the answer is no metadata of an issuer", shown(where))
	}
	// RFC 8414, section 3.3: or the document is somebody else's.
	if document.Issuer != s.cfg.Issuer {
		return "", fmt.Errorf("%s: the metadata is of another issuer than auth.issuer", shown(where))
	}
	if err := s.cfg.checkURL("jwks_uri", document.Keys, true); err != nil {
		return "", fmt.Errorf("%s: the metadata gives no usable URL of keys: %w", shown(where), err)
	}
	return document.Keys, nil
}

// statusError says that a server answered with something else than 200.
type statusError struct {
	where string
	code  int
}

// Error names the server and what it answered.
func (e *statusError) Error() string {
	return fmt.Sprintf("%s: the answer has status %d", e.where, e.code)
}

// get fetches a document.
func (s *keySource) get(ctx context.Context, where string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s: no request can be made of it", shown(where))
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(where), withoutURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, &statusError{where: shown(where), code: res.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: the answer broke off: %w", shown(where), withoutURL(err))
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", shown(where), maxAnswer)
	}
	return body, nil
}

// withoutURL is an error of net/http without the URL that it happened to, whose query may be secret, and without most of what a
// server said in place of HTTP.
func withoutURL(err error) error {
	if of, ok := errors.AsType[*url.Error](err); ok {
		err = of.Err
	}
	if text := err.Error(); len(text) > maxErrorText {
		return errors.New(text[:maxErrorText] + "...")
	}
	return err
}

// shown is a URL as it may be logged.
func shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
