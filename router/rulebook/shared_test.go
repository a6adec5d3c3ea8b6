package rulebook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/rules"
)

// A replica is the rulebook of a server that shares its database with others, and has files of
// its own.
type replica struct {
	t *testing.T
	*Book
	st  *store.Store
	app *inForceNow
}

// newReplicas starts replicas with a file each, in a database of their own.
func newReplicas(t *testing.T, files ...string) []*replica {
	name := storetest.Name(t)
	var all []*replica
	for _, text := range files {
		if len(all) == 0 || store.IsPostgres(name) {
			st := storetest.Open(t, name)
			t.Cleanup(func() { _ = st.Close() })
			all = append(all, &replica{t: t, st: st})
		} else { // two processes cannot share a file
			all = append(all, &replica{t: t, st: all[0].st})
		}
		r := all[len(all)-1]
		path := filepath.Join(t.TempDir(), "rules.yaml")
		write(t, path, text)
		r.start(path, r.st)
	}
	return all
}

// start starts a replica anew, with the files that are at a path.
func (r *replica) start(path string, versions Versions) {
	r.t.Helper()
	client, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set)})
	must(r.t, err)
	r.app = new(inForceNow)
	r.Book = New(Config{Rules: path, Nomad: client, Logger: slog.New(slog.DiscardHandler), Marks: r.st, Shared: versions})
	started, err := r.Start(r.t.Context())
	must(r.t, err)
	r.Bind(r.app)
	r.app.Reload(started.Set, started.Version)
	r.app.reloads = 0
}

func (r *replica) restart() { r.start(r.rules, r.shared) }

func (r *replica) base() string {
	r.t.Helper()
	_, hash, err := r.Files(r.t.Context())
	must(r.t, err)
	return hash
}

// apply applies rules that deny everything, by a rule with this name.
func (r *replica) apply(base, rule string) error {
	return r.Apply(r.t.Context(), router.RulesEdit{Base: base, Files: []rules.File{file("rules.yaml", denyAll(rule))}, Who: "ada", Note: "why " + rule, Origin: "applied"})
}

// want refreshes replicas and fails unless all of them have these rules in force, and show them.
func want(t *testing.T, inForce string, all ...*replica) {
	t.Helper()
	for i, r := range all {
		r.refresh(t.Context(), fileChanged)
		if r.app.rules != inForce {
			t.Errorf("replica %d has in force: %s, want %s", i, r.app.rules, inForce)
		}
		_, rule, _ := strings.Cut(inForce, ": ")
		if files, _, err := r.Files(t.Context()); err != nil || string(files[0].Source) != denyAll(rule) {
			t.Errorf("replica %d shows the files %s, %v, want %s", i, files, err, rule)
		}
		reloads := r.app.reloads
		if r.refresh(t.Context(), fileChanged); r.app.reloads != reloads {
			t.Errorf("replica %d: the same rules came into force again", i)
		}
	}
}

func (r *replica) wantVersions(want ...string) {
	r.t.Helper()
	kept, err := r.st.RulesVersions(r.t.Context())
	must(r.t, err)
	var got []string
	for _, v := range kept {
		full, err := r.st.RulesVersion(r.t.Context(), v.ID)
		must(r.t, err)
		set, err := rules.Load(r.t.Context(), full.Files...)
		must(r.t, err)
		got = append(got, strings.TrimSpace(fmt.Sprint(v.Origin, ": ", strings.Join(set.Rules(), " "), " ", v.Who)))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("versions, the newest first (-want +got):\n%s", diff)
	}
}

func TestWhatIsAppliedOnOneReplicaIsInForceOnAll(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("first"))
	a, b := all[0], all[1]
	must(t, a.apply(a.base(), "second"))
	if a.app.rules != "applied: second" || a.app.told.Load() != 1 || contentOf(t, a.rules) != denyAll("first") {
		t.Errorf("in force: %s; the others were told %d times; the file: %s", a.app.rules, a.app.told.Load(), contentOf(t, a.rules))
	}
	want(t, "applied: second", a, b)
	if x, y := a.app.version, b.app.version; x.Hash != y.Hash || y.Who != "ada" || len(y.Changes) != 1 || !slices.Equal(x.Changes, y.Changes) {
		t.Errorf("where it was applied: %+v; the other says %+v", x, y)
	}
	if b.app.told.Load() != 0 {
		t.Error("who was told tells others")
	}
	a.wantVersions("applied: second ada", "start: first")

	b.restart() // with the old files
	want(t, "applied: second", b)
	if b.app.version.Who != "ada" {
		t.Errorf("after a restart: %+v", b.app.version)
	}
	must(t, b.apply(b.base(), "third"))
	want(t, "applied: third", a, b)
	a.restart()
	want(t, "applied: third", a)
	write(t, a.rules, denyAll("second")) // as somebody took it over from the console
	a.restart()
	want(t, "applied: third", a)
	write(t, a.rules, denyAll("third"))
	a.restart()
	want(t, "applied: third", a, b)
	a.wantVersions("applied: third ada", "applied: second ada", "start: first")

	kept, err := a.st.RulesVersions(t.Context())
	must(t, err)
	old, err := a.st.RulesVersion(t.Context(), kept[2].ID)
	must(t, err)
	must(t, a.Apply(t.Context(), router.RulesEdit{Base: a.base(), Files: old.Files, Who: "bob", Origin: "put back"}))
	want(t, "put back: first", a, b)
	a.restart()
	b.restart()
	want(t, "put back: first", a, b)
}

// Files that are changed to something new count, and it does not matter to replicas whose
// files are not.
func TestChangedFilesCountOnTheirReplica(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("first"))
	a, b := all[0], all[1]
	must(t, a.apply(a.base(), "second"))
	want(t, "applied: second", a, b)

	replace(t, b.rules, denyAll("new"))
	want(t, "file changed: new", b)
	b.wantVersions("file changed: new", "applied: second ada", "start: first")
	want(t, "applied: second", a)
	a.restart()
	want(t, "applied: second", a)
	b.restart()
	want(t, "start: new", b)
	replace(t, a.rules, denyAll("new"))
	want(t, "file changed: new", a)
	b.wantVersions("file changed: new", "applied: second ada", "start: first")

	// Whoever goes back to the old files means them.
	replace(t, a.rules, denyAll("first"))
	want(t, "file changed: first", a)
	replace(t, b.rules, denyAll("first"))
	want(t, "file changed: first", b)
	a.restart()
	want(t, "start: first", a)
	b.wantVersions("file changed: first", "file changed: new", "applied: second ada", "start: first")

	// Nothing that is applied meanwhile is lost by files that come later to one replica than to another.
	replace(t, a.rules, denyAll("newer"))
	want(t, "file changed: newer", a)
	must(t, a.apply(a.base(), "newest"))
	replace(t, b.rules, denyAll("newer"))
	want(t, "applied: newest", a, b)
}

// While replicas have different files, what is applied on one leaves the other alone.
func TestReplicasWithDifferentFilesKeepThem(t *testing.T) {
	all := newReplicas(t, denyAll("a"), denyAll("b"))
	a, b := all[0], all[1]
	want(t, "start: a", a)
	want(t, "start: b", b)
	want(t, "start: a", a)
	must(t, a.apply(a.base(), "a2"))
	must(t, b.apply(b.base(), "b2"))
	must(t, a.apply(a.base(), "a3"))
	want(t, "applied: a3", a)
	want(t, "applied: b2", b)
	a.restart()
	b.restart()
	want(t, "applied: a3", a)
	want(t, "applied: b2", b)
	a.wantVersions("applied: a3 ada", "file changed: a2", "applied: b2 ada", "file changed: b", "applied: a2 ada", "file changed: a", "start: b", "start: a")
}

// Of editors who apply drafts of the same files at once on different replicas, one does.
func TestOneOfManyEditorsOnReplicasApplies(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("first"), denyAll("first"))
	base := all[0].base()
	errs := make([]error, 12)
	var editors sync.WaitGroup
	for i := range errs {
		editors.Go(func() { errs[i] = all[i%len(all)].apply(base, fmt.Sprint("edit", i)) })
	}
	editors.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case !errors.Is(err, router.ErrRulesChanged):
			t.Errorf("editor %d: %v", i, err)
		}
	}
	want(t, fmt.Sprint("applied: edit", won), all...)
	all[0].wantVersions(fmt.Sprintf("applied: edit%d ada", won), "start: first")
}

// meddled are versions beside which something happens before one is kept.
type meddled struct {
	Versions
	first func()
}

func (m *meddled) KeepRulesAfter(ctx context.Context, newest int64, versions ...router.KeptRules) error {
	if first := m.first; first != nil {
		m.first = nil
		first()
	}
	return m.Versions.KeepRulesAfter(ctx, newest, versions...)
}

// However late another replica applies rules, nobody overwrites them who does not know them.
func TestNothingThatWasAppliedIsOverwritten(t *testing.T) {
	t.Run("by another editor", func(t *testing.T) {
		all := newReplicas(t, denyAll("first"), denyAll("first"))
		a, b := all[0], all[1]
		base := a.base()
		b.shared = &meddled{b.shared, func() { must(t, a.apply(base, "second")) }}
		if err := b.apply(base, "third"); !errors.Is(err, router.ErrRulesChanged) {
			t.Errorf("Apply = %v, want %v", err, router.ErrRulesChanged)
		}
		want(t, "applied: second", a, b)
	})
	t.Run("by a replica that starts", func(t *testing.T) {
		all := newReplicas(t, denyAll("other"), denyAll("first"))
		a, b := all[0], all[1]
		write(t, a.rules, denyAll("first"))
		a.start(a.rules, &meddled{a.st, func() { must(t, b.apply(b.base(), "second")) }})
		want(t, "applied: second", a, b)
	})
	t.Run("by files that are read", func(t *testing.T) {
		all := newReplicas(t, denyAll("first"), denyAll("first"))
		a, b := all[0], all[1]
		replace(t, a.rules, denyAll("new"))
		replace(t, b.rules, denyAll("new"))
		b.shared = &meddled{b.shared, func() {
			want(t, "file changed: new", a)
			must(t, a.apply(a.base(), "second"))
		}}
		want(t, "applied: second", b, a)
	})
}

// asked is a Nomad beside which something happens when it is asked for a jobspec.
type asked func()

func (a asked) ValidateWith(context.Context, *jobspecs.Set, string) ([]string, error) {
	a()
	return nil, nil
}

func (asked) Use(*jobspecs.Set) {}

// What matters is what became of the files meanwhile, not what others have.
func TestADraftIsAppliedToFilesThatAreTheSame(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("other"))
	a, b := all[0], all[1]
	edit := router.RulesEdit{Base: a.base(), Files: []rules.File{file("rules.yaml", routeAll)}, Who: "ada", Origin: "applied"}
	a.nomad = asked(func() { replace(t, a.rules, denyAll("new")) })
	if err := a.Apply(t.Context(), edit); !errors.Is(err, router.ErrRulesChanged) || a.app.reloads != 0 {
		t.Errorf("after a file was changed: %v", err)
	}
	replace(t, a.rules, denyAll("first"))
	a.nomad = asked(func() { must(t, b.apply(b.base(), "another")) })
	if err := a.Apply(t.Context(), edit); err != nil || a.app.rules != "applied: all" {
		t.Errorf("after other files were applied to elsewhere: %v; in force: %s", err, a.app.rules)
	}
	want(t, "applied: another", b)
}

// unreadable are versions that cannot be read.
type unreadable struct{ Versions }

func (unreadable) RulesVersions(context.Context) ([]router.KeptRules, error) {
	return nil, errors.New("the database does not answer")
}

func TestAReplicaThatCannotAskKeepsItsRules(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("first"))
	a, b := all[0], all[1]
	must(t, a.apply(a.base(), "second"))
	want(t, "applied: second", b)
	versions := b.shared
	b.shared = unreadable{versions}
	replace(t, b.rules, denyAll("new"))
	b.refresh(t.Context(), fileChanged)
	if b.app.rules != "applied: second" || b.app.refused.Reason != "" {
		t.Errorf("in force: %s; refused: %+v", b.app.rules, b.app.refused)
	}
	if _, _, err := b.Files(t.Context()); err == nil || errors.As(err, new(*router.ConflictError)) {
		t.Errorf("Files = %v, want the error of the database", err)
	}
	b.shared = versions
	want(t, "file changed: new", b)
}

// A replica without a jobspec that was applied elsewhere says so, and goes on.
func TestAReplicaMayRefuseWhatWasApplied(t *testing.T) {
	all := newReplicas(t, denyAll("first"), denyAll("first"))
	a, b := all[0], all[1]
	a.specDir = t.TempDir()
	write(t, filepath.Join(a.specDir, "own.nomad.json"), `{"ID": "own", "Name": "own", "Type": "batch", "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "docker"}]}]}`)
	a.refresh(t.Context(), fileChanged)
	must(t, a.Apply(t.Context(), router.RulesEdit{Base: a.base(), Files: []rules.File{file("rules.yaml", strings.Replace(routeAll, "docker-linux", "own", 1))}, Who: "ada", Origin: "applied"}))
	b.refresh(t.Context(), fileChanged)
	if b.app.rules != "start: first" || b.app.refused.Origin != "applied" || len(b.app.refused.Diagnostics) != 1 || b.app.refused.Diagnostics[0].File != b.rules {
		t.Errorf("in force: %s; refused: %+v", b.app.rules, b.app.refused)
	}
	if a.base() != b.base() {
		t.Error("the replicas show different files")
	}
}

func TestWhatEditorsMadeOfFiles(t *testing.T) {
	for _, tt := range []struct {
		kept string // the newest first: a version's hash, with a + if it was applied
		of   string
		want string // "": the files count
	}{
		{"", "0", ""},
		{"0", "0", ""},
		{"0", "1", ""},
		{"1+ 0", "0", "1"},
		{"1+ 0", "1", "1"},
		{"1+ 0", "2", ""},
		{"3+ 2+ 1+ 0", "0", "3"},
		{"3+ 2+ 1+ 0", "2", "3"},
		{"3+ 2+ 1+", "1", "3"}, // the first was forgotten
		{"0+ 1+ 0", "0", "0"},  // put back
		{"0+ 1+ 0", "1", "0"},
		{"2 1+ 0", "0", "1"}, // others have newer files
		{"2 1+ 0", "2", ""},
		{"0 2 1+ 0", "0", ""}, // the files came back
		{"3+ 2 1+ 0", "0", "1"},
		{"3+ 1 2 1+ 0", "0", "3"}, // applied to what was applied before
		{"1+ 3+ 1 2 1+ 0", "0", "1"},
	} {
		var kept []router.KeptRules
		for i, v := range strings.Fields(tt.kept) {
			hash, applied := strings.CutSuffix(v, "+")
			kept = append(kept, router.KeptRules{ID: int64(100 - i), Hash: hash, Origin: map[bool]string{true: "applied", false: fileChanged}[applied]})
		}
		if got := madeOf(kept, tt.of); got.Hash != tt.want || got.ID == 0 != (tt.want == "") {
			t.Errorf("of %s, with the versions %s, editors made %q, want %q", tt.of, tt.kept, got.Hash, tt.want)
		}
	}
}
