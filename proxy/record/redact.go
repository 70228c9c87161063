package record

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// redacted stands for a value that is not recorded.
const redacted = `"[redacted]"`

// minSecret is how long a secret must be to be looked for in a message's texts: shorter ones are in too many.
const minSecret = 8

// Redact returns a message without the values that the rules select, and without the texts (and keys) that hold one of the secrets;
// "[redacted]" is in their place, all else is as it was. A text that is itself a JSON object or array is taken for that, up to four texts
// deep; what is deeper is redacted whole. It returns false when the message is not valid JSON: then nothing of it may be
// recorded. Secrets of less than 8 bytes are not looked for.
func (r Rules) Redact(message []byte, secrets ...string) ([]byte, bool) {
	if !utf8.Valid(message) || !json.Valid(message) {
		return nil, false
	}
	w := walker{in: message, rules: r.rules}
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			w.secrets = append(w.secrets, []byte(secret))
		}
	}
	if len(w.rules) == 0 && len(w.secrets) == 0 {
		return message, true
	}
	const usualDepth = 8
	w.states, w.folded = make([]state, 0, usualDepth*len(r.rules)), make([]byte, 0, 32)
	for _, rule := range r.rules {
		w.states = append(w.states, rule.start())
	}
	w.value()
	return w.result(), true
}

// walker goes over a text that is known to be valid JSON, and copies it but for what is redacted.
type walker struct {
	in      []byte
	pos     int
	out     []byte
	kept    int // what of in is dealt with
	rules   []rule
	states  []state // of the rules for the value at hand; those of the values around it before
	secrets [][]byte
	folded  []byte // the key at hand
	depth   int    // how many texts it is in
}

// result is the text without what was redacted.
func (w *walker) result() []byte {
	if w.kept == 0 { // nothing was found
		return w.in
	}
	return append(w.out, w.in[w.kept:]...)
}

// replace puts something in place of what is between start and the position.
func (w *walker) replace(start int, by []byte) {
	if w.out == nil {
		w.out = make([]byte, 0, len(w.in)+len(redacted))
	}
	w.out = append(append(w.out, w.in[w.kept:start]...), by...)
	w.kept = w.pos
}

// value passes over a value, redacting it, or parts of it.
func (w *walker) value() {
	w.space()
	start := w.pos
	if w.isSecret() {
		w.skip()
		w.replace(start, []byte(redacted))
		return
	}
	switch w.in[w.pos] {
	case '{':
		w.members('}', true)
	case '[':
		w.members(']', false)
	case '"':
		if text, isKept := w.text(); isKept {
			w.nested(start, text)
		}
	default:
		w.word()
	}
}

// isSecret reports whether a rule leads to the value at hand.
func (w *walker) isSecret() bool {
	for i, s := range w.current() {
		if w.rules[i].matches(s) {
			return true
		}
	}
	return false
}

// current are the states for the value at hand.
func (w *walker) current() []state { return w.states[len(w.states)-len(w.rules):] }

// members passes over what is between brackets.
func (w *walker) members(closing byte, haveKeys bool) {
	w.pos++
	for w.space(); w.in[w.pos] != closing; w.space() {
		if w.in[w.pos] == ',' {
			w.pos++
			w.space()
		}
		w.member(haveKeys)
	}
	w.pos++
}

// member passes over a value in an object, with its key, or in an array.
func (w *walker) member(hasKey bool) {
	if hasKey {
		key, _ := w.text()
		w.folded = fold(w.folded[:0], key)
		w.space()
		w.pos++ // the colon
	}
	before := len(w.states)
	for i, s := range w.current() {
		if hasKey {
			s = w.rules[i].member(s, w.folded)
		} else {
			s = w.rules[i].element(s)
		}
		w.states = append(w.states, s)
	}
	w.value()
	w.states = w.states[:before]
}

// text passes over a string, redacting it when it holds a secret, and returns what it says.
func (w *walker) text() (text []byte, isKept bool) {
	start := w.pos
	w.quoted()
	text = unquote(w.in[start:w.pos])
	for _, secret := range w.secrets {
		if bytes.Contains(text, secret) {
			w.replace(start, []byte(redacted))
			return text, false
		}
	}
	return text, true
}

func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return quoted // not reached: it is valid
	}
	return []byte(text)
}

// quoted passes over a string.
func (w *walker) quoted() {
	for w.pos++; w.in[w.pos] != '"'; w.pos++ {
		if w.in[w.pos] == '\\' {
			w.pos++
		}
	}
	w.pos++
}

// word passes over a number, true, false or null.
func (w *walker) word() {
	for w.pos < len(w.in) && !strings.ContainsRune(" \t\r\n,]}", rune(w.in[w.pos])) {
		w.pos++
	}
}

// skip passes over a value without looking into it.
func (w *walker) skip() {
	switch w.in[w.pos] {
	case '{', '[':
		for depth := 0; ; {
			switch w.in[w.pos] {
			case '"':
				w.quoted()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if w.pos++; depth == 0 {
				return
			}
		}
	case '"':
		w.quoted()
	default:
		w.word()
	}
}

func (w *walker) space() {
	for w.pos < len(w.in) && (w.in[w.pos] == ' ' || w.in[w.pos] == '\t' || w.in[w.pos] == '\r' || w.in[w.pos] == '\n') {
		w.pos++
	}
}
