package rulebook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/semaphore"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/routertest"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/rules"
)

// kept is a Book whose versions a database keeps.
type kept struct {
	*Book
	*store.Store
}

// newRulebook returns a rulebook of files in a directory of its own; path is what --rules
// would be, within it. Its App notes what is in force.
func newRulebook(t *testing.T, path string, files map[string]string) (kept, *inForceNow) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		write(t, filepath.Join(dir, name), text)
	}
	st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
	t.Cleanup(func() { _ = st.Close() })
	client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set)})
	must(t, err)
	app := new(inForceNow)
	r := &Book{turn: semaphore.NewWeighted(1), source: source{rules: filepath.Join(dir, path)}, app: app, nomad: client, keep: st.KeepRules, log: slog.New(slog.DiscardHandler)}
	must(t, errOf(r.Start(t.Context())))
	return kept{r, st}, app
}

// inForceNow is an App that notes which rules are in force.
type inForceNow struct {
	mu      sync.Mutex
	rules   string
	reloads int
	refused router.RefusedRules
	version router.RulesVersion
	told    atomic.Int32
}

func (a *inForceNow) Reload(set *rules.Set, v router.RulesVersion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rules, a.reloads = v.Origin+": "+strings.Join(set.Rules(), " "), a.reloads+1
	a.version = v
}
func (a *inForceNow) RefuseRules(r router.RefusedRules) { a.refused = r }
func (a *inForceNow) KeepRules()                        {}
func (a *inForceNow) TellRules(context.Context)         { a.told.Add(1) }

func file(name, text string) rules.File { return rules.File{Name: name, Source: []byte(text)} }

func (b kept) base(t *testing.T) string {
	t.Helper()
	_, hash, err := b.Files(t.Context())
	must(t, err)
	return hash
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

// slowNomad checks a jobspec until it has no more time.
type slowNomad struct{ asked chan struct{} }

func (n slowNomad) ValidateWith(ctx context.Context, _ *jobspecs.Set, _ string) ([]string, error) {
	n.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (slowNomad) Use(*jobspecs.Set) {}

const routeAll = "version: 1\nlabels: { linux: {} }\nrules:\n  - { name: all, jobspec: docker-linux }\n"

// Other drafts wait for one that is applied, so that does not wait for a reload.
func TestADraftIsNotAppliedDuringAReload(t *testing.T) {
	b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
	nomad := slowNomad{make(chan struct{})}
	b.nomad = nomad
	replace(t, b.rules, routeAll)
	ctx, stop := context.WithCancel(t.Context())
	var reload sync.WaitGroup
	reload.Go(func() { b.refresh(ctx, fileChanged) })
	defer reload.Wait()
	defer stop()
	<-nomad.asked

	applied := make(chan error, 1)
	go func() {
		over, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		applied <- b.Apply(over, router.RulesEdit{Base: b.base(t), Files: []rules.File{file("rules.yaml", denyAll("second"))}})
	}()
	routertest.Eventually(t, "Apply ends with its time", func() bool { return len(applied) > 0 })
	if err := <-applied; err == nil || !strings.HasPrefix(err.Error(), "the server is reading changed rules") || !errors.As(err, new(*router.ConflictError)) || app.reloads != 0 {
		t.Errorf("Apply = %v, want a conflict", err)
	}
}

func TestADraftThatNomadHasNoTimeToCheckIsNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
		b.nomad = slowNomad{make(chan struct{}, 1)}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := b.Apply(ctx, router.RulesEdit{Base: b.base(t), Files: []rules.File{file("rules.yaml", routeAll)}})
		if err == nil || !strings.HasPrefix(err.Error(), "Nomad takes too long to check the jobspecs") || !errors.As(err, new(*router.ConflictError)) || app.reloads != 0 {
			t.Errorf("Apply = %v, want a conflict", err)
		}
	})
}

func TestADraftIsAppliedOnceAndItsPastIsKept(t *testing.T) {
	b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
	must(t, os.Chmod(b.rules, 0o640))
	next := []rules.File{file("rules.yaml", denyAll("second"))}
	base := b.base(t)
	must(t, b.Apply(t.Context(), router.RulesEdit{Base: base, Files: next, Who: "ada", Note: "why not", Origin: "applied"}))
	if app.rules != "applied: second" || contentOf(t, b.rules) != denyAll("second") {
		t.Errorf("in force: %s; the file: %s", app.rules, contentOf(t, b.rules))
	}
	if info, err := os.Stat(b.rules); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
		t.Errorf("the file has the mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(b.rules), ".*")); len(left) > 0 {
		t.Errorf("files are left over: %v", left)
	}
	b.refresh(t.Context(), fileChanged) // as the event of the file makes it
	if app.reloads != 1 {
		t.Errorf("the rules came into force %d times", app.reloads)
	}
	if err := b.Apply(t.Context(), router.RulesEdit{Base: base, Files: next, Who: "bob", Origin: "applied"}); !errors.Is(err, router.ErrRulesChanged) {
		t.Errorf("a draft of older files: %v", err)
	}

	replace(t, b.rules, denyAll("third"))
	b.refresh(t.Context(), fileChanged)
	versions, err := b.RulesVersions(t.Context())
	if err != nil || len(versions) != 3 {
		t.Fatalf("versions: %+v, %v", versions, err)
	}
	for i, want := range []string{"file changed  ", "applied ada why not", "start  "} {
		if v := versions[i]; fmt.Sprintf("%s %s %s", v.Origin, v.Who, v.Note) != want {
			t.Errorf("version %d is %+v, want %s", i, v, want)
		}
	}
	old, err := b.RulesVersion(t.Context(), versions[2].ID)
	must(t, err)
	if err := b.Apply(t.Context(), router.RulesEdit{Base: b.base(t), Files: old.Files, Who: "ada", Origin: "put back"}); err != nil || app.rules != "put back: first" {
		t.Errorf("putting back: %v; in force: %s", err, app.rules)
	}
}

// Each change of what is in force is a line, which says where it is and who made it. A start
// says what was changed since the last good rules.
func TestAChangeIsALine(t *testing.T) {
	const spec = `{"ID": "own", "Name": "own", "Type": "batch", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "docker"}]}]}`
	limited := func(running int) string {
		return fmt.Sprintf("version: 1\nlabels: { self-hosted: {} }\nrules:\n  - name: first\n    if: has(\"self-hosted\")\n    jobspec: own\n    limit: { running: %d }\n", running)
	}
	b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("zero"), "specs/own.nomad.json": spec})
	b.specDir = filepath.Join(filepath.Dir(b.rules), "specs")
	replace(t, b.rules, limited(9))
	b.marks = b.Store
	began, err := b.Start(t.Context())
	if err != nil || len(began.Version.Changes) != 0 {
		t.Fatalf("the first start says %q, %v", began.Version.Changes, err)
	}
	want := func(what, who string, changes ...string) {
		t.Helper()
		if diff := cmp.Diff(changes, app.version.Changes); diff != "" || app.version.Who != who {
			t.Errorf("after %s, by %q (-want +got):\n%s", what, app.version.Who, diff)
		}
	}
	replace(t, b.rules, limited(1))
	b.refresh(t.Context(), fileChanged)
	want("a limit", "", "rules.yaml: line 7: `limit: { running: 9 }` → `limit: { running: 1 }`")
	must(t, b.Apply(t.Context(), router.RulesEdit{Base: b.base(t), Files: []rules.File{file("rules.yaml", strings.Replace(limited(1), "first", "second", 1))}, Who: "ada", Origin: "applied"}))
	want("a rule", "ada", "rules.yaml: line 4: `- name: first` → `- name: second`")
	replace(t, filepath.Join(b.specDir, "own.nomad.json"), strings.Replace(spec, "docker", "podman", 1))
	b.refresh(t.Context(), fileChanged)
	want("a jobspec", "", "jobspec own: line 1")
	long := strings.Repeat("x", maxChange)
	if got, want := difference(long+"one", long+"two", true), "line 1: `…"+long[:20]+"one` → `…"+long[:20]+"two`"; got != want {
		t.Errorf("of a long line: %s, want %s", got, want)
	}

	replace(t, b.rules, limited(3)) // while no server runs
	again := &Book{source: b.source, nomad: b.nomad, keep: b.KeepRules, marks: b.Store, log: b.log}
	started, err := again.Start(t.Context())
	must(t, err)
	if diff := cmp.Diff([]string{"rules.yaml: line 4: `- name: second` → `- name: first`, and 3 more"}, started.Version.Changes); diff != "" {
		t.Errorf("after a start (-want +got):\n%s", diff)
	}
}

func TestWhatIsNotAppliedChangesNothing(t *testing.T) {
	b, app := newRulebook(t, "rules.yaml", map[string]string{
		"rules.yaml":      denyAll("first"),
		"rules.test.yaml": "version: 1\ntests:\n  - { name: bare, labels: [self-hosted], repo: acme/web, expect: { outcome: denied } }\n",
	})
	tests := file("rules.test.yaml", contentOf(t, testsOf(b.rules)))
	for name, tt := range map[string]struct {
		files []rules.File
		want  string
	}{
		"a fault":           {[]rules.File{file("rules.yaml", "rules: 1"), tests}, "the rules were refused: rules.yaml:1:1: "},
		"a failing test":    {[]rules.File{file("rules.yaml", strings.Replace(denyAll("second"), ", deny", " and repo.fork, deny", 1)), tests}, `the rules were refused: rules.test.yaml:3:77: test "bare" failed: outcome: expected denied, got unroutable`},
		"a file less":       {[]rules.File{file("rules.yaml", denyAll("first"))}, "the files would be rules.yaml, but they are rules.yaml, rules.test.yaml: add and remove files where the server has them"},
		"a file too many":   {[]rules.File{file("rules.yaml", denyAll("first")), file("zz.yaml", denyAll("zz")), tests}, "the files would be "},
		"an absent jobspec": {[]rules.File{file("rules.yaml", "version: 1\nlabels: { self-hosted: {} }\nrules:\n  - { name: first, if: has(\"self-hosted\"), jobspec: nothing }\n"), tests}, "the rules were refused: rules.yaml:4:"},
	} {
		err := b.Apply(t.Context(), router.RulesEdit{Base: b.base(t), Files: tt.files, Who: "ada", Origin: "applied"})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if app.reloads != 0 || contentOf(t, b.rules) != denyAll("first") {
		t.Errorf("in force: %s; the file: %s", app.rules, contentOf(t, b.rules))
	}
}

func TestALinkOrAReadOnlyDirectoryIsNotWritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
	must(t, errors.Join(os.Rename(b.rules, b.rules+".real"), os.Symlink("rules.yaml.real", b.rules)))
	a := router.RulesEdit{Base: b.base(t), Files: []rules.File{file("rules.yaml", denyAll("second"))}, Origin: "applied"}
	if err := b.Apply(t.Context(), a); !errors.As(err, new(*router.ConflictError)) || !strings.Contains(err.Error(), "rules.yaml cannot be written here: it is a link") {
		t.Errorf("a link: %v", err)
	}
	if os.Getuid() != 0 { // root writes everywhere
		must(t, errors.Join(os.Remove(b.rules), os.Rename(b.rules+".real", b.rules), os.Chmod(filepath.Dir(b.rules), 0o500)))
		defer os.Chmod(filepath.Dir(b.rules), 0o700)
		if err := b.Apply(t.Context(), a); !errors.As(err, new(*router.ConflictError)) || !strings.Contains(err.Error(), "rules.yaml cannot be written here: permission denied") {
			t.Errorf("a directory that is read-only: %v", err)
		}
	}
	if app.reloads != 0 {
		t.Error("rules came into force that could not be written")
	}
}

// What cannot be kept is not replaced; what is in force, but could not be noted
// as by a crash, is noted at the next start.
func TestNoVersionIsReplacedThatIsNotKept(t *testing.T) {
	b, app := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
	full, kept := errors.New("disk full"), 0
	b.keep = func(context.Context, router.KeptRules) (int64, error) { return 0, full }
	apply := func() error {
		return b.Apply(t.Context(), router.RulesEdit{Base: b.base(t), Files: []rules.File{file("rules.yaml", denyAll("second"))}, Who: "ada", Origin: "applied"})
	}
	if err := apply(); !errors.Is(err, full) || app.reloads != 0 || contentOf(t, b.rules) != denyAll("first") {
		t.Errorf("Apply = %v; in force: %s", err, app.rules)
	}
	b.keep = func(ctx context.Context, v router.KeptRules) (int64, error) {
		if kept++; kept > 1 {
			return 0, full
		}
		return b.KeepRules(ctx, v)
	}
	if err := apply(); err != nil || app.rules != "applied: second" {
		t.Errorf("Apply = %v; in force: %s", err, app.rules)
	}
	again := &Book{source: b.source, nomad: b.nomad, keep: b.KeepRules, log: b.log}
	must(t, errOf(again.Start(t.Context())))
	versions, err := b.RulesVersions(t.Context())
	if err != nil || len(versions) != 2 || versions[0].Origin != "start" || versions[0].Hash != b.base(t) {
		t.Errorf("versions: %+v, %v", versions, err)
	}
}

// To judge a draft takes a while. Who edits a file meanwhile, as an editor or a
// deployment does, loses nothing by it.
func TestAnEditWhileADraftIsJudgedIsKept(t *testing.T) {
	for name, edit := range map[string]func(dir string){
		"of a file that the draft changes": func(dir string) { write(t, filepath.Join(dir, "a.yaml"), denyAll("edited")) },
		"by another file in its place":     func(dir string) { replace(t, filepath.Join(dir, "a.yaml"), denyAll("edited")) },
		"of one that it leaves":            func(dir string) { write(t, filepath.Join(dir, "b.yaml"), "version: 1\n# edited\n") },
		"that adds a file":                 func(dir string) { write(t, filepath.Join(dir, "c.yaml"), "version: 1\n# edited\n") },
		"that removes one":                 func(dir string) { _ = os.Remove(filepath.Join(dir, "b.yaml")) },
	} {
		t.Run(name, func(t *testing.T) {
			b, app := newRulebook(t, ".", map[string]string{"a.yaml": denyAll("first"), "b.yaml": "version: 1\n"})
			base := b.base(t)
			edited := ""
			b.keep = func(ctx context.Context, v router.KeptRules) (int64, error) { // the last that comes before the files are written
				edit(b.rules)
				edited = b.base(t)
				return b.KeepRules(ctx, v)
			}
			draft := []rules.File{file("a.yaml", denyAll("second")), file("b.yaml", "version: 1\n")}
			if err := b.Apply(t.Context(), router.RulesEdit{Base: base, Files: draft, Who: "ada", Origin: "applied"}); !errors.Is(err, router.ErrRulesChanged) {
				t.Errorf("Apply = %v, want %v", err, router.ErrRulesChanged)
			}
			if got := b.base(t); got != edited || got == base || app.reloads != 0 {
				t.Errorf("the files are %s, %s after the edit, %s before; %d reloads", got, edited, base, app.reloads)
			}
			if left, _ := filepath.Glob(filepath.Join(b.rules, ".*")); len(left) > 0 {
				t.Errorf("files are left over: %v", left)
			}
			b.keep = b.KeepRules
			b.refresh(t.Context(), fileChanged) // as the event of the edit makes it
			if versions, err := b.RulesVersions(t.Context()); err != nil || versions[0].Hash != edited {
				t.Errorf("versions: %+v, %v, want that of the edit", versions, err)
			}
		})
	}
}

// Of many who apply a draft of the same files at once, one does; while an editor
// outside looks on, the files are always a whole version.
func TestOneOfManyAppliesAndNoDraftIsLost(t *testing.T) {
	const many = 12
	b, app := newRulebook(t, ".", map[string]string{"a.yaml": denyAll("a0"), "b.yaml": "version: 1\nrules:\n  - { name: b0, if: has(\"self-hosted\"), deny: x }\n"})
	base := b.base(t)
	looks, stop := context.WithCancel(t.Context())
	var beside, all sync.WaitGroup
	beside.Go(func() {
		for looks.Err() == nil {
			b.refresh(looks, fileChanged)
		}
	})
	errs := make([]error, many)
	for i := range many {
		all.Go(func() {
			errs[i] = b.Apply(t.Context(), router.RulesEdit{
				Base: base, Who: fmt.Sprint("admin", i), Origin: "applied",
				Files: []rules.File{file("a.yaml", denyAll(fmt.Sprint("a", i+1))), file("b.yaml", fmt.Sprintf("version: 1\nrules:\n  - { name: b%d, if: has(\"self-hosted\"), deny: x }\n", i+1))},
			})
		})
	}
	all.Wait()
	stop()
	beside.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case !errors.Is(err, router.ErrRulesChanged):
			t.Errorf("admin%d: %v", i, err)
		}
	}
	if want := fmt.Sprintf("applied: a%d b%d", won+1, won+1); app.rules != want || app.reloads != 1 {
		t.Errorf("in force: %s, after %d reloads, want %s", app.rules, app.reloads, want)
	}
	versions, err := b.RulesVersions(t.Context())
	if err != nil || len(versions) != 2 || versions[0].Who != fmt.Sprint("admin", won) {
		t.Errorf("versions: %+v, %v", versions, err)
	}
}

func TestACheckSaysWhatTheCommandsSay(t *testing.T) {
	b, _ := newRulebook(t, "rules.yaml", map[string]string{"rules.yaml": denyAll("first")})
	c, set, err := b.Check(t.Context(), []rules.File{
		file("x.test.yaml", "version: 1\ntests:\n  - { name: bare, labels: [self-hosted], repo: acme/web, expect: { outcome: routed } }\n"),
		file("rules.yaml", denyAll("first")+"  - { name: again, if: 'true', deny: x }\n"),
	})
	if err != nil || set == nil || c.Good || c.Tests == nil || c.Tests.Failed != 1 || len(c.Findings) == 0 {
		t.Fatalf("Check = %+v, %v, %v", c, set, err)
	}
	codes := ""
	for _, d := range c.Findings {
		codes += fmt.Sprintf("%s:%d %s\n", d.File, d.Line, d.Code)
	}
	if !strings.Contains(codes, "rules.yaml:5 never-wins\n") {
		t.Errorf("the findings are\n%s", codes)
	}
	if c, set, err := b.Check(t.Context(), []rules.File{file("rules.yaml", "rules: 1")}); err != nil || set != nil || c.Good || len(c.Findings) != 2 || c.Tests != nil {
		t.Errorf("Check of faults = %+v, %v", c, err)
	}
	if c, _, err := b.Check(t.Context(), []rules.File{file("rules.yaml", denyAll("first"))}); err != nil || !c.Good {
		t.Errorf("Check of what is in force = %+v, %v", c, err)
	}
}

var (
	must    = routertest.Must
	write   = routertest.Write
	replace = routertest.Replace
	denyAll = routertest.DenyAll
)

// errOf returns the error of a call whose other result does not matter.
func errOf[T any](_ T, err error) error { return err }
