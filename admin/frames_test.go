package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatIsRecordedIsCounted(t *testing.T) {
	t.Parallel()
	a, metrics := newAdmin(t, &fakeStore{}, nil)
	metrics.FramesRecorded(3)
	metrics.FramesRecorded(4)
	metrics.FramesDropped(2)
	got := httptest.NewRecorder()
	a.Handler().ServeHTTP(got, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	for _, line := range []string{"\nshadowcat_frames_recorded_total 7\n", "\nshadowcat_frames_dropped_total 2\n"} {
		if !strings.Contains(got.Body.String(), line) {
			t.Errorf("no line %q in:\n%s", line, got.Body)
		}
	}
}
