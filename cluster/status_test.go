package cluster_test

import (
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestOnlyLegalTransitions(t *testing.T) {
	t.Parallel()
	for _, from := range cluster.Statuses() {
		for _, to := range cluster.Statuses() {
			legal := from.Live() && to != cluster.StatusInitializing
			if got := from.CanBecome(to); got != legal {
				t.Errorf("%s -> %s: %v, want %v", from, to, got, legal)
			}
		}
		if from.Live() == from.Ended() {
			t.Errorf("%s is live %v and ended %v", from, from.Live(), from.Ended())
		}
	}
	if unknown := cluster.Status("gone"); unknown.Valid() || unknown.Live() || unknown.Ended() {
		t.Error("an unknown status passes for a known one")
	}
}
