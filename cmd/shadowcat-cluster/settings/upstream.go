package settings

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const upstreamWant = "want URL, URL,URL or name=URL with http or https, such as files=http://127.0.0.1:9000/mcp"

// schemeDNS before http or https asks for all addresses of a name instead of one.
const schemeDNS = "dns+"

// The commas in the text of an upstream: those that begin a further endpoint, and, as any comma is allowed in a query, those
// that can only be meant to begin another upstream.
var (
	nextEndpoint = regexp.MustCompile(`(?i),(?:dns\+)?https?://`)
	nextUpstream = regexp.MustCompile(`(?i),(?:[a-z0-9-]+=)(?:dns\+)?https?://|^[^?#]*,[a-z0-9-]+=`)
)

var upstreamName = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

func setUpstreams(s *Settings, values []string) error {
	var (
		upstreams []Upstream
		errs      []error
		seen      = make(map[string]bool)
	)
	for _, v := range values {
		u, err := parseUpstream(v)
		if err == nil && seen[u.Name] {
			err = errors.New("two of them have no name: give all but one a name, as in files=http://127.0.0.1:9000/mcp")
			if u.Name != "" {
				err = fmt.Errorf("the name %q is used twice", u.Name)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen[u.Name] = true
		upstreams = append(upstreams, u)
	}
	if len(errs) == 0 {
		s.Upstreams = upstreams
	}
	return errors.Join(errs...)
}

// parseUpstream reads URL, URL,URL or name=URL. Its errors never quote what may be a credential.
func parseUpstream(text string) (Upstream, error) {
	name, addresses, named := strings.Cut(text, "=")
	// A URL may have an equals sign too, in its query; a name has no colon before it.
	if !named || strings.Contains(name, ":") {
		name, addresses, named = "", text, false
	}
	switch {
	case nextUpstream.MatchString(addresses):
		return Upstream{}, fmt.Errorf("%s lists several upstreams with commas, which are for endpoints of one; separate upstreams by spaces", label(name))
	case strings.ContainsAny(addresses, " \t\r\n") || strings.HasSuffix(addresses, ","):
		return Upstream{}, fmt.Errorf("%s has a space or an end after a comma; write the endpoints of one upstream as URL,URL", label(name))
	case named && !upstreamName.MatchString(name):
		return Upstream{}, fmt.Errorf("the name %s is not 1 to 63 of a-z, 0-9 and hyphen; %s", quote(name), upstreamWant)
	}
	u := Upstream{Name: name}
	for i, address := range splitEndpoints(addresses) {
		endpoint, err := parseEndpoint(name, address)
		switch {
		case err != nil:
			return Upstream{}, err
		case i == 0:
			u.URL = endpoint
		default:
			u.More = append(u.More, endpoint)
		}
	}
	for _, endpoint := range append([]*url.URL{u.URL}, u.More...) {
		if len(u.More) > 0 && strings.HasPrefix(endpoint.Scheme, schemeDNS) {
			return Upstream{}, fmt.Errorf("%s stands for all addresses of its host; it must be the only one of its upstream", shownURL(endpoint))
		}
	}
	return u, nil
}

// splitEndpoints cuts at the commas that begin a further URL.
func splitEndpoints(addresses string) []string {
	var endpoints []string
	for {
		at := nextEndpoint.FindStringIndex(addresses)
		if at == nil {
			return append(endpoints, addresses)
		}
		endpoints = append(endpoints, addresses[:at[0]])
		addresses = addresses[at[0]+1:]
	}
}

// parseEndpoint reads one URL of the upstream with a name.
func parseEndpoint(name, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		// The parser's own message quotes the whole URL.
		return nil, fmt.Errorf("%s is no URL; %s", label(name), upstreamWant)
	}
	shown := shownURL(u)
	switch scheme := strings.TrimPrefix(u.Scheme, schemeDNS); {
	case scheme != "http" && scheme != "https":
		return nil, fmt.Errorf("%s is not an http or https URL; %s", shown, upstreamWant)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%s has no host; %s", shown, upstreamWant)
	case strings.Contains(u.Host, ","):
		return nil, fmt.Errorf("%s lists hosts; write each endpoint as a whole URL, as in http://a:9000/mcp,http://b:9000/mcp", shown)
	case !validPort(u.Port()):
		return nil, fmt.Errorf("%s has a port that is not 1 to 65535", shown)
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user or password, which is not supported: upstreams see what the client sends", shown)
	case u.Fragment != "":
		return nil, fmt.Errorf("%s has a fragment, which no request can carry; leave out what follows #", shown)
	}
	return u, nil
}

// validPort reports whether a URL's port is one, or left to the scheme.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// shownURL quotes a URL for an error message, without what may be a credential: user, password, query, fragment.
func shownURL(u *url.URL) string {
	return quote((&url.URL{Scheme: u.Scheme, Opaque: u.Opaque, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String())
}

// label names an upstream whose URL cannot be shown.
func label(name string) string {
	if name == "" {
		return "the value without a name"
	}
	return fmt.Sprintf("the value of %q", name)
}
