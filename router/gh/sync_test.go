package gh_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
)

var acmeWeb = router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"}

func TestTheJobsOfUnfinishedRunsAreFound(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Sender: "mona", Labels: []string{"self-hosted", "gpu"}}
	first := s.Queue(t.Context(), spec)
	j, _ := s.Job(first)
	spec.RunID = j.RunID
	ended := s.Queue(t.Context(), spec) // in a run that goes on
	spec.RunID = 0
	done := s.Queue(t.Context(), spec)
	for _, id := range []int64{ended, done} {
		if err := s.Cancel(id); err != nil {
			t.Fatal(err)
		}
	}
	spec.Waiting = true
	waits := s.Queue(t.Context(), spec)
	s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "api"})
	spec.Waiting = false
	for range 60 {
		s.Queue(t.Context(), spec)
	}

	got := map[int64]router.Delivery{}
	did, err := c.Unfinished(t.Context(), router.Repo{Owner: "Acme", Name: "Web"}, 1000, func(d router.Delivery) error {
		got[d.Job.ID] = d
		return nil
	})
	// Five filters, one of them on two pages, and 62 runs.
	if want := (router.Unfinished{Runs: 62, Jobs: 63, Calls: 68}); err != nil || did != want {
		t.Errorf("Unfinished = %+v, %v, want %+v", did, err, want)
	}
	ofRun := map[int64]string{}
	if err := c.RunJobs(t.Context(), acmeWeb, j.RunID, func(d router.Delivery) error { ofRun[d.Job.ID] = d.Action; return nil }); err != nil {
		t.Error(err)
	}
	if want := map[int64]string{first: "queued", ended: "completed"}; !maps.Equal(ofRun, want) {
		t.Errorf("RunJobs reports %v, want %v", ofRun, want)
	}
	if err := c.RunJobs(t.Context(), acmeWeb, 1<<40, func(router.Delivery) error { return errors.New("none") }); err != nil {
		t.Errorf("the jobs of a run that is gone: %v", err)
	}
	j, _ = s.Job(first)
	want := router.Delivery{Source: router.SourceGitHub, Action: "queued", Status: "queued", ReceivedAt: got[first].ReceivedAt, Job: router.Job{
		ID: first, RunID: j.RunID, Attempt: 1, Name: "build", Workflow: "CI", Branch: "main", Sender: "mona", Labels: []string{"self-hosted", "gpu"},
		Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"},
		URL:  fmt.Sprintf("https://github.com/acme/web/actions/runs/%d/job/%d", j.RunID, first), SHA: got[first].Job.SHA,
	}}
	if diff := cmp.Diff(want, got[first]); diff != "" || len(want.Job.SHA) != 40 {
		t.Errorf("the first job (-want +got):\n%s", diff)
	}
	if d := got[ended]; d.Action != "completed" || d.Job.Conclusion != "cancelled" {
		t.Errorf("the job that ended is %s %q", d.Action, d.Job.Conclusion)
	}
	if d := got[waits]; d.Action != "queued" || d.Status != "waiting" {
		t.Errorf("the job that waits is %s, %s", d.Action, d.Status)
	}
	if _, ok := got[done]; ok {
		t.Error("a job of a run that ended is listed")
	}

	did, err = c.Unfinished(t.Context(), acmeWeb, 10, func(router.Delivery) error { return nil })
	if err != nil || did.Calls != 10 || !did.Cut {
		t.Errorf("Unfinished with 10 calls = %+v, %v, want it cut", did, err)
	}
	stop := errors.New("stop")
	if _, err = c.Unfinished(t.Context(), acmeWeb, 10, func(router.Delivery) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Unfinished = %v, want each's error", err)
	}
}

func TestWhetherARepositoryIsSeen(t *testing.T) {
	c, _ := simulated(t, githubsim.Config{Token: token})
	for name, want := range map[string]bool{"web": true, "none": false} {
		if sees, err := c.Sees(t.Context(), router.Repo{Owner: "acme", Name: name}); sees != want || err != nil {
			t.Errorf("Sees(%s) = %t, %v, want %t", name, sees, err, want)
		}
	}
	away := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusBadGateway, `{}`) }), nil)
	if sees, err := away.Sees(t.Context(), acmeWeb); sees || kind(err) != "retry" {
		t.Errorf("Sees = %t, %v, want an error: it is not known", sees, err)
	}
}

func TestTheRepositoriesOfEveryInstallationAreListed(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil)
	for i := range 60 {
		a.AddRepo(githubsim.Repo{Owner: "acme", Name: fmt.Sprintf("r%02d", i)})
	}
	list := func() (all []string, err error) {
		err = a.client.Repositories(t.Context(), func(r router.Repo) error {
			all = append(all, r.FullName)
			return nil
		})
		slices.Sort(all)
		return all, err
	}
	if all, err := list(); err != nil || len(all) != 0 {
		t.Errorf("Repositories = %v, %v, want none", all, err)
	}
	a.Install("acme")
	a.Install("beta", "api")
	if all, err := list(); err != nil || len(all) != 63 || all[62] != "beta/api" {
		t.Errorf("Repositories = %d, %v, want 63", len(all), err)
	}
	a.Suspend("acme", true)
	if all, err := list(); err != nil || len(all) != 1 {
		t.Errorf("Repositories = %v, %v, want beta's one", all, err)
	}
	c, _ := simulated(t, githubsim.Config{Token: token})
	if err := c.Repositories(t.Context(), func(router.Repo) error { return errors.New("one") }); err != nil {
		t.Errorf("Repositories of a token = %v", err)
	}
}

func TestListsThatMakeNoSenseAreRefused(t *testing.T) {
	const repo = `"repository": {"name": "web", "owner": {"login": "acme"}, "private": true, "fork": false}`
	list := func(ctx context.Context, runs, jobs, link string) error {
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/jobs") {
				answer(w, http.StatusOK, jobs)
				return
			}
			if link != "" {
				w.Header().Set("Link", link)
			}
			answer(w, http.StatusOK, runs)
		}), nil)
		_, err := c.Unfinished(ctx, acmeWeb, 100, func(router.Delivery) error { return nil })
		return err
	}
	run := func(repo string) string { return `{"total_count": 1, "workflow_runs": [{"id": 1, ` + repo + `}]}` }
	const jobs = `{"total_count": 1, "jobs": [{"id": 2, "run_id": 1, "name": "build", "status": "queued", "labels": []}]}`
	if err := list(t.Context(), run(repo), jobs, ""); err != nil {
		t.Fatalf("the good one = %v", err)
	}
	for name, err := range map[string]error{
		"no repository":              list(t.Context(), run(`"x": 1`), jobs, ""),
		"private or not":             list(t.Context(), run(strings.Replace(repo, `"private": true, `, "", 1)), jobs, ""),
		"an owner with a slash":      list(t.Context(), run(strings.Replace(repo, "acme", "../x", 1)), jobs, ""),
		"another visibility":         list(t.Context(), run(strings.Replace(repo, `"fork"`, `"visibility": "?", "fork"`, 1)), jobs, ""),
		"a job of another run":       list(t.Context(), run(repo), strings.Replace(jobs, `"run_id": 1`, `"run_id": 3`, 1), ""),
		"a job without ID":           list(t.Context(), run(repo), strings.Replace(jobs, `"id": 2, `, "", 1), ""),
		"more than was asked for":    list(t.Context(), `{"workflow_runs": [{}`+strings.Repeat(",{}", 50)+`]}`, jobs, ""),
		"another page as the next":   list(t.Context(), run(repo), jobs, `<https://api.github.com/x?page=9>; rel="next"`),
		"something that is not JSON": list(t.Context(), "<html>", jobs, ""),
	} {
		if kind(err) != "retry" {
			t.Errorf("%s: %v, want an error that is worth a retry", name, err)
		}
	}
	if err := list(t.Context(), run(repo), jobs, `<https://api.github.com/x?page=2>; rel="next"`); err != nil && !strings.Contains(err.Error(), "next") {
		t.Errorf("a list without end = %v", err)
	}
}
