package redisstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
)

// PasswordFiles names files that hold passwords, so that a URL need not. Each holds one, unencoded; line breaks at its end do not
// belong to it. The zero value names none.
type PasswordFiles struct {
	// User is the password of the URL's user, without one of the user default. It is read anew for each connection, so that a
	// password may be changed while the store is open; a file that cannot be read then is logged, and the last good password used.
	User string
	// Sentinel is the password of the sentinels' user. It is read once.
	Sentinel string
}

var (
	errPasswordTwice    = errors.New("redis: the URL holds a password, and a file is named for it; leave one of them out")
	errPasswordEmbedded = errors.New("redis: a password file needs the URL of a server; the store inside this process has no users")
	errSentinelNeedsURL = errors.New("redis: a password file for sentinels needs a URL that begins with redis-sentinel or rediss-sentinel")
)

// authenticate makes a target use the files. A nil logger discards.
func (t *target) authenticate(files PasswordFiles, log *slog.Logger) error {
	if files.User != "" {
		if t.options.Password != "" {
			return errPasswordTwice
		}
		user := userPassword{file: files.User, name: t.options.Username, log: cmp.Or(log, slog.New(slog.DiscardHandler))}
		first, err := readPassword(files.User)
		if err != nil {
			return err
		}
		user.last.Store(&first)
		t.options.CredentialsProviderContext = user.credentials
	}
	if files.Sentinel == "" {
		return nil
	}
	switch {
	case t.topology != sentinel:
		return errSentinelNeedsURL
	case t.options.SentinelPassword != "":
		return errPasswordTwice
	}
	var err error
	t.options.SentinelPassword, err = readPassword(files.Sentinel)
	return err
}

// userPassword is the password of a user, which may change at any time.
type userPassword struct {
	file, name string
	log        *slog.Logger
	last       atomic.Pointer[string] // what was read last without an error
}

// credentials is redis.Options.CredentialsProviderContext.
func (p *userPassword) credentials(context.Context) (username, password string, err error) {
	now, err := readPassword(p.file)
	if err != nil {
		p.log.Warn("the password of Redis cannot be read; the last one is used", "error", err)
		return p.name, *p.last.Load(), nil
	}
	p.last.Store(&now)
	return p.name, now, nil
}

func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("redis: read the password file: %w", err)
	}
	content = bytes.TrimRight(content, "\r\n")
	if len(content) == 0 {
		return "", fmt.Errorf("redis: the password file %s is empty", file)
	}
	return string(content), nil
}
