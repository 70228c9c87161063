package settings

import (
	"fmt"
	"strings"
)

// Flag is one setting's command-line flag. It fits pflag's Value interface, and only collects what was given: [Load]
// reads the values, so that all mistakes are reported together and alike.
type Flag struct {
	Setting Setting
	given   []string
}

// Flags are the flags of one command.
type Flags []*Flag

// NewFlags returns the flags of a command: all of them for [ScopeServe], those of the store's settings for [ScopeStore].
func NewFlags(scope Scope) Flags {
	var flags Flags
	for _, s := range Table() {
		if scope == ScopeServe || s.Scope == ScopeStore {
			flags = append(flags, &Flag{Setting: s})
		}
	}
	return flags
}

// Values returns what was given, for [Sources].
func (f Flags) Values() map[string][]string {
	values := make(map[string][]string)
	for _, flag := range f {
		if len(flag.given) > 0 {
			values[flag.Setting.Name] = flag.given
		}
	}
	return values
}

// Set takes one occurrence of the flag. Of a flag that takes one value the last occurrence counts.
func (f *Flag) Set(value string) error {
	if !f.Setting.Repeatable() {
		f.given = f.given[:0]
	}
	f.given = append(f.given, value)
	return nil
}

// String returns what was given, or the default.
func (f *Flag) String() string {
	if len(f.given) == 0 {
		return f.Setting.Default
	}
	return strings.Join(f.given, ",")
}

// Type is the placeholder of the value in help texts.
func (f *Flag) Type() string { return string(f.Setting.Kind) }

// Usage is the flag's line of help.
func (f *Flag) Usage() string {
	s := f.Setting
	usage := strings.TrimSuffix(s.Meaning, ".")
	if len(s.Choices) > 1 {
		usage += ": " + alternatives(s.Choices)
	}
	if s.Zero != "" {
		usage += "; 0: " + s.Zero
	}
	if s.Repeatable() {
		usage += "; may be repeated"
	}
	if s.DefaultNote != "" {
		usage += " (default " + s.DefaultNote + ")"
	}
	return usage
}

// UnknownFlag is the error for a flag (without dashes) that a command with these flags does not have: it says what was
// meant, as far as that can be told.
func (f Flags) UnknownFlag(name string) error {
	// The name of a setting, where its flag was meant.
	if s, known := lookup(name); known {
		return fmt.Errorf("unknown flag: --%s; did you mean --%s?", name, s.Flag())
	}
	var known []string
	for _, flag := range f {
		known = append(known, "--"+flag.Setting.Flag())
	}
	return fmt.Errorf("unknown flag: --%s%s", name, didYouMean("--"+name, known))
}
