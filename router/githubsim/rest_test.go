package githubsim

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// names lists the key of each object in a list.
func names(t *testing.T, list any, key string) []string {
	t.Helper()
	all := []string{}
	for _, o := range list.([]any) {
		all = append(all, fmt.Sprint(o.(map[string]any)[key]))
	}
	return all
}

func TestGenerateJITConfigRefusesWhatGitHubRefuses(t *testing.T) {
	s := newSim(t, Config{})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	s.AddRepo(Repo{Owner: "jo", Name: "dots", User: true})
	s.jit("/repos/acme/web", "taken", "x")
	long := `"x"` + strings.Repeat(`,"x"`, 100)
	for _, tt := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"a taken name", "/repos/acme/web", `{"name": "taken", "runner_group_id": 1, "labels": ["x"]}`, 409, "Already exists - A runner with the name taken already exists."},
		{"a taken name in another case", "/repos/ACME/Web", `{"name": "Taken", "runner_group_id": 1, "labels": ["x"]}`, 409, "Already exists"},
		{"the same name in another scope", "/orgs/acme", `{"name": "taken", "runner_group_id": 1, "labels": ["x"]}`, 201, ""},
		{"an unknown repository", "/repos/acme/none", `{"name": "a", "runner_group_id": 1, "labels": ["x"]}`, 404, "Not Found"},
		{"an unknown organization", "/orgs/none", `{"name": "a", "runner_group_id": 1, "labels": ["x"]}`, 404, "Not Found"},
		{"a user where an organization must be", "/orgs/jo", `{"name": "a", "runner_group_id": 1, "labels": ["x"]}`, 404, "Not Found"},
		{"an unknown group", "/orgs/acme", `{"name": "a", "runner_group_id": 9, "labels": ["x"]}`, 404, "Not Found"},
		{"no name", "/repos/acme/web", `{"runner_group_id": 1, "labels": ["x"]}`, 422, "name"},
		{"no group", "/repos/acme/web", `{"name": "a", "labels": ["x"]}`, 422, "runner_group_id"},
		{"no labels", "/repos/acme/web", `{"name": "a", "runner_group_id": 1}`, 422, "labels"},
		{"an empty list of labels", "/repos/acme/web", `{"name": "a", "runner_group_id": 1, "labels": []}`, 422, "between 1 and 100"},
		{"101 labels", "/repos/acme/web", `{"name": "a", "runner_group_id": 1, "labels": [` + long + `]}`, 422, "between 1 and 100"},
		{"a blank label", "/repos/acme/web", `{"name": "a", "runner_group_id": 1, "labels": [" "]}`, 422, "blank"},
		{"a blank name", "/repos/acme/web", `{"name": " ", "runner_group_id": 1, "labels": ["x"]}`, 422, "blank"},
		{"a group of the wrong type", "/repos/acme/web", `{"name": "a", "runner_group_id": "1", "labels": ["x"]}`, 422, "runner_group_id"},
		{"a label of the wrong type", "/repos/acme/web", `{"name": "a", "runner_group_id": 1, "labels": [1]}`, 422, "labels"},
		{"no JSON", "/repos/acme/web", `{`, 400, "Problems parsing JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := s.call("POST", tt.path+"/actions/runners/generate-jitconfig", tt.body)
			if status != tt.status || !strings.Contains(fmt.Sprint(answer), tt.says) {
				t.Errorf("generate-jitconfig = %d %v, want %d with %q", status, answer, tt.status, tt.says)
			}
		})
	}
}

func TestRunnersAreListedFoundAndDeletedInTheirScope(t *testing.T) {
	s := newSim(t, Config{})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	s.AddRepo(Repo{Owner: "acme", Name: "api"})
	s.jit("/repos/acme/web", "one", "x")
	s.jit("/repos/acme/web", "two", "x", "Y")
	s.jit("/orgs/acme", "three", "x")

	status, answer := s.call("GET", "/repos/acme/web/actions/runners?name=two", "")
	if status != http.StatusOK {
		t.Fatalf("list runners = %d %v, want 200", status, answer)
	}
	list := answer.(map[string]any)["runners"].([]any)
	if got := names(t, list, "name"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("runners named two = %v, want [two]", got)
	}
	two := list[0].(map[string]any)
	if two["status"] != "offline" || two["busy"] != false || two["ephemeral"] != true {
		t.Errorf("runner = %v, want it offline, idle and ephemeral", two)
	}
	if got := names(t, two["labels"], "name"); !slices.Equal(got, []string{"x", "Y"}) {
		t.Errorf("labels = %v, want [x Y]: a just-in-time runner gets no others", got)
	}
	path := fmt.Sprintf("/actions/runners/%v", two["id"])
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/repos/acme/web" + path, 200},
		{"GET", "/api/v3/repos/acme/web" + path, 200},
		{"GET", "/repos/acme/api" + path, 404},
		{"GET", "/orgs/acme" + path, 404},
		{"DELETE", "/orgs/acme" + path, 404},
		{"DELETE", "/repos/acme/web" + path, 204},
		{"GET", "/repos/acme/web" + path, 404},
		{"DELETE", "/repos/acme/web" + path, 404},
		{"GET", "/repos/acme/web/actions/runners/x", 404},
		{"GET", "/none", 404},
	} {
		if status, answer := s.call(tt.method, tt.path, ""); status != tt.status {
			t.Errorf("%s %s = %d %v, want %d", tt.method, tt.path, status, answer, tt.status)
		}
	}
	_, answer = s.call("GET", "/repos/acme/web/actions/runners", "")
	if got := names(t, answer.(map[string]any)["runners"], "name"); !slices.Equal(got, []string{"one"}) {
		t.Errorf("the repository's runners = %v, want [one]", got)
	}
}

func TestListsAreCutIntoPages(t *testing.T) {
	s := newSim(t, Config{})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	for i := range 5 {
		s.jit("/repos/acme/web", fmt.Sprint("r", i), "x")
	}
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"per_page=2", []string{"r0", "r1"}},
		{"per_page=2&page=3", []string{"r4"}},
		{"per_page=2&page=4", []string{}},
		{"per_page=100&page=9223372036854775807", []string{}},
		{"per_page=0&page=-1", []string{"r0", "r1", "r2", "r3", "r4"}},
	} {
		_, answer := s.call("GET", "/repos/acme/web/actions/runners?"+tt.query, "")
		if diff := cmp.Diff(tt.want, names(t, answer.(map[string]any)["runners"], "name")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.query, diff)
		}
		if total := answer.(map[string]any)["total_count"]; total != 5.0 {
			t.Errorf("%s: total_count = %v, want 5", tt.query, total)
		}
	}
}

func TestARunHasTheStateOfItsJobs(t *testing.T) {
	s := newSim(t, Config{})
	first := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Name: "one", Labels: []string{"x"}})
	j, _ := s.Job(first)
	second := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Name: "two", Labels: []string{"y"}, RunID: j.RunID})
	path := fmt.Sprintf("/repos/acme/web/actions/runs/%d", j.RunID)
	state := func(want string) {
		t.Helper()
		status, answer := s.call("GET", path, "")
		if status != http.StatusOK {
			t.Fatalf("GET the run = %d, want 200", status)
		}
		run := answer.(map[string]any)
		if got := fmt.Sprint(run["status"], " ", run["conclusion"]); got != want {
			t.Errorf("the run is %s, want %s", got, want)
		}
	}
	state("queued <nil>")
	_, answer := s.call("GET", path+"/jobs", "")
	if got := names(t, answer.(map[string]any)["jobs"], "name"); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the run's jobs = %v, want [one two]", got)
	}
	if err := s.Connect(t.Context(), s.jit("/repos/acme/web", "r1", "x")); err != nil {
		t.Fatal(err)
	}
	state("queued <nil>")
	if err := s.Cancel(second); err != nil {
		t.Fatal(err)
	}
	state("completed cancelled")
	for _, path := range []string{"/repos/acme/web/actions/runs/999", "/repos/acme/web/actions/jobs/999", "/repos/acme/web/actions/jobs/x"} {
		if status, _ := s.call("GET", path, ""); status != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, status)
		}
	}
}

func TestARunSaysWhatStartedIt(t *testing.T) {
	type run struct {
		event, actor, again, head string
		fork                      bool // the head repository is one
	}
	for _, tt := range []struct {
		name string
		job  JobSpec
		want run
	}{
		{"by default", JobSpec{}, run{"push", "octocat", "octocat", "acme/web", false}},
		{"a branch of a fork", JobSpec{Fork: true, Sender: "mona"}, run{"push", "mona", "mona", "acme/web", true}},
		{"a fork's pull request, run again", JobSpec{Event: "pull_request", Actor: "stranger", Head: "stranger"},
			run{"pull_request", "stranger", "octocat", "stranger/web", true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, Config{})
			tt.job.Owner, tt.job.Repo = "acme", "web"
			j, _ := s.Job(s.Queue(t.Context(), tt.job))
			_, answer := s.call("GET", fmt.Sprintf("/repos/acme/web/actions/runs/%d", j.RunID), "")
			r := answer.(map[string]any)
			head := r["head_repository"].(map[string]any)
			login := func(key string) string { return r[key].(map[string]any)["login"].(string) }
			got := run{r["event"].(string), login("actor"), login("triggering_actor"), head["full_name"].(string), head["fork"].(bool)}
			if got != tt.want {
				t.Errorf("the run is %+v, want %+v", got, tt.want)
			}
			if same := head["id"] == r["repository"].(map[string]any)["id"]; same != (tt.job.Head == "") {
				t.Errorf("the head repository is the run's own: %t", same)
			}
			if s.RunReads(j.RunID) != 1 || s.RunReads(j.RunID+100) != 0 {
				t.Errorf("RunReads = %d and %d for another, want 1 and 0", s.RunReads(j.RunID), s.RunReads(j.RunID+100))
			}
		})
	}
}

func TestTheTokenIsChecked(t *testing.T) {
	s := newServer(t, Config{Token: "right"})
	for header, want := range map[string]int{"Bearer right": 200, "token right": 200, "Bearer wrong": 401, "Basic right": 401, "": 401} {
		r := httptest.NewRequest("GET", "/rate_limit", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Authorization %q = %d, want %d", header, w.Code, want)
		}
	}
}

func TestTheRateLimitCountsAndComesBack(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s := newServer(t, Config{RateLimit: 2, Now: func() time.Time { return now }})
	get := func(path string) string {
		w := ask(t, s, "GET", path, "")
		return fmt.Sprint(w.Code, " ", w.Header().Get("X-RateLimit-Remaining"))
	}
	const runners = "/repos/acme/web/actions/runners"
	for i, want := range []string{"200 1", "200 0", "403 0", "403 0"} {
		if got := get(runners); got != want {
			t.Errorf("request %d = %s, want %s", i+1, got, want)
		}
	}
	if got, want := get("/rate_limit"), "200 0"; got != want {
		t.Errorf("GET /rate_limit = %s, want %s: it is free", got, want)
	}
	now = now.Add(time.Hour)
	if got, want := get(runners), "200 1"; got != want {
		t.Errorf("an hour later = %s, want %s", got, want)
	}
}
