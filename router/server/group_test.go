package server_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/rules"
)

const groupRules = `
scope: len(labels) == 0 or has("self-hosted")
rules:
  - { name: group, if: len(labels) == 0, jobspec: docker-linux, runner: { scope: organization, group: 7, registration: REGISTRATION } }
  - { name: linux, if: has("linux"), jobspec: docker-linux, runner: { scope: organization } }
`

// GitHub registers no runner without a label, and tells nobody which group a job asks for.
func TestAJobThatAsksForAGroupAloneIsServed(t *testing.T) {
	bubble(t, testAJobThatAsksForAGroupAloneIsServed)
}
func testAJobThatAsksForAGroupAloneIsServed(t *testing.T) {
	for _, registration := range []string{"jit", "token"} {
		w := newWorld(t, strings.Replace(groupRules, "REGISTRATION", registration, 1))
		if registration == "token" {
			w.Run = func(ctx context.Context, task nomadsim.Task) int {
				answer := strings.Split(task.Artifacts["secrets/runner.jit"], "\n")
				jit, err := w.GitHub.Register(githubsim.Registration{
					URL: task.Env["NOMAD_META_RUNNER_URL"], Token: answer[0], Group: answer[1], Name: task.Env["NOMAD_META_RUNNER_NAME"],
					Labels: strings.FieldsFunc(task.Env["NOMAD_META_RUNNER_LABELS"], func(r rune) bool { return r == ',' }),
				})
				if err == nil {
					err = w.GitHub.Connect(ctx, jit)
				}
				if err != nil {
					t.Error(err)
					return 1
				}
				return 0
			}
		}
		w.Start()
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Group: "gpu"})
		if j := w.Await(id, in(router.Completed)); j.Conclusion != "success" || j.Try != 1 {
			t.Errorf("%s: it ended as %q at try %d, want success at the first", registration, j.Conclusion, j.Try)
		}
		if j, _ := w.GitHub.Job(id); j.RunnerGroupName != "gpu" || len(w.Started()) != 1 {
			t.Errorf("%s: it ran in group %q, started %v", registration, j.RunnerGroupName, w.Started())
		}
	}
}

const namedGroupRules = `
scope: len(labels) == 0 or has("self-hosted")
rules:
  - { name: group, if: len(labels) == 0, jobspec: docker-linux, runner: { scope: organization, group: GPU-Runners } }
  - { name: linux, if: has("linux"), jobspec: docker-linux }
`

// A rule names a runner group as people do. GitHub is asked for its ID once, and again when
// that is gone, because somebody has made the group anew.
func TestARunnerRegistersInTheGroupThatItsRuleNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, namedGroupRules)
		w.GitHub.SetGroup(8, githubsim.Group{Name: "gpu-runners"})
		w.Start()
		run := func(group int64) {
			t.Helper()
			id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Group: "gpu-runners"})
			if j := w.Await(id, in(router.Completed)); j.Conclusion != "success" || j.Try != 1 || j.Decision.Runner.Group != "GPU-Runners" {
				t.Errorf("it ended as %q at try %d in group %q", j.Conclusion, j.Try, j.Decision.Runner.Group)
			}
			if j, _ := w.GitHub.Job(id); j.RunnerGroupID != group {
				t.Errorf("it ran in group %d, want %d", j.RunnerGroupID, group)
			}
		}
		run(8)
		w.GitHub.RemoveGroup(8)
		w.GitHub.SetGroup(9, githubsim.Group{Name: "gpu-runners"})
		run(9)
	})
}

// A group that does not exist is a mistake that somebody can mend, in the rules or on GitHub.
func TestAJobWaitsForAGroupThatDoesNotExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(namedGroupRules, "GPU-Runners", "gpu-runers", 1))
		w.GitHub.SetGroup(8, githubsim.Group{Name: "gpu-runners"})
		w.Start(func(c *server.Config) { c.Tick = 5 * time.Second }) // an hour passes
		id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Group: "gpu-runers"})
		j := w.Await(id, in(router.Retrying))
		const want = `organization acme has no runner group "gpu-runers"; it has gpu-runners, gpu, Default: name one that exists in the rule, or create it on GitHub`
		if j.Cause != router.CauseGitHubRefused || !strings.HasPrefix(j.Reason, want) {
			t.Errorf("it waits as %s: %s; want %s", j.Cause, j.Reason, want)
		}
		time.Sleep(time.Hour)
		if n := len(w.Started()); n != 0 {
			t.Errorf("%d runners were started for a group that does not exist", n)
		}
		other := w.Queue("self-hosted", "linux")
		if j := w.Await(other, in(router.Completed)); j.Try != 1 {
			t.Errorf("a job of another rule ended at try %d", j.Try)
		}
		w.GitHub.SetGroup(11, githubsim.Group{Name: "gpu-runers"})
		if j := w.Await(id, in(router.Completed)); j.Conclusion != "success" || len(w.Runners(id)) != 1 {
			t.Errorf("with the group it ended as %q, with %d runners", j.Conclusion, len(w.Runners(id)))
		}
	})
}

// What GitHub would refuse is known before a node is spent on it.
func TestNoRunnerIsStartedThatGitHubWouldNotRegister(t *testing.T) {
	bubble(t, testNoRunnerIsStartedThatGitHubWouldNotRegister)
}
func testNoRunnerIsStartedThatGitHubWouldNotRegister(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte(`
version: 1
scope: 'true'
labels: { self-hosted: {}, tok: { runner: { registration: token } }, grp: { runner: { group: 7 } }, "a,b": {} }
rules: [{ name: any, jobspec: docker-linux }]
`))
	must(t, err)
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Rules = set })
	for id, labels := range [][]string{1: {}, 2: {"self-hosted", "grp"}, 3: {"self-hosted", "tok", "a,b"}, 4: {"self-hosted", ""}} {
		if id == 0 {
			continue
		}
		r.deliver(delivery(int64(id), "queued", labels...))
		if j := r.await(int64(id), in(router.Unroutable)); strings.Contains(j.Reason, "GitHub refuses") {
			t.Errorf("%q: %s", labels, j.Reason)
		}
	}
	if r.nomad.count() != 0 || len(r.hub.asked()) != 0 {
		t.Errorf("%d Nomad jobs, %d configurations, want none", r.nomad.count(), len(r.hub.asked()))
	}
}
