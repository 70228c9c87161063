package record

import (
	"bytes"
	"encoding/json"
)

// maxNested is how many texts deep JSON within texts is looked into: a tool's answer that quotes another's, and then some. Deeper JSON
// is not recorded.
const maxNested = 4

// nested redacts a text that is itself a JSON object or array, as if that stood in its place; tools answer so. start is where the text
// begins, and the position after it.
func (w *walker) nested(start int, text []byte) {
	if !isDocument(text) {
		return
	}
	if w.depth == maxNested {
		w.replace(start, []byte(redacted))
		return
	}
	// It goes on where w is, above w's states, so that a text costs no more than it is long: a message may be of nothing but texts.
	inner := walker{in: text, rules: w.rules, secrets: w.secrets, depth: w.depth + 1, states: w.states, folded: w.folded}
	inner.value()
	w.states, w.folded = inner.states, inner.folded // as large as they have become
	if inner.kept > 0 {
		w.replace(start, quote(inner.result()))
	}
}

// isDocument reports whether a text is a JSON object or array, and nothing else.
func isDocument(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && (text[0] == '{' || text[0] == '[') && json.Valid(text)
}

// quote returns the JSON string that says a text.
func quote(text []byte) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(string(text)) // a string always can be, and a buffer takes everything
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
