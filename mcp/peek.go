package mcp

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Bounds of what Peek takes out of a message.
const (
	maxIDLen     = 1024 // bytes of JSON text; longer ids are refused
	maxStringLen = 256  // bytes; a longer method is refused, other strings are cut
	maxBatchLen  = 100  // messages; longer batches are refused
	maxTraceLen  = 512  // bytes; a longer trace context is left out
)

// ID is the id of a JSON-RPC request as JSON text, so that the number 1 and the string "1" differ. Two equal ids are the
// same text: strings are in their shortest form. Empty means that there is none.
type ID string

// ParseID returns the id that a JSON text stands for: a string or an integer, of at most 1,024 bytes.
func ParseID(text string) (ID, bool) {
	if len(text) > maxIDLen {
		return "", false
	}
	msg, err := Peek([]byte(`{"jsonrpc":"2.0","method":"ping","id":` + text + `}`))
	if err != nil || msg.Kind != KindRequest || string(msg.ID) != text {
		return "", false
	}
	return msg.ID, true
}

// Kind is what a JSON-RPC body is.
type Kind uint8

// The kinds.
const (
	KindRequest      Kind = iota + 1 // has a method and an id: an answer is due
	KindNotification                 // has a method, no id
	KindResponse                     // answers a request of the other side
	KindBatch                        // an array of the others
)

// Message is what a proxy must know of a JSON-RPC body. The rest of the body is not kept.
type Message struct {
	Kind   Kind
	Method string // of requests and notifications, at most 256 bytes
	ID     ID     // of requests and responses

	// BatchLen is how many messages a batch holds, 1 to 100; 0 for what is no batch.
	BatchLen int
	// Requests and Responses are how many of a batch's messages are that.
	Requests  int
	Responses int

	// MetaVersion is the protocol version in params._meta, empty when there is none. In a batch it is the first one found.
	MetaVersion string

	// HasCapabilities says that params._meta holds the client's capabilities, an object.
	HasCapabilities bool
	// Target is what a request of the era without sessions is for, by its full name: params.name of tools/call and prompts/get,
	// params.uri of resources/read. HasTarget says that it is there, a string. Both are left out where MetaVersion is empty.
	Target    string
	HasTarget bool

	// Failed says of a response that it holds an error, not a result.
	Failed bool
	// Version, ClientName and ClientVersion are those of an initialize request's params; of a response, Version is the
	// result's protocolVersion. Each is cut to 256 bytes.
	Version       string
	ClientName    string
	ClientVersion string

	// TraceParent and TraceState are the W3C Trace Context in params._meta, as the client has written it: nobody has looked whether
	// it is one. Empty where there is none, where it is no string or longer than the standard has it, and in a batch.
	TraceParent string
	TraceState  string

	// Initializes says that the message is, or for a batch contains, an initialize request.
	Initializes bool
	// Lasts says that the message is, or for a batch contains, a request for something for as long as the session lasts; see [Lasts].
	Lasts bool
}

// MessageError says why a body is no JSON-RPC message, or not one that fits its headers. It holds nothing of either.
type MessageError struct {
	Code   int // CodeParseError or CodeInvalidRequest; of CheckStateless others, too
	Reason string
}

// Error says what is wrong with the body.
func (e *MessageError) Error() string { return e.Reason }

// Peek looks at a body in one pass, without decoding what it does not return. A body that two decoders might read
// differently (an important key twice, or in the wrong case) is refused.
//
// The error is a *MessageError. For one with CodeInvalidRequest the message returned still holds the id, if it has one.
func Peek(body []byte) (Message, error) {
	s := &scanner{data: body}
	var found finding
	batch := s.peek() == '['
	err := s.text(func() error {
		if batch {
			return found.batch(s)
		}
		return found.message(s)
	})
	if err != nil {
		return Message{}, &MessageError{CodeParseError, "the body is not valid JSON: " + err.Error()}
	}
	if found.invalid != "" {
		return Message{ID: found.msg.ID}, &MessageError{CodeInvalidRequest, "the body is not a JSON-RPC message: " + found.invalid}
	}
	return found.msg, nil
}

// finding collects what one message says, in whatever order it says it.
type finding struct {
	msg     Message
	invalid string // the first thing that is wrong with it

	seen                                       field
	version, method                            []byte
	metaVersion, metaCapabilities              []byte
	traceParent, traceState                    []byte
	name, uri                                  []byte
	protocolVersion, clientName, clientVersion []byte // texts of values

	isTargetAmbiguous bool // name or uri is there twice, or in the wrong case
}

// field marks the keys that were seen, those whose meaning must be unambiguous.
type field uint32

const (
	fieldVersion field = 1 << iota
	fieldID
	fieldMethod
	fieldParams
	fieldResult
	fieldError
	fieldMeta
	fieldMetaVersion
	fieldMetaCapabilities
	fieldTraceParent
	fieldTraceState
	fieldName
	fieldURI
	fieldProtocolVersion
	fieldClientInfo
	fieldClientName
	fieldClientVersion
)

// Keys by the object they are looked for in.
var (
	envelopeKeys = map[string]field{
		"jsonrpc": fieldVersion, "id": fieldID, "method": fieldMethod,
		"params": fieldParams, "result": fieldResult, "error": fieldError,
	}
	paramsKeys = map[string]field{
		"_meta": fieldMeta, "protocolVersion": fieldProtocolVersion, "clientInfo": fieldClientInfo, "name": fieldName, "uri": fieldURI,
	}
	resultKeys = map[string]field{"protocolVersion": fieldProtocolVersion}
	metaKeys   = map[string]field{
		"io.modelcontextprotocol/protocolVersion": fieldMetaVersion, "io.modelcontextprotocol/clientCapabilities": fieldMetaCapabilities,
		"traceparent": fieldTraceParent, "tracestate": fieldTraceState,
	}
	clientKeys = map[string]field{"name": fieldClientName, "version": fieldClientVersion}
)

func (f *finding) refuse(format string, args ...any) {
	if f.invalid == "" {
		f.invalid = fmt.Sprintf(format, args...)
	}
}

// message scans one message.
func (f *finding) message(s *scanner) error {
	if s.peek() != '{' {
		f.refuse("it is not an object")
		return s.skip()
	}
	if err := f.object(s, envelopeKeys, f.envelope); err != nil {
		return err
	}
	f.conclude()
	return nil
}

// object scans an object: keys of the table go to known, once each, the others are skipped.
func (f *finding) object(s *scanner, keys map[string]field, known func(*scanner, field) error) error {
	return s.object(func(key []byte) error {
		k, ok := keys[string(key)]
		if !ok {
			f.checkCase(key, keys)
			return s.skip()
		}
		if f.seen&k != 0 {
			f.ambiguous(k, "it has the key %q twice", key)
			return s.skip()
		}
		f.seen |= k
		return known(s, k)
	})
}

// checkCase refuses keys that differ from an important one in case only: some decoders take them for the same.
func (f *finding) checkCase(key []byte, keys map[string]field) {
	for name, k := range keys {
		if bytes.EqualFold(key, []byte(name)) {
			f.ambiguous(k, "it has a key that differs from %q in case only", name)
		}
	}
}

// ambiguous refuses what decoders may read differently. What a request is for matters only where a header says it, too, and on its trace
// nothing depends.
func (f *finding) ambiguous(k field, format string, args ...any) {
	switch k {
	case fieldName, fieldURI:
		f.isTargetAmbiguous = true
	case fieldTraceParent, fieldTraceState:
	default:
		f.refuse(format, args...)
	}
}

// envelope scans the value of a key of the message itself.
func (f *finding) envelope(s *scanner, k field) error {
	switch {
	case k == fieldParams && s.peek() == '{':
		return f.object(s, paramsKeys, f.param)
	case k == fieldResult && s.peek() == '{':
		return f.object(s, resultKeys, f.keep)
	}
	return f.keep(s, k)
}

// param scans the value of a key of params.
func (f *finding) param(s *scanner, k field) error {
	switch {
	case k == fieldMeta && s.peek() == '{':
		return f.object(s, metaKeys, f.keep)
	case k == fieldClientInfo && s.peek() == '{':
		return f.object(s, clientKeys, f.keep)
	}
	return f.keep(s, k)
}

// keep scans a value and remembers where it is.
func (f *finding) keep(s *scanner, k field) error {
	text, err := s.value()
	if err != nil {
		return err
	}
	switch k {
	case fieldVersion:
		f.version = text
	case fieldID:
		f.id(text)
	case fieldMethod:
		f.method = text
	case fieldMetaVersion:
		f.metaVersion = text
	case fieldMetaCapabilities:
		f.metaCapabilities = text
	case fieldTraceParent:
		f.traceParent = text
	case fieldTraceState:
		f.traceState = text
	case fieldName:
		f.name = text
	case fieldURI:
		f.uri = text
	case fieldProtocolVersion:
		f.protocolVersion = text
	case fieldClientName:
		f.clientName = text
	case fieldClientVersion:
		f.clientVersion = text
	}
	return nil
}

// id checks an id and brings it into its one form.
func (f *finding) id(text []byte) {
	switch {
	case len(text) > maxIDLen:
		f.refuse("its id is longer than %d bytes", maxIDLen)
	case text[0] == '"' && bytes.IndexByte(text, '\\') < 0:
		f.msg.ID = ID(text)
	case text[0] == '"':
		f.msg.ID = shortest(unquote(text))
	case bytes.Equal(text, []byte("null")):
		// The protocol forbids it, but JSON-RPC answers a request that could not be read with it: see conclude.
	case isInteger(text):
		f.msg.ID = ID(text)
	default:
		f.refuse("its id is neither a string nor an integer")
	}
}

// shortest writes a string as JSON with as few escapes as JSON allows.
func shortest(s []byte) ID {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(s)); err != nil {
		return "" // not reached: strings can be encoded
	}
	return ID(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

func isInteger(number []byte) bool {
	digits := bytes.TrimPrefix(number, []byte("-"))
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(digits) > 0
}

// conclude decides what the message is, now that all of it was seen.
func (f *finding) conclude() {
	has := func(k field) bool { return f.seen&k != 0 }
	if string(f.version) != `"2.0"` {
		f.refuse(`it does not say "jsonrpc": "2.0"`)
	}
	f.msg.MetaVersion = stringOr(f.metaVersion, f.metaVersion)
	f.msg.TraceParent, f.msg.TraceState = traceText(f.traceParent), traceText(f.traceState)
	switch {
	case has(fieldMethod):
		f.concludeCall(has)
	case has(fieldResult) && has(fieldError):
		f.refuse("it has both a result and an error")
	case has(fieldResult) || has(fieldError):
		f.msg.Kind = KindResponse
		f.msg.Failed = has(fieldError)
		f.msg.Version = stringOr(f.protocolVersion, nil)
		if f.msg.ID == "" && !f.msg.Failed {
			f.refuse("it has a result but no id")
		}
	default:
		f.refuse("it has neither a method nor a result nor an error")
	}
}

func (f *finding) concludeCall(has func(field) bool) {
	if has(fieldResult) || has(fieldError) {
		f.refuse("it has both a method and a result or error")
	}
	method := f.method
	if method[0] != '"' || len(method) > maxStringLen+2 || len(method) == 2 {
		f.refuse("its method is not a string of 1 to %d bytes", maxStringLen)
		return
	}
	f.msg.Method = string(unquote(method))
	f.msg.Kind = KindNotification
	if has(fieldID) {
		f.msg.Kind = KindRequest
		if f.msg.ID == "" {
			f.refuse("its id is null")
		}
	}
	f.msg.Lasts = f.msg.Kind == KindRequest && Lasts(f.msg.Method)
	f.concludeTarget()
	if f.msg.Method != MethodInitialize {
		return
	}
	if f.msg.Kind != KindRequest {
		f.refuse("initialize needs an id")
	}
	f.msg.Initializes = true
	f.msg.Version = stringOr(f.protocolVersion, nil)
	f.msg.ClientName = stringOr(f.clientName, nil)
	f.msg.ClientVersion = stringOr(f.clientVersion, nil)
}

// concludeTarget decides what a request of the era without sessions is for.
func (f *finding) concludeTarget() {
	if f.msg.MetaVersion == "" {
		return
	}
	f.msg.HasCapabilities = len(f.metaCapabilities) > 0 && f.metaCapabilities[0] == '{'
	var target []byte
	switch TargetOf(f.msg.Method) {
	case TargetName:
		target = f.name
	case TargetURI:
		target = f.uri
	default:
		return
	}
	if f.isTargetAmbiguous {
		f.refuse("its params have a name or uri twice, or in another case")
	}
	if len(target) > 0 && target[0] == '"' {
		f.msg.Target, f.msg.HasTarget = string(unquote(target)), true
	}
}

// stringOr returns what the JSON string text says, or other when text is no string; cut to maxStringLen.
func stringOr(text, other []byte) string {
	if len(text) > 0 && text[0] == '"' {
		other = unquote(text)
	}
	if len(other) > maxStringLen {
		other = bytes.ToValidUTF8(other[:maxStringLen], nil)
	}
	return string(other)
}

// traceText returns what the JSON string text says, nothing when it is no string or too long: cut, it would say something else.
func traceText(text []byte) string {
	if len(text) == 0 || text[0] != '"' || len(text) > maxTraceLen+2 {
		return ""
	}
	return string(unquote(text))
}

// batch scans an array of messages.
func (f *finding) batch(s *scanner) error {
	f.msg.Kind = KindBatch
	ids := make(map[ID]bool) // of its requests; filled up to maxBatchLen
	err := s.array(func() error {
		f.msg.BatchLen++
		var one finding
		if err := one.message(s); err != nil {
			return err
		}
		if f.msg.BatchLen <= maxBatchLen && one.msg.Kind == KindRequest && one.msg.ID != "" {
			if ids[one.msg.ID] {
				one.refuse("another request in it has the same id")
			}
			ids[one.msg.ID] = true
		}
		if one.invalid != "" {
			f.refuse("message %d of the batch: %s", f.msg.BatchLen, one.invalid)
		}
		switch one.msg.Kind {
		case KindRequest:
			f.msg.Requests++
		case KindResponse:
			f.msg.Responses++
		}
		f.msg.Initializes = f.msg.Initializes || one.msg.Initializes
		f.msg.Lasts = f.msg.Lasts || one.msg.Lasts
		if f.msg.MetaVersion == "" {
			f.msg.MetaVersion = one.msg.MetaVersion
		}
		return nil
	})
	switch {
	case f.msg.BatchLen == 0:
		f.refuse("the batch is empty")
	case f.msg.BatchLen > maxBatchLen:
		f.refuse("the batch has %d messages, more than %d", f.msg.BatchLen, maxBatchLen)
	}
	return err
}
