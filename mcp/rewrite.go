package mcp

import (
	"bytes"
	"errors"
)

// IDRole says what an id stands for in the message that it was found in.
type IDRole uint8

// The roles.
const (
	IDOfRequest   IDRole = iota + 1 // the request's own
	IDOfResponse                    // that of the request which the response answers; empty when it names none
	IDOfCancelled                   // that of the request which a MethodCancelled is about
)

// Rewrite decides about one id: it returns the id to put in its place, or the same one, and whether the message is kept.
type Rewrite func(role IDRole, id ID) (ID, bool)

var errNoMessage = errors.New("it is neither an object nor an array of objects")

// RewriteIDs returns a JSON-RPC message, or batch of them, with other ids. Of a message that is kept nothing but the ids is touched;
// without a change text itself is returned, and nil when no message is kept. Ids that a request may not have are left as they are.
// The error says why text is no JSON, or none of messages; it never holds any of it.
func RewriteIDs(text []byte, rewrite Rewrite) ([]byte, error) {
	s := &scanner{data: text}
	w := rewriter{scanner: s, rewrite: rewrite}
	isBatch := s.peek() == '['
	err := s.text(func() error {
		if isBatch {
			return s.array(w.message)
		}
		return w.message()
	})
	switch {
	case err != nil:
		return nil, err
	case !w.changed:
		return text, nil
	case len(w.kept) == 0:
		return nil, nil
	case !isBatch:
		return w.kept[0], nil
	}
	return append(append([]byte{'['}, bytes.Join(w.kept, []byte{','})...), ']'), nil
}

// rewriter collects the messages of a text as they shall be.
type rewriter struct {
	*scanner

	rewrite Rewrite
	kept    [][]byte
	changed bool
}

// found is an id with its place in the text.
type found struct {
	from, to int
	id       ID
}

// message scans one message.
func (w *rewriter) message() error {
	if w.peek() != '{' {
		return errNoMessage
	}
	start := w.pos
	var (
		method         string
		isCall         bool
		own, cancelled []found
	)
	err := w.object(func(key []byte) error {
		switch string(key) {
		case "id":
			return w.id(&own)
		case "method":
			isCall = true
			text, err := w.value()
			if err == nil {
				method = stringOr(text, nil)
			}
			return err
		case "params":
			return w.params(&cancelled)
		}
		return w.skip()
	})
	if err != nil {
		return err
	}
	switch {
	case isCall && len(own) > 0:
		w.keep(start, IDOfRequest, own)
	case isCall && method == MethodCancelled:
		w.keep(start, IDOfCancelled, cancelled)
	case isCall:
		w.keep(start, 0, nil)
	case len(own) == 0:
		w.keep(start, IDOfResponse, []found{{from: start, to: start}}) // it has none that could be replaced
	default:
		w.keep(start, IDOfResponse, own)
	}
	return nil
}

// params scans the value of params and notes a requestId in it.
func (w *rewriter) params(ids *[]found) error {
	if w.peek() != '{' {
		return w.skip()
	}
	return w.object(func(key []byte) error {
		if string(key) == "requestId" {
			return w.id(ids)
		}
		return w.skip()
	})
}

// id scans an id and notes it.
func (w *rewriter) id(ids *[]found) error {
	w.space()
	from := w.pos
	text, err := w.value()
	if err != nil {
		return err
	}
	var f finding
	f.id(text)
	*ids = append(*ids, found{from: from, to: w.pos, id: f.msg.ID})
	return nil
}

// keep keeps the message that has just been scanned, with the ids that it shall have, unless it is not to be kept.
func (w *rewriter) keep(start int, role IDRole, ids []found) {
	message, at := []byte(nil), start
	for _, f := range ids {
		id, keep := w.rewrite(role, f.id)
		if !keep {
			w.changed = true
			return
		}
		if id != f.id && f.id != "" {
			message = append(append(message, w.data[at:f.from]...), id...)
			at = f.to
			w.changed = true
		}
	}
	if at == start {
		w.kept = append(w.kept, w.data[start:w.pos])
		return
	}
	w.kept = append(w.kept, append(message, w.data[at:w.pos]...))
}
