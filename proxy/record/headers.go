package record

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// DefaultRedactHeaders are the headers that are taken for secret unless others are configured: what clients and servers prove themselves
// with, such as X-Auth-Token, Private-Token, Api-Key, X-Goog-Api-Key and X-Client-Secret, goes by these endings.
func DefaultRedactHeaders() []string {
	return []string{"*token", "*key", "*secret", "*password", "*credential", "*credentials", "*auth"}
}

// alwaysSecret are the headers that prove who somebody is, whatever is configured.
var alwaysSecret = []string{"Authorization", "Proxy-Authorization", "Cookie"}

// Headers say the values of which headers must not be recorded where a message repeats them. Headers themselves never are recorded. The
// zero value is Authorization, Proxy-Authorization and Cookie, which always are among them.
type Headers struct{ names []segment }

// ParseHeaders reads names of headers; a * at the beginning or the end of one stands for more of it, as in *token. They are compared
// without regard to case, hyphens and underscores. At most 64, of at most 256 bytes each.
func ParseHeaders(names []string) (Headers, error) {
	if len(names) > maxRules {
		return Headers{}, fmt.Errorf("%d headers are more than %d", len(names), maxRules)
	}
	var headers Headers
	for _, text := range names {
		name, ok := parseSegment(text)
		if !ok || name.name == "" || len(text) > maxRuleLen || strings.Contains(text, ",") || !mcp.ValidHeaderNames(text) {
			return Headers{}, fmt.Errorf("%q is no name of a header; want one such as X-Api-Key, or a part of one with a * before or after it, such as *-token", text)
		}
		headers.names = append(headers.names, name)
	}
	return headers, nil
}

// AppendSecrets appends the values of such headers to secrets: of Authorization and its like without the scheme, of cookies each.
func (h Headers) AppendSecrets(secrets []string, header http.Header) []string {
	var buffer [64]byte
	for name, values := range header {
		if !h.has(name, fold(buffer[:0], []byte(name))) {
			continue
		}
		for _, value := range values {
			if name != "Cookie" {
				secrets = append(secrets, value[strings.LastIndexByte(value, ' ')+1:])
				continue
			}
			for cookie := range strings.SplitSeq(value, ";") {
				_, cookie, _ = strings.Cut(cookie, "=")
				secrets = append(secrets, strings.Trim(cookie, ` "`))
			}
		}
	}
	return secrets
}

// has reports whether a header is one of them. folded is its name in the form of fold.
func (h Headers) has(name string, folded []byte) bool {
	return slices.Contains(alwaysSecret, name) || slices.ContainsFunc(h.names, func(s segment) bool { return s.names(folded) })
}
