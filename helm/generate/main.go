// Command generate writes what the chart takes from the program: the section of settings in values.yaml, and the rule of
// Redis's user. Its only argument is the chart's folder.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate CHART")
		os.Exit(2)
	}
	if err := errors.Join(writeSettings(os.Args[1]), writeACL(os.Args[1])); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// prefixPlace stands for the prefix of keys, which the chart puts there.
const prefixPlace = "PREFIX"

func writeACL(chart string) error {
	return os.WriteFile(filepath.Join(chart, "files", "redis-acl.txt"), []byte(redisstore.ACLRule(prefixPlace)+"\n"), 0o644)
}

// The lines of values.yaml between which the settings are.
const (
	begin = "  # BEGIN generated settings\n"
	end   = "  # END generated settings\n"
)

func writeSettings(chart string) error {
	path := filepath.Join(chart, "values.yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(content), begin)
	_, after, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		return fmt.Errorf("%s lacks a line %q or, after it, %q", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+section()+end+after), 0o644)
}

// section is the YAML of all settings that a user of the chart may set there, indented by two.
func section() string {
	var b strings.Builder
	group := ""
	for _, s := range settings.Table() {
		if isOfChart(s.Name) {
			continue
		}
		parent, name, nested := strings.Cut(s.Name, ".")
		indent := "  "
		if nested {
			if parent != group {
				fmt.Fprintf(&b, "  %s:\n", parent)
			}
			indent = "    "
		} else {
			parent, name = "", s.Name
		}
		group = parent
		for _, line := range describe(s) {
			b.WriteString(strings.TrimRight(indent+"# "+line, " ") + "\n")
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent, name, defaultOf(s))
	}
	return b.String()
}

// isOfChart reports whether the chart sets a setting itself, from other values.
func isOfChart(name string) bool {
	switch name {
	case "listen", "admin_listen", "replica_id", "upstream", "auth.upstream_token_file":
		return true
	}
	return name == "redis" || strings.HasPrefix(name, "redis_")
}

// describe is the comment of a setting: its schema, and what it means.
func describe(s settings.Setting) []string {
	text := s.Meaning
	if s.Zero != "" {
		text += " 0: " + s.Zero + "."
	}
	if s.Default == "" && s.DefaultNote != "" {
		text += " Null: " + s.DefaultNote + "."
	}
	return []string{"@schema " + schema(s), "-- " + text}
}

func defaultOf(s settings.Setting) string {
	switch {
	case s.Default == "":
		return "null"
	case s.Kind == settings.KindCount || s.Kind == settings.KindSwitch:
		return s.Default
	default:
		return `"` + s.Default + `"`
	}
}

// schema says what values a setting takes, as far as that is a matter of form: the program itself refuses the rest. The patterns
// are those of docs/configuration.md.
func schema(s settings.Setting) string {
	types, more := "string", ""
	switch s.Kind {
	case settings.KindCount:
		types, more = "integer", ";minimum:0"
	case settings.KindSwitch:
		types = "boolean"
	case settings.KindRate:
		types, more = "string, integer", ";minimum:0;pattern:^[0-9]+(/s)?$"
	case settings.KindSize:
		types, more = "string, integer", ";minimum:0;pattern:^[0-9]+(KiB|MiB|GiB)?$"
	case settings.KindDuration:
		types, more = "string, integer", ";minimum:0;maximum:0;pattern:^(0|([0-9]+(ms|s|m|h|d))+)$"
	case settings.KindList, settings.KindUpstream:
		types, more = "array", ";item:string"
	case settings.KindChoice:
		more = ";enum:[" + strings.Join(s.Choices, ", ")
		if s.Default == "" {
			more += ", null"
		}
		more += "]"
	}
	if s.Default == "" {
		types += ", null"
	}
	return "type:[" + types + "]" + more
}
