package main

import (
	"strings"
	"testing"
	"time"

	"switchyard/router/web/api"
)

func TestAJobSaysThatItsRunnerWasWarm(t *testing.T) {
	warm, cold := api.Runner{ID: "gha-1-1", Try: 1, NomadJob: "gha-warm-abc"}, api.Runner{ID: "gha-1-2", Try: 2, NomadJob: "gha-1-2"}
	for try, want := range map[int]bool{1: true, 2: false} {
		var b strings.Builder
		if err := writeJob(&b, api.JobDetail{Job: api.Job{ID: 1, GitHubID: 1, Try: try}, Runners: []api.Runner{cold, warm}}, 0, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "its runner was there before it, as gha-warm-abc"); got != want {
			t.Errorf("on try %d it says:\n%s", try, b.String())
		}
	}
}
