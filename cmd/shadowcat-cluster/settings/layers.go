package settings

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	envPrefix = "SHADOWCAT_"
	// envConfig names the YAML file, as --config does. It is no setting: a file cannot name itself.
	envConfig = envPrefix + "CONFIG"
)

// layer is what one source says.
type layer struct {
	name   string                      // of the source, for errors
	values map[string]any              // setting name -> []string
	origin func(setting string) string // where a value comes from, for errors
	errs   []error
}

// layers reads all sources, the weakest first: defaults, file, environment, flags.
func (src Sources) layers() ([]layer, error) {
	env, configPath := readEnviron(src.Environ)
	layers := []layer{readDefaults()}
	path := src.File
	if path == "" {
		path = configPath
	}
	var err error
	if path != "" {
		var l layer
		if l, err = readFile(path); err == nil {
			layers = append(layers, l)
		}
	}
	return append(layers, env, readFlags(src.Flags)), err
}

func readDefaults() layer {
	l := newLayer("defaults", func(string) string { return "" })
	for _, s := range Table() {
		if s.Default != "" {
			l.values[s.Name] = []string{s.Default}
		}
	}
	return l
}

func readFlags(flags map[string][]string) layer {
	l := newLayer("flags", func(name string) string {
		s, _ := lookup(name)
		return "--" + s.Flag()
	})
	for name, values := range flags {
		s, known := lookup(name)
		switch {
		case !known:
			l.errs = append(l.errs, unknown(name, name, names()))
		case s.Kind == KindList:
			l.values[name] = s.split(strings.Join(values, ","))
		default:
			l.values[name] = values
		}
	}
	return l
}

// serviceLink is the form of the variables that Kubernetes sets for every Service of a namespace: a Service named
// shadowcat-cluster makes SHADOWCAT_CLUSTER_PORT and its like. They are not meant for us.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// readEnviron reads the environment's settings, and the path of the file that it names.
func readEnviron(environ []string) (l layer, configPath string) {
	l = newLayer("environment", func(name string) string {
		s, _ := lookup(name)
		return s.Env()
	})
	byVariable := make(map[string]Setting)
	variables := make([]string, 0, len(Table()))
	for _, s := range Table() {
		byVariable[s.Env()] = s
		variables = append(variables, s.Env())
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, envPrefix) {
			continue
		}
		s, known := byVariable[variable]
		switch {
		case variable == envConfig:
			configPath = value
		case known && s.Repeatable():
			l.values[s.Name] = s.split(value)
		case known:
			l.values[s.Name] = []string{value}
		case !serviceLink.MatchString(variable):
			l.errs = append(l.errs, unknown(variable, strings.ToLower(strings.Replace(
				strings.TrimPrefix(variable, envPrefix), "_", ".", 1)), variables))
		}
	}
	return l, configPath
}

func newLayer(name string, origin func(string) string) layer {
	return layer{name: name, values: make(map[string]any), origin: origin}
}

// unknown refuses a name. shown is the name as the user wrote it, name the setting it would be.
func unknown(shown, name string, candidates []string) error {
	return fmt.Errorf("%s: %w", shown, unknownReason(shown, name, candidates))
}

func unknownReason(shown, name string, candidates []string) error {
	for _, s := range Table() {
		if !strings.HasPrefix(s.Name, name+".") {
			continue
		}
		member := s.Name
		if shown != name {
			member = s.Env()
		}
		return fmt.Errorf("is no setting by itself; did you mean %s?", member)
	}
	return fmt.Errorf("unknown setting%s", didYouMean(shown, candidates))
}
