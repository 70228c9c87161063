package proxy

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// A server's question is a request to its client: for roots, a sample, an input. Its answer belongs to the upstream session that has
// asked, and servers number their questions alike: an answer that comes after the session was recovered could be taken for one to a
// question of the new upstream session. So the questions of all but a session's first upstream session get ids of ours, which say of
// which generation it is, and answers reach only the upstream session that has asked. Until a session is recovered
// nothing is looked at or changed.

const (
	// questionMark begins an id of ours. The upstream session's generation follows, a dot, and the upstream's id in base64.
	questionMark = `"shadowcat.`
	// maxMarked is how long an upstream's id may be to be marked, in bytes of JSON: with the mark it must not be longer than what is
	// read of a client. Longer ones stay as they are.
	maxMarked = 700
)

// mark returns our id for an upstream's, asked by the upstream session of a generation.
func mark(id mcp.ID, generation int64) mcp.ID {
	return mcp.ID(questionMark + strconv.FormatInt(generation, 10) + "." + base64.RawURLEncoding.EncodeToString([]byte(id)) + `"`)
}

// unmark returns the upstream's id, and the generation that has asked. An id that is not of ours is of the first, 0.
func unmark(id mcp.ID) (mcp.ID, int64) {
	rest, isMarked := strings.CutPrefix(string(id), questionMark)
	if !isMarked {
		return id, 0
	}
	number, encoded, _ := strings.Cut(strings.TrimSuffix(rest, `"`), ".")
	generation, err := strconv.ParseInt(number, 10, 64)
	text, errText := base64.RawURLEncoding.DecodeString(encoded)
	original, isID := mcp.ParseID(string(text)) // a client could write anything into the upstream's message
	if err != nil || errText != nil || !isID || generation < 1 || mark(original, generation) != id {
		return id, 0
	}
	return original, generation
}

// asked returns a message of an upstream's stream as the client is to see it, by the generation of the upstream session.
func asked(event mcp.Event, generation int64) []byte {
	if generation == 0 || event.Name != "" && event.Name != "message" {
		return event.Data
	}
	text, err := mcp.RewriteIDs(event.Data, func(role mcp.IDRole, id mcp.ID) (mcp.ID, bool) {
		if role == mcp.IDOfResponse || id == "" || len(id) > maxMarked {
			return id, true
		}
		return mark(id, generation), true
	})
	if err != nil {
		return event.Data // what it is, the client may judge
	}
	return text
}

// answersFor returns a client's message, or batch of them, as the upstream session of a generation is to see it: without
// the answers to questions of others. Empty: nothing of it is left.
func answersFor(body []byte, generation int64) []byte {
	if generation == 0 {
		return body // no answer to another can be told from one to it
	}
	text, err := mcp.RewriteIDs(body, func(role mcp.IDRole, id mcp.ID) (mcp.ID, bool) {
		if role != mcp.IDOfResponse {
			return id, true
		}
		original, by := unmark(id)
		return original, by == generation || by == 0 && len(id) > maxMarked
	})
	if err != nil {
		return body // not reached: it has been looked at
	}
	return text
}

// latestQuestion is the latest generation that has asked a question that the request answers.
func (x *exchange) latestQuestion() (latest int64) {
	if x.msg.Kind == mcp.KindResponse {
		_, latest = unmark(x.msg.ID)
		return latest
	}
	_, _ = mcp.RewriteIDs(x.body, func(role mcp.IDRole, id mcp.ID) (mcp.ID, bool) { // it can be read: it was looked at
		if _, by := unmark(id); role == mcp.IDOfResponse {
			latest = max(latest, by)
		}
		return id, true
	})
	return latest
}

// answersQuestions reports whether the request answers questions of the upstream, and only reports whether that is all it does.
func (x *exchange) answersQuestions() (some, only bool) {
	if x.msg.Kind == mcp.KindResponse {
		return true, true
	}
	return x.msg.Responses > 0, x.msg.Responses > 0 && x.msg.Responses == x.msg.BatchLen
}

// meetQuestions has the session's record as new as the questions that the request answers: another replica may have recovered the
// session since this one read it. It reports whether there is anything to send. The error is a refusal.
func (x *exchange) meetQuestions() (isNeeded bool, err error) {
	if x.latestQuestion() > x.record.Generation() {
		fresh, err := x.p.sessions.Get(x.detached(), x.session)
		switch {
		case err != nil:
			return false, refusalOf(err)
		case !fresh.Status.Live():
			return false, errSessionNotFound
		}
		x.record = fresh
	}
	if len(answersFor(x.body, x.record.Generation())) > 0 {
		return true, nil
	}
	x.p.log.Debug("dropped a client's answer to a question of an upstream session that is lost", "session", x.session, "upstream", x.upstream.Name)
	return false, nil
}

// taken is the answer to a message that needs none.
func taken() *http.Response {
	return &http.Response{StatusCode: http.StatusAccepted, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody}
}
