package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deeply JSON may be nested. Tool arguments of real clients stay below twenty; decoders behind the proxy
// give up at different depths, most of them later.
const maxDepth = 512

var errUnexpectedEnd = errors.New("it ends in the middle")

// scanner walks over one JSON text and checks its grammar (RFC 8259) without building values.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

// text scans exactly one value, which visit must consume, with nothing after it.
func (s *scanner) text(visit func() error) error {
	if !utf8.Valid(s.data) {
		return errors.New("it is not UTF-8")
	}
	if err := visit(); err != nil {
		return err
	}
	s.space()
	if s.pos < len(s.data) {
		return fmt.Errorf("something follows the value at byte %d", s.pos)
	}
	return nil
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the first byte of what follows, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

func (s *scanner) unexpected() error {
	if s.pos >= len(s.data) {
		return errUnexpectedEnd
	}
	return fmt.Errorf("unexpected %q at byte %d", s.data[s.pos], s.pos)
}

// value scans any value and returns its text, a slice of the data.
func (s *scanner) value() ([]byte, error) {
	first := s.peek()
	start := s.pos
	var err error
	switch {
	case first == '{':
		err = s.object(func([]byte) error { return s.skip() })
	case first == '[':
		err = s.array(s.skip)
	case first == '"':
		err = s.str()
	case first == '-' || first >= '0' && first <= '9':
		err = s.number()
	case first == 't':
		err = s.literal("true")
	case first == 'f':
		err = s.literal("false")
	case first == 'n':
		err = s.literal("null")
	default:
		err = s.unexpected()
	}
	return s.data[start:s.pos], err
}

func (s *scanner) skip() error {
	_, err := s.value()
	return err
}

// object scans an object. field is called after each colon with the key, without quotes and escapes, and must consume
// the value.
func (s *scanner) object(field func(key []byte) error) error {
	return s.members('{', '}', func() error {
		if s.peek() != '"' {
			return s.unexpected()
		}
		start := s.pos
		if err := s.str(); err != nil {
			return err
		}
		key := unquote(s.data[start:s.pos])
		if s.peek() != ':' {
			return s.unexpected()
		}
		s.pos++
		return field(key)
	})
}

// array scans an array. element must consume one value.
func (s *scanner) array(element func() error) error { return s.members('[', ']', element) }

// members scans what is between brackets: nothing, or members with commas between them.
func (s *scanner) members(open, closing byte, member func() error) error {
	if s.peek() != open {
		return s.unexpected()
	}
	if s.depth++; s.depth > maxDepth {
		return fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	defer func() { s.depth-- }()
	s.pos++
	if s.peek() == closing {
		s.pos++
		return nil
	}
	for {
		if err := member(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case closing:
			s.pos++
			return nil
		default:
			return s.unexpected()
		}
	}
}

// str scans a string, quotes included.
func (s *scanner) str() error {
	s.pos++
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return s.unexpected()
		default:
			s.pos++
		}
	}
	return errUnexpectedEnd
}

// escape scans a backslash and what belongs to it.
func (s *scanner) escape() error {
	s.pos++
	if s.pos == len(s.data) {
		return errUnexpectedEnd
	}
	c := s.data[s.pos]
	if strings.IndexByte(`"\/bfnrtu`, c) < 0 {
		return s.unexpected()
	}
	s.pos++
	if c != 'u' {
		return nil
	}
	for range 4 {
		if s.pos == len(s.data) || strings.IndexByte("0123456789abcdefABCDEF", s.data[s.pos]) < 0 {
			return s.unexpected()
		}
		s.pos++
	}
	return nil
}

// number scans a number: no leading zeros, digits on both sides of the point.
func (s *scanner) number() error {
	if s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.pos < len(s.data) && (s.data[s.pos] == 'e' || s.data[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

// digits scans one or more digits.
func (s *scanner) digits() error {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	if s.pos == start {
		return s.unexpected()
	}
	return nil
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.unexpected()
	}
	s.pos += len(word)
	return nil
}

// unquote returns what a scanned string says. Only a string with escapes is copied.
func unquote(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text[1 : len(text)-1]
	}
	var decoded string
	if err := json.Unmarshal(text, &decoded); err != nil {
		return text // not reached: the scanner checked it
	}
	return []byte(decoded)
}
