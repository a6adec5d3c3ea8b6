package runners

// Starts marks a runner as being started, until HasStarted.
func (rs *Runners) Starts(runnerID string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.started[runnerID] = false
}

// HasStarted is for when Nomad was asked for a runner that Starts marked.
func (rs *Runners) HasStarted(runnerID string) {
	rs.mu.Lock()
	leftOver := rs.started[runnerID]
	delete(rs.started, runnerID)
	rs.mu.Unlock()
	if leftOver {
		rs.Leftover.Of(0)
	}
}

// beingStarted reports whether a runner that is left over is being started:
// leftovers looks again after that.
func (rs *Runners) beingStarted(runnerID string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	_, ok := rs.started[runnerID]
	if ok {
		rs.started[runnerID] = true
	}
	return ok
}
