package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/store"
	"switchyard/rules"
)

const versionedRules = `version: 1
labels: { self-hosted: {}, linux: {}, gpu: {}, mac: {} }
rules:
  - { name: gpu, if: has("gpu"), jobspec: docker-linux, task: { config: { image: 'registry.example.com/actions-runner:2.328.0-cuda' } } }
  - { name: mac, if: has("mac"), jobspec: raw-exec-macos, runner: { scope: enterprise, enterprise: big-corp } }
  - { name: linux, if: has("linux"), jobspec: docker-linux, runner: { scope: organization } }
`

// The images of the rules name versions of the runner, and GitHub says how long it supports them.
func TestCheckAsksGitHubHowLongVersionsAreSupported(t *testing.T) {
	c := newGroupCheck(t)
	write(t, c.file("rules.yaml"), versionedRules)
	c.history("gpu web", "linux web", "linux api", "mac web")
	c.github.SetVersion("2.328.0", githubsim.VersionEnd{Jobs: time.Now().Add(30 * 24 * time.Hour)})
	code, said := c.live()
	if code != exitYes || strings.Contains(said, "runner-too-old") {
		t.Errorf("a month before the end: exit code %d, want %d:\n%s", code, exitYes, said)
	}
	if n := c.github.Traffic().Requests; n != 3+2 { // three uses of groups, two versions
		t.Errorf("GitHub was asked %d times, want once for each version", n)
	}
	c.github.SetVersion("2.328.0", githubsim.VersionEnd{Jobs: time.Now().Add(3 * 24 * time.Hour)})
	c.github.SetVersion(jobspecs.RunnerVersion, githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour)})
	code, said = c.live()
	for _, want := range []string{
		":4:5: warning: rule gpu: GitHub gives no jobs to runners of version 2.328.0 from ", "name a newer runner in the rule or its jobspec",
		":6:5: warning: rule linux: GitHub has given no jobs to runners of version " + jobspecs.RunnerVersion + " since ", "[runner-too-old]",
	} {
		if code != exitYes || !strings.Contains(said, want) {
			t.Errorf("near the end: exit code %d, want %d and %q:\n%s", code, exitYes, want, said)
		}
	}
	if strings.Contains(said, "rule mac: GitHub") {
		t.Errorf("a jobspec that names no version is found fault with:\n%s", said)
	}
	if code, said = c.live("--strict"); code != exitNo {
		t.Errorf("with --strict: exit code %d:\n%s", code, said)
	}
	if code, said = c.live("--strict", "--accept", "runner-too-old"); code != exitYes {
		t.Errorf("with --strict, and accepted: exit code %d:\n%s", code, said)
	}
	for status, want := range map[int]string{403: "Self-hosted runners (write)", 409: "answered 409", 422: "answered 422", 429: "rate limit", 500: "answered 500", 502: "answered 502"} {
		c.github.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "/deprecations/"})
		c.history("linux web")
		code, said := c.live()
		if code != exitUnknown || !strings.Contains(said, "ask GitHub how long it supports version "+jobspecs.RunnerVersion+" of the runner: ") || !strings.Contains(said, want) {
			t.Errorf("while GitHub answers %d: exit code %d, want %d and %q:\n%s", status, code, exitUnknown, want, said)
		}
	}
	c.github.SetFaults(githubsim.Faults{ErrorRate: 1, Status: 404, Path: "/deprecations/"})
	if code, said := c.live(); code != exitYes || strings.Contains(said, "2.336.0") {
		t.Errorf("where GitHub does not say: exit code %d:\n%s", code, said)
	}
}

// The database knows which versions the runners had, whatever their jobspec names.
func TestCheckTakesTheVersionsOfRunnersFromTheDatabase(t *testing.T) {
	c := newGroupCheck(t)
	write(t, c.file("rules.yaml"), versionedRules)
	c.github.SetVersion("2.320.0", githubsim.VersionEnd{Jobs: time.Now().Add(-time.Hour)})
	s, err := store.Open(t.Context(), c.file("switchyard.db"))
	must(t, err)
	must(t, s.SetRunnerVersions(t.Context(), []router.RuleVersion{{Rule: "mac", Version: "2.320.0", Target: router.Target{Owner: "acme"}, Seen: time.Now()}}))
	must(t, s.Close())
	code, said := c.check("--live", "--history", c.file("switchyard.db"), "--github-token-file", c.file("token"), "--github-url", c.url)
	if code != exitYes || !strings.Contains(said, ":5:5: warning: rule mac: GitHub has given no jobs to runners of version 2.320.0 since ") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

func TestAnOldSwitchyardIsSaidToBeOld(t *testing.T) {
	specs, err := jobspecs.Load("")
	must(t, err)
	own, err := jobspecs.With([]jobspecs.Jobspec{{Name: "docker-linux", Path: "docker-linux.nomad.hcl", Source: []byte("image = \"ghcr.io/actions/actions-runner:2.336.0\"")}})
	must(t, err)
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tt := range []struct {
		name  string
		built time.Time
		rule  string
		specs *jobspecs.Set
		says  string
	}{
		{"no date", time.Time{}, "jobspec: docker-linux", specs, ""},
		{"44 days", now.Add(-44 * day), "jobspec: docker-linux", specs, ""},
		{"a clock that is behind", now.Add(day), "jobspec: docker-linux", specs, ""},
		{"46 days", now.Add(-46 * day), "jobspec: docker-linux", specs, "this Switchyard is of 2026-10-16, 46 days ago: its built-in jobspec docker-linux carries version " + jobspecs.RunnerVersion},
		{"46 days, and another that names its image", now.Add(-46 * day), "jobspec: podman-linux", specs, "this Switchyard is of 2026-10-16, 46 days ago: its built-in jobspec podman-linux carries version " + jobspecs.RunnerVersion},
		{"46 days, and no runner of its own", now.Add(-46 * day), "jobspec: raw-exec-macos", specs, ""},
		{"46 days, and a jobspec of the operator's", now.Add(-46 * day), "jobspec: docker-linux", own, ""},
	} {
		set, err := rules.Parse("rules.yaml", []byte("version: 1\nrules: [{ name: x, "+tt.rule+" }]\n"))
		must(t, err)
		said := saysOldBuild(tt.built, now, set, tt.specs)
		if (said == "") != (tt.says == "") || !strings.HasPrefix(said, tt.says) {
			t.Errorf("%s: %q, want %q", tt.name, said, tt.says)
		}
	}
}

func TestVersionSaysWhichRunnerTheJobspecsCarry(t *testing.T) {
	for args, want := range map[string]string{
		"version --runner":               jobspecs.RunnerVersion + "\n",
		"version --runner --format json": `"runner": "` + jobspecs.RunnerVersion + `"`,
	} {
		var out bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), nil, &out, &out); code != exitYes || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d, %q, want %q", args, code, out.String(), want)
		}
	}
}
