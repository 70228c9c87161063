package replica

import (
	"fmt"

	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

// Recording says what is recorded of the messages of sessions.
type Recording struct {
	// Mode default: off.
	Mode record.Mode
	// Redact are the paths of what is kept out of payloads: see [record.ParseRules]. Default: nothing is.
	Redact []string
	// RedactHeaders are the headers the values of which are kept out of payloads: see [record.ParseHeaders]. Default: Authorization,
	// Proxy-Authorization and Cookie, which always are among them.
	RedactHeaders []string
}

// newRecorder returns nil when nothing is to be recorded.
func (r *Replica) newRecorder(cfg Config) (*record.Recorder, error) {
	rules, err := record.ParseRules(cfg.Recording.Redact)
	if err != nil {
		return nil, fmt.Errorf("recording_redact: %w", err)
	}
	headers, err := record.ParseHeaders(cfg.Recording.RedactHeaders)
	if err != nil {
		return nil, fmt.Errorf("recording_redact_headers: %w", err)
	}
	if cfg.Cluster.FramesCount == 0 || cfg.Cluster.FramesBytes == 0 {
		return nil, nil //nolint:nilnil // a nil recorder records nothing
	}
	return record.New(record.Config{
		Store:         cfg.Store,
		Mode:          cfg.Recording.Mode,
		Redact:        rules,
		RedactHeaders: headers,
		Replica:       r.manager.Incarnation(),
		MaxPayload:    cfg.Cluster.FramesBytes,
		InOutage:      r.inOutage,
		Logger:        r.log,
		Observer:      r.metrics,
	}), nil
}
