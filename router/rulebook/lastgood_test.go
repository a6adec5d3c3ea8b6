package rulebook

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/semaphore"

	"switchyard/jobspecs"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/store/storetest"
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
			st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
			defer st.Close()
			w := &world{dir: t.TempDir()}
			server := func() (*Book, *recorder, *bytes.Buffer) {
				client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), API: &api.Config{Address: cluster.URL}})
				must(t, err)
				app, log := &recorder{began: time.Now()}, new(bytes.Buffer)
				return &Book{turn: semaphore.NewWeighted(1), source: w.source, nomad: client, log: slog.New(slog.NewJSONHandler(log, nil)), keep: st.KeepRules, marks: st}, app, log
			}
			c.good(t, w)
			r, _, _ := server()
			if _, err := r.Start(t.Context()); err != nil && c.because != noneKnown {
				t.Fatal(err)
			}
			c.spoil(t, w)
			for start := range 2 { // a crash loop: falling back once leaves what is needed to do it again
				r, app, log := server()
				got, err := r.Start(t.Context())
				if c.in == "" {
					if err == nil || !strings.Contains(err.Error(), c.because) {
						t.Errorf("start %d = %v; want %q", start, err, c.because)
					}
					continue
				}
				if err != nil || r.tellRefused == nil || strings.Join(got.Set.Rules(), " ") != c.in || got.Version.Hash == "" {
					t.Fatalf("start %d = %+v, %v; want the last good rules %q", start, got, err, c.in)
				}
				for _, name := range got.Set.Jobspecs() {
					if _, ok := got.Jobspecs.Get(name); !ok {
						t.Errorf("start %d: the rules in force lack their jobspec %s", start, name)
					}
				}
				r.Bind(app)
				if len(app.said) != 1 || !strings.Contains(app.said[0], "start: refused: ") || !strings.Contains(app.said[0], c.because) {
					t.Errorf("start %d: the App was told %q, want %q", start, app.said, c.because)
				}
				if text := log.String(); !strings.Contains(text, `"level":"ERROR"`) || !strings.Contains(text, "the rules are bad at the start, the last good ones in the database are in force") {
					t.Errorf("start %d: the log:\n%s", start, text)
				}
				r.refresh(t.Context(), fileChanged) // nothing new
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
			st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
			defer st.Close()
			must(t, st.SetMark(t.Context(), goodMark, c.mark))
			path := filepath.Join(t.TempDir(), "rules.yaml") // is not there
			r := &Book{source: source{rules: path}, log: slog.New(slog.DiscardHandler), marks: st}
			if _, err := r.Start(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Start = %v, want %q and what is wrong with %s", err, c.want, path)
			}
		})
	}
}

func goodMarkOf(t *testing.T, text string) string {
	t.Helper()
	mark, err := json.Marshal(goodRules{Source: "rules.yaml", Files: []rules.File{file("rules.yaml", text)}})
	must(t, err)
	return string(mark)
}
