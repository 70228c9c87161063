package proxy

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// maxEventID bounds the ids of events, in bytes. A request whose own id is so long that the ids of its events would be longer
// cannot be resumed.
const maxEventID = 512

// eventID is what a client knows an event by, and names when it resumes: which stream of its session, and where in it. It is no
// secret and proves nothing but its origin; it is only looked up among the events of the client's own session.
//
//	g.<claim>.<position>                       the session's own stream
//	g.<claim>.<position>.<listener>            no event, but where a stream begins that is opened or resumed
//	g.<claim>.<position>.<listener>.<origin>   either of them (an event has 0 for a listener), where the upstream has ids of its own
//	p.<owner>.<number>.<position>.<request>    the answer to one request, which the replica <owner> reads
//	a.<owner>.<number>.<position>.<request>    its last event, the response itself: nothing follows
//
// Numbers are to base 36; the request's JSON-RPC id is its JSON text in base64url. An <origin> is <version>.<upstream's id>.<seal>: see
// [sealedOrigin].
type eventID struct {
	stream   string // as the store names it
	position int64
	claim    int64        // of the own stream: the reader's, under which the event was sent
	listener int64        // of the own stream: who is told where it begins; no two are told the same. 0: of an event
	from     sealedOrigin // of the own stream
	owner    string       // of an answer: the random part of the incarnation that reads it from the upstream
	request  mcp.ID       // of an answer
	last     bool         // of an answer: nothing follows
}

// answerStreamName names the stream of one answer.
func answerStreamName(owner string, number int64) string {
	return "p." + owner + "." + strconv.FormatInt(number, 36)
}

// String is the text that clients see. Empty when it would be too long.
func (e eventID) String() string {
	position := strconv.FormatInt(e.position, 36)
	if e.stream == cluster.OwnStream {
		text := cluster.OwnStream + "." + strconv.FormatInt(e.claim, 36) + "." + position
		if e.listener != 0 || e.from.event != "" {
			text += "." + strconv.FormatInt(e.listener, 36)
		}
		if e.from.event != "" {
			text += "." + strconv.FormatInt(e.from.version, 36) + "." + base64.RawURLEncoding.EncodeToString([]byte(e.from.event)) + "." + e.from.seal
		}
		return text
	}
	text := e.stream + "." + position + "." + base64.RawURLEncoding.EncodeToString([]byte(e.request))
	if e.last {
		text = "a" + text[1:]
	}
	if len(text) > maxEventID {
		return ""
	}
	return text
}

// parseEventID reads what a client sent as Last-Event-ID. What this package has not made is no id.
func parseEventID(text string) (eventID, bool) {
	if len(text) > maxEventID {
		return eventID{}, false
	}
	var e eventID
	switch parts := strings.Split(text, "."); {
	case (len(parts) == 3 || len(parts) == 4 || len(parts) == 7) && parts[0] == cluster.OwnStream:
		e = eventID{stream: cluster.OwnStream, claim: parseNumber(parts[1]), position: parseNumber(parts[2])}
		if len(parts) > 3 {
			e.listener = parseNumber(parts[3])
		}
		if len(parts) > 4 {
			event, err := base64.RawURLEncoding.DecodeString(parts[5])
			if err != nil || !isSeal(parts[6]) {
				return eventID{}, false
			}
			e.from = sealedOrigin{event: string(event), version: parseNumber(parts[4]), seal: parts[6]}
		}
	case len(parts) == 5 && (parts[0] == "p" || parts[0] == "a") && isOwner(parts[1]):
		request, err := base64.RawURLEncoding.DecodeString(parts[4])
		if err != nil {
			return eventID{}, false
		}
		if parseNumber(parts[3]) == 0 {
			return eventID{}, false // the first event is number 1
		}
		id, _ := mcp.ParseID(string(request))
		e = eventID{
			stream: answerStreamName(parts[1], parseNumber(parts[2])), owner: parts[1], position: parseNumber(parts[3]), request: id,
			last: parts[0] == "a",
		}
	}
	// Numbers have one form each, and no other is taken.
	return e, e.stream != "" && e.String() == text
}

// parseNumber reads a number as eventID.String writes it; anything else becomes one that is written otherwise.
func parseNumber(text string) int64 {
	n, err := strconv.ParseInt(text, 36, 64)
	if err != nil || n < 0 || n > 1<<53-1 {
		return 0
	}
	return n
}

// isOwner reports whether s may be the random part of an incarnation.
func isOwner(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(s) == ownerLen
}

// ownerLen is how many characters the random part of an incarnation has.
const ownerLen = 8

// ownerOf is the random part of an incarnation.
func ownerOf(incarnation string) string {
	return incarnation[strings.LastIndexByte(incarnation, '/')+1:]
}

// The kinds of what is stored of a stream.
const (
	keptBegun   = 'b' // the stream has begun: an answer's first event, without data
	keptMessage = 'm'
	keptEnd     = 'e' // nothing follows
)

// keptEvent is one event of a stream as the store has it: a letter for its kind, its name, a line end, its data.
type keptEvent struct {
	kind byte
	name string // of the server-sent event; empty means "message"
	data []byte
}

func (e keptEvent) encode() []byte {
	text := make([]byte, 0, 2+len(e.name)+len(e.data))
	text = append(append(append(text, e.kind), e.name...), '\n')
	return append(text, e.data...)
}

// decodeKept reads what encode wrote. Anything else is a message without data, which tells a client nothing.
func decodeKept(text []byte) keptEvent {
	if len(text) < 2 {
		return keptEvent{kind: keptBegun}
	}
	name, data, _ := strings.Cut(string(text[1:]), "\n")
	return keptEvent{kind: text[0], name: name, data: []byte(data)}
}
