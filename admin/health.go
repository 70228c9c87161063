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
	r := readiness{
		Sweep: sweep, Leader: leader,
		Ready:   store.OK && serving.OK,
		Replica: a.replicaID,
		Checks:  map[string]check{"store": store, "serving": serving},
	}
	if a.keys != nil {
		keys := a.keys().check()
		r.Checks["keys"] = keys
		r.Ready = r.Ready && keys.OK
	}
	return r
}

// Keys is how the issuer's keys are that verify tokens.
type Keys struct {
	// FetchedAt is when they were fetched; zero: never.
	FetchedAt time.Time
	// Err is why the last attempt to fetch them failed; nil: it did not. It is shown by /readyz, so it must not hold credentials.
	Err error
}

// check is met once there were keys, for good: what all replicas lack alike, none can make good by not being ready, and what has a
// reason is refused with that. A replica that never had any is not ready, so that a rollout with a wrong issuer ends nothing that works.
func (k Keys) check() check {
	c := check{OK: !k.FetchedAt.IsZero()}
	if c.OK {
		since := k.FetchedAt.UTC().Truncate(time.Millisecond)
		c.Since = &since
	}
	switch {
	case k.Err != nil:
		c.Error = "the issuer's keys could not be fetched: " + k.Err.Error()
	case !c.OK:
		c.Error = "the issuer's keys have not been fetched yet"
	}
	return c
}
