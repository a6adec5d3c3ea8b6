package nomad

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
)

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
		{"GET", "/v1/agent/members"}:               "list servers",
		{"GET", "/.well-known/jwks.json"}:          "list keys",
		{"GET", "/v1/node/0a1b"}:                   "read node",
		{"GET", "/v1/<script>/" + "\x1b[31m/evil"}: "other",
	} {
		if got := callName(request[0], request[1]); got != want {
			t.Errorf("%s %q is %q, want %q", request[0], request[1], got, want)
		}
	}
}

// A silent Nomad is reported as one that does not answer, and a caller that went away is
// not reported.
func TestCallsAreToldOf(t *testing.T) { synctest.Test(t, testCallsAreToldOf) }

func testCallsAreToldOf(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/job/silent" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	var mu sync.Mutex
	var told []string
	c := answered(t, answer, func(c *Config) {
		c.Called = func(call string, status int, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(call, " ", status))
		}
	})
	ended := func(ctx context.Context, id string) error {
		_, err := c.Ended(ctx, router.Runner{ID: id, NomadJob: id})
		return err
	}
	late, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	off, callOff := context.WithCancel(t.Context())
	callOff()
	if err := ended(t.Context(), "gone"); err != nil {
		t.Error(err)
	}
	if ended(late, "silent") == nil || ended(off, "silent") == nil {
		t.Error("a silent Nomad answered")
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"read job 404", fmt.Sprint("read job ", router.TimedOut)}, told); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
