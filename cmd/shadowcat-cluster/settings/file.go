package settings

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// readFile reads a YAML file's settings.
func readFile(path string) (layer, error) {
	l := newLayer(path, func(string) string { return path })
	content, err := file.Provider(path).ReadBytes()
	if err != nil {
		// The path is named once, by our own message.
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		return l, fmt.Errorf("config file %s: %w", path, err)
	}
	if secondDocument(content) {
		return l, fmt.Errorf("config file %s: holds more than one YAML document; want one", path)
	}
	k := koanf.New(".")
	tree, err := yaml.Parser().Unmarshal(content)
	if err == nil {
		err = k.Load(confmap.Provider(tree, "."), nil)
	}
	if err != nil {
		return l, fmt.Errorf("config file %s: %s", path, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	for _, name := range k.Keys() {
		s, known := lookup(name)
		if !known {
			l.errs = append(l.errs, describe(name, path, unknownReason(name, name, Names(true)))...)
			continue
		}
		values, err := scalars(k.Get(name), s)
		if err != nil {
			l.errs = append(l.errs, describe(name, path, err)...)
			continue
		}
		l.values[name] = values
	}
	return l, nil
}

// secondDocument reports whether content has a document marker after something else than comments. The parser would
// silently read the first document alone.
func secondDocument(content []byte) bool {
	started := false
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, " \t\r\n")
		if started && (line == "---" || strings.HasPrefix(line, "--- ")) {
			return true
		}
		started = started || (line != "" && line != "---" && !strings.HasPrefix(strings.TrimLeft(line, " \t"), "#"))
	}
	return false
}

// scalars turns a YAML value into the texts that flags and environment would hold.
func scalars(value any, s Setting) ([]string, error) {
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	} else if !s.Repeatable() {
		return nil, errors.New("takes one value, not a list")
	}
	texts := make([]string, 0, len(list))
	for _, item := range list {
		switch v := item.(type) {
		case nil:
			return nil, errors.New("has no value")
		case string:
			texts = append(texts, v)
		case bool, int, int64, uint64, float64:
			texts = append(texts, fmt.Sprint(v))
		default:
			return nil, errors.New("takes text or a number")
		}
	}
	if s.Repeatable() && !isList {
		return s.split(texts[0]), nil
	}
	return texts, nil
}
