package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/router/nomadsim"
)

// doctorRules are the rules of a patient; IMAGE is the registry's address.
const doctorRules = `version: 1
labels: { self-hosted: {}, linux: {}, macos: {}, riscv: { constraints: ['${attr.cpu.arch} = riscv64'] } }
defaults: { max: { cpu: 8000, memory: 32GiB } }
feedback: { after: 1m, kind: check_run }
rules:
  - { name: public, if: not repo.private, deny: no }
  - name: linux
    if: has("linux")
    jobspec: docker-linux
    task: { config: { image: REGISTRY/actions-runner:2.336.0 } }
  - { name: mac, if: has("macos"), jobspec: raw-exec-macos }
tests:
  - { name: linux, labels: [self-hosted, linux], repo: acme/web, expect: { rule: linux } }
`

var appKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// A patient is a set-up that a doctor looks at: all is well until a test changes it.
type patient struct {
	t      *testing.T
	dir    string
	flags  map[string]string
	rules  string
	agents map[string]nomadsim.AgentConfig // of nodes
	nodes  []*api.Node
	github *githubsim.Server
	app    *githubsim.App
	status router.Status
	images map[string]int // what the registry answers, by the path of the manifest

	hook, nomad, agent, public, admin, api func(http.Handler) http.Handler // stand between it and the doctor; nil: nothing does
}

func (p *patient) file(name, text string) string {
	path := filepath.Join(p.dir, name)
	must(p.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (p *patient) serve(h http.Handler, between func(http.Handler) http.Handler) string {
	if between != nil {
		h = between(h)
	}
	s := httptest.NewServer(h)
	p.t.Cleanup(s.Close)
	return s.URL
}

// newPatient returns one that is well, but for what change does.
func newPatient(t *testing.T, change func(*patient)) *patient {
	t.Helper()
	key, err := appKey()
	must(t, err)
	p := &patient{
		t: t, dir: t.TempDir(), rules: doctorRules, nodes: nomadsim.MixedFleet(), agents: map[string]nomadsim.AgentConfig{},
		app:    &githubsim.App{ID: 17, Key: &key.PublicKey, Permissions: map[string]string{"actions": "read", "administration": "write", "checks": "write", "metadata": "read"}},
		images: map[string]int{"/v2/actions-runner/manifests/2.336.0": 200},
		status: router.Status{Status: "ok"},
	}
	for _, n := range p.nodes {
		p.agents[n.Name] = nomadsim.AgentConfig{MaxKillTimeout: "120s", Plugins: map[string]any{
			"raw_exec": map[string]any{"denied_envvars": []string{"NOMAD_TOKEN"}}, "docker": map[string]any{"gc": []any{map[string]any{"image_delay": "72h"}}},
		}}
	}
	p.flags = map[string]string{
		"db": filepath.Join(p.dir, "switchyard.db"), "webhook-secret-file": p.file("secret", testSecret), "github-app-id": "17",
		"github-app-key-file": p.file("app.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))),
	}
	must(t, makeDatabase(p.flags["db"]))
	change(p)
	for _, n := range p.nodes {
		n.HTTPAddr = strings.TrimPrefix(p.serve(nomadsim.Agent(p.agents[n.Name]), p.agent), "http://")
	}
	sim := nomadsim.New(nomadsim.Config{Nodes: p.nodes})
	t.Cleanup(sim.Close)
	registry := p.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(map[bool]int{true: p.images[r.URL.Path], false: 404}[p.images[r.URL.Path] != 0])
	}), nil)
	hook := p.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }), p.hook)
	p.github = githubsim.New(githubsim.Config{App: p.app, WebhookURL: hook + "/webhooks/github", Secret: testSecret})
	t.Cleanup(p.github.Close)
	p.github.Install("acme")
	p.github.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}})
	must(t, p.github.Flush(t.Context()))
	well := map[string]string{
		"rules":      p.file("rules.yaml", strings.ReplaceAll(p.rules, "REGISTRY", strings.TrimPrefix(registry, "http://"))),
		"github-url": p.serve(githubtest.Contract(t, p.github), p.api) + "/api/v3/",
		"public-url": p.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "a claim needs the header Authorization", http.StatusUnauthorized)
		}), p.public),
		"server": p.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(p.status) // which has what /readyz says
		}), p.admin),
	}
	maps.Copy(well, p.flags)
	p.flags = well
	t.Setenv("NOMAD_ADDR", p.serve(sim, p.nomad))
	return p
}

// examined returns what a doctor prints, and its exit code.
func (p *patient) examined(more ...string) (stdout, stderr string, code int) {
	args := append([]string{"doctor"}, more...)
	for _, name := range slices.Sorted(maps.Keys(p.flags)) {
		args = append(args, "--"+name+"="+p.flags[name])
	}
	var out, errs bytes.Buffer
	code = run(p.t.Context(), args, nil, &out, &errs)
	return out.String(), errs.String(), code
}

// refusing answers 403 as Nomad does to a token without a capability.
func refusing(method, path string) func(http.Handler) http.Handler {
	match := regexp.MustCompile(path)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method && match.MatchString(r.URL.Path) {
				http.Error(w, "Permission denied", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// late gives answers another time.
func late(by time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.Header().Set("Date", time.Now().Add(-by).UTC().Format(http.TimeFormat))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
	}
}

// answering answers every request so.
func answering(status int, text string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, status) })
	}
}

func TestADoctorSaysNothingOfAGoodSetUp(t *testing.T) {
	for name, change := range map[string]func(*patient){
		"with a webhook": func(*patient) {},
		"deliveries are read": func(p *patient) {
			p.hook = answering(404, "")
			p.flags["github-intake"] = "poll"
			delete(p.flags, "webhook-secret-file")
		},
		"with a token": func(p *patient) {
			delete(p.flags, "github-app-id")
			delete(p.flags, "github-app-key-file")
			p.flags["github-token-file"], p.app = p.file("token", "ghp_test"), nil
		},
		"jobs that only wait for their authors": func(p *patient) {
			p.status.Troubles = []router.Trouble{{Severity: router.Info, What: "jobs ask for what the rules do not serve"}}
		},
		"the database is elsewhere": func(p *patient) { p.flags["db"] = filepath.Join(p.dir, "none.db") },
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := newPatient(t, change).examined()
			if code != exitYes || stdout != "nothing is wrong\n" || stderr != "" {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

func TestADoctorFindsWhatIsWrongAndHowToMendIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	for name, tt := range map[string]struct {
		change func(*patient)
		want   []string // each matches one line, and no other line is printed
	}{
		"no rules":          {func(p *patient) { p.flags["rules"] = "" }, []string{`^rules: --rules PATH is missing; do: give the rules of serve`}},
		"a fault in a rule": {func(p *patient) { p.rules = strings.Replace(p.rules, `has("macos")`, `hasnt("macos")`, 1) }, []string{`^rules: .*rules.yaml:11:\d+: .*hasnt.*; do: .*switchyard check `}},
		"a failing test": {func(p *patient) {
			p.rules = strings.Replace(p.rules, "expect: { rule: linux }", "expect: { rule: mac }", 1)
		}, []string{`^rules: 1 test of the rules failed; do: .*switchyard test `}},
		"no webhook secret": {func(p *patient) { p.flags["webhook-secret-file"] = "" }, []string{`^webhook-secret: --webhook-secret-file FILE is missing.*; do: write the secret`}},
		"a secret in the open": {func(p *patient) { must(p.t, os.Chmod(p.flags["webhook-secret-file"], 0o644)) },
			[]string{`^webhook-secret: .*everybody may read.*chmod o= .*; do: `}},
		"no login": {func(p *patient) { delete(p.flags, "github-app-id"); delete(p.flags, "github-app-key-file") }, []string{`^github-login: give --github-app-id ID and .*; do: `}},
		"another App's key": {func(p *patient) {
			other, err := rsa.GenerateKey(rand.Reader, 2048)
			must(p.t, err)
			p.file("app.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(other)})))
		}, []string{`^github-login: .* the GitHub App 17: GitHub answered 401 .*; do: check that the GitHub App 17 is yours and that its settings page lists the private key`}},
		"another App's ID": {func(p *patient) { p.flags["github-app-id"] = "18" }, []string{`^github-login: .* 404 \(Integration not found\).*; do: check the App's ID, 18`}},

		"no database": {func(p *patient) {
			p.flags["db"] = filepath.Join(p.dir, "none.db")
			p.admin = answering(502, "")
		}, []string{`^database: .*none.db: no such file.*; do: start the server, which makes it, or correct --db`, `^server: .*502.*; do: start the server, or name its --admin-listen by --server`}},
		"a damaged database":      {func(p *patient) { p.flags["db"] = p.file("broken.db", "SQLite format 4") }, []string{`^database: open database .*broken.db: .*; do: .*switchyard db check --db `}},
		"the server is not there": {func(p *patient) { p.flags["server"] = "http://127.0.0.1:1" }, []string{`^server: .*refused.*; do: start the server`}},
		"what the server knows": {func(p *patient) {
			p.status = router.Status{Status: "degraded", Troubles: []router.Trouble{{Severity: router.Warning, What: "the disk is nearly full", Said: "1 GiB is free", Fix: "make room there"}}}
		}, []string{`^status: the disk is nearly full: 1 GiB is free; do: make room there$`}},

		"Nomad is not there": {func(p *patient) { p.nomad = answering(502, "bad gateway") }, []string{`^nomad: list Nomad's servers: Nomad answered 502: bad gateway; do: see that NOMAD_ADDR is right`}},
		"Nomad is too old": {func(p *patient) {
			p.nomad = func(http.Handler) http.Handler {
				sim := nomadsim.New(nomadsim.Config{Nodes: p.nodes, Release: "1.7.7"})
				p.t.Cleanup(sim.Close)
				return sim
			}
		}, []string{`^nomad-release: Nomad is 1.7.7; do: Switchyard needs 1.8 or later`}},
		"no node read":  {func(p *patient) { p.nomad = refusing("GET", `^/v1/(nodes|agent/members)`) }, []string{`^nomad: list Nomad's servers: .*403: Permission denied; do: set NOMAD_TOKEN to a token that has node \{ policy = "read" \}$`}},
		"no submit-job": {func(p *patient) { p.nomad = refusing("PUT", `/plan$`) }, []string{`^nomad-token: .*plan a job of .* 403.*; do: set NOMAD_TOKEN to a token that has submit-job on namespace default$`}},
		"no read-job":   {func(p *patient) { p.nomad = refusing("GET", `^/v1/job/`) }, []string{`^nomad-token: .*ask for read-job in namespace default: .*403.*; do: set NOMAD_TOKEN to a token that has read-job on namespace default$`}},
		"no list-jobs":  {func(p *patient) { p.nomad = refusing("GET", `^/v1/jobs$`) }, []string{`^nomad-token: .*ask for list-jobs in namespace default: .*403.*; do: set NOMAD_TOKEN to a token that has list-jobs on namespace default$`}},
		"no such namespace": {func(p *patient) {
			p.rules = strings.Replace(p.rules, "jobspec: raw-exec-macos }", "jobspec: raw-exec-macos, namespace: ci }", 1)
		}, []string{`^nomad-rules: .*there is no namespace "ci".*; do: correct it at .*rules.yaml:11, or on Nomad$`}},
		"no driver": {func(p *patient) {
			for _, n := range p.nodes {
				delete(n.Drivers, "docker")
			}
		}, []string{`^nodes: rule linux: .*lacks? the driver docker.*; do: make the driver docker work on the nodes`}},
		"no node meta": {func(p *patient) {
			for _, n := range p.nodes {
				delete(n.Meta, "switchyard_runner_dir")
			}
		}, []string{`^nodes: rule mac: .*\$\{meta.switchyard_runner_dir\}.*; do: set client \{ meta \{ switchyard_runner_dir = … \} \} on the nodes`}},
		"runners are killed too early": {func(p *patient) {
			p.agents["mac-1"] = nomadsim.AgentConfig{Plugins: p.agents["mac-1"].Plugins}
		}, []string{`^max_kill_timeout: node mac-1: .*killed after 30s.*; do: set client \{ max_kill_timeout = "1m30s" \} and restart the agent$`}},
		"the agent's environment": {func(p *patient) {
			p.agents["mac-1"] = nomadsim.AgentConfig{MaxKillTimeout: "120s"}
		}, []string{`^denied_envvars: node mac-1: .*NOMAD_TOKEN.*; do: set plugin "raw_exec" \{ config \{ denied_envvars = \["NOMAD_TOKEN"\] \} \}`}},
		"images go at once": {func(p *patient) {
			for _, name := range []string{"linux-1", "linux-2", "linux-arm-1", "linux-gpu-1"} {
				p.agents[name] = nomadsim.AgentConfig{MaxKillTimeout: "120s"}
			}
		}, []string{`^image_delay: node linux-1, linux-2, linux-arm-1 and 1 more: .*removed 3m0s after.*; do: set plugin "docker"`}},
		"no such image": {func(p *patient) { p.images = map[string]int{} }, []string{`^image: 127.0.0.1:\d+/actions-runner:2.336.0: its registry has no such image; do: correct its name`}},

		"the clock is ahead of GitHub's": {func(p *patient) { p.api = late(20 * time.Second) }, []string{`^clock: this machine's clock is (19|2\d)s ahead of that of GitHub; do: set this machine's clock by NTP$`}},
		"the clock is behind Nomad's":    {func(p *patient) { p.nomad = late(-time.Minute) }, []string{`^clock: this machine's clock is (59s|1m\ds) behind that of the agent at NOMAD_ADDR; do: set the clocks`}},

		"no public URL": {func(p *patient) { p.flags["public-url"] = "" }, []string{`^public-url: --public-url URL is missing; do: give the address`}},
		"nodes elsewhere": {func(p *patient) {
			p.nomad = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := httptest.NewRecorder()
					next.ServeHTTP(rec, r)
					maps.Copy(w.Header(), rec.Header())
					w.Header().Del("Content-Length")
					w.WriteHeader(rec.Code)
					_, _ = w.Write(bytes.ReplaceAll(rec.Body.Bytes(), []byte(`"Address":"127.0.0.1"`), []byte(`"Address":"192.0.2.7"`)))
				})
			}
		}, []string{`^public-url: http://127.0.0.1:\d+ means each node itself, and node .* \(192.0.2.7\) is another machine than the server's; do: give serve --public-url`}},
		"the public URL is another's": {func(p *patient) { p.public = answering(404, "nothing here") }, []string{`^public-url: what answers at .*/runner/v1/claim is not Switchyard: 404 Not Found; do: let the address lead`}},
		"nobody is at the public URL": {func(p *patient) { p.flags["public-url"] = "http://127.0.0.1:1" }, []string{`^public-url: .*refused; do: see that the server listens`}},

		"a permission is missing": {func(p *patient) { delete(p.app.Permissions, "administration") },
			[]string{`^app-permissions: the GitHub App 17 lacks Repository: Administration: Read and write \(for the runners of rule linux\); do: add it on the App's settings page`}},
		"an event is missing": {func(p *patient) {
			p.after(func() { p.github.SetApp(func(a *githubsim.AppSettings) { a.Events = []string{} }) })
		}, []string{`^app-events: .*event Workflow job.*; do: subscribe to it`}},
		"a permission waits": {func(p *patient) {
			delete(p.app.Permissions, "checks")
			p.after(func() { p.github.SetApp(func(a *githubsim.AppSettings) { a.Permissions["checks"] = "write" }) })
		}, []string{`^app-installation: acme has not accepted that the GitHub App 17 may have Repository: Checks.*; do: accept it: https://github.com/`}},
		"nobody has installed it": {func(p *patient) { p.after(func() { p.github.Uninstall("acme") }) }, []string{`^app-installation: the GitHub App 17 is not installed; do: install it .*https://github.com/apps/switchyard/installations/new$`}},
		"suspended":               {func(p *patient) { p.after(func() { p.github.Suspend("acme", true) }) }, []string{`^app-installation: the installation of the GitHub App 17 for acme is suspended; do: unsuspend it: https://`}},
		"the webhook goes elsewhere": {func(p *patient) {
			p.after(func() { p.github.SetApp(func(a *githubsim.AppSettings) { a.HookURL = "https://ci.example.com/" }) })
		},
			[]string{`^app-webhook: .* go to https://ci.example.com/, whose path .*; do: end the webhook's URL`}},
		"deliveries are forms": {func(p *patient) {
			p.after(func() { p.github.SetApp(func(a *githubsim.AppSettings) { a.ContentType = "form" }) })
		}, []string{`^app-webhook: .*forms.*; do: set the webhook's content type to application/json`}},
		"another webhook secret": {func(p *patient) { p.hook = answering(401, "") }, []string{`^deliveries: GitHub's newest delivery to http://.*/webhooks/github, at 20.*Z, ended with "Invalid HTTP Response: 401", as did 1 of the last 1; do: give serve the secret`}},
		"the proxy fails":        {func(p *patient) { p.hook = answering(502, "") }, []string{`^deliveries: .*502.*; do: see what the server and the proxy`}},
		"GitHub does not reach it": {func(p *patient) {
			p.hook = func(http.Handler) http.Handler {
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			}
		}, []string{`^deliveries: .*; do: see that GitHub reaches that address`}},
		"the runner is too old": {func(p *patient) {
			p.after(func() { p.github.SetVersion("2.336.0", githubsim.VersionEnd{Jobs: time.Now().Add(-24 * time.Hour)}) })
		}, []string{`^runner-version: rule linux: GitHub has given no jobs to runners of version 2.336.0 since 20.*; do: name a newer runner in the rule or its jobspec`}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, tt.change)
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
			if code != exitNo || len(lines) > 0 {
				t.Errorf("exit code %d, and besides:\n%s", code, strings.Join(lines, "\n"))
			}
			if t.Failed() {
				t.Logf("%s%s", stdout, stderr)
			}
		})
	}
}

// after does something once the patient's simulators run: the doctor has not come yet.
func (p *patient) after(do func()) {
	before := p.api
	p.api = func(next http.Handler) http.Handler {
		do()
		if before != nil {
			return before(next)
		}
		return next
	}
}

// What cannot be looked at is said, and is no fault; GitHub's failure is exit code 2.
func TestADoctorSaysWhatItDidNotLookAt(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*patient)
		code   int
		want   string
	}{
		"GitHub fails": {func(p *patient) {
			p.api = func(http.Handler) http.Handler { return answering(502, "<html>Unicorn!")(nil) }
		}, exitUnknown, `not looked at: github-login: .* 502`},
		"no agent read": {func(p *patient) {
			p.agent = refusing("GET", `^/v1/agent/self$`)
		}, exitYes, `not looked at: clients: the settings of node linux-1, linux-2, linux-arm-1 and 3 more need a NOMAD_TOKEN with agent \{ policy = "read" \}`},
		"the status needs a token": {func(p *patient) {
			p.admin = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/readyz" {
						next.ServeHTTP(w, r)
						return
					}
					w.Header().Set("Content-Type", "application/problem+json")
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = w.Write([]byte(`{"detail": "the API needs the header Authorization"}`))
				})
			}
		}, exitYes, `not looked at: status: the server's status needs a token: --token-file FILE`},
		"the registry wants a login":  {func(p *patient) { p.images["/v2/actions-runner/manifests/2.336.0"] = 403 }, exitYes, `not looked at: image: .*wants a login`},
		"the registry is not reached": {func(p *patient) { p.rules = strings.Replace(p.rules, "REGISTRY", "127.0.0.1:1", 1) }, exitYes, `not looked at: image: .*cannot be asked from here`},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := newPatient(t, tt.change).examined()
			if code != tt.code || !regexp.MustCompile(tt.want).MatchString(stderr) {
				t.Errorf("exit code %d, want %d\n%s%s", code, tt.code, stdout, stderr)
			}
		})
	}
}

func TestADoctorsJSON(t *testing.T) {
	p := newPatient(t, func(p *patient) { p.images = map[string]int{} })
	stdout, _, code := p.examined("--format", "json")
	var e examination
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || code != exitNo || len(e.Findings) != 1 || e.Findings[0].Check != "image" || e.Findings[0].Mend == "" || e.NotLookedAt == nil {
		t.Errorf("exit code %d, %v\n%s", code, err, stdout)
	}
}

func TestTheNamesOfImagesAreDockers(t *testing.T) {
	for image, want := range map[string]string{
		"ubuntu":             "https://registry-1.docker.io library/ubuntu latest",
		"me/tool:1":          "https://registry-1.docker.io me/tool 1",
		"ghcr.io/a/b/c:v1.2": "https://ghcr.io a/b/c v1.2",
		"localhost/x":        "http://localhost x latest",
		"127.0.0.1:5000/x:y": "http://127.0.0.1:5000 x y",
		"r.example:443/x@sha256:" + strings.Repeat("a", 64): "https://r.example:443 x sha256:" + strings.Repeat("a", 64),
		"ghcr.io/x:1@sha256:bb":                             "https://ghcr.io x sha256:bb",
		"ghcr.io/../x":                                      "",
		"ghcr.io/x:a/b":                                     "",
		"${image}":                                          "",
	} {
		registry, repository, reference, err := parseImage(image)
		if got := fmt.Sprint(registry, " ", repository, " ", reference); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("parseImage(%q) = %s, %v, want %s", image, got, err, want)
		}
	}
}

// Registries such as ghcr.io show public images to a token that they give to everybody.
func TestAnImageIsAskedForAsAnybody(t *testing.T) {
	for name, tt := range map[string]struct {
		challenge string // REALM is the address of the tokens
		tokens    int    // what that answers
		image     string
		want      bool
		says      string
	}{
		"it is public":           {`Bearer realm="REALM",service="r",scope="repository:a/b:pull"`, 200, "a/b:1", true, ""},
		"there is no such tag":   {`Bearer realm="REALM",service="r"`, 200, "a/b:2", false, ""},
		"nobody gets a token":    {`Bearer realm="REALM",service="r"`, 401, "a/b:1", false, errImageLogin.Error()},
		"a password is asked":    {`Basic realm="REALM"`, 200, "a/b:1", false, errImageLogin.Error()},
		"the realm is in clear":  {`Bearer realm="http://registry.example/token"`, 200, "a/b:1", false, errImageLogin.Error()},
		"the answer is no token": {`Bearer realm="REALM",service="r"`, 502, "a/b:1", false, "its token"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			registry := httptest.NewServer(mux)
			t.Cleanup(registry.Close)
			mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("scope") != "repository:a/b:pull" || q.Get("service") != "r" {
					t.Errorf("a token is asked for with %v", q)
				}
				if tt.tokens != 200 {
					http.Error(w, "<html>", tt.tokens)
					return
				}
				_, _ = w.Write([]byte(`{"token": "everybodys"}`))
			})
			mux.HandleFunc("HEAD /v2/a/b/manifests/{tag}", func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Authorization") != "Bearer everybodys":
					w.Header().Set("WWW-Authenticate", strings.ReplaceAll(tt.challenge, "REALM", registry.URL+"/token"))
					w.WriteHeader(http.StatusUnauthorized)
				case r.PathValue("tag") != "1":
					w.WriteHeader(http.StatusNotFound)
				}
			})
			got, err := imageExists(t.Context(), strings.TrimPrefix(registry.URL, "http://")+"/"+tt.image)
			if got != tt.want || (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("imageExists = %v, %v, want %v, %q", got, err, tt.want, tt.says)
			}
		})
	}
}
