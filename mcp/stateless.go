package mcp

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// CheckStateless checks a message of the era without sessions, and that its headers say what it says: somebody on the way may have
// decided by the ones, and the server acts by the other. The error is a *MessageError, to be answered with status 404 when its code is
// CodeMethodNotFound, else with 400.
//
// The rules are those of the specification of 2026-07-28, Streamable HTTP, section "Server Validation". A version that is not known
// here is an error once header and body agree on it, with CodeUnsupportedVersion: a client of the era then takes one of [Revisions]. For
// notifications the specification asks for no headers; those that are there must be right. initialize is no method of this era.
func CheckStateless(h http.Header, m Message) error {
	switch m.Kind {
	case KindBatch:
		return &MessageError{CodeInvalidRequest, "since revision " + Revision20260728 + " there are no batches; send each message on its own"}
	case KindResponse:
		return &MessageError{CodeInvalidRequest, "since revision " + Revision20260728 + " clients send no responses"}
	}
	if err := checkVersion(h, m); err != nil {
		return err
	}
	if h.Get(HeaderProtocolVersion) != Revision20260728 { // and so is the body's
		return &MessageError{CodeUnsupportedVersion, "this protocol version is not supported; supported are " + strings.Join(Revisions(), ", ")}
	}
	if m.Kind == KindRequest && !m.HasCapabilities {
		return &MessageError{CodeInvalidParams, "params._meta needs io.modelcontextprotocol/clientCapabilities, an object"}
	}
	if err := checkMethod(h, m); err != nil {
		return err
	}
	if m.Initializes {
		return &MessageError{CodeMethodNotFound, "since revision " + Revision20260728 + " there is no initialize; send server/discover, or any request"}
	}
	return checkTarget(h, m)
}

// mismatch is the error of a header that is missing or does not fit.
func mismatch(header, what string) error {
	return &MessageError{CodeHeaderMismatch, "header mismatch: " + header + " " + what}
}

// What is wrong with a header.
const (
	isMissing = "is missing"
	isTwice   = "is there more than once"
	differs   = "differs from what the body says"
)

// checkVersion compares the protocol version.
func checkVersion(h http.Header, m Message) error {
	const name = "MCP-Protocol-Version"
	values := h.Values(HeaderProtocolVersion)
	switch {
	case len(values) > 1:
		return mismatch(name, isTwice)
	case m.MetaVersion == "" && m.Kind == KindNotification:
		return nil
	case m.MetaVersion == "" && len(values) == 1 && values[0] != Revision20260728:
		return nil // of a version that is not known here
	case m.MetaVersion == "":
		return &MessageError{CodeInvalidParams, "params._meta needs io.modelcontextprotocol/protocolVersion, a string"}
	case len(values) == 0:
		return mismatch(name, isMissing)
	case values[0] != m.MetaVersion:
		return mismatch(name, differs)
	}
	return nil
}

// checkMethod compares the method.
func checkMethod(h http.Header, m Message) error {
	switch values := h.Values(HeaderMethod); {
	case len(values) > 1:
		return mismatch(HeaderMethod, isTwice)
	case len(values) == 0 && m.Kind == KindRequest:
		return mismatch(HeaderMethod, isMissing)
	case len(values) == 1 && values[0] != m.Method:
		return mismatch(HeaderMethod, differs)
	}
	return nil
}

// checkTarget compares what the request is for. What has no target there is the server's to judge, unless a header says otherwise. A
// header of what names nothing can match nothing; what a message of an extension names is not known here.
func checkTarget(h http.Header, m Message) error {
	values := h.Values(HeaderName)
	isKnown := m.Kind == KindRequest && TargetOf(m.Method) != TargetNone
	switch {
	case len(values) > 1:
		return mismatch(HeaderName, isTwice)
	case len(values) == 0 && isKnown && m.HasTarget:
		return mismatch(HeaderName, isMissing)
	case len(values) == 0:
		return nil
	}
	value, ok := decodeHeaderValue(values[0])
	if !ok {
		return mismatch(HeaderName, "is malformed")
	}
	if isKnown && (!m.HasTarget || value != m.Target) {
		return mismatch(HeaderName, differs)
	}
	if m.Kind == KindRequest && IsTargetless(m.Method) && value != "" {
		return mismatch(HeaderName, "is there, and nothing in the body that it could match")
	}
	return nil
}

// decodeHeaderValue returns the value that a header stands for: itself, in visible ASCII, spaces and tabs, or what is wrapped as
// =?base64?…?=.
func decodeHeaderValue(value string) (string, bool) {
	for i := range len(value) {
		if c := value[i]; c != '\t' && (c < ' ' || c > '~') {
			return "", false
		}
	}
	wrapped, ok := strings.CutPrefix(value, "=?base64?")
	if !ok {
		return value, true
	}
	if wrapped, ok = strings.CutSuffix(wrapped, "?="); !ok {
		return value, true
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(wrapped)
	return string(decoded), err == nil
}
