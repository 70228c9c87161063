package settings_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

// Who sets no paths has the default ones; who sets an empty list has none.
func TestPathsToRedactReplaceTheDefaultOnes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		src  settings.Sources
		want []string
	}{
		"unset":             {settings.Sources{}, record.DefaultRedact()},
		"none in a file":    {settings.Sources{File: yamlFile(t, "recording: full\nrecording_redact: []")}, nil},
		"none in a flag":    {settings.Sources{Flags: map[string][]string{"recording_redact": {""}}}, nil},
		"none, environment": {settings.Sources{Environ: []string{"SHADOWCAT_RECORDING_REDACT="}}, nil},
		"some in a file":    {settings.Sources{File: yamlFile(t, "recording_redact: ['**.pin', params.x]")}, []string{"**.pin", "params.x"}},
		"some, environment": {settings.Sources{Environ: []string{"SHADOWCAT_RECORDING_REDACT=**.pin, params.x"}}, []string{"**.pin", "params.x"}},
	} {
		got := load(t, c.src).RecordingRedact
		if len(got) == 0 {
			got = nil
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := load(t, settings.Sources{File: yamlFile(t, "recording: off")}).Recording; got != record.Off {
		t.Errorf("recording: off is read as %q", got) // YAML has other ideas of what off is
	}
}
