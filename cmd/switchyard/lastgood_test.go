package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/rules"
)

// A server starts with the last good rules of its database when the files are
// bad, whatever is bad about them, and with nothing else.
func TestWhatAServerStartsWith(t *testing.T) {
	const (
		own       = `{"ID": "own", "Name": "own", "Type": "batch", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "docker"}]}]}`
		ownRule   = "version: 1\nlabels: { self-hosted: {} }\nrules:\n  - { name: first, if: has(\"self-hosted\"), jobspec: own }\n"
		noneKnown = "the database has no earlier good rules to start with"
		failing   = "version: 1\ntests:\n  - { name: bare, labels: [self-hosted], repo: acme/web, expect: { outcome: routed } }\n"
	)
	// good is a source that a server ran with, in directories that only it has.
	type world struct {
		source
		dir string
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	oneFile := func(t *testing.T, w *world) {
		w.rules = filepath.Join(w.dir, "rules.yaml")
		write(t, w.rules, denyAll("first"))
	}
	directory := func(t *testing.T, w *world) {
		w.rules = filepath.Join(w.dir, "rules")
		must(t, os.Mkdir(w.rules, 0o700))
		write(t, filepath.Join(w.rules, "a.yaml"), denyAll("first"))
		write(t, filepath.Join(w.rules, "b.yaml"), "version: 1\nrules:\n  - { name: second, if: 'true', deny: x }\n")
		write(t, filepath.Join(w.rules, "b.test.yaml"), "version: 1\ntests:\n  - { name: bare, labels: [self-hosted], repo: acme/web, expect: { outcome: denied } }\n")
	}
	ownJobspec := func(t *testing.T, w *world) {
		oneFile(t, w)
		write(t, w.rules, ownRule)
		w.specDir = filepath.Join(w.dir, "specs")
		must(t, os.Mkdir(w.specDir, 0o700))
		write(t, filepath.Join(w.specDir, "own.nomad.json"), own)
	}
	for _, c := range []struct {
		name    string
		good    func(*testing.T, *world)
		spoil   func(*testing.T, *world)
		in      string // in force after the start; "": it does not start
		because string // said of what is refused
	}{
		{"a fault", oneFile, func(t *testing.T, w *world) { write(t, w.rules, "rules: 1") }, "first", "2 faults"},
		{"an empty file", oneFile, func(t *testing.T, w *world) { write(t, w.rules, "") }, "first", "1 fault"},
		{"a failing test", oneFile, func(t *testing.T, w *world) {
			write(t, w.rules, denyAll("next")+strings.TrimPrefix(failing, "version: 1\n"))
		}, "first", `test "bare" failed`},
		{"a test file that fails", directory, func(t *testing.T, w *world) { write(t, filepath.Join(w.rules, "c.test.yaml"), failing) }, "first second", `test "bare" failed`},
		{"a missing file", oneFile, func(t *testing.T, w *world) { must(t, os.Remove(w.rules)) }, "first", "no such file"},
		{"a missing directory", directory, func(t *testing.T, w *world) { must(t, os.RemoveAll(w.rules)) }, "first second", "no such file"},
		{"an empty directory", directory, func(t *testing.T, w *world) {
			must(t, errors.Join(os.RemoveAll(w.rules), os.Mkdir(w.rules, 0o700)))
		}, "first second", "holds no rules file"},
		{"a fault in one of several files", directory, func(t *testing.T, w *world) { write(t, filepath.Join(w.rules, "b.yaml"), "rules: 1") }, "first second", "b.yaml:1:8"},
		{"a file that is none", oneFile, func(t *testing.T, w *world) {
			must(t, errors.Join(os.Remove(w.rules), os.Mkdir(w.rules, 0o700)))
		}, "first", "holds no rules file"},
		{"a jobspec that is gone", ownJobspec, func(t *testing.T, w *world) {
			must(t, os.Rename(filepath.Join(w.specDir, "own.nomad.json"), filepath.Join(w.specDir, "other.nomad.json")))
		}, "first", "own"},
		{"a jobspec with a fault", ownJobspec, func(t *testing.T, w *world) { write(t, filepath.Join(w.specDir, "own.nomad.json"), "{") }, "first", "own.nomad.json:1:"},
		{"jobspecs that are missing", ownJobspec, func(t *testing.T, w *world) { must(t, os.RemoveAll(w.specDir)) }, "first", "no such file"},
		{"jobspecs that are not asked for any more", ownJobspec, func(t *testing.T, w *world) { w.specDir = "" }, "first", "own"},
		{"a jobspec that Nomad refuses", ownJobspec, func(t *testing.T, w *world) {
			write(t, filepath.Join(w.specDir, "own.nomad.json"), strings.Replace(own, `"docker"`, `""`, 1))
		}, "first", "Missing task driver"},
		{"the same in other directories", oneFile, func(t *testing.T, w *world) {
			w.rules = filepath.Join(w.dir, "alloc", "rules.yaml")
			must(t, os.Mkdir(filepath.Dir(w.rules), 0o700))
			write(t, w.rules, "rules: 1")
		}, "first", "2 faults"},
		{"good rules of other files", oneFile, func(t *testing.T, w *world) {
			w.rules = filepath.Join(w.dir, "other.yaml")
			write(t, w.rules, "rules: 1")
		},
			"", "the last good rules in the database are those of rules.yaml, not of other.yaml, so they are not used"},
		{"no good rules", func(t *testing.T, w *world) { w.rules = filepath.Join(w.dir, "rules.yaml") }, func(t *testing.T, w *world) { write(t, w.rules, "rules: 1") },
			"", noneKnown},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
			defer sim.Close()
			cluster := httptest.NewServer(sim)
			defer cluster.Close()
			st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
			must(t, err)
			defer st.Close()
			w := &world{dir: t.TempDir()}
			server := func() (*reloader, *recorder, *bytes.Buffer) {
				client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), API: &api.Config{Address: cluster.URL}})
				must(t, err)
				app, log := &recorder{began: time.Now()}, new(bytes.Buffer)
				return &reloader{source: w.source, app: app, nomad: client, log: slog.New(slog.NewJSONHandler(log, nil)), keep: st.KeepRules, marks: st}, app, log
			}
			c.good(t, w)
			r, _, _ := server()
			if _, _, err := r.first(t.Context(), t.Output()); err != nil && c.because != noneKnown {
				t.Fatal(err)
			}
			c.spoil(t, w)
			for start := range 2 { // a crash loop: falling back once leaves what is needed to do it again
				var stderr bytes.Buffer
				r, app, log := server()
				got, set, err := r.first(t.Context(), &stderr)
				if c.in == "" {
					if err == nil || !strings.Contains(stderr.String()+err.Error(), c.because) {
						t.Errorf("start %d = %v, %s; want %q", start, err, stderr.String(), c.because)
					}
					continue
				}
				if err != nil || r.say == nil || strings.Join(set.Rules(), " ") != c.in || got.hash == "" {
					t.Fatalf("start %d = %+v, %v; want the last good rules %q; %s", start, got, err, c.in, stderr.String())
				}
				for _, name := range set.Jobspecs() {
					if _, ok := got.specs.Get(name); !ok {
						t.Errorf("start %d: the rules in force lack their jobspec %s", start, name)
					}
				}
				r.say()
				if len(app.said) != 1 || !strings.Contains(app.said[0], "start: refused: ") || !strings.Contains(app.said[0], c.because) {
					t.Errorf("start %d: the App was told %q, want %q", start, app.said, c.because)
				}
				if text := log.String(); !strings.Contains(text, `"level":"ERROR"`) || !strings.Contains(text, "the rules are bad at the start, the last good ones in the database are in force") {
					t.Errorf("start %d: the log:\n%s", start, text)
				}
				r.look(t.Context(), fileChanged) // nothing new
				if len(app.said) != 1 {
					t.Errorf("start %d: the App was told %q", start, app.said)
				}
			}
		})
	}
}

// Last good rules that this version of the program finds faults in are no way
// out, and neither are some that cannot be read.
func TestLastGoodRulesThatAreNotGoodAnyMore(t *testing.T) {
	for name, c := range map[string]struct{ mark, want string }{
		"a fault":     {mark: goodMarkOf(t, "rules: 1"), want: "are not good for this version of Switchyard"},
		"not ours":    {mark: "{", want: "read the last good rules in the database"},
		"of no files": {mark: `{"Source":"rules.yaml"}`, want: "read the last good rules in the database: there are no files"},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if err := st.SetMark(t.Context(), goodMark, c.mark); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "rules.yaml") // is not there
			r := &reloader{source: source{rules: path}, log: slog.New(slog.DiscardHandler), marks: st}
			if _, _, err := r.first(t.Context(), t.Output()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("first = %v, want %q and what is wrong with %s", err, c.want, path)
			}
		})
	}
}

func goodMarkOf(t *testing.T, text string) string {
	t.Helper()
	mark, err := json.Marshal(goodRules{Source: "rules.yaml", Files: []rules.File{file("rules.yaml", text)}})
	if err != nil {
		t.Fatal(err)
	}
	return string(mark)
}

// What Nomad's template and restarts did: a bad edit, and the program started
// again and again. Deliveries are taken, jobs routed by the last good rules, and the
// mended file comes into force by itself.
func TestABadEditAndARestartLoseNoDelivery(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	sim := nomadsim.New(nomadsim.Config{}) // no nodes: the Nomad jobs wait
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, "http://127.0.0.1:1")
	path := p.args[2]
	status := func() (s server.Readiness) {
		t.Helper()
		if err := json.Unmarshal(p.get("/readyz"), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	clusterAPI, err := api.NewClient(&api.Config{Address: cluster.URL})
	if err != nil {
		t.Fatal(err)
	}
	id := int64(0)
	routed := func(rule string) {
		t.Helper()
		id++
		if got := send(t.Context(), http.DefaultClient, p.url, fmt.Sprint(id), payload(id, "self-hosted", "linux", "x64")); got != http.StatusAccepted {
			t.Fatalf("delivery %d was answered %d, want 202; the log:\n%s", id, got, p.log.String())
		}
		within, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			job, _, err := clusterAPI.Jobs().Info(fmt.Sprintf("gha-%d-1", id), nil)
			if err == nil {
				if got := job.Meta["SWITCHYARD_RULE"]; got != rule {
					t.Errorf("job %d was taken by the rule %q, want %q", id, got, rule)
				}
				return
			}
			select {
			case <-within.Done():
				t.Fatalf("job %d has no Nomad job; the log:\n%s", id, p.log.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	const linuxRule = "version: 1\nlabels: { self-hosted: {}, linux: {}, x64: {} }\nrules:\n  - { name: %s, if: has(\"linux\"), jobspec: docker-linux }\n"
	write(t, path, fmt.Sprintf(linuxRule, "good"))
	p.start()
	routed("good")
	replace(t, path, fmt.Sprintf(linuxRule, "good, if: true"))
	for range 3 {
		p.kill()
		p.start()
		s := status()
		said := s.Checks[slices.IndexFunc(s.Checks, func(c server.Check) bool { return c.Name == "rules" })]
		if s.Status != "degraded" || s.Rules.Origin != router.LastGood || s.Rules.Error == nil || !strings.HasPrefix(said.Reason, "the rules' files were bad at the start, so the last good rules in the database are in force: ") {
			t.Fatalf("/readyz after a start with bad rules: %+v", s)
		}
		if text := string(p.get("/metrics")); !strings.Contains(text, "switchyard_rules_last_good 1\n") || !strings.Contains(text, "switchyard_rules_reload_failed 1\n") {
			t.Errorf("the metrics do not say that the rules are the last good ones:\n%s", text)
		}
		for _, page := range []string{"/", "/rules"} {
			if text := string(p.get(page)); !strings.Contains(text, "The rules were bad when the server started") {
				t.Errorf("%s does not say so:\n%s", page, text)
			}
		}
		routed("good")
	}
	replace(t, path, fmt.Sprintf(linuxRule, "mended"))
	p.awaitRules(func(s router.RulesStatus) bool { return s.Origin == fileChanged && s.Error == nil })
	if text := string(p.get("/metrics")); !strings.Contains(text, "switchyard_rules_last_good 0\n") {
		t.Error("the metrics still say that the rules are the last good ones")
	}
	routed("mended")
	p.stop()
}
