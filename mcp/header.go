package mcp

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// HTTP headers of the Streamable HTTP transport, in the canonical form of net/http.
const (
	HeaderSessionID       = "Mcp-Session-Id"
	HeaderProtocolVersion = "Mcp-Protocol-Version"
	HeaderLastEventID     = "Last-Event-Id"
	HeaderMethod          = "Mcp-Method" // from 2026-07-28: the message's method
	HeaderName            = "Mcp-Name"   // from 2026-07-28: what the request is for
)

// Media types of the Streamable HTTP transport.
const (
	MediaTypeJSON        = "application/json"
	MediaTypeEventStream = "text/event-stream"
)

// IsMediaType reports whether a Content-Type header names the media type want. Parameters such as charset do not matter,
// nor does case.
func IsMediaType(contentType, want string) bool {
	mediaType, _, hasParameters := strings.Cut(contentType, ";")
	if strings.TrimSpace(strings.ToLower(mediaType)) != want {
		return false
	}
	if !hasParameters {
		return true // as most are; asked several times for each request
	}
	_, _, err := mime.ParseMediaType(contentType)
	return err == nil
}

// Accepts reports which of the transport's media types a request's Accept header lists. Wildcards count; a weight of zero
// is a refusal. A request without the header accepts nothing: the transport requires clients to list what they take.
func Accepts(h http.Header) (json, eventStream bool) {
	for _, value := range h.Values("Accept") {
		for entry := range strings.SplitSeq(value, ",") {
			mediaRange, params, _ := strings.Cut(entry, ";")
			if refused(params) {
				continue
			}
			switch strings.ToLower(strings.TrimSpace(mediaRange)) {
			case "*/*":
				json, eventStream = true, true
			case MediaTypeJSON, "application/*":
				json = true
			case MediaTypeEventStream, "text/*":
				eventStream = true
			}
		}
	}
	return json, eventStream
}

// refused reports whether an Accept entry's parameters hold a weight of zero.
func refused(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(param, "=")
		if ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			weight, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && weight == 0
		}
	}
	return false
}

// ValidSessionID reports whether id may be a session id: one or more visible ASCII characters (0x21 to 0x7E), as the
// transport demands since 2025-03-26.
func ValidSessionID(id string) bool {
	if id == "" {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7E {
			return false
		}
	}
	return true
}

// ValidHeaderNames reports whether list is a comma separated list of header names (RFC 9110 tokens), such as browsers
// send in Access-Control-Request-Headers. The empty list is valid.
func ValidHeaderNames(list string) bool {
	if strings.Trim(list, " \t") == "" {
		return true
	}
	for name := range strings.SplitSeq(list, ",") {
		if !isToken(strings.Trim(name, " \t")) {
			return false
		}
	}
	return true
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
