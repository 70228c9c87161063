package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readFile reads a YAML file's settings. Values are taken as the text that the user wrote, not as what YAML makes of it
// (there 010 is eight and 1_000 is a number), so that a value means the same in a file, in a flag and in the environment.
func readFile(path string) (layer, error) {
	l := newLayer(path, func(string) string { return path })
	root, err := readYAML(path)
	if err != nil {
		return l, fmt.Errorf("config file %s: %s", path, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if root != nil {
		l.addMapping("", root)
	}
	return l, nil
}

// readYAML returns the mapping that a file holds, nil when it is empty.
func readYAML(path string) (*yaml.Node, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		// The path is named once, by our own message.
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err
		}
		return nil, err
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil //nolint:nilnil // no document is no mistake, and no settings
	case err != nil:
		return nil, err
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, errors.New("holds more than one YAML document; want one")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	root := document.Content[0]
	switch {
	case isNull(root):
		return nil, nil //nolint:nilnil // as above
	case root.Kind != yaml.MappingNode:
		return nil, errors.New("holds no settings; want lines of name: value, such as max_sessions: 50000")
	}
	return root, nil
}

// addMapping takes in the keys of a mapping, those of a nested one under prefix.
func (l *layer) addMapping(prefix string, mapping *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			l.errs = append(l.errs, describe(fmt.Sprintf("line %d", key.Line), l.name, errors.New("has a key that is no name"))...)
			continue
		}
		l.addValue(prefix+key.Value, value)
	}
}

func (l *layer) addValue(name string, value *yaml.Node) {
	s, known := lookup(name)
	if !known && value.Kind == yaml.MappingNode && len(value.Content) > 0 {
		l.addMapping(name+".", value)
		return
	}
	err := unknownReason(name, name, names())
	if known {
		err = l.take(s, value)
	}
	if err != nil {
		l.errs = append(l.errs, describe(name, l.name, err)...)
	}
}

// take reads a setting's value.
func (l *layer) take(s Setting, value *yaml.Node) error {
	if _, twice := l.values[s.Name]; twice {
		return fmt.Errorf("is set twice, again in line %d", value.Line)
	}
	values, err := texts(value, s)
	if err == nil {
		l.values[s.Name] = values
	}
	return err
}

// texts turns a YAML value into the texts that flags and environment would hold.
func texts(value *yaml.Node, s Setting) ([]string, error) {
	value = resolve(value)
	if value.Kind != yaml.SequenceNode {
		text, err := scalar(value)
		if err == nil && s.Repeatable() {
			return s.split(text), nil
		}
		return []string{text}, err
	}
	if !s.Repeatable() {
		return nil, errors.New("takes one value, not a list")
	}
	list := make([]string, 0, len(value.Content))
	for _, item := range value.Content {
		text, err := scalar(resolve(item))
		if err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, nil
}

func scalar(value *yaml.Node) (string, error) {
	switch {
	case isNull(value):
		return "", errors.New("has no value")
	case value.Kind != yaml.ScalarNode:
		return "", errors.New("takes text or a number")
	}
	return value.Value, nil
}

// resolve follows an alias (*name) to what it stands for.
func resolve(value *yaml.Node) *yaml.Node {
	if value.Kind == yaml.AliasNode {
		return value.Alias
	}
	return value
}

// isNull reports whether a value was left out, or written as null or ~.
func isNull(value *yaml.Node) bool {
	return value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null"
}
