package nomad

import "testing"

func TestCallsHaveFewNames(t *testing.T) {
	for request, want := range map[[2]string]string{
		{"GET", "/v1/jobs"}:                        "list jobs",
		{"PUT", "/v1/jobs"}:                        "register job",
		{"PUT", "/v1/jobs/parse"}:                  "parse job",
		{"PUT", "/v1/validate/job"}:                "validate job",
		{"GET", "/v1/job/gha-1-1"}:                 "read job",
		{"DELETE", "/v1/job/gha-1-1"}:              "stop job",
		{"PUT", "/v1/job/runner/dispatch"}:         "dispatch job",
		{"GET", "/v1/job/gha-1-1/allocations"}:     "read a job's allocations",
		{"GET", "/v1/event/stream"}:                "follow events",
		{"GET", "/v1/nodes"}:                       "list nodes",
		{"GET", "/v1/node/0a1b"}:                   "read node",
		{"GET", "/v1/<script>/" + "\x1b[31m/evil"}: "other",
	} {
		if got := callName(request[0], request[1]); got != want {
			t.Errorf("%s %q is %q, want %q", request[0], request[1], got, want)
		}
	}
}
