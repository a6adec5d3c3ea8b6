package store

import (
	"strings"
	"testing"
	"time"

	"switchyard/router"
)

// What is counted at each scrape costs by the jobs that wait and the runners
// that live, not by the history.
func TestMetricsReadNoHistory(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string][]string{
		openJobsSQL:                             {"SEARCH j USING INDEX jobs_state (state=?)"},
		openReposSQL + "true" + openReposGroups: {"SEARCH jobs USING INDEX jobs_state (state=?)"},
		liveDemandSQL:                           {"SEARCH r USING INDEX runners_live (state=?)"},
		demandedSQL:                             {"SEARCH jobs USING INTEGER PRIMARY KEY"},
		liveRunnersSQL:                          {"SCAN runners USING COVERING INDEX runners_live"},
		troublesSQL + "true" + troublesGroups: {
			"SCAN t", "SEARCH j USING INTEGER PRIMARY KEY", "SEARCH r USING INDEX runners_live (state=?)", "SEARCH j USING INDEX jobs_state (state=?)",
		},
		waitsSQL: {
			"SEARCH j USING INDEX jobs_state (state=?)", "SEARCH e USING INDEX events_job (job_id=?)", "SEARCH t USING PRIMARY KEY (job_id=? AND cause=?)",
		},
		limitHoldersSQL: {"SEARCH jobs USING INDEX jobs_limit (limit_key=? AND state=?)"},
	} {
		for _, step := range want {
			if got := plan(t, s, query); !strings.Contains(got, step) {
				t.Errorf("the plan of %s\nis %s\nwant %s", query, got, step)
			}
		}
	}
}

func TestTheRuleIsReadOutOfADecision(t *testing.T) {
	s := openTemp(t)
	for i, rule := range []string{"linux", "", "größe 1/2 ._+:-", strings.Repeat("x", 128), strings.Repeat("ü", 128)} {
		id := int64(i + 1)
		d := router.Delivery{ID: rule, Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{ID: id, RunID: 1, Attempt: 1}}
		must(t, errOf(s.Receive(t.Context(), d)))
		decision := router.Decision{Outcome: "unroutable", Rule: rule, Reason: `it says "rule":"other"`}
		must(t, s.Retry(t.Context(), id, time.Now(), router.CauseNomad, "Nomad could not take the job yet: no", &decision, time.Now()))
		open, err := s.OpenJobs(t.Context(), nil)
		must(t, err)
		found := false
		for _, o := range open {
			found = found || o.Rule == rule && o.Jobs == 1
		}
		if !found {
			t.Errorf("no job of rule %q: %+v", rule, open)
		}
	}
}
