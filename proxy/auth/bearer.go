package auth

import (
	"net/http"
	"strings"
)

// maxToken is how many bytes a token may have. Larger ones are refused unread.
const maxToken = 8 << 10

// bearerToken returns the request's token. It is taken from the Authorization header only: one in a URL ends up in logs,
// and MCP forbids it. The result has the form of a compact JWS and nothing is known of it yet.
func bearerToken(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return "", &DeniedError{Reason: ReasonAmbiguous}
	}
	if len(values) == 0 {
		return "", &DeniedError{Reason: ReasonMissing}
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", &DeniedError{Reason: ReasonMissing}
	}
	token = strings.Trim(token, " ")
	switch {
	case token == "":
		return "", &DeniedError{Reason: ReasonMissing}
	case len(token) > maxToken:
		return "", &DeniedError{Reason: ReasonTooLarge}
	case !isCompact(token):
		return "", &DeniedError{Reason: ReasonMalformed}
	}
	return token, nil
}

// isCompact reports whether a token is three parts of base64url. Decoders of base64 skip line ends, so this is the place where
// anything else is refused.
func isCompact(token string) bool {
	dots := 0
	for _, c := range []byte(token) {
		switch {
		case c == '.':
			dots++
		case (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_':
			return false
		}
	}
	return dots == 2
}
