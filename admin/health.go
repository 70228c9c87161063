package admin

import (
	"encoding/json"
	"net/http"
	"time"
)

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool             `json:"ready"`
	Replica string           `json:"replica,omitempty"`
	Checks  map[string]check `json:"checks"`
	// Sweep and Leader tell of the cleanup. They say nothing about readiness: requests are served without it.
	Sweep  check        `json:"sweep"`
	Leader *leaderCheck `json:"leader,omitempty"`
}

// check is one condition of readiness. While the store is away but known sessions are served, it is met, with an error all the
// same.
type check struct {
	OK    bool       `json:"ok"`
	Error string     `json:"error,omitempty"`
	Since *time.Time `json:"since,omitempty"` // of the present state, by this replica's clock
}

func (a *Admin) serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

func (a *Admin) serveReady(w http.ResponseWriter, _ *http.Request) {
	r := a.readiness()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(r) // fails only when the client is gone
}

func (a *Admin) readiness() readiness {
	store := a.probe.ready()
	serving := check{OK: a.serving.Load()}
	if !serving.OK {
		serving.Error = "the replica is starting or stopping"
	}
	lag, behind := a.watchdog.state()
	sweep := check{OK: !behind}
	if behind {
		sweep.Error = "sessions have been waiting to be cleaned up for " + lag.Round(time.Second).String()
	}
	var leader *leaderCheck
	if a.leader != nil {
		leader = newLeaderCheck(a.leader())
	}
	return readiness{
		Sweep: sweep, Leader: leader,
		Ready:   store.OK && serving.OK,
		Replica: a.replicaID,
		Checks:  map[string]check{"store": store, "serving": serving},
	}
}
