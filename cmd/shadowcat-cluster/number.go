package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
)

// numberFlag is a flag that takes a whole number of at least 1. The command checks the range once all flags are known, so that all
// mistakes are reported together; what is no number at all is refused at once, in words that say what is wanted.
type numberFlag struct {
	value *int
	most  int
}

// addNumber adds a flag whose default is what value holds.
func addNumber(flags *pflag.FlagSet, value *int, name string, most int, usage string) {
	flags.Var(&numberFlag{value: value, most: most}, name, fmt.Sprintf("%s, 1 to %d", usage, most))
}

// Set takes the flag's text.
func (f *numberFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31) // refuses signs
	if err != nil {
		return fmt.Errorf("want a whole number, 1 to %d", f.most)
	}
	*f.value = int(n)
	return nil
}

// String returns the number.
func (f *numberFlag) String() string {
	if f.value == nil { // pflag asks a zero value what its default would be
		return ""
	}
	return strconv.Itoa(*f.value)
}

// Type is the placeholder of the value in help texts.
func (f *numberFlag) Type() string { return "number" }
