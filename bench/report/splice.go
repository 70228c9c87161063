package report

import (
	"fmt"
	"os"
	"strings"
)

// Splice puts text into a document, in the place of what stands between the comments <!-- name --> and <!-- /name -->. A document without them is
// an error.
func Splice(file, name, text string) error {
	document, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+" -->", "<!-- /"+name+" -->"
	before, rest, found := strings.Cut(string(document), begin)
	_, after, ends := strings.Cut(rest, end)
	if !found || !ends {
		return fmt.Errorf("%s has no place for the results: it needs %s and %s", file, begin, end)
	}
	text = before + begin + "\n" + strings.TrimSpace(text) + "\n" + end + after
	return os.WriteFile(file, []byte(text), 0o644) //nolint:gosec // a document is for everybody
}

// Code makes what a program has printed part of a document.
func Code(text string) string { return "```text\n" + strings.TrimSpace(text) + "\n```" }
