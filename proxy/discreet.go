package proxy

import (
	"io"
	"strings"
)

// discreetError is an error of a connection to an upstream, as logs may have it: net/http quotes what it could not read, and that may be
// anything.
type discreetError struct{ err error }

// Error leaves out what the error quotes.
func (e *discreetError) Error() string { return withoutQuotes(e.err.Error()) }

// Unwrap returns the whole error.
func (e *discreetError) Unwrap() error { return e.err }

// withoutQuotes cuts a text of net/http's before what it quotes.
func withoutQuotes(text string) string {
	if before, _, found := strings.Cut(text, "malformed "); found { // what follows is not always in quotation marks
		return before + "the answer is no HTTP"
	}
	if before, _, found := strings.Cut(text, `"`); found {
		return before + "…"
	}
	return text
}

// discreetBody is the body of an upstream's answer. Its errors are discreet, but for the end.
type discreetBody struct{ io.ReadCloser }

// Read implements io.Reader.
func (b discreetBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &discreetError{err}
	}
	return n, err
}
