package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

// Sources are where values come from, beside the defaults. A flag wins over the environment, the environment over the
// file.
type Sources struct {
	// Flags holds the command line's values by setting name: those of flags that were given, and no others. See [Flags].
	Flags map[string][]string
	// Environ is the environment as os.Environ returns it. Variables that do not begin with SHADOWCAT_ are not read.
	Environ []string
	// File is the path of a YAML file; empty: what SHADOWCAT_CONFIG names, and without that, none.
	File string
}

// Load merges the sources and checks the result. Its error holds everything that is wrong, one problem a line, each with
// the setting's name, and never a credential. It is always the user's mistake, or a file that cannot be read.
//
// What only the serve command needs is checked by [Settings.CheckServe].
func Load(src Sources) (Settings, error) {
	var (
		merged = koanf.New(".")
		origin = make(map[string]string) // setting name -> where its value comes from
		errs   []error
	)
	layers, err := src.layers()
	if err != nil {
		errs = append(errs, err)
	}
	for _, l := range layers {
		errs = append(errs, l.errs...)
		for name := range l.values {
			origin[name] = l.origin(name)
		}
		// Values are merged whole: a list in the environment replaces the file's, it does not extend it.
		if err := merged.Load(confmap.Provider(l.values, "."), nil); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.name, err))
		}
	}
	s, unread, setErrs := apply(merged, origin)
	errs = append(errs, setErrs...)
	// Where one of several could not be read, checking how they fit together would only add confusion.
	if !slices.ContainsFunc(unread, Setting.limit) {
		errs = append(errs, s.Cluster.Validate())
	}
	if !slices.ContainsFunc(unread, Setting.ofAuth) {
		errs = append(errs, s.Auth.Validate())
	}
	if !slices.ContainsFunc(unread, func(set Setting) bool { return set.Kind == KindSize }) {
		errs = append(errs, s.checkBytes())
	}
	if err := errors.Join(errs...); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// checkBytes refuses a bound for a replica that a single body could not keep.
func (s Settings) checkBytes() error {
	if s.ReplicaMaxBytes == 0 || s.ReplicaMaxBytes >= s.MaxBody {
		return nil
	}
	return fmt.Errorf("replica_max_bytes: %s is less than max_body (%s), so that such a body could never be sent; raise the one or lower the other",
		FormatSize(s.ReplicaMaxBytes), FormatSize(s.MaxBody))
}

// apply sets every setting of the table from the merged values. It returns those that could not be read.
func apply(merged *koanf.Koanf, origin map[string]string) (s Settings, unread []Setting, errs []error) {
	s.Cluster = cluster.DefaultConfig() // for the limits that are not settings yet
	s.Auth = auth.DefaultConfig()
	s.RecordingRedact, s.RecordingRedactHeaders = record.DefaultRedact(), record.DefaultRedactHeaders()
	for _, setting := range Table() {
		values, given := merged.Get(setting.Name).([]string)
		if !given {
			continue
		}
		if err := setting.apply(&s, values); err != nil {
			errs = append(errs, describe(setting.Name, origin[setting.Name], err)...)
			unread = append(unread, setting)
		}
	}
	return s, unread, errs
}

// limit reports whether the setting is one of cluster.Config's, which are all numbers and durations.
func (s Setting) limit() bool {
	return s.Kind == KindCount || s.Kind == KindRate || s.Kind == KindDuration
}

// ofAuth reports whether the setting is one of auth.Config's.
func (s Setting) ofAuth() bool { return strings.HasPrefix(s.Name, "auth.") }

// apply reads values into s.
func (s Setting) apply(into *Settings, values []string) error {
	switch {
	case s.Repeatable():
		return s.set(into, values)
	case len(values) != 1:
		return errors.New("takes one value, not a list")
	case s.Kind == KindDuration && values[0] == "0" && s.Zero == "":
		return fmt.Errorf(`"0" would turn it off, which is not possible; %s`, durationWant)
	default:
		return s.set(into, values)
	}
}

// describe names the setting, and where its value comes from, in each of possibly several joined errors.
func describe(name, origin string, err error) []error {
	suffix := ""
	if origin != "" {
		suffix = " (from " + origin + ")"
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	described := make([]error, 0, len(list))
	for _, e := range list {
		described = append(described, fmt.Errorf("%s: %w%s", name, e, suffix))
	}
	return described
}

// CheckServe reports what the serve command lacks, and what only it cannot do.
func (s Settings) CheckServe() error {
	var errs []error
	if len(s.Upstreams) == 0 {
		errs = append(errs, errors.New("upstream: not set; name the MCP server to serve, such as --upstream http://127.0.0.1:9000/mcp"))
	}
	if sameAddress(s.Listen, s.AdminListen) {
		errs = append(errs, fmt.Errorf("admin_listen: %s is taken by listen (%s); choose another port, or off", s.AdminListen, s.Listen))
	}
	if s.DrainTimeout < s.DrainDelay+minDrain {
		errs = append(errs, fmt.Errorf("drain_timeout: %s leaves less than %s after drain_delay (%s)", s.DrainTimeout, minDrain, s.DrainDelay))
	}
	return errors.Join(errs...)
}

// minDrain is what must be left of drain_timeout after drain_delay: time for requests in flight, and to tell the store.
const minDrain = time.Second

// sameAddress reports whether only one of two addresses can be listened on: same port, and same host or one of them every
// host. Names are not looked up, and port 0 is a different one each time.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return false // off
	}
	numberA, _ := strconv.Atoi(portA) // checked when the setting was read
	numberB, _ := strconv.Atoi(portB)
	return numberA == numberB && numberA != 0 && (hostA == hostB || isEveryHost(hostA) || isEveryHost(hostB))
}

func isEveryHost(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "" || err == nil && address.IsUnspecified()
}

// split cuts a text that holds several values: at spaces, and at commas where no value can hold one. An upstream may be a
// list of URLs.
func (s Setting) split(text string) []string {
	separators := " \t\r\n"
	if s.Kind == KindList {
		separators += ","
	}
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(separators, r) })
}
