package server_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// budgeted is a GitHub with limits.
type budgeted struct{ *hub }

func (budgeted) Budget() []router.Budget {
	return []router.Budget{
		{Login: "the GitHub token", InFlight: 3, BlockedUntil: time.Now().Add(time.Minute)},
		{Login: "installation 7", Limits: []router.RateLimit{{Resource: "core", Limit: 5000, Remaining: 4321}}},
	}
}

func TestGitHubsLimitsAreMetrics(t *testing.T) { bubble(t, testGitHubsLimitsAreMetrics) }
func testGitHubsLimitsAreMetrics(t *testing.T) {
	h := &hub{}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.GitHub = budgeted{h} })
	resp, err := httpClient.Get("http://" + r.App.AdminAddr() + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	for _, want := range []string{
		`switchyard_github_in_flight{login="the GitHub token"} 3`,
		`switchyard_github_blocked{login="the GitHub token"} 1`,
		`switchyard_github_blocked{login="installation 7"} 0`,
		`switchyard_github_limit{login="installation 7",resource="core"} 5000`,
		`switchyard_github_remaining{login="installation 7",resource="core"} 4321`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
