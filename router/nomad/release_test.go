package nomad

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

// servers stands in for a Nomad with servers of some builds, "" for one that is down.
func servers(builds ...string) http.Handler {
	var members api.ServerMembers
	for _, build := range builds {
		m := &api.AgentMember{Name: "s.global", Status: "alive", Tags: map[string]string{"build": build}}
		if build == "" {
			m.Status, m.Tags["build"] = "failed", "0.1.0"
		}
		members.Members = append(members.Members, m)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/agent/members" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(members)
	})
}

func TestReleases(t *testing.T) {
	for _, tt := range []struct {
		builds      string
		want        string
		untried     string // part of what is said; "": nothing
		once, fails bool
	}{
		{builds: "2.0.5", want: "2.0.5", once: true},
		{builds: "2.0.6-dev", want: "2.0.6-dev", once: true},
		{builds: "2.0.1", want: "2.0.1", once: true},
		{builds: "2.0.0", want: "2.0.0"},
		{builds: "1.8.0", want: "1.8.0"},
		{builds: "1.11.5+ent", want: "1.11.5+ent"},
		{builds: "2.0.5 1.11.3 2.0.5", want: "1.11.3 to 2.0.5"},
		{builds: "2.0.5 ", want: "2.0.5", once: true},
		{builds: "1.7.7", want: "1.7.7", untried: "needs 1.8 or later"},
		{builds: "1.7.7 2.1.0", want: "1.7.7 to 2.1.0", untried: "needs 1.8 or later"},
		{builds: "1.8.0-beta.1", want: "1.8.0-beta.1"},
		{builds: "2.1.0", want: "2.1.0", untried: "was tried with 1.8 to 2.0", once: true},
		{builds: "2.0.9 3.0.0-rc.1", want: "2.0.9 to 3.0.0-rc.1", untried: "was tried with 1.8 to 2.0", once: true},
		{builds: "two", fails: true},
		{builds: "", fails: true},
	} {
		t.Run(tt.builds, func(t *testing.T) {
			client := answered(t, servers(strings.Split(tt.builds, " ")...))
			if got := client.registersOnce(t.Context()); got != tt.once {
				t.Errorf("it registers once: %t, want %t", got, tt.once)
			}
			r, err := client.Releases(t.Context())
			if (err != nil) != tt.fails {
				t.Fatalf("Releases = %v, %v", r, err)
			}
			if err != nil {
				return
			}
			if r.String() != tt.want {
				t.Errorf("they are %s, want %s", r, tt.want)
			}
			if got := r.Untried(); (got == "") != (tt.untried == "") || !strings.Contains(got, tt.untried) {
				t.Errorf("it says %q, want %q", got, tt.untried)
			}
		})
	}
}

// Nomad is asked once for its release, however many runners start, and a job is read
// back only where it must be: before 2.0.1, or when the token may not ask.
func TestAJobIsReadBackWhereItMustBe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		builds http.Handler
		reads  int32
	}{
		{"on 2.0.5 none", servers("2.0.5"), 0},
		{"on 1.11.3 each", servers("1.11.3"), 20},
		{"of an unknown release each", nomadtest.Answers{"": "403 Permission denied"}, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked, reads atomic.Int32
			client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v1/agent/members":
					asked.Add(1)
					tt.builds.ServeHTTP(w, r)
				case r.Method == http.MethodPut:
					_, _ = w.Write([]byte(`{"JobModifyIndex":7}`))
				default:
					reads.Add(1)
					_, _ = w.Write([]byte(`{"ID":"gha-77-1","CreateIndex":7,"Version":0,"Meta":{"SWITCHYARD_CLAIM_TOKEN":"the-token","GH_JOB_ID":"77"}}`))
				}
			}))
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					got, err := client.Start(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain"}))
					if err != nil || got.Existed || got.ClaimToken != "the-token" {
						t.Errorf("Start = %+v, %v", got, err)
					}
				})
			}
			group.Wait()
			if asked.Load() != 1 || reads.Load() != tt.reads {
				t.Errorf("Nomad was asked %d times for its release, and %d times for the job; want 1 and %d", asked.Load(), reads.Load(), tt.reads)
			}
		})
	}
}
