package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

const verifiedRules = `
rules:
  - { name: public, if: not repo.private, deny: public repositories get no runner }
  - { name: linux, jobspec: docker-linux, runner: { scope: organization, verify: true } }
`

// ask asks whether a runner may serve a job, as its hook does.
func ask(w *routertest.World, token, repo, run, attempt string) (status int, body string) {
	w.T.Helper()
	form := url.Values{"repository": {repo}, "run_id": {run}, "run_attempt": {attempt}}
	req, err := http.NewRequestWithContext(w.T.Context(), http.MethodPost, "http://"+w.App.Addr()+router.VerifyPath, strings.NewReader(form.Encode()))
	must(w.T, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := w.Net.Once().Do(req)
	must(w.T, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(w.T, err)
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// A verified is what a runner's hook was told about its job.
type verified struct {
	token, repo, run, body string
	status                 int
}

// hooked makes the world's runners ask about the job that GitHub gives them, one of jobs, until
// they know. They end a job that they may not serve.
func hooked(w *routertest.World, jobs func() []int64) (told func(job int64) verified) {
	var mu sync.Mutex
	all := map[int64]verified{}
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan int, 1)
		go func() { ended <- w.Connect(ctx, task) }()
		for ctx.Err() == nil {
			for _, id := range jobs() {
				j, ok := w.GitHub.Job(id)
				if !ok || !router.IsNameOf(j.RunnerName, task.JobID) || j.Status != "in_progress" {
					continue
				}
				v := verified{token: task.Env["NOMAD_META_SWITCHYARD_VERIFY_TOKEN"], repo: j.Owner + "/" + j.Repo, run: strconv.FormatInt(j.RunID, 10)}
				for v.status == 0 || v.status == http.StatusServiceUnavailable {
					v.status, v.body = ask(w, v.token, v.repo, v.run, "1")
					time.Sleep(time.Second)
				}
				mu.Lock()
				all[id] = v
				mu.Unlock()
				if v.status != http.StatusOK {
					stop()
				}
				return <-ended
			}
			select {
			case code := <-ended:
				return code
			case <-time.After(10 * time.Millisecond):
			}
		}
		return <-ended
	}
	return func(job int64) verified {
		mu.Lock()
		defer mu.Unlock()
		return all[job]
	}
}

// GitHub gives a runner of an organization to a job that the rules deny. The runner asks, and
// is told to end it; the answer stays the same, and the job that it was for gets another.
func TestAStolenRunnerServesNoStranger(t *testing.T) {
	bubble(t, testAStolenRunnerServesNoStranger)
}

func testAStolenRunnerServesNoStranger(t *testing.T) {
	w := newWorld(t, verifiedRules)
	var mu sync.Mutex
	var jobs []int64
	told := hooked(w, func() []int64 {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(jobs)
	})
	w.Start()
	queue := func(repo string, private bool) int64 {
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: repo, Private: private, Labels: []string{"self-hosted", "linux"}, Duration: time.Minute})
		mu.Lock()
		defer mu.Unlock()
		jobs = append(jobs, id)
		return id
	}
	stranger := queue("open", false)
	w.Await(stranger, in(router.Denied))
	own := queue("web", true)
	w.Await(stranger, in(router.Completed))
	if j := w.Await(own, in(router.Completed)); j.Conclusion != "success" || j.Try != 2 {
		t.Errorf("the job that lost its runner ended as %q at try %d, want success at the second", j.Conclusion, j.Try)
	}

	v := told(stranger)
	want := fmt.Sprintf(`this runner of the rule linux may not serve the job "build" of run %s of acme/open: it is denied: public repositories get no runner`, v.run)
	if v.status != http.StatusForbidden || v.body != want {
		t.Errorf("the runner was told %d %q, want 403 %q", v.status, v.body, want)
	}
	if ok := told(own); ok.status != http.StatusOK {
		t.Errorf("the next runner was told %d %q about its own job", ok.status, ok.body)
	}
	if status, body := ask(w, v.token, strings.ToUpper(v.repo), v.run, "1"); status != v.status || body != v.body {
		t.Errorf("the same question got %d %q, want the same answer", status, body)
	}
	for name, tc := range map[string]struct {
		token, repo, run string
		want             int
	}{
		"a token that is used up":     {v.token, "acme/web", told(own).run, http.StatusGone},
		"a token that nobody has":     {"guess", v.repo, v.run, http.StatusUnauthorized},
		"no token":                    {"", v.repo, v.run, http.StatusUnauthorized},
		"no question":                 {v.token, v.repo, "-1", http.StatusBadRequest},
		"a repository that is none":   {v.token, "acme", v.run, http.StatusBadRequest},
		"a repository that is longer": {v.token, "acme/" + strings.Repeat("a", 200), v.run, http.StatusBadRequest},
	} {
		if status, body := ask(w, tc.token, tc.repo, tc.run, "1"); status != tc.want {
			t.Errorf("%s: %d %q, want %d", name, status, body, tc.want)
		}
	}
	audits, err := w.Store.Audits(t.Context(), 0, 100)
	must(t, err)
	n := 0
	for _, a := range audits {
		if a.Did == "gave a runner a job that its rule may not serve" && strings.HasPrefix(a.What, "runners/gha-") && a.Result == want {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the audit trail has it %d times, want once: %+v", n, audits)
	}
}

// What GitHub gives a runner may not be known yet, and two jobs of a run may have the same
// labels and not the same rule. GitHub's word of which job it has decides then.
func TestAVerificationWaitsForWhatIsNotKnown(t *testing.T) {
	virtual(t, "which job of a run it is", func(t *testing.T) {
		w := newWorld(t, `
rules:
  - { name: release, if: job.name == "release", deny: releases have runners of their own }
  - { name: linux, jobspec: docker-linux, runner: { verify: true } }
`)
		w.Run = func(context.Context, nomadsim.Task) int { time.Sleep(time.Hour); return 0 }
		w.Start()
		spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}}
		id := w.GitHub.Queue(t.Context(), spec)
		w.Await(id, func(j router.Job) bool { return !j.DispatchedAt.IsZero() })
		j, _ := w.GitHub.Job(id)
		spec.RunID, spec.Name = j.RunID, "release"
		w.Await(w.GitHub.Queue(t.Context(), spec), in(router.Denied))
		info, _, err := w.API.Jobs().Info(w.Runners(id)[0].NomadJob, nil)
		must(t, err)
		token, run := info.Meta["SWITCHYARD_VERIFY_TOKEN"], strconv.FormatInt(j.RunID, 10)
		if status, body := ask(w, token, "acme/web", run, "1"); status != http.StatusServiceUnavailable || !strings.Contains(body, "GitHub has not said yet which job of run") {
			t.Errorf("before GitHub says which job it is: %d %q", status, body)
		}
		if status, body := ask(w, token, "acme/web", "4711", "1"); status != http.StatusServiceUnavailable || !strings.Contains(body, "does not know a job of run 4711 of acme/web") {
			t.Errorf("about a run that is not known: %d %q", status, body)
		}
		claimed := eventuallyName(t, w, id)
		must(t, w.Receive(t.Context(), router.Delivery{
			Action: "in_progress", ReceivedAt: time.Now(), RunnerID: 0,
			Job: router.Job{ID: id, RunID: j.RunID, Attempt: 1, Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true}, Name: "build", Labels: spec.Labels, RunnerName: claimed},
		}))
		if status, body := ask(w, token, "acme/web", run, "1"); status != http.StatusOK {
			t.Errorf("when GitHub has said so: %d %q", status, body)
		}
		if status, _ := ask(w, token, "acme/web", run, "2"); status != http.StatusGone {
			t.Errorf("about another attempt with the same token: %d, want 410", status)
		}
	})
	virtual(t, "rules that do not ask for it", func(t *testing.T) {
		w := newWorld(t, plainRule)
		w.Start()
		id := w.Queue("self-hosted", "linux")
		w.Await(id, in(router.Completed))
		if info, _, err := w.API.Jobs().Info(w.Runners(id)[0].NomadJob, nil); err != nil || info.Meta["SWITCHYARD_VERIFY_TOKEN"] != "" || info.Meta["SWITCHYARD_KEEP"] != "" {
			t.Errorf("its meta is %v, %v", info.Meta, err)
		}
	})
}

// eventuallyName returns the name of a job's runner on GitHub.
func eventuallyName(t *testing.T, w *routertest.World, id int64) (name string) {
	t.Helper()
	eventually(t, "its runner has a name on GitHub", func() bool {
		name = w.Runners(id)[0].Name
		return w.Runners(id)[0].GitHubID != 0
	})
	return name
}

const keptRules = `
version: 1
labels: { self-hosted: {}, linux: {}, debug: { debug: { keep: 30m } } }
rules:
  - { name: linux, jobspec: docker-linux }
`

// The runner of a job that failed stays for as long as its label says, and everybody is told
// how to get in. That of another is stopped at once.
func TestTheRunnerOfAFailedJobIsKept(t *testing.T) { bubble(t, testTheRunnerOfAFailedJobIsKept) }

func testTheRunnerOfAFailedJobIsKept(t *testing.T) {
	w := routertest.New(t, routertest.Config{Rules: keptRules, Network: &network, Hub: githubsim.Config{FirstID: 1000}})
	w.Run = func(ctx context.Context, task nomadsim.Task) int { // the start script
		code := w.Connect(ctx, task)
		if keep, _ := strconv.Atoi(task.Env["NOMAD_META_SWITCHYARD_KEEP"]); keep > 0 && code == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(keep) * time.Second):
			}
		}
		return code
	}
	w.Start(func(c *server.Config) { c.Tick = 5 * time.Second })
	run := func(conclusion string, labels ...string) int64 {
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: append(labels, "self-hosted", "linux"), Conclusion: conclusion})
		w.Await(id, in(router.Completed))
		return id
	}
	began := time.Now()
	good, plain := run("success", "debug"), run("failure")
	for _, id := range []int64{good, plain} {
		eventually(t, "a runner without a reason to stay has ended", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
		if strings.Contains(w.Runners(id)[0].Reason, "stays") {
			t.Errorf("runner of job %d: %s", id, w.Runners(id)[0].Reason)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("they ended after %s", took)
	}

	bad := run("failure", "debug")
	failed := time.Now()
	time.Sleep(29 * time.Minute)
	r := w.Runners(bad)[0]
	want := fmt.Sprintf("its job %d failed; it stays until ", bad)
	shell := ": nomad alloc exec -namespace default -task runner -job " + r.NomadJob + " /bin/bash"
	if r.State != router.RunnerFinished || !r.EndedAt.IsZero() || !strings.HasPrefix(r.Reason, want) || !strings.HasSuffix(r.Reason, shell) || w.Gone(r.NomadJob) {
		t.Errorf("after 29 minutes it is %s: %s, and its Nomad job has ended: %v; want %s…%s", r.State, r.Reason, w.Gone(r.NomadJob), want, shell)
	}
	eventually(t, "it ended", func() bool { return !w.Runners(bad)[0].EndedAt.IsZero() })
	if took := time.Since(failed); took < 29*time.Minute || took > 33*time.Minute {
		t.Errorf("it ended %s after its job, want half an hour", took)
	}
	audits, err := w.Store.Audits(t.Context(), 0, 100)
	must(t, err)
	if len(audits) != 1 || audits[0].Did != "kept the runner of a failed job" || audits[0].What != "runners/"+r.ID || !strings.HasSuffix(audits[0].Result, shell) {
		t.Errorf("the audit trail has %+v", audits)
	}
}

// A runner that does not end by itself is stopped when its time is over.
func TestAKeptRunnerIsStoppedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := routertest.New(t, routertest.Config{Rules: keptRules, Network: &network, Hub: githubsim.Config{FirstID: 1000}})
		w.Run = func(ctx context.Context, task nomadsim.Task) int {
			w.Connect(ctx, task)
			<-ctx.Done()
			return 0
		}
		w.Start(func(c *server.Config) { c.Tick = 5 * time.Second })
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux", "debug"}, Conclusion: "failure"})
		w.Await(id, in(router.Completed))
		time.Sleep(30 * time.Minute)
		if !w.Runners(id)[0].EndedAt.IsZero() {
			t.Error("it was stopped too early")
		}
		time.Sleep(10 * time.Minute)
		if w.Runners(id)[0].EndedAt.IsZero() {
			t.Error("it still runs")
		}
	})
}
