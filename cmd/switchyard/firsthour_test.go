package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/githubsim"
	"switchyard/router/nomadsim/nomadtest"
)

// printedCommands returns the commands that init printed, each on one line.
func printedCommands(said string) (commands []string) {
	_, list, _ := strings.Cut(said, "\nnext:\n")
	for _, m := range regexp.MustCompile(`(?m)^     (nomad (?:\\\n|.)*)$`).FindAllStringSubmatch(list, -1) {
		commands = append(commands, regexp.MustCompile(`\\\n\s*`).ReplaceAllString(m[1], ""))
	}
	return commands
}

// A new user's first hour, with the commands that init prints: from nothing but an agent in dev
// mode and an account at GitHub to a job that has run. As the runner is the simulated GitHub's,
// a jobspec of its own stands in for docker-linux, and the rules ask for less.
func TestTheFirstHour(t *testing.T) {
	addr := nomadtest.Agent(t)
	if addr == "" || os.Getenv("SWITCHYARD_NOMAD_ADDR") != "" {
		t.Skip("no nomad on PATH")
	}
	program, err := exec.LookPath("switchyard")
	must(t, err)
	nomad, err := api.NewClient(&api.Config{Address: addr})
	must(t, err)
	began := time.Now()
	step := func(what string) { t.Logf("%6.1f s  %s", time.Since(began).Seconds(), what) }

	hub, site := appHub(t)
	dir, listen := t.TempDir(), freePort(t)
	b, wait := creates(t, "--owner", "acme", "--github", site, "--public-url", "http://"+listen, "--webhook-url", "http://"+listen, "--dir", dir)
	if status, page := b.press(); status != http.StatusOK {
		t.Fatalf("the App's page: %d\n%s", status, page)
	}
	said, code := wait()
	if code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, said)
	}
	hub.Install("acme")
	step("switchyard init, and its button")

	specs := t.TempDir()
	write(t, filepath.Join(specs, "docker-linux.nomad.hcl"), strings.NewReplacer("PROGRAM", fmt.Sprintf("%q", program), "GITHUB", fmt.Sprintf("%q", site)).Replace(simulatedRunner))
	change := func(name, old, by string) {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		must(t, err)
		if !strings.Contains(string(text), old) {
			t.Fatalf("%s does not have %s", name, old)
		}
		write(t, path, strings.ReplaceAll(string(text), old, by))
	}
	change("rules.yaml", "resources: { cpu: 2000, memory: 4GiB }", "resources: { cpu: 100, memory: 64MiB }")
	change("switchyard.nomad.hcl", "      env {\n", fmt.Sprintf("      env {\n        SWITCHYARD_JOBSPECS = %q\n", specs))

	const name = "switchyard"
	t.Cleanup(func() {
		_, _, _ = nomad.Jobs().Deregister(name, false, nil)
		nomadtest.Await(t, "the server has ended", func() bool { // the agent leaves what runs when it ends itself
			allocs, _, err := nomad.Jobs().Allocations(name, true, nil)
			return err == nil && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return a.ClientStatus == "running" })
		})
		_, _, _ = nomad.Jobs().Deregister(name, true, nil)
		_, _ = nomad.Variables().Delete("nomad/jobs/"+name, nil)
	})
	command := func(line string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "NOMAD_ADDR="+addr)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	doctor := ""
	for _, line := range printedCommands(said) {
		line = strings.ReplaceAll(line, shellQuoted(self()), shellQuoted(program)) // which is the program here
		switch {
		case strings.HasPrefix(line, "nomad acl"):
			continue // the agent has none
		case strings.HasPrefix(line, "nomad alloc exec"):
			doctor = line
			continue
		case strings.HasPrefix(line, "nomad job run"):
			line = strings.Replace(line, "nomad job run", "nomad job run -detach -var driver=raw_exec", 1)
		}
		if out, err := command(line); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		step(line)
	}
	nomadtest.Await(t, "the server listens", func() bool {
		resp, err := http.Get("http://" + listen + "/runner/v1/claim")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusUnauthorized
	})
	step("the server listens")

	id := hub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Name: "hello", Labels: []string{"yard=4711/linux/x64"}})
	t.Cleanup(func() { _, _, _ = nomad.Jobs().Deregister(fmt.Sprintf("gha-%d-1", id), true, nil) })
	done := func() bool { j, _ := hub.Job(id); return j.Conclusion != "" }
	nomadtest.Await(t, "the first job has run", done)
	if j, _ := hub.Job(id); j.Conclusion != "success" || !strings.HasPrefix(j.RunnerName, fmt.Sprintf("gha-%d-1", id)) {
		t.Errorf("the job is %+v", j)
	}
	step("the first job has run")

	out, err := command(doctor + " --format json")
	var e examination
	if at := strings.Index(out, "{"); at < 0 || json.NewDecoder(bytes.NewReader([]byte(out[at:]))).Decode(&e) != nil {
		t.Fatalf("%s: %v\n%s", doctor, err, out)
	}
	step(doctor)
	for _, f := range e.Findings {
		if f.Check != "denied_envvars" { // the only thing that an agent in dev mode lacks for this runner
			t.Errorf("the doctor says of %s: %s; do: %s", f.Check, f.Says, f.Mend)
		}
	}
	if len(e.Findings) != 1 {
		t.Errorf("the doctor found %+v, and did not look at %+v", e.Findings, e.NotLookedAt)
	}
}

// simulatedRunner is a jobspec whose runner is this program.
const simulatedRunner = `job "demo-runner" {
  type = "batch"
  group "runner" {
    task "runner" {
      driver       = "raw_exec"
      kill_timeout = "5s"
      config {
        command = PROGRAM
        args    = ["demo", "runner", GITHUB, "${NOMAD_SECRETS_DIR}/runner.jit"]
      }
      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }
    }
  }
}
`

// What a doctor says of a real Nomad: with a good token, and with each capability missing.
func TestADoctorOfARealNomad(t *testing.T) {
	addr, management := nomadtest.WithACLs(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
	}
	admin, err := api.NewClient(&api.Config{Address: addr, SecretID: management})
	must(t, err)
	at, err := url.Parse(addr)
	must(t, err)
	specs := t.TempDir()
	write(t, filepath.Join(specs, "runner.nomad.hcl"), strings.NewReplacer("PROGRAM", `"/bin/true"`, "GITHUB", `"x"`, `"5s"`, `"90s"`).Replace(simulatedRunner))
	const rule = `version: 1
labels: { self-hosted: {}, linux: {} }
rules:
  - { name: linux, if: has("linux"), jobspec: runner }
`
	whole := strings.NewReplacer("# agent {", "agent {", "#   policy", "  policy", "# }", "}").Replace(policy)
	const (
		kill   = `^max_kill_timeout: node \S+: .*killed after 30s, and jobspec runner gives it 1m30s.*; do: set client \{ max_kill_timeout = "1m30s" \}`
		denied = `^denied_envvars: node \S+: .*; do: set plugin "raw_exec"`
	)
	for name, tt := range map[string]struct {
		rules, without, by string
		bogus              bool
		want               []string
		unseen             string
	}{
		"a client in dev mode":   {want: []string{kill, denied}},
		"no agent read":          {without: "agent {\n  policy = \"read\"\n}", want: []string{}, unseen: `not looked at: clients: .*agent \{ policy = "read" \}`},
		"no node read":           {without: "node { # why a runner has no node, check --live\n  policy = \"read\"\n}", want: []string{`^nomad: list Nomad's servers: .*403.*; do: set NOMAD_TOKEN to a token that has `}},
		"no submit-job":          {without: `, "submit-job"`, want: []string{`^nomad-token: .*; do: set NOMAD_TOKEN to a token that has (submit|parse)-job on namespace default$`}},
		"no read-job":            {without: `"read-job", `, want: []string{kill, denied, `^nomad-token: .*; do: set NOMAD_TOKEN to a token that has read-job on namespace default$`}},
		"no list-jobs":           {without: `"list-jobs", `, want: []string{kill, denied, `^nomad-token: .*; do: set NOMAD_TOKEN to a token that has list-jobs on namespace default$`}},
		"no token that is known": {bogus: true, want: []string{`^nomad: list Nomad's servers: .*403.*; do: set NOMAD_TOKEN`}},
		"no such pool":           {rules: strings.Replace(rule, "jobspec: runner", "jobspec: runner, node_pool: ci", 1), want: []string{`^nomad-rules: .*there is no node pool "ci".*; do: correct it at .*rules.yaml:4`}},
		"no node meta":           {rules: strings.Replace(rule, "jobspec: runner", "jobspec: runner, constraints: ['${meta.switchyard_runner_dir} is_set']", 1), want: []string{`^nodes: .*\$\{meta.switchyard_runner_dir\}.*; do: set client \{ meta \{ switchyard_runner_dir`}},
		"no driver":              {rules: strings.Replace(rule, "jobspec: runner", "jobspec: docker-linux, task: { config: { image: 'REGISTRY/actions-runner:2.336.0' } }", 1), want: []string{`^nodes: .*lacks? the driver docker.*; do: make the driver docker work`}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, func(p *patient) {
				p.rules = rule
				if tt.rules != "" {
					p.rules = tt.rules
				}
				p.flags["jobspecs"] = specs
			})
			text := strings.Replace(whole, tt.without, tt.by, 1)
			if _, err := admin.ACLPolicies().Upsert(&api.ACLPolicy{Name: "doctor", Rules: text}, nil); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			made, _, err := admin.ACLTokens().Create(&api.ACLToken{Name: "doctor", Type: "client", Policies: []string{"doctor"}}, nil)
			must(t, err)
			t.Setenv("NOMAD_ADDR", at.String())
			t.Setenv("NOMAD_TOKEN", made.SecretID)
			if tt.bogus {
				t.Setenv("NOMAD_TOKEN", "2e0c5a7a-7a4b-4a39-8f0e-2f3a1a4f7a11")
			}
			stdout, stderr, code := p.examined()
			lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			for _, want := range tt.want {
				i := slices.IndexFunc(lines, regexp.MustCompile(want).MatchString)
				if i < 0 {
					t.Errorf("no line matches %s", want)
					continue
				}
				lines = slices.Delete(lines, i, i+1)
			}
			if len(tt.want) == 0 && stdout == "nothing is wrong\n" {
				lines = nil
			}
			if (code == exitNo) != (len(tt.want) > 0) || len(lines) > 0 || !regexp.MustCompile(tt.unseen).MatchString(stderr) {
				t.Errorf("exit code %d, and besides:\n%s\n%s", code, strings.Join(lines, "\n"), stderr)
			}
		})
	}
}
