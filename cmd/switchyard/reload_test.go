package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/rules"
)

// denyAll is a rules file whose one rule has a name, and no jobspec.
func denyAll(name string) string {
	return fmt.Sprintf("version: 1\nlabels: { self-hosted: {} }\nrules:\n  - { name: %s, if: has(\"self-hosted\"), deny: not now }\n", name)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes as editors do: a new file takes the name of the old one.
func replace(t testing.TB, path, text string) {
	t.Helper()
	write(t, path+"~new", text)
	if err := os.Rename(path+"~new", path); err != nil {
		t.Fatal(err)
	}
}

func TestReadRules(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"20-team.yml", "10-base.yaml", "a.test.yaml", "b.test.yml", ".hidden.yaml", ".#lock.yaml", "#auto.yaml",
		"10-base.yaml~", "old.yaml.bak", "README.md",
	} {
		write(t, filepath.Join(dir, name), name)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	base, team := filepath.Join(dir, "10-base.yaml"), filepath.Join(dir, "20-team.yml")

	t.Run("a directory is its rules files in name order", func(t *testing.T) {
		got, err := readRules(t.Context(), dir)
		want := []rules.File{{Name: base, Source: []byte("10-base.yaml")}, {Name: team, Source: []byte("20-team.yml")}}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("readRules (-want +got):\n%s", diff)
		}
	})
	t.Run("a file is read whatever its name", func(t *testing.T) {
		got, err := readRules(t.Context(), filepath.Join(dir, "README.md"))
		if err != nil || len(got) != 1 || string(got[0].Source) != "README.md" {
			t.Errorf("readRules = %v, %v", got, err)
		}
	})
	t.Run("an empty directory is an error", func(t *testing.T) {
		if _, err := readRules(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no rules file") {
			t.Errorf("readRules = %v", err)
		}
	})
	t.Run("a server reads no device, and nothing that fills its memory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rules.yaml")
		refused := func() {
			t.Helper()
			if _, err := (source{rules: path}).read(); err == nil || !strings.Contains(err.Error(), "rules.yaml is no regular file of at most 16 MiB") {
				t.Errorf("read = %v", err)
			}
		}
		write(t, path, "")
		if err := os.Truncate(path, maxRead+1); err != nil {
			t.Fatal(err)
		}
		refused()
		if runtime.GOOS == "windows" {
			return
		}
		if err := errors.Join(os.Remove(path), os.Symlink(os.DevNull, path)); err != nil {
			t.Fatal(err)
		}
		refused()
	})
	t.Run("the hash is of base names and bytes", func(t *testing.T) {
		hash := func(s source) string {
			c, err := s.read()
			if err != nil {
				t.Fatal(err)
			}
			return c.hash
		}
		before := hash(source{rules: dir})
		other := t.TempDir()
		for _, name := range []string{"20-team.yml", "10-base.yaml", "a.test.yaml", "b.test.yml"} {
			write(t, filepath.Join(other, name), name)
		}
		if got := hash(source{rules: other}); got != before {
			t.Errorf("the same files elsewhere hash to %s, want %s", got, before)
		}
		if err := os.Rename(filepath.Join(other, "20-team.yml"), filepath.Join(other, "30-team.yml")); err != nil {
			t.Fatal(err)
		}
		renamed := hash(source{rules: other})
		if renamed == before {
			t.Error("a file of another name makes no difference")
		}
		write(t, filepath.Join(other, "a.test.yaml"), "changed")
		if hash(source{rules: other}) == renamed {
			t.Error("a change of a test makes no difference")
		}
	})
}

// recorder is an App that notes what it is told, and when.
type recorder struct {
	began time.Time
	said  []string
}

func (r *recorder) note(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf("%v ", time.Since(r.began))+fmt.Sprintf(format, args...))
}

func (r *recorder) Reload(set *rules.Set, v router.RulesVersion) {
	r.note("%s: %s", v.Origin, strings.Join(set.Rules(), " "))
}
func (r *recorder) RefuseRules(f router.RefusedRules) {
	r.note("%s: refused: %s: %v", f.Origin, f.Reason, f.Diagnostics)
}
func (r *recorder) KeepRules() { r.note("keep") }

// loopTest runs a reloader's loop on a file, with events made by hand.
type loopTest struct {
	*reloader
	recorder
	path   string
	log    bytes.Buffer
	events chan fsnotify.Event
	errs   chan error
	hup    chan os.Signal
}

func inLoop(t *testing.T, f func(t *testing.T, l *loopTest)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &loopTest{
			path: filepath.Join(dir, "rules.yaml"), recorder: recorder{began: time.Now()},
			events: make(chan fsnotify.Event), errs: make(chan error), hup: make(chan os.Signal),
		}
		write(t, l.path, denyAll("first"))
		l.reloader = &reloader{source: source{rules: l.path}, app: &l.recorder, log: slog.New(slog.NewTextHandler(&l.log, nil))}
		client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set)})
		if err != nil {
			t.Fatal(err)
		}
		l.nomad = client
		if _, _, err := l.first(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.loop(ctx, l.events, l.errs, l.hup, func() watched { return watched{dir: {"rules.yaml": true}} })
		}()
		synctest.Wait()
		f(t, l)
		synctest.Wait()
		cancel()
		<-done
	})
}

func (l *loopTest) event() { l.events <- fsnotify.Event{Name: l.path, Op: fsnotify.Write} }

func (l *loopTest) check(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, l.said); diff != "" {
		t.Errorf("the App was told (-want +got):\n%s", diff)
	}
}

func TestWhenTheRulesAreRead(t *testing.T) {
	t.Run("once the changes have settled", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, "half of")
			for range 5 {
				l.event()
				time.Sleep(settle / 2)
			}
			write(t, l.path, denyAll("second"))
			l.event()
			time.Sleep(time.Second)
			l.check(t, "700ms file changed: second")
		})
	})
	t.Run("after two seconds of changes that do not settle", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second"))
			for range 30 {
				l.event()
				time.Sleep(settle / 2)
			}
			l.check(t, "2s file changed: second")
		})
	})
	t.Run("not for a neighbour", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second"))
			l.events <- fsnotify.Event{Name: filepath.Join(filepath.Dir(l.path), "switchyard.db")}
			time.Sleep(reread - time.Second)
			l.check(t)
		})
	})
	t.Run("every minute, though no event came", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second"))
			time.Sleep(reread)
			l.check(t, "1m0s file changed: second")
		})
	})
	t.Run("when events were lost", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second"))
			l.errs <- fsnotify.ErrEventOverflow
			time.Sleep(time.Second)
			l.check(t, "200ms file changed: second")
		})
	})
	t.Run("at once on SIGHUP", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second"))
			l.hup <- syscall.SIGHUP
			l.check(t, "0s SIGHUP: second")
		})
	})
}

func TestWhatComesOfWhatWasRead(t *testing.T) {
	t.Run("the same content is nothing new", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			replace(t, l.path, denyAll("first"))
			l.hup <- syscall.SIGHUP
			time.Sleep(2 * reread)
			l.check(t)
			if log := l.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "rules unchanged") {
				t.Errorf("the log is %q, want one answer to the signal", log)
			}
		})
	})
	t.Run("what was refused is refused once, and again on SIGHUP", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, "rules: 1")
			time.Sleep(3 * reread)
			l.hup <- syscall.SIGHUP
			synctest.Wait()
			if len(l.said) != 2 || !strings.HasPrefix(l.said[0], "1m0s file changed: refused: 2 faults") || !strings.HasPrefix(l.said[1], "3m0s SIGHUP: refused: 2 faults") {
				t.Errorf("the App was told %q, want of two refusals", l.said)
			}
		})
	})
	t.Run("what is in force comes back", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			if err := os.Remove(l.path); err != nil {
				t.Fatal(err)
			}
			l.event()
			time.Sleep(time.Second)
			write(t, l.path, denyAll("first"))
			l.event()
			time.Sleep(time.Second)
			synctest.Wait()
			if len(l.said) != 2 || !strings.Contains(l.said[0], "refused: read the rules: ") || l.said[1] != "1.2s keep" {
				t.Errorf("the App was told %q, want that the file is not there, then to keep the rules", l.said)
			}
		})
	})
	t.Run("what check finds in them is logged", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			again := denyAll("second")
			for i := range maxShown + 3 {
				again += fmt.Sprintf("  - { name: again%d, if: 'true', deny: x }\n", i)
			}
			write(t, l.path, again)
			l.hup <- syscall.SIGHUP
			synctest.Wait()
			log := l.log.String()
			if len(l.said) != 1 || strings.Count(log, "level=WARN") != maxShown+1 || !strings.Contains(log, "line=6 column=5 rule=again1 code=never-wins ") || !strings.Contains(log, "finds more in the rules in force") {
				t.Errorf("the App was told %.200q; the log, want %d warnings:\n%s", l.said, maxShown+1, log)
			}
		})
	})
	t.Run("rules that fail their tests are refused", func(t *testing.T) {
		const tests = "tests:\n  - { name: bare, labels: [self-hosted], repo: acme/web, expect: { %s } }\n"
		inLoop(t, func(t *testing.T, l *loopTest) {
			write(t, l.path, denyAll("second")+fmt.Sprintf(tests, "outcome: routed"))
			l.hup <- syscall.SIGHUP
			want := "0s SIGHUP: refused: 1 fault: " + l.path + `:6:77: test "bare" failed: outcome: expected routed, got denied`
			l.check(t, want)
			write(t, l.path, denyAll("second")+fmt.Sprintf(tests, "outcome: denied"))
			l.hup <- syscall.SIGHUP
			l.check(t, want, "0s SIGHUP: second")
		})
		inLoop(t, func(t *testing.T, l *loopTest) {
			beside := filepath.Join(filepath.Dir(l.path), "rules.test.yaml")
			write(t, beside, "version: 1\n"+fmt.Sprintf(tests, "rule: second"))
			l.hup <- syscall.SIGHUP
			synctest.Wait()
			write(t, l.path, denyAll("second"))
			time.Sleep(reread)
			synctest.Wait()
			if len(l.said) != 2 || !strings.Contains(l.said[0], "refused: 1 fault: "+beside+":3:") || l.said[1] != "1m0s file changed: second" {
				t.Errorf("the App was told %q, want of a failed test, then of rules that pass it", l.said)
			}
		})
	})
}

// Whoever may put files beside the rules need not be somebody who may read the
// server's secrets, which the console would show to every viewer.
func TestLinksOutOfTheRulesDirectoryAreFaults(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	const secret = "ghp_secret"
	outside := t.TempDir()
	write(t, filepath.Join(outside, "token"), secret)
	write(t, filepath.Join(outside, "good.yaml"), denyAll("good"))
	for name, tc := range map[string]struct {
		rules string            // what --rules is, in the directory
		links map[string]string // where they lead, by name
		fault string
	}{
		"of rules":               {".", map[string]string{"20-x.yaml": filepath.Join(outside, "token")}, "20-x.yaml"},
		"to good rules":          {".", map[string]string{"20-x.yaml": filepath.Join(outside, "good.yaml")}, "20-x.yaml"},
		"relative":               {".", map[string]string{"20-x.yaml": "../x/token"}, "20-x.yaml"},
		"by a link to a link":    {".", map[string]string{"20-x.yaml": ".next", ".next": filepath.Join(outside, "token")}, "20-x.yaml"},
		"by a linked directory":  {".", map[string]string{"20-x.yaml": "..data/token", "..data": outside}, "20-x.yaml"},
		"of tests":               {".", map[string]string{"x.test.yaml": filepath.Join(outside, "token")}, "x.test.yaml"},
		"of tests beside a file": {"10-base.yaml", map[string]string{"10-base.test.yaml": filepath.Join(outside, "token")}, "10-base.test.yaml"},
		"to nothing":             {".", map[string]string{"20-x.yaml": filepath.Join(outside, "none")}, "20-x.yaml"},
		"to a device":            {".", map[string]string{"20-x.yaml": os.DevNull}, "20-x.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			b, app := newRulebook(t, tc.rules, map[string]string{"10-base.yaml": denyAll("first")})
			dir := b.rules
			if tc.rules != "." {
				dir = filepath.Dir(dir)
			}
			if err := os.Symlink(outside, filepath.Join(dir, "..", "x")); err != nil {
				t.Fatal(err)
			}
			for name, to := range tc.links {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			want := filepath.Join(dir, tc.fault) + ":1:1: a link that "
			files, _, err := b.Files()
			if err == nil || !strings.Contains(err.Error(), want) || files != nil {
				t.Errorf("Files = %v, %v, want %s", files, err, want)
			}
			b.look(t.Context(), fileChanged)
			if app.reloads != 0 || len(app.refused.Diagnostics) != 1 || app.refused.Diagnostics[0].File != filepath.Join(dir, tc.fault) {
				t.Errorf("rules came into force %d times; refused: %+v", app.reloads, app.refused)
			}
			versions, err := b.RulesVersions(t.Context())
			if err != nil || len(versions) != 1 {
				t.Errorf("versions: %+v, %v, want that of the start alone", versions, err)
			}
			command := []string{"check", b.rules}
			if isTests(tc.fault) { // which check does not read
				command[0] = "test"
			}
			var out, errs bytes.Buffer
			if code := run(t.Context(), command, nil, &out, &errs); code == 0 || !strings.Contains(errs.String(), want) || strings.Contains(errs.String(), secret) {
				t.Errorf("switchyard %s = %d: %s", command[0], code, errs.String())
			}
		})
	}
	t.Run("a link within the directory is none", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, ".base"), denyAll("first"))
		for name, to := range map[string]string{"10-base.yaml": ".base", "20-x.yaml": filepath.Join(dir, ".base")} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if files, err := readRules(t.Context(), dir); err != nil || len(files) != 2 || string(files[1].Source) != denyAll("first") {
			t.Errorf("readRules = %v, %v", files, err)
		}
	})
	t.Run("whoever names a link has it followed", func(t *testing.T) {
		named := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.Symlink(filepath.Join(outside, "good.yaml"), named); err != nil {
			t.Fatal(err)
		}
		if c, err := (source{rules: named}).read(); err != nil || len(c.files) != 1 {
			t.Errorf("read = %v, %v", c.files, err)
		}
	})
}

func TestWhatIsWatched(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mkdir := func(name string) {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("volume/..2026")
	write(t, filepath.Join(root, "volume/..2026/rules.yaml"), "")
	link("..2026", "volume/..data")
	link("..data/rules.yaml", "volume/rules.yaml")
	link("volume", "etc")
	link(filepath.Join(root, "etc/rules.yaml"), "direct.yaml")
	link("round", "round")
	for _, tc := range []struct {
		name, path string
		want       map[string][]string // nil: every name
	}{
		{"a file through a Kubernetes volume", "volume/rules.yaml", map[string][]string{
			"volume": {"..data", "rules.yaml"}, "volume/..2026": {"rules.yaml"},
		}},
		{"a link to a file in a linked directory", "direct.yaml", map[string][]string{
			".": {"direct.yaml", "etc"}, "volume": {"..data", "rules.yaml"}, "volume/..2026": {"rules.yaml"},
		}},
		{"a linked directory", "etc", map[string][]string{".": {"etc", "volume"}, "volume": nil}},
		{"a file that is not there", "volume/no/rules.yaml", map[string][]string{"volume": {"no"}}},
		{"a link to itself", "round", map[string][]string{".": {"round"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			on := watched{}
			on.addPath(filepath.Join(root, tc.path))
			got := map[string][]string{}
			for dir, names := range on {
				rel, err := filepath.Rel(root, dir)
				if err != nil {
					t.Fatal(err)
				}
				got[rel] = nil
				for name := range names {
					got[rel] = append(got[rel], name)
				}
				slices.Sort(got[rel])
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("watched (-want +got):\n%s", diff)
			}
		})
	}
}

// serveRules runs the program on the rules at path with a simulated Nomad.
func serveRules(t *testing.T, path string, more ...string) *process {
	t.Helper()
	sim := nomadsim.New(nomadsim.Config{})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, "http://127.0.0.1:1")
	p.args = append(append(p.args, "--rules", path), more...)
	p.start()
	return p
}

func (p *process) rulesStatus() (s router.RulesStatus) {
	p.t.Helper()
	if err := json.Unmarshal(p.get(router.RulesPath), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *process) get(path string) []byte {
	p.t.Helper()
	resp, err := http.Get(p.admin + path)
	if err != nil {
		p.t.Fatal(err)
	}
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
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

func TestServeTakesUpANewFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etc")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
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
	if code, out := p.askStatus(); code != exitYes || !strings.Contains(out, second.Hash[:12]) || !strings.Contains(out, path) {
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
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
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
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}

	if runtime.GOOS == "windows" { // which has no SIGHUP, and does not rename a watched directory
		return
	}

	// Another directory takes the place of the watched one.
	if err := errors.Join(os.Rename(dir, dir+"~old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	write(t, path, denyAll("three"))
	p.awaitRules(inForceAre(1))
	replace(t, path, twoRules)
	p.awaitRules(inForceAre(2))
	replace(t, path, "rules: 1")
	p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
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
				if err != nil {
					t.Fatal(err)
				}
			}
			swap("..1", map[string]string{"10-base.yaml": denyAll("one")})
			if err := os.Symlink("..data/10-base.yaml", filepath.Join(dir, "10-base.yaml")); err != nil {
				t.Fatal(err)
			}
			p := serveRules(t, filepath.Join(dir, tc.path))
			swap("..2", map[string]string{"10-base.yaml": twoRules})
			p.awaitRules(inForceAre(2))
			if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
				t.Fatal(err)
			}
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
	if err := errors.Join(os.Remove(other), os.Remove(team)); err != nil {
		t.Fatal(err)
	}
	if s := p.awaitRules(inForceAre(1)); !slices.Equal(s.Files, []string{base}) {
		t.Errorf("the files in force are %q, want %q", s.Files, base)
	}
	p.kill()
}

func TestServeTakesUpNewJobspecs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	specs := filepath.Join(dir, "jobspecs")
	if err := os.Mkdir(specs, 0o700); err != nil {
		t.Fatal(err)
	}
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
	for deadline := time.Now().Add(time.Minute); !strings.Contains(string(p.get("/readyz")), `"dispatched":1`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no runner was started from the new jobspec: %s", p.get("/readyz"))
		}
	}

	// Nomad wants a driver.
	replace(t, filepath.Join(specs, "new.nomad.json"), spec(""))
	bad := p.awaitRules(func(s router.RulesStatus) bool { return s.Error != nil })
	if ds := bad.Error.Diagnostics; bad.Hash != good.Hash || len(ds) != 1 || ds[0].Line != 4 || ds[0].Code != nomad.JobspecRefused || !strings.Contains(ds[0].Message, "Nomad refuses it") {
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
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
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

// A version that takes long is given up for a newer one, and ends by itself.
func TestACostlyVersionHoldsUpNoOther(t *testing.T) {
	costly := func(l *loopTest) { // what takes long is to keep it
		l.keep = func(ctx context.Context, v router.KeptRules) (int64, error) {
			if strings.Contains(string(v.Files[0].Source), "costly") {
				<-ctx.Done()
			}
			return 0, nil
		}
	}
	t.Run("a newer one comes", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			costly(l)
			write(t, l.path, denyAll("costly"))
			l.event()
			time.Sleep(time.Second)
			l.event() // of the same content
			time.Sleep(time.Second)
			l.check(t)
			write(t, l.path, denyAll("second"))
			l.event()
			time.Sleep(time.Second)
			l.check(t, "2.2s file changed: second")
		})
	})
	t.Run("no newer one comes", func(t *testing.T) {
		inLoop(t, func(t *testing.T, l *loopTest) {
			costly(l)
			write(t, l.path, denyAll("costly"))
			l.event()
			time.Sleep(2 * time.Minute)
			l.check(t, "1m0.2s file changed: refused: load the rules: to load and to test them takes more than 1m0s: ")
		})
	})
}
