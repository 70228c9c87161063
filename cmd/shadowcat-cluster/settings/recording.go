package settings

import (
	"fmt"
	"slices"

	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

var recordings = []string{string(record.Off), string(record.Metadata), string(record.Full)}

func setRecording(s *Settings, values []string) error {
	if !slices.Contains(recordings, values[0]) {
		return fmt.Errorf("%s is not known; want %s", quote(values[0]), alternatives(recordings))
	}
	s.Recording = record.Mode(values[0])
	return nil
}

func setRecordingRedact(s *Settings, values []string) error {
	if _, err := record.ParseRules(values); err != nil {
		return err
	}
	s.RecordingRedact = values
	return nil
}

func setRecordingRedactHeaders(s *Settings, values []string) error {
	if _, err := record.ParseHeaders(values); err != nil {
		return err
	}
	s.RecordingRedactHeaders = values
	return nil
}
