package runners

// Starts marks a runner as being started, until HasStarted.
func (rs *Runners) Starts(runnerID string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.started[runnerID] = false
}

// HasStarted ends what Starts began: Nomad was asked for the runner.
func (rs *Runners) HasStarted(runnerID string) {
	rs.mu.Lock()
	leftOver := rs.started[runnerID]
	delete(rs.started, runnerID)
	rs.mu.Unlock()
	if leftOver {
		rs.Leftover.Of(0)
	}
}

// giveUp marks a runner as being given up, until done: its end is not the cause then.
func (rs *Runners) giveUp(runnerID string) (done func()) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.givenUp[runnerID] = true
	return func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		delete(rs.givenUp, runnerID)
	}
}

func (rs *Runners) isGivenUp(runnerID string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.givenUp[runnerID]
}

// beingStarted reports whether a leftover runner is being started. If so, HasStarted gives
// the hint that handles it.
func (rs *Runners) beingStarted(runnerID string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	_, ok := rs.started[runnerID]
	if ok {
		rs.started[runnerID] = true
	}
	return ok
}
