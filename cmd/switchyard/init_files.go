package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
)

// A system is one on which jobs run.
type system struct {
	name    string
	kernel  string // Nomad's kernel.name
	arch    string // of the example
	jobspec string
	title   string
}

var systems = map[string]*system{
	"linux":   {"linux", "linux", "x64", "docker-linux", "a Linux job runs in a container"},
	"macos":   {"macos", "darwin", "arm64", "raw-exec-macos", "a macOS job runs on a Mac"},
	"windows": {"windows", "windows", "x64", "raw-exec-windows", "a Windows job runs on Windows"},
}

// rules returns a rules file for the answers.
func (f *initFlags) rules() string {
	var labels, list, tests strings.Builder
	names := strings.Split(f.systems, ",")
	owner, _ := f.name()
	for _, name := range names {
		s := systems[name]
		fmt.Fprintf(&labels, "  %s: {}\n", name)
		fmt.Fprintf(&list, "  - name: %s\n    if: has(%q)\n    jobspec: %s # its nodes need what the head of that jobspec says\n    constraints: ['${attr.kernel.name} = %s']\n    resources: { cpu: 2000, memory: 4GiB }\n",
			name, name, s.jobspec, s.kernel)
		fmt.Fprintf(&tests, "  - name: %s\n    labels: [self-hosted, %s, %s]\n    repo: %s/web # private unless it says otherwise\n    expect: { rule: %s, jobspec: %s }\n",
			s.title, name, s.arch, owner, name, s.jobspec)
	}
	first := systems[names[0]]
	other := map[string]string{"x64": "arm64", "arm64": "x64"}[first.arch]
	fmt.Fprintf(&tests, "  - name: one label of several parts, whose runner fits no other job\n    labels: [yard=4711/%s/%s]\n    repo: %s/web\n    expect: { rule: %s, constraints: ['${attr.cpu.arch} = %s'] }\n",
		first.name, other, owner, first.name, map[string]string{"x64": "amd64", "arm64": "arm64"}[other])
	fmt.Fprintf(&tests, "  - name: a public repository gets no runner\n    labels: [self-hosted, %s]\n    repo: { name: %s/site, visibility: public }\n    expect: { rule: public }\n", first.name, owner)
	return `# The rules of ` + owner + `'s runners, written by switchyard init: the first rule whose condition holds takes a job.
#
#   switchyard check --strict rules.yaml
#   switchyard test --coverage rules.yaml
#   switchyard explain --rules rules.yaml --repo ` + owner + `/web --labels self-hosted,` + first.name + `,` + first.arch + `
version: 1

# runs-on: yard=${{ github.run_id }}/` + first.name + `/` + first.arch + ` is one label with these parts, whose runner fits no other job.
compound: { prefix: 'yard=', separator: '/' }

labels: # what each label means
  self-hosted: {}
` + labels.String() + `  x64: { constraints: ['${attr.cpu.arch} = amd64'] }
  arm64: { constraints: ['${attr.cpu.arch} = arm64'] }

defaults:
  max: { cpu: 8000, memory: 32GiB } # that a job can ask for
  time_limit: 6h

rules:
  - name: public
    if: not repo.private
    deny: public repositories get no self-hosted runner
` + list.String() + `
tests:
` + tests.String()
}

// policy is all that the server's token needs on Nomad: that of jobspecs/install.md.
const policy = `namespace "default" { # and so each namespace that rules name
  capabilities = ["list-jobs", "read-job", "submit-job"] # and "dispatch-job" when a rule has dispatch:
}

node { # why a runner has no node, check --live
  policy = "read"
}

# The server does not need this. With it, switchyard doctor sees the settings of clients.
# agent {
#   policy = "read"
# }
`

// service returns the job of the server for the answers.
func (f *initFlags) service() string {
	_, job, _ := strings.Cut(jobspecs.Service, "\nvariable ")
	api, _ := gh.APIOf(f.github) // it was checked
	env := ""
	if api != "https://api.github.com/" {
		env += fmt.Sprintf("        SWITCHYARD_GITHUB_URL          = %q\n", api)
	}
	if f.webhook == pollHook {
		env += "        SWITCHYARD_GITHUB_INTAKE       = \"poll\"\n"
	}
	job = strings.NewReplacer(
		servicePort, strings.Replace(servicePort, "8080", f.port(), 1),
		serviceVolume, `  default     = ""`,
		servicePublicURL, fmt.Sprintf("        SWITCHYARD_PUBLIC_URL          = %q\n%s", f.publicURL, env),
	).Replace(job)
	return `# Switchyard as a service on Nomad, written by switchyard init. Its secrets and rules are in a Nomad variable that only
# this job may read; changed rules need no restart:
#
#   ` + strings.ReplaceAll(putVariable, "\n", "\n#   ") + `
#
# With ACLs on, it needs its permissions:
#
#   ` + applyPolicy + `
#
# Its database is in the allocation's own directory, which Nomad takes along as long as the node lives. To keep it longer,
# name a host volume of a Linux node, whose directory belongs to nobody: -var volume=switchyard.

variable ` + job
}

// What service replaces in the jobspec, each once.
const (
	servicePort      = "  default     = 8080"
	serviceVolume    = `  default     = "switchyard"`
	servicePublicURL = `        SWITCHYARD_PUBLIC_URL          = "http://${NOMAD_ADDR_public}" # or https, through your proxy: runners get their configuration there
`
)

const (
	putVariable = `nomad var put nomad/jobs/switchyard access=@access.yaml rules=@rules.yaml \
  webhook_secret=@webhook.secret github_app_id=@app.id github_app_key=@app.pem`
	applyPolicy = "nomad acl policy apply -namespace default -job switchyard switchyard policy.hcl"
)

// manifest returns that of an App with these permissions.
func (f *initFlags) manifest(needs []permission) (gh.Manifest, error) {
	owner, _ := f.name()
	m := gh.Manifest{
		Name: "switchyard-" + owner, URL: f.github + "/" + owner, Hook: gh.ManifestHook{URL: f.webhook, Active: true},
		Permissions: map[string]string{}, Events: []string{jobEvent},
	}
	m.Name = m.Name[:min(len(m.Name), maxAppName)]
	if f.webhook == pollHook {
		// The webhook must have a URL, and be active for GitHub to keep its deliveries. GitHub's own
		// answers at once, and what the deliveries say stays with GitHub.
		api, err := gh.APIOf(f.github)
		if err != nil {
			return m, err
		}
		m.Hook.URL = api
	}
	for _, p := range needs {
		m.Permissions[p.name] = p.level
	}
	return m, nil
}

const maxAppName = 34 // characters, GitHub's most

func manifestText(m gh.Manifest) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		panic(err) // it is text alone
	}
	return b.String()
}

// env returns the settings of serve and doctor, outside Nomad.
func (f *initFlags) env(appID string) string {
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		dir = f.dir
	}
	at := func(name string) string { return shellQuoted(filepath.Join(dir, name)) }
	api, _ := gh.APIOf(f.github)
	lines := []string{
		"# For serve, doctor and the other commands: set -a; . " + at("switchyard.env") + "; set +a",
		"SWITCHYARD_RULES=" + at("rules.yaml"),
		"SWITCHYARD_DB=" + at("switchyard.db"),
		"SWITCHYARD_ACCESS=" + at("access.yaml"),
		"SWITCHYARD_LISTEN=:" + f.port(),
		"SWITCHYARD_PUBLIC_URL=" + f.publicURL,
		"SWITCHYARD_GITHUB_APP_ID=" + appID,
		"SWITCHYARD_GITHUB_APP_KEY_FILE=" + at("app.pem"),
	}
	if api != "https://api.github.com/" {
		lines = append(lines, "SWITCHYARD_GITHUB_URL="+api)
	}
	if f.webhook == pollHook {
		lines = append(lines, "SWITCHYARD_GITHUB_INTAKE=poll")
	} else {
		lines = append(lines, "SWITCHYARD_WEBHOOK_SECRET_FILE="+at("webhook.secret"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// shellQuoted quotes a text for a shell if it needs that.
func shellQuoted(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:,@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// next prints the commands that are left to do.
func (f *initFlags) next(out io.Writer) error {
	var b strings.Builder
	n := 0
	step := func(what string, commands ...string) {
		n++
		fmt.Fprintf(&b, "\n%d. %s\n", n, what)
		for _, c := range commands {
			fmt.Fprintf(&b, "     %s\n", c)
		}
	}
	b.WriteString("\nnext:\n")
	if f.dir != "." {
		step("go to the files", "cd "+shellQuoted(f.dir))
	}
	if !f.has(appFiles...) {
		step("make the GitHub App, and run init again for the rest", "switchyard "+f.again()+" --create-app")
		_, err := io.WriteString(out, b.String())
		return err
	}
	if page, err := os.ReadFile(f.path("app.page")); err == nil {
		step("install the App, with the repositories that get runners: open", strings.TrimSpace(string(page))+"/installations/new")
	}
	step("give Nomad the secrets and rules", strings.Split(putVariable, "\n")...)
	step("with Nomad's ACLs on, give the job its permissions", applyPolicy)
	run := "nomad job run -var binary=" + shellQuoted(self()) + " switchyard.nomad.hcl"
	step("run the server: by the program on the node, or -var binary=URL of a release's archive, or -var image=IMAGE. With an agent in dev mode, or\n   not as root, add -var driver=raw_exec", run)
	step("see that all is well", "nomad alloc exec -task switchyard -job switchyard "+shellQuoted(self())+" doctor")
	step("start the first job: save this as .github/workflows/hello.yml in a private repository, and run it", strings.Split(f.hello(), "\n")...)
	_, err := io.WriteString(out, b.String())
	return err
}

// hello returns a workflow whose job gets a runner.
func (f *initFlags) hello() string {
	s := systems[strings.Split(f.systems, ",")[0]]
	return "on: workflow_dispatch\njobs:\n  hello:\n    runs-on: \"yard=${{ github.run_id }}/" + s.name + "/" + s.arch + "\"\n    steps:\n      - run: echo hello from ${{ runner.name }}"
}

// again returns the command that repeats the answers.
func (f *initFlags) again() string {
	args := []string{"init"}
	for _, one := range [][2]string{{"github", f.github}, {"owner", f.owner}, {"systems", f.systems}, {"public-url", f.publicURL}, {"webhook-url", f.webhook}} {
		if one != [2]string{"github", "https://github.com"} {
			args = append(args, "--"+one[0], shellQuoted(one[1]))
		}
	}
	return strings.Join(args, " ")
}

// self returns the path of this program.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return "switchyard"
	}
	return router.OneLine(path)
}
