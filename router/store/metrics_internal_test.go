package store

import (
	"strings"
	"testing"
)

// What is counted at each scrape costs by the jobs that wait and the runners
// that live, not by the history.
func TestMetricsReadNoHistory(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string][]string{
		openJobsSQL:    {"SEARCH j USING INDEX jobs_state (state=?)", "SEARCH r USING INDEX sqlite_autoindex_runners_3 (job_id=? AND try=?)"},
		liveRunnersSQL: {"SCAN runners USING COVERING INDEX runners_live"},
	} {
		for _, step := range want {
			if got := plan(t, s, query); !strings.Contains(got, step) {
				t.Errorf("the plan of %s\nis %s\nwant %s", query, got, step)
			}
		}
	}
}
