package rulebook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"golang.org/x/sync/semaphore"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/routertest"
	"switchyard/rules"
)

func TestReadRules(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"20-team.yml", "10-base.yaml", "a.test.yaml", "b.test.yml", ".hidden.yaml", ".#lock.yaml", "#auto.yaml",
		"10-base.yaml~", "old.yaml.bak", "README.md",
	} {
		write(t, filepath.Join(dir, name), name)
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700))
	base, team := filepath.Join(dir, "10-base.yaml"), filepath.Join(dir, "20-team.yml")

	t.Run("a directory is its rules files in name order", func(t *testing.T) {
		got, err := ReadRules(t.Context(), dir)
		want := []rules.File{{Name: base, Source: []byte("10-base.yaml")}, {Name: team, Source: []byte("20-team.yml")}}
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("readRules (-want +got):\n%s", diff)
		}
	})
	t.Run("a file is read whatever its name", func(t *testing.T) {
		got, err := ReadRules(t.Context(), filepath.Join(dir, "README.md"))
		if err != nil || len(got) != 1 || string(got[0].Source) != "README.md" {
			t.Errorf("ReadRules = %v, %v", got, err)
		}
	})
	t.Run("an empty directory is an error", func(t *testing.T) {
		if _, err := ReadRules(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no rules file") {
			t.Errorf("ReadRules = %v", err)
		}
	})
	t.Run("a server reads no device, and nothing that fills its memory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rules.yaml")
		refused := func() {
			t.Helper()
			if _, err := (source{rules: path}).read(); err == nil || !strings.Contains(err.Error(), "rules.yaml is not a regular file of at most 16 MiB") {
				t.Errorf("read = %v", err)
			}
		}
		write(t, path, "")
		must(t, os.Truncate(path, maxRead+1))
		refused()
		if runtime.GOOS == "windows" {
			return
		}
		must(t, errors.Join(os.Remove(path), os.Symlink(os.DevNull, path)))
		refused()
	})
	t.Run("the hash is of base names and bytes", func(t *testing.T) {
		hash := func(s source) string {
			c, err := s.read()
			must(t, err)
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
		must(t, os.Rename(filepath.Join(other, "20-team.yml"), filepath.Join(other, "30-team.yml")))
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
func (r *recorder) KeepRules()                { r.note("keep") }
func (r *recorder) TellRules(context.Context) { r.note("tell") }

// loopTest runs a Book's loop on a file, with events made by hand.
type loopTest struct {
	*Book
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
		l.Book = &Book{told: router.NewHint(), turn: semaphore.NewWeighted(1), source: source{rules: l.path}, app: &l.recorder, log: slog.New(slog.NewTextHandler(&l.log, nil))}
		client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set)})
		must(t, err)
		l.nomad = client
		must(t, errOf(l.Start(t.Context())))
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

func TestTheRulesAreReadWhenAnotherReplicaHasAppliedSome(t *testing.T) {
	inLoop(t, func(t *testing.T, l *loopTest) {
		write(t, l.path, denyAll("second"))
		l.Reread()
		l.check(t, "0s file changed: second")
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
			must(t, os.Remove(l.path))
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

func TestWhatIsWatched(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	mkdir := func(name string) {
		must(t, os.MkdirAll(filepath.Join(root, name), 0o700))
	}
	link := func(target, name string) {
		must(t, os.Symlink(target, filepath.Join(root, name)))
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
				must(t, err)
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
	for name, tc := range routertest.RulesLinks(outside) {
		t.Run(name, func(t *testing.T) {
			b, app := newRulebook(t, tc.Rules, map[string]string{"10-base.yaml": denyAll("first")})
			dir := b.rules
			if tc.Rules != "." {
				dir = filepath.Dir(dir)
			}
			must(t, os.Symlink(outside, filepath.Join(dir, "..", "x")))
			for name, to := range tc.Links {
				must(t, os.Symlink(to, filepath.Join(dir, name)))
			}
			want := filepath.Join(dir, tc.Fault) + ":1:1: a link that "
			files, _, err := b.Files(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) || files != nil {
				t.Errorf("Files = %v, %v, want %s", files, err, want)
			}
			b.refresh(t.Context(), fileChanged)
			if app.reloads != 0 || len(app.refused.Diagnostics) != 1 || app.refused.Diagnostics[0].File != filepath.Join(dir, tc.Fault) {
				t.Errorf("rules came into force %d times; refused: %+v", app.reloads, app.refused)
			}
			versions, err := b.RulesVersions(t.Context())
			if err != nil || len(versions) != 1 {
				t.Errorf("versions: %+v, %v, want that of the start alone", versions, err)
			}
		})
	}
	t.Run("a link within the directory is none", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, ".base"), denyAll("first"))
		for name, to := range map[string]string{"10-base.yaml": ".base", "20-x.yaml": filepath.Join(dir, ".base")} {
			must(t, os.Symlink(to, filepath.Join(dir, name)))
		}
		if files, err := ReadRules(t.Context(), dir); err != nil || len(files) != 2 || string(files[1].Source) != denyAll("first") {
			t.Errorf("ReadRules = %v, %v", files, err)
		}
	})
	t.Run("whoever names a link has it followed", func(t *testing.T) {
		named := filepath.Join(t.TempDir(), "rules.yaml")
		must(t, os.Symlink(filepath.Join(outside, "good.yaml"), named))
		if c, err := (source{rules: named}).read(); err != nil || len(c.files) != 1 {
			t.Errorf("read = %v, %v", c.files, err)
		}
	})
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
			l.check(t, "1m0.2s file changed: refused: load the rules: loading and testing them takes more than 1m0s: ")
		})
	})
}

func TestTheTestsBesideRules(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "a.test.yaml", "b.yml", "b.test.yml", "c.d.yaml", "d", "d.test", "aa.test.yaml.orig", ".#a.test.yaml", ".b.test.yml", "#a.test.yaml"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for path, want := range map[string][]string{
		"a.yaml": {"a.test.yaml"}, "b.yml": {"b.test.yml"}, "c.d.yaml": nil, "d": nil, ".": {"a.test.yaml", "b.test.yml"}, "no/e.yaml": nil,
	} {
		got, err := TestsBeside(filepath.Join(dir, path))
		for i := range got {
			got[i] = filepath.Base(got[i])
		}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("beside %s: %v (-want +got):\n%s", path, err, d)
		}
	}
}
