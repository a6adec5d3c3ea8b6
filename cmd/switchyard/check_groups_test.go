package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/router/nomadsim"
)

const groupedRules = `version: 1
labels: { self-hosted: {}, linux: {}, gpu: {}, big: {} }
defaults: { runner: { scope: organization } }
rules:
  - { name: gpu, if: has("gpu"), jobspec: docker-linux, runner: { group: gpu-runners } }
  - { name: big, if: has("big"), jobspec: docker-linux, runner: { scope: enterprise, enterprise: big-corp, group: 8 } }
  - { name: own, if: has("linux"), jobspec: docker-linux, runner: { scope: repository } }
`

// A groupCheck runs check for rules.yaml, history.jsonl and token, on a simulated Nomad and GitHub.
type groupCheck struct {
	t      *testing.T
	dir    string
	github *githubsim.Server
	url    string
}

func newGroupCheck(t *testing.T) *groupCheck {
	nomad := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	t.Cleanup(nomad.Close)
	fleet := httptest.NewServer(nomad)
	t.Cleanup(fleet.Close)
	t.Setenv("NOMAD_ADDR", fleet.URL)
	c := &groupCheck{t: t, dir: t.TempDir(), github: githubsim.New(githubsim.Config{
		Token: "t", Enterprise: "big-corp", Groups: map[int64]string{1: "Default", 7: "GPU-Runners", 8: "big"},
	})}
	t.Cleanup(c.github.Close)
	for _, repo := range []string{"web", "api", "docs"} {
		c.github.AddRepo(githubsim.Repo{Owner: "acme", Name: repo, Private: true})
	}
	api := httptest.NewServer(githubtest.Contract(t, c.github))
	t.Cleanup(api.Close)
	c.url = api.URL
	write(t, c.file("rules.yaml"), groupedRules)
	write(t, c.file("token"), "t\n")
	c.history("gpu WEB", "gpu web", "gpu api", "gpu docs", "big web", "linux web", "ubuntu-latest web")
	return c
}

func (c *groupCheck) file(name string) string { return filepath.Join(c.dir, name) }

// history writes jobs, each a label and a repository.
func (c *groupCheck) history(jobs ...string) {
	var lines strings.Builder
	for _, job := range jobs {
		label, repo, _ := strings.Cut(job, " ")
		fmt.Fprintf(&lines, `{"labels": ["self-hosted", %q], "repo": {"full_name": "acme/%s", "private": true}}`+"\n", label, repo)
	}
	write(c.t, c.file("history.jsonl"), lines.String())
}

// check runs check with more arguments, and returns its exit code and what it printed.
func (c *groupCheck) check(args ...string) (code int, said string) {
	var out bytes.Buffer
	code = run(c.t.Context(), append([]string{"check", c.file("rules.yaml")}, args...), nil, &out, &out)
	return code, out.String()
}

func (c *groupCheck) live(args ...string) (code int, said string) {
	return c.check(append([]string{"--live", "--history", c.file("history.jsonl"), "--github-token-file", c.file("token"), "--github-url", c.url}, args...)...)
}

// The rules name runner groups, and GitHub says whether they are there for the jobs that there were.
func TestCheckAsksGitHubAboutRunnerGroups(t *testing.T) {
	c := newGroupCheck(t)
	want := func(what string, code, wantCode int, said string, words ...string) {
		t.Helper()
		for _, w := range words {
			if absent, not := strings.CutPrefix(w, "!"); not == strings.Contains(said, absent) {
				t.Errorf("%s: it printed\n%s\nwant %q", what, said, w)
			}
		}
		if code != wantCode {
			t.Errorf("%s: exit code %d, want %d:\n%s", what, code, wantCode, said)
		}
	}
	code, said := c.live()
	want("all groups are open", code, exitYes, said, "no faults, 3 rules", "!group")
	if n := c.github.Traffic().Requests; n != 4+1 {
		t.Errorf("GitHub was asked %d times, want once for each group and repository, and for the version", n)
	}

	c.github.SetGroup(7, githubsim.Group{Name: "gpu-runners", Selected: []string{"acme/api"}})
	c.github.SetGroup(8, githubsim.Group{Name: "big", Selected: []string{"beta/x"}})
	code, said = c.live()
	want("two groups are not open", code, exitYes, said,
		":5:5: warning: rule gpu: runner group gpu-runners of organization acme does not allow acme/docs: allow it on GitHub", "; the same holds for acme/web [group-refuses]",
		":6:5: warning: rule big: runner group big of enterprise big-corp does not allow organization acme", "!rule own")
	code, said = c.live("--strict")
	want("the same with --strict", code, exitNo, said, ":5:5: rule gpu: runner group gpu-runners")
	code, said = c.live("--strict", "--accept", "group-refuses")
	want("the same accepted", code, exitYes, said, "no faults")
	code, said = c.live("--format", "json")
	want("the same in JSON", code, exitYes, said, `"code": "group-refuses"`)

	c.github.SetGroup(7, githubsim.Group{Name: "gpu-runner"})
	c.github.RemoveGroup(8)
	code, said = c.live()
	want("two groups are missing", code, exitNo, said,
		`:5:5: rule gpu: organization acme has no runner group "gpu-runners"; it has gpu-runner, Default: name one that exists in the rule, or create it on GitHub (Settings, Actions, Runner groups) [no-such-group]`,
		":6:5: rule big: enterprise big-corp has no runner group 8;")
	code, said = c.check("--nomad", "--history", c.file("history.jsonl"), "--github-token-file", c.file("token"), "--github-url", c.url)
	want("by the earlier flag", code, exitNo, said, "[no-such-group]")

	t.Setenv("SWITCHYARD_GITHUB_TOKEN", "t")
	t.Setenv("SWITCHYARD_GITHUB_URL", c.url)
	code, said = c.check("--live", "--history", c.file("history.jsonl"))
	want("with a login in the environment", code, exitNo, said, "[no-such-group]")
	code, said = c.check("--live")
	want("without a history", code, exitYes, said, "warning: GitHub was not asked about runner groups: --history FILE says")
	write(t, c.file("history.jsonl"), `{"labels": ["self-hosted", "gpu"], "repo": {"host": "github.example.com", "full_name": "acme/web"}}`)
	code, said = c.check("--live", "--history", c.file("history.jsonl"))
	want("with a history of another GitHub", code, exitYes, said, "warning: github.example.com was not asked about runner groups")
	t.Setenv("SWITCHYARD_GITHUB_TOKEN", "")
	code, said = c.check("--live", "--history", c.file("history.jsonl"))
	want("without a login", code, exitYes, said, "warning: GitHub was not asked about runner groups: give --github-token-file FILE")
	code, said = c.check("--history", c.file("history.jsonl"))
	want("without --live", code, exitUnknown, said, "--history is for --live")
}

// What GitHub does not answer is said, with what to do, and the rest is checked.
func TestCheckSaysWhatGitHubDoesNotAnswer(t *testing.T) {
	c := newGroupCheck(t)
	for status, want := range map[int]string{
		403: "give the GitHub token the organization permission Self-hosted runners (write) on acme",
		404: "and check that this organization exists",
		409: "answered 409", 422: "see what GitHub says", 429: "GitHub's rate limit is reached until", 500: "answered 500", 502: "answered 502",
	} {
		c.github.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "/orgs/"})
		c.github.RemoveGroup(8)
		code, said := c.live()
		if code != exitUnknown || !strings.Contains(said, "ask GitHub about runner group gpu-runners: ") || !strings.Contains(said, want) {
			t.Errorf("while GitHub answers %d: exit code %d, want %d and %q:\n%s", status, code, exitUnknown, want, said)
		}
		if status != 429 && !strings.Contains(said, "enterprise big-corp has no runner group 8") {
			t.Errorf("while GitHub answers %d, the other group is not checked:\n%s", status, said)
		}
	}
}
