package settings

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds of max_body: large enough for any initialize message, small enough to be held in memory.
const (
	minBody = 1 << 10
	maxBody = 1 << 30
)

// Bounds of what a replica takes: those of max_header leave room for a token, the others are what no machine reaches.
const (
	minHeader      = 8 << 10
	maxHeader      = 16 << 20
	maxInFlight    = 10_000_000
	maxInFlightMem = 1 << 40
)

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{string(LogAuto), string(LogJSON), string(LogText)}
)

func setListen(s *Settings, values []string) (err error) {
	s.Listen, err = parseAddress(values[0])
	return err
}

func setAdminListen(s *Settings, values []string) (err error) {
	if values[0] == "off" {
		s.AdminListen = ""
		return nil
	}
	s.AdminListen, err = parseAddress(values[0])
	return err
}

// parseAddress checks a host:port to listen on. An empty host means every address of this machine.
func parseAddress(text string) (string, error) {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("%s is no address to listen on; want host:port, such as 127.0.0.1:8081 or :8081", quote(text))
	}
	return text, nil
}

// setRedis takes the URL as it is: what it may look like is the store's business. It is not quoted in errors, for it may
// hold a password.
func setRedis(s *Settings, values []string) error {
	if values[0] == "" {
		return errors.New("is empty; want a URL such as redis://127.0.0.1:6379")
	}
	s.Redis = values[0]
	return nil
}

func redisPassword(s *Settings) *string    { return &s.RedisPasswords.User }
func sentinelPassword(s *Settings) *string { return &s.RedisPasswords.Sentinel }
func redisCA(s *Settings) *string          { return &s.RedisTLS.CA }
func redisCertificate(s *Settings) *string { return &s.RedisTLS.Certificate }
func redisKey(s *Settings) *string         { return &s.RedisTLS.Key }

// file sets a path. Whether there is such a file, and what is in it, is the business of whoever reads it.
func file(field func(*Settings) *string) func(*Settings, []string) error {
	return func(s *Settings, values []string) error {
		if values[0] == "" {
			return errors.New("is empty; want the path of a file, or leave it out")
		}
		*field(s) = values[0]
		return nil
	}
}

// Keys are <prefix>:{tag}:...; the store takes the same form.
var prefixForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

func setPrefix(s *Settings, values []string) error {
	if p := values[0]; !prefixForm.MatchString(p) {
		return fmt.Errorf("%s cannot start a key; want 1 to 64 letters, digits, dots, underscores, colons and hyphens, the first a letter or digit", quote(p))
	}
	s.Prefix = values[0]
	return nil
}

var replicaForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

func setReplicaID(s *Settings, values []string) error {
	if !replicaForm.MatchString(values[0]) {
		return fmt.Errorf("%s is no replica id; want 1 to 128 letters, digits, dots, hyphens and underscores", quote(values[0]))
	}
	s.ReplicaID = values[0]
	return nil
}

func setAllowedOrigins(s *Settings, values []string) error {
	for _, v := range values {
		u, err := url.Parse(v)
		if v == "*" {
			continue
		}
		if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Scheme+"://"+u.Host != v {
			return fmt.Errorf("%s is no origin; want scheme://host or scheme://host:port, such as https://inspector.example, or * for all", quote(v))
		}
	}
	s.AllowedOrigins = values
	return nil
}

func setAllowedHosts(s *Settings, values []string) error {
	for _, v := range values {
		u, err := url.Parse("//" + v)
		if v == "*" {
			continue
		}
		if err != nil || u.Hostname() == "" || u.Host != v {
			return fmt.Errorf("%s is no host; want host or host:port, such as mcp.example.com, or * for all", quote(v))
		}
	}
	s.AllowedHosts = values
	return nil
}

func setLogLevel(s *Settings, values []string) error {
	if !slices.Contains(logLevels, values[0]) {
		return fmt.Errorf("%s is not known; want %s", quote(values[0]), alternatives(logLevels))
	}
	return s.LogLevel.UnmarshalText([]byte(values[0]))
}

func setLogFormat(s *Settings, values []string) error {
	if !slices.Contains(logFormats, values[0]) {
		return fmt.Errorf("%s is not known; want %s", quote(values[0]), alternatives(logFormats))
	}
	s.LogFormat = LogFormat(values[0])
	return nil
}

// alternatives writes "a, b or c".
func alternatives(choices []string) string {
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}
