package settings

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const upstreamWant = "want URL or name=URL with http or https, such as files=http://127.0.0.1:9000/mcp"

// severalUpstreams is where a value that should be one upstream begins to be another one.
var severalUpstreams = regexp.MustCompile(`(?i),\s*(?:[a-z0-9-]+=)?https?://|^[^?#]*,\s*[a-z0-9-]+=`)

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

// parseUpstream reads URL or name=URL. Its errors never quote what may be a credential.
func parseUpstream(text string) (Upstream, error) {
	name, address, named := strings.Cut(text, "=")
	// A URL may have an equals sign too, in its query; a name has no colon before it.
	if !named || strings.Contains(name, ":") {
		name, address, named = "", text, false
	}
	if severalUpstreams.MatchString(address) {
		return Upstream{}, fmt.Errorf("%s is a list with commas; separate upstreams by spaces (several endpoints of one upstream are not yet supported by this version)", label(name))
	}
	if named && !upstreamName.MatchString(name) {
		return Upstream{}, fmt.Errorf("the name %s is not 1 to 63 of a-z, 0-9 and hyphen; %s", quote(name), upstreamWant)
	}
	u, err := url.Parse(address)
	if err != nil {
		// The parser's own message quotes the whole URL.
		return Upstream{}, fmt.Errorf("%s is no URL; %s", label(name), upstreamWant)
	}
	shown := shownURL(u)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return Upstream{}, fmt.Errorf("%s is not an http or https URL; %s", shown, upstreamWant)
	case u.Hostname() == "":
		return Upstream{}, fmt.Errorf("%s has no host; %s", shown, upstreamWant)
	case strings.Contains(u.Host, ","):
		return Upstream{}, fmt.Errorf("%s lists several endpoints, which is not yet supported by this version", shown)
	case !validPort(u.Port()):
		return Upstream{}, fmt.Errorf("%s has a port that is not 1 to 65535", shown)
	case u.User != nil:
		return Upstream{}, fmt.Errorf("%s has a user or password, which is not supported: upstreams see what the client sends", shown)
	case u.Fragment != "":
		return Upstream{}, fmt.Errorf("%s has a fragment, which no request can carry; leave out what follows #", shown)
	}
	return Upstream{Name: name, URL: u}, nil
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
