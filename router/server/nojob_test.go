package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
)

const idleRules = `version: 1
scope: len(labels) == 0 or has("nomad")
rules:
  - { name: linux, jobspec: docker-linux, runner: { scope: organization RUNNER } }
`

// newIdleYard is a yard in whose rules RUNNER is replaced.
func newIdleYard(t *testing.T, runner string) *yard {
	t.Helper()
	return newYard(t, routertest.Config{
		Rules: strings.Replace(idleRules, "RUNNER", runner, 1), Hub: githubsim.Config{Groups: map[int64]string{1: "Default", 7: "gpu"}},
	})
}

// idle returns a job that waits because GitHub gave its runners nothing, at a try; 0: at any.
func (y *yard) idle(id int64, try int) router.Job {
	y.T.Helper()
	for range 5 * 60 {
		time.Sleep(time.Minute)
		j, err := y.Store.Job(y.T.Context(), id)
		must(y.T, err)
		if j.Cause == router.CauseNoJob && (try == 0 || j.Try == try) {
			return j
		}
	}
	y.T.Fatalf("job %d does not wait for GitHub to give its runner a job", id)
	return router.Job{}
}

// GitHub keeps a job from a runner that is there for it, and the job's reason says why.
func TestAnIdleRunnersJobSaysWhatGitHubKnows(t *testing.T) {
	t.Parallel()
	plain := githubsim.JobSpec{Labels: []string{"nomad"}, Private: true}
	another := githubsim.JobSpec{Labels: []string{"nomad"}, Private: true, Group: "elsewhere"}
	down := func(status int) func(*yard) {
		return func(y *yard) {
			y.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "runner-groups"})
		}
	}
	for _, tt := range []struct {
		name, runner string
		job          githubsim.JobSpec
		set          func(*yard)
		want         []string
	}{
		{"the group is for other repositories", ", group: gpu", plain, func(y *yard) {
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", Selected: []string{"acme/api"}})
		}, []string{"runner group gpu of organization acme does not allow acme/web: allow it on GitHub (Settings, Actions, Runner groups, gpu), or name another group in the rule"}},
		{"the group, by its ID", ", group: 7", plain, func(y *yard) {
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", Selected: []string{"acme/api"}})
		}, []string{"runner group gpu of organization acme does not allow acme/web"}},
		{"the group is for private repositories", ", group: gpu", githubsim.JobSpec{Labels: []string{"nomad"}}, func(y *yard) {
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", NoPublic: true})
		}, []string{"runner group gpu of organization acme does not allow public repositories, and so not acme/web"}},
		{"the group is for other workflows", ", group: gpu", plain, func(y *yard) {
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", Workflows: []string{"acme/web/.github/workflows/deploy.yml@refs/heads/main"}})
		}, []string{"runner group gpu takes only jobs of the workflows acme/web/.github/workflows/deploy.yml@refs/heads/main: "}},
		{"the job asks for another group", "", another, nil,
			[]string{"runner group Default allows acme/web, the runner has the job's labels", "no approval", "concurrency group", "max-parallel", "or the job asks for another group"}},
		{"the job asks for another group alone", ", group: gpu", githubsim.JobSpec{Private: true, Group: "elsewhere"}, nil,
			[]string{"the job asks for a runner group alone, and GitHub does not say for which: the runner is in gpu, which allows acme/web"}},
		{"the repository's own runner", "", another, func(y *yard) {
			y.App.Reload(routertest.Parse(y.T, strings.Replace(idleRules, "organization RUNNER", "repository", 1)), router.RulesVersion{})
		}, []string{"the runner has the job's labels", "max-parallel", "or not let acme/web use self-hosted runners (Settings, Actions, General, Runners)"}},
		{"GitHub does not tell: 403", "", another, down(403), []string{"the usual causes are that runner group 1 does not allow acme/web or its workflow", "GitHub did not say whether the group allows it: ", "answered 403", "Self-hosted runners (write)"}},
		{"GitHub does not tell: 404", "", another, down(404), []string{"the usual causes", "answered 404"}},
		{"GitHub does not tell: 409", "", another, down(409), []string{"the usual causes", "answered 409"}},
		{"GitHub does not tell: 422", "", another, down(422), []string{"the usual causes", "answered 422"}},
		{"GitHub does not tell: 500", "", another, down(500), []string{"the usual causes", "answered 500"}},
		{"GitHub does not tell: HTML", "", another, down(502), []string{"the usual causes", "answered 502"}},
		{"the runner is not there", "", plain, func(y *yard) {
			y.Run = func(ctx context.Context, _ nomadsim.Task) int { <-ctx.Done(); return 130 }
		}, []string{"the runner has not come online there: can its node reach GitHub"}},
		{"the runner has other labels", ", registration: token", plain, func(y *yard) {
			y.Run = func(ctx context.Context, task nomadsim.Task) int {
				token, _, _ := strings.Cut(task.Artifacts["secrets/runner.jit"], "\n")
				jit, err := y.GitHub.Register(githubsim.Registration{URL: task.Env["NOMAD_META_RUNNER_URL"], Token: token, Name: task.Env["NOMAD_META_RUNNER_NAME"], Labels: []string{"old", "linux"}})
				if err == nil {
					err = y.GitHub.Connect(ctx, jit)
				}
				_ = err // it is removed while it waits
				return 1
			}
		}, []string{`the runner lacks the job's label "nomad" there, and has the labels old, linux`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newIdleYard(t, tt.runner)
				if tt.set != nil {
					tt.set(y)
				}
				tt.job.Owner, tt.job.Repo = "acme", "web"
				id := y.GitHub.Queue(t.Context(), tt.job)
				time.Sleep(12 * time.Minute)
				j, err := y.Store.Job(t.Context(), id)
				must(t, err)
				if j.State != router.Retrying || j.Cause != router.CauseNoJob {
					t.Fatalf("it is %s (%s): %s", j.State, j.Cause, j.Reason)
				}
				for _, want := range append(tt.want, "GitHub gave its runner no job in 10m, although the job is still queued: ", fmt.Sprintf("or at once by switchyard jobs retry %d", id)) {
					if !strings.Contains(j.Reason, want) {
						t.Errorf("the reason is %q; want %q", j.Reason, want)
					}
				}
				if d := time.Until(j.DueAt); d < 7*time.Minute || d > 10*time.Minute {
					t.Errorf("it is due in %v, want 10 minutes after the runner was given up", d)
				}
			})
		})
	}
}

// A limit that the question about the group hits does not keep the runner.
func TestAnIdleRunnerGoesThoughGitHubLimitsTheQuestionWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newIdleYard(t, ", group: gpu")
		y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", Selected: []string{"acme/api"}})
		id := y.queue(time.Minute)
		time.Sleep(5 * time.Minute)
		y.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 429, Path: "runner-groups"})
		j := y.idle(id, 0)
		if n := len(y.GitHub.Runners()); !strings.Contains(j.Reason, "the usual causes are that runner group gpu") || n != 0 {
			t.Errorf("with %d runners on GitHub it says: %s", n, j.Reason)
		}
	})
}

// Other failures before do not make the first wait longer.
func TestTheWaitsGrowWithIdleRunnersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newIdleYard(t, "")
		y.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 500, Path: "generate-jitconfig"})
		id := y.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad"}, Group: "elsewhere"})
		time.Sleep(10 * time.Minute)
		j, err := y.Store.Job(t.Context(), id)
		must(t, err)
		if j.Failures < 5 {
			t.Fatalf("it has failed %d times: %s", j.Failures, j.Reason)
		}
		y.GitHub.SetFaults(githubsim.Faults{})
		j = y.idle(id, 0)
		if d := j.DueAt.Sub(j.UpdatedAt); d != 10*time.Minute {
			t.Errorf("after %d failures and one idle runner it waits %v", j.Failures, d)
		}
	})
}

// A job whose state changes on GitHub waits no longer, nor do jobs for which the rules change.
func TestAChangeEndsTheWaitAfterAnIdleRunner(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, y *yard, id int64){
		"GitHub holds it for an approval, and lets it go": func(t *testing.T, y *yard, id int64) {
			must(t, y.GitHub.Protect(id))
			routertest.AwaitJob(t, y.Store, id, in(router.Held))
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu"})
			must(t, y.GitHub.Approve(id))
		},
		"the rules name another group": func(_ *testing.T, y *yard, _ int64) {
			y.App.Reload(routertest.Parse(y.T, strings.Replace(idleRules, "RUNNER", "", 1)), router.RulesVersion{})
		},
		"somebody retries it": func(t *testing.T, y *yard, id int64) {
			y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu"})
			must(t, y.App.RetryJob(t.Context(), id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newIdleYard(t, ", group: gpu")
				y.GitHub.SetGroup(7, githubsim.Group{Name: "gpu", Selected: []string{"acme/api"}})
				id := y.queue(time.Second)
				y.idle(id, 4) // it waits 40 minutes
				changed := time.Now()
				change(t, y, id)
				j := routertest.AwaitJob(t, y.Store, id, in(router.Completed))
				if took := j.CompletedAt.Sub(changed); took > 2*time.Minute || j.Conclusion != "success" {
					t.Errorf("it ended as %q %v after the change", j.Conclusion, took)
				}
			})
		})
	}
}

// GitHub calls the jobs of a matrix queued that its max-parallel holds back, and hands out one
// when another ends: that one does not wait for hours.
func TestAJobsEndGivesOneOfItsRunARunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newIdleYard(t, "")
		spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"nomad"}, Duration: 45 * time.Minute}
		first := y.GitHub.Queue(t.Context(), spec)
		j, _ := y.GitHub.Job(first)
		spec.RunID, spec.Group = j.RunID, "elsewhere"
		held := []int64{y.GitHub.Queue(t.Context(), spec), y.GitHub.Queue(t.Context(), spec)}
		spec.RunID = 0
		stranger := y.GitHub.Queue(t.Context(), spec)
		time.Sleep(44 * time.Minute)
		before := map[int64]int{}
		for _, id := range append(held, stranger) {
			want := router.CauseSiblings
			if id == stranger {
				want = router.CauseNoJob
			}
			if j, err := y.Store.Job(t.Context(), id); err != nil || j.Cause != want || !strings.Contains(j.Reason, "GitHub gave its runner no job in 10m") {
				t.Fatalf("job %d is %s: %s (%v)", id, j.State, j.Reason, err)
			}
			before[id] = len(y.Runners(id))
		}
		time.Sleep(2 * time.Minute)
		if j, err := y.Store.Job(t.Context(), first); err != nil || j.State != router.Completed {
			t.Fatalf("the first job is %s (%v)", j.State, err)
		}
		more := 0
		for _, id := range held {
			more += len(y.Runners(id)) - before[id]
		}
		if more != 1 || len(y.Runners(stranger)) != before[stranger] {
			t.Errorf("the jobs of the run got %d runners when another ended, and one of another run %d; want one and none", more, len(y.Runners(stranger))-before[stranger])
		}
	})
}

// An approval that GitHub waits for is not taken for an idle runner, though nobody told of it.
func TestAJobThatWaitsForAnApprovalIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newIdleYard(t, "")
		y.GitHub.SetGroup(1, githubsim.Group{Name: "Default", Selected: []string{"acme/api"}})
		id := y.queue(time.Second)
		time.Sleep(time.Minute)
		y.Deliveries(false)
		must(t, y.GitHub.Protect(id))
		time.Sleep(3 * time.Hour)
		j, err := y.Store.Job(t.Context(), id)
		must(t, err)
		if j.State != router.Held || j.Cause != router.CauseApproval || len(y.Runners(id)) != 1 || len(y.GitHub.Runners()) != 0 {
			t.Errorf("it is %s (%s), after %d runners, of which GitHub has %d: %s", j.State, j.Cause, len(y.Runners(id)), len(y.GitHub.Runners()), j.Reason)
		}
	})
}
