package server_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

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
	synctest.Test(t, testAJobThatAsksForAGroupAloneIsServed)
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

// What GitHub would refuse is known before a node is spent on it.
func TestNoRunnerIsStartedThatGitHubWouldNotRegister(t *testing.T) {
	synctest.Test(t, testNoRunnerIsStartedThatGitHubWouldNotRegister)
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
