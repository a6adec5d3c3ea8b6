package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"switchyard/router"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
)

// serveRules runs the program on the rules at path with a simulated Nomad.
func serveRules(t *testing.T, path string, more ...string) *process {
	t.Helper()
	sim := nomadsim.New(nomadsim.Config{})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, waitsOnGitHub(t))
	p.args = append(append(p.args, "--rules", path), more...)
	p.start()
	return p
}

func (p *process) rulesStatus() (s router.RulesStatus) {
	p.t.Helper()
	must(p.t, json.Unmarshal(p.get(router.RulesPath), &s))
	return s
}

func (p *process) get(path string) []byte {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.admin+path, nil)
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+editorToken) // of those with --access
	resp, err := http.DefaultClient.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("GET %s = %d, %v: %s", path, resp.StatusCode, err, body)
	}
	return body
}

// awaitRules polls until the status is as ok wants it.
func (p *process) awaitRules(ok func(router.RulesStatus) bool) router.RulesStatus {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s := p.rulesStatus()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the rules stay at %+v with error %+v", s, s.Error)
		}
	}
}

func inForceAre(n int) func(router.RulesStatus) bool {
	return func(s router.RulesStatus) bool { return s.Rules == n && s.Error == nil }
}

// askStatus runs rules status.
func (p *process) askStatus(args ...string) (code int, out string) {
	var stdout, stderr bytes.Buffer
	code = run(p.t.Context(), append([]string{"rules", "status", "--addr", p.admin}, args...), nil, &stdout, &stderr)
	if stderr.Len() > 0 {
		p.t.Errorf("rules status says %s", stderr.String())
	}
	return code, stdout.String()
}

// twoRules is a good file of two rules.
const twoRules = `version: 1
labels: { self-hosted: {}, linux: {}, macos: {} }
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: macos, if: has("macos"), jobspec: raw-exec-macos }
`

func TestRulesStatusSaysThatReplicasDiffer(t *testing.T) {
	status := router.RulesStatus{
		RulesVersion: router.RulesVersion{Hash: "0123456789abcdef", LoadedAt: time.Now(), Origin: "start"},
		Replicas: []router.StatusReplica{
			{Name: "n1/7", RulesHash: "0123456789abcdef", Self: true}, {Name: "n2/\x1b7", RulesHash: "fedcba9876543210", Leads: true},
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(status) }))
	defer s.Close()
	p := &process{t: t, admin: s.URL}
	code, out := p.askStatus()
	for _, want := range []string{"n1/7 has 0123456789ab\n", `n2/\x1b7 has fedcba987654, which leads` + "\n", "differ    the replicas have different rules or jobspecs in force; those of the leader decide\n"} {
		if code != exitNo || !strings.Contains(out, want) {
			t.Errorf("rules status = %d, want 1 and %q:\n%s", code, want, out)
		}
	}
	status.Replicas[1].RulesHash = status.Hash
	if code, out := p.askStatus(); code != exitYes || strings.Contains(out, "differ") {
		t.Errorf("rules status of the same rules = %d:\n%s", code, out)
	}
}

func TestServeTakesUpANewFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etc")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "rules.yaml")
	write(t, path, denyAll("one"))
	p := serveRules(t, path)
	began := p.rulesStatus()
	if began.Rules != 1 || began.Origin != "start" || began.Hash == "" || began.LoadedAt.IsZero() || !slices.Equal(began.Files, []string{path}) {
		t.Errorf("the rules at the start are %+v", began)
	}

	replace(t, path, twoRules)
	second := p.awaitRules(inForceAre(2))
	if second.Origin != "file changed" || second.Hash == began.Hash {
		t.Errorf("the new rules are %+v", second)
	}
	if code, out := p.askStatus(); code != exitYes || !strings.Contains(out, second.Hash[:12]) || !strings.Contains(out, path) || !strings.Contains(out, "changed   rules.yaml: line ") {
		t.Errorf("rules status = %d:\n%s", code, out)
	}

	// A bad file leaves the old one in force, and everybody can see why.
	replace(t, path, strings.Replace(twoRules, "docker-linux", "docker-linus", 1))
	bad := p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	if bad.Hash != second.Hash || !bad.LoadedAt.Equal(second.LoadedAt) {
		t.Errorf("after a bad file %+v is in force, want what was before", bad)
	}
	if ds := bad.Error.Diagnostics; len(ds) != 1 || ds[0].Line != 4 || ds[0].Rule != "linux" || !strings.Contains(ds[0].Message, "docker-linus") {
		t.Errorf("diagnostics = %v", ds)
	}
	if text := string(p.get("/readyz")); !strings.Contains(text, "docker-linus") {
		t.Errorf("/readyz does not say what is wrong: %s", text)
	}
	if text := string(p.get("/metrics")); !strings.Contains(text, "switchyard_rules_reload_failed 1\n") {
		t.Errorf("/metrics does not say that a reload failed: %s", text)
	}
	if code, out := p.askStatus(); code != exitNo || !strings.Contains(out, path+":4:") {
		t.Errorf("rules status = %d:\n%s", code, out)
	}
	var status router.RulesStatus
	if code, out := p.askStatus("--format", "json"); code != exitNo {
		t.Errorf("rules status --format json = %d", code)
	} else if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Error(err)
	} else if diff := cmp.Diff(bad, status); diff != "" {
		t.Errorf("rules status --format json (-server +command):\n%s", diff)
	}

	// The old one put back is no new version.
	replace(t, path, twoRules)
	if s := p.awaitRules(inForceAre(2)); !s.LoadedAt.Equal(second.LoadedAt) {
		t.Errorf("the old rules put back are loaded at %v, want %v", s.LoadedAt, second.LoadedAt)
	}
	must(t, os.Remove(path))
	p.awaitRules(func(s router.RulesStatus) bool { return s.Rules == 2 && s.Error != nil })
	write(t, path, twoRules)
	p.awaitRules(inForceAre(2))
	// So do the tests beside it, which first ask for a rule that is not there.
	beside := filepath.Join(dir, "rules.test.yaml")
	const tests = "version: 1\ntests:\n  - { name: mac, labels: [self-hosted, macos], repo: acme/web, expect: { rule: macOS } }\n"
	replace(t, beside, tests)
	p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil && s.Error.Diagnostics[0].File == beside })
	replace(t, beside, strings.Replace(tests, "macOS", "macos", 1))
	p.awaitRules(inForceAre(2))
	must(t, os.Remove(beside))

	if runtime.GOOS == "windows" { // which has no SIGHUP, and does not rename a watched directory
		return
	}

	// Another directory takes the place of the watched one.
	must(t, errors.Join(os.Rename(dir, dir+"~old"), os.Mkdir(dir, 0o700)))
	write(t, path, denyAll("three"))
	p.awaitRules(inForceAre(1))
	replace(t, path, twoRules)
	p.awaitRules(inForceAre(2))
	replace(t, path, "rules: 1")
	p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil && s.Error.Origin == "SIGHUP" })
	p.stop()
	want := `"level":"ERROR","msg":"new rules refused, the old ones stay in force","file":"` + path + `","line":4,"column":`
	if log := p.log.String(); !strings.Contains(log, want) {
		t.Errorf("the log lacks %s:\n%s", want, log)
	}
}

func TestServeTakesUpASwappedLink(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	for _, tc := range []struct{ name, path string }{
		{"of a file", "10-base.yaml"},
		{"of a directory", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			// As the kubelet does it: a new directory, then ..data renamed over.
			swap := func(version string, files map[string]string) {
				t.Helper()
				err := os.Mkdir(filepath.Join(dir, version), 0o700)
				for name, text := range files {
					write(t, filepath.Join(dir, version, name), text)
				}
				err = errors.Join(err, os.Symlink(version, filepath.Join(dir, "..data_tmp")),
					os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
				must(t, err)
			}
			swap("..1", map[string]string{"10-base.yaml": denyAll("one")})
			must(t, os.Symlink("..data/10-base.yaml", filepath.Join(dir, "10-base.yaml")))
			p := serveRules(t, filepath.Join(dir, tc.path))
			swap("..2", map[string]string{"10-base.yaml": twoRules})
			p.awaitRules(inForceAre(2))
			must(t, os.RemoveAll(filepath.Join(dir, "..1")))
			swap("..3", map[string]string{"10-base.yaml": denyAll("three")})
			p.awaitRules(inForceAre(1))
			replace(t, filepath.Join(dir, "..3", "10-base.yaml"), twoRules) // behind the link, which stays
			p.awaitRules(inForceAre(2))
			p.stop()
		})
	}
}

func TestServeTakesUpADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base, team, other := filepath.Join(dir, "10-base.yaml"), filepath.Join(dir, "20-team.yml"), filepath.Join(dir, "30-other.yaml")
	const teams = "version: 1\nlabels: { linux: {} }\nrules:\n  - { name: team, if: has(\"linux\"), jobspec: docker-linux }\n"
	write(t, base, denyAll("one"))
	p := serveRules(t, dir)
	replace(t, team, teams)
	if s := p.awaitRules(inForceAre(2)); !slices.Equal(s.Files, []string{base, team}) {
		t.Errorf("the files in force are %q, want %q and %q", s.Files, base, team)
	}
	replace(t, other, strings.Replace(teams, "linux: {}", "", 1))
	bad := p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	if ds := bad.Error.Diagnostics; len(ds) != 1 || ds[0].File != other || ds[0].Line != 4 || !strings.Contains(ds[0].Message, team+":4:") {
		t.Errorf("two rules of one name: %v, want both places", ds)
	}
	must(t, errors.Join(os.Remove(other), os.Remove(team)))
	if s := p.awaitRules(inForceAre(1)); !slices.Equal(s.Files, []string{base}) {
		t.Errorf("the files in force are %q, want %q", s.Files, base)
	}
	p.kill()
}

func TestServeTakesUpNewJobspecs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	specs := filepath.Join(dir, "jobspecs")
	must(t, os.Mkdir(specs, 0o700))
	spec := func(driver string) string {
		return fmt.Sprintf(`{"ID":"x","Name":"x","Type":"batch","TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":%q,"Config":{"command":"true"}}]}]}`, driver)
	}
	write(t, filepath.Join(specs, "mine.nomad.json"), spec("raw_exec"))
	path := filepath.Join(dir, "rules.yaml")
	write(t, path, denyAll("one"))
	p := serveRules(t, path, "--jobspecs", specs)

	// Rules and jobspec come together, in any order.
	replace(t, path, strings.Replace(twoRules, "docker-linux", "new", 1))
	p.awaitRules(func(s router.RulesStatus) bool { return s.Rules == 1 && s.Error != nil })
	replace(t, filepath.Join(specs, "new.nomad.json"), spec("raw_exec"))
	good := p.awaitRules(inForceAre(2))
	if status := send(t.Context(), http.DefaultClient, p.url, "1", payload(1, "self-hosted", "linux")); status != http.StatusAccepted {
		t.Fatalf("the delivery was answered %d", status)
	}
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(string(p.get("/readyz")), `"dispatched":1`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no runner was started from the new jobspec: %s", p.get("/readyz"))
		}
	}

	// Nomad wants a driver.
	replace(t, filepath.Join(specs, "new.nomad.json"), spec(""))
	bad := p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	if ds := bad.Error.Diagnostics; bad.Hash != good.Hash || len(ds) != 1 || ds[0].Line != 4 || ds[0].Code != capacity.JobspecRefused || !strings.Contains(ds[0].Message, "Nomad refuses it") {
		t.Errorf("after a bad jobspec %+v is in force and the fault is %v, want the old one and Nomad's words", bad, bad.Error)
	}
	p.stop()
}

// A Nomad that is away is no reason to keep old rules, and serve leaves nothing behind.
func TestServeTakesUpRulesWithoutNomad(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	t.Setenv("NOMAD_ADDR", "http://"+freePort(t))
	dir := t.TempDir()
	path := filepath.Join(dir, "rules")
	must(t, os.Mkdir(path, 0o700))
	write(t, filepath.Join(path, "rules.yaml"), denyAll("one"))
	write(t, filepath.Join(dir, "secret"), strings.Repeat("x", 32))
	p := &process{t: t, admin: "http://" + freePort(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{
			"serve", "--rules", path, "--db", filepath.Join(dir, "switchyard.db"), "--public-url", "http://127.0.0.1:1",
			"--listen", "127.0.0.1:0", "--admin-listen", strings.TrimPrefix(p.admin, "http://"),
			"--webhook-secret-file", filepath.Join(dir, "secret"), "--github-token-file", filepath.Join(dir, "secret"),
		}, nil, io.Discard, &p.log)
	}()
	stop := func() {
		cancel()
		if code := <-done; code != exitYes {
			t.Errorf("serve = %d; its log:\n%s", code, p.log.String())
		}
	}
	defer stop()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if resp, err := http.Get(p.admin + "/healthz"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("serve does not answer")
		}
	}
	replace(t, filepath.Join(path, "rules.yaml"), twoRules)
	p.awaitRules(inForceAre(2))
}
