package web_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

const warmRules = `version: 1
labels: { self-hosted: {}, linux: {}, large: { resources: { memory: 16GiB } } }
defaults: { resources: { memory: 4GiB } }
rules:
  - name: linux
    if: has("linux")
    jobspec: docker-linux
    warm: [{ idle: 2 }, { idle: 3 }, { idle: 1, labels: [self-hosted, linux, large] }, { idle: 9, when: Mon }]
  - { name: none, jobspec: docker-linux }
`

// How many warm runners there are stands on Now and Fleet, in the same words.
func TestWarmRunnersAreCounted(t *testing.T) {
	s := serve(t, func(c *web.Config) {
		c.Now, c.App, c.Cluster = func() time.Time { return t0 }, ruled{&app{}, parse(t, warmRules)}, &nodes{} // a Sunday
		st := c.Database.(placeless).Store
		for i, rule := range []string{"linux", "linux", "linux", "removed"} {
			w := router.WarmRunner{ID: router.WarmPrefix + strings.Repeat("a", i+1), Rule: rule}
			must(t, st.AddWarm(t.Context(), w, [32]byte{byte(i + 1)}, t0))
			if i > 0 {
				must(t, st.WarmReady(t.Context(), w.ID, t0))
			}
		}
		r := router.Runner{ID: "gha-3-1", JobID: 3, Try: 1, Rule: "taken", Name: "gha-3-1"}
		must(t, st.AddWarm(t.Context(), router.WarmRunner{ID: router.WarmPrefix + "taken", Rule: "taken", Fit: "fit"}, [32]byte{9}, t0))
		must(t, st.WarmReady(t.Context(), router.WarmPrefix+"taken", t0))
		must(t, errOf(st.TakeWarm(t.Context(), r, "fit", &router.Decision{Outcome: rules.Routed, Rule: "taken", Reason: "it holds"}, t0.Add(6*time.Hour))))
	})
	wants(t, s.get("/jobs/3", http.StatusOK), "<dt>Warm</dt><dd>It was there before the job</dd>")
	if strings.Contains(s.get("/jobs/1", http.StatusOK), "<dt>Warm</dt>") {
		t.Error("a runner that was started for its job is called warm")
	}
	const counts = "<li>rule linux: 2 ready, 1 starting, 4 wanted</li>\n<li>rule removed: 1 ready, 0 starting, 0 wanted</li>"
	for _, path := range []string{"/", "/fleet"} {
		page := s.get(path, http.StatusOK)
		wants(t, page, "<h2>Warm runners</h2>", counts)
		if strings.Contains(page, "rule none:") {
			t.Errorf("%s counts those of a rule that keeps none", path)
		}
	}
	explain := func(labels string) string {
		return decode[api.Answer](t, s.call("POST", "/explain", http.StatusOK, sends(`{"repo": "acme/web", "labels": [`+labels+`]}`))).Warm
	}
	if got := explain(`"self-hosted", "linux"`); got != "rule linux keeps 3 warm at this time, and this job may take one that is there" {
		t.Errorf("explain says %q", got)
	}
	if got := explain(`"self-hosted"`); got != "" {
		t.Errorf("of a rule without any, explain says %q", got)
	}
	wants(t, s.get("/playground?repo=acme%2Fweb&labels=self-hosted,linux", http.StatusOK), "Warm runners: rule linux keeps 3 warm")
	if page := serve(t).get("/", http.StatusOK); strings.Contains(page, "Warm runners") {
		t.Error("Now speaks of warm runners, and no rule keeps any")
	}
}
