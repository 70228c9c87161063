package admin

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
)

// maxLevelBody is enough for the name of a level.
const maxLevelBody = 64

// logLevel shows and changes what is logged.
type logLevel struct {
	level *slog.LevelVar
	log   *slog.Logger
}

// levelNames are what a client may ask for.
var levelNames = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// serve answers GET with the level, and PUT after taking the level that the body names. Of all that the admin port serves this alone
// changes something, so it is for those on the replica's own host, or in its pod: port-forwarding counts as that.
func (l *logLevel) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && !l.change(w, r) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, strings.ToLower(l.level.Level().String()))
}

// change takes the level that the request asks for. When it returns false, the request is answered.
func (l *logLevel) change(w http.ResponseWriter, r *http.Request) bool {
	if !isLocal(r.RemoteAddr) {
		http.Error(w, "the level can be changed only from the replica's own host: by kubectl port-forward, for instance", http.StatusForbidden)
		return false
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxLevelBody))
	wanted, known := levelNames[strings.ToLower(strings.TrimSpace(string(body)))]
	if err != nil || !known {
		http.Error(w, "the body must be debug, info, warn or error", http.StatusBadRequest)
		return false
	}
	before := l.level.Level()
	l.level.Set(min(before, wanted, slog.LevelWarn)) // whatever the level, this is told
	l.log.WarnContext(r.Context(), "the log level is changed", "from", strings.ToLower(before.String()), "to", strings.ToLower(wanted.String()))
	l.level.Set(wanted)
	return true
}

// isLocal reports whether an address is one of the loopback interface.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}
