package replica

// PID is the process of a replica that has been started.
func (r *Replica) PID() int { return r.process.PID() }
