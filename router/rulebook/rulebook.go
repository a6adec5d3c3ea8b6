// Package rulebook owns the files of the rules: it reads them, checks and tests changes, puts
// them in force, writes what the console applies, and keeps the last good version.
// cmd/switchyard makes one Book for a server, whose console edits it; the commands check,
// test, explain and diff read rules with its functions.
package rulebook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/rules"
)

// Nomad checks jobspecs and uses those in force; *nomad.Client implements it.
type Nomad interface {
	// ValidateWith asks Nomad whether it accepts a jobspec of specs. An error that is its
	// verdict on the jobspec is a *router.JobspecError; others say that it cannot tell.
	ValidateWith(ctx context.Context, specs *jobspecs.Set, name string) (warnings []string, err error)

	// Use makes these the jobspecs that runners are started by.
	Use(specs *jobspecs.Set)
}

// Marks are named values in the database.
type Marks interface {
	Mark(ctx context.Context, name string) (string, error)
	SetMark(ctx context.Context, name, value string) error
}

// A Config is what a Book is made from.
type Config struct {
	Rules      string // file, or directory of files. Required
	JobspecDir string // "": none but the built-in jobspecs
	Nomad      Nomad  // required
	Logger     *slog.Logger
	Keep       func(context.Context, router.KeptRules) (int64, error) // keeps a version; nil: none is kept
	Marks      Marks                                                  // nil: no good version is remembered for the next start
	Shared     Versions                                               // keeps the versions instead of Keep, for all replicas; nil: no other has this database
}

// A Book is the files of the rules. It is made by New, and safe for concurrent use once Bind
// was called.
type Book struct {
	source
	nomad Nomad
	log   *slog.Logger
	keep  func(context.Context, router.KeptRules) (int64, error)
	marks Marks
	app   App

	shared Versions
	told   router.Hint // that another replica has applied rules

	judged atomic.Pointer[string] // hash of the content that is or was checked last

	turn        *semaphore.Weighted // of Apply and refresh; guards what follows, and the files while they are written
	own         string              // hash of the text of the files, as take saw them last; "": never
	inForce     content
	current     string // hash of it
	refused     string // hash, or error, of what was refused last; "": nothing newer
	tellRefused func() // tells the App what was refused at the start; nil: nothing was
}

// New returns a Book that has read no files yet.
func New(c Config) *Book {
	return &Book{
		source: source{c.Rules, c.JobspecDir}, nomad: c.Nomad, log: c.Logger, keep: c.Keep, marks: c.Marks, shared: c.Shared,
		told: router.NewHint(), turn: semaphore.NewWeighted(1),
	}
}

// Bind makes app the one that rules are put in force by, and tells it what was refused at the
// start.
func (b *Book) Bind(app App) {
	b.app = app
	if b.tellRefused != nil {
		b.tellRefused()
	}
}

// named returns the files without their directories.
func named(files []rules.File) []rules.File {
	files = slices.Clone(files)
	for i := range files {
		files[i].Name = filepath.Base(files[i].Name)
	}
	return files
}

// Files implements the console's interface.
func (b *Book) Files(ctx context.Context) ([]rules.File, string, error) {
	c, err := b.read()
	if err != nil {
		return nil, "", &router.ConflictError{Reason: err.Error()} // for the editor of them
	}
	if c, _, err = b.counts(ctx, c); err != nil {
		return nil, "", err
	}
	return named(slices.Concat(c.files, c.tests)), c.text, nil
}

// draft returns the content that the source would have with these files.
func (b *Book) draft(files []rules.File) (content, error) {
	of, tests := split(files)
	for _, list := range [][]rules.File{of, tests} { // as a directory has them
		slices.SortFunc(list, func(a, b rules.File) int { return strings.Compare(a.Name, b.Name) })
	}
	specs, err := jobspecs.Load(b.specDir)
	if err != nil {
		return content{}, fmt.Errorf("load jobspecs: %w", err)
	}
	return b.content(of, tests, specs), nil
}

// Check implements the console's interface.
func (b *Book) Check(ctx context.Context, files []rules.File) (router.RulesCheck, *rules.Set, error) {
	c, err := b.draft(files)
	if err != nil {
		return router.RulesCheck{}, nil, err
	}
	set, found, err := Load(ctx, c.files)
	check := router.RulesCheck{Findings: found}
	if set == nil || err != nil {
		return check, nil, err
	}
	if check.Findings, err = Lint(ctx, set, c.specs); err != nil {
		return check, nil, err
	}
	report, faults := c.report(ctx, set)
	if len(faults) == 0 {
		check.Tests = &report
	}
	check.Good = len(faults) == 0 && report.Failed+report.Skipped == 0 && ctx.Err() == nil && len(set.CheckJobspecs(c.specs.Names())) == 0
	check.Findings = append(check.Findings, faults...)
	if report.Skipped > 0 {
		check.Findings = append(check.Findings, rules.Diagnostic{
			File: files[0].Name, Line: 1, Column: 1,
			Message: fmt.Sprintf("there was no time for %d of %s: the server would refuse the draft", report.Skipped, router.Count(report.Passed+report.Failed+report.Skipped, "test")),
		})
	}
	slices.SortStableFunc(check.Findings, func(a, b rules.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return check, set, nil
}

// Jobspecs implements the console's interface.
func (b *Book) Jobspecs() []string {
	specs, err := jobspecs.Load(b.specDir)
	if err != nil {
		return nil // a check says it
	}
	return specs.Names()
}

// Apply implements the console's interface. The earlier files are kept before they are
// overwritten, and no refresh happens between the writing and the change of the rules in
// force. After a crash the server starts with what is on the disk: each file is the old or the
// new one, never a mixture. With replicas no file is written, as each has its own.
func (b *Book) Apply(ctx context.Context, a router.RulesEdit) error {
	if b.turn.Acquire(ctx, 1) != nil { // a reload may take a minute, and other drafts wait for this one
		return &router.ConflictError{Reason: "the server is reading changed rules at the moment: try again when that is done"}
	}
	defer b.turn.Release(1)
	began := time.Now()
	read := func() (content, error) {
		c, err := b.read()
		if err != nil {
			return c, &router.ConflictError{Reason: "the rules' files cannot be read now: " + err.Error()}
		}
		if c, _, err = b.counts(ctx, c); err == nil && c.text != a.Base {
			err = router.ErrRulesChanged
		}
		return c, err
	}
	now, err := read()
	if err != nil {
		return err
	}
	next, err := b.draft(a.Files)
	if err != nil {
		return err
	}
	was, is := slices.Concat(now.files, now.tests), slices.Concat(next.files, next.tests)
	if !slices.EqualFunc(named(was), is, func(a, b rules.File) bool { return a.Name == b.Name }) {
		return &router.ConflictError{Reason: fmt.Sprintf("the files would be %s, but they are %s: add and remove files where the server has them",
			strings.Join(Names(is), ", "), strings.Join(Names(named(was)), ", "))}
	}
	var changes []rules.File
	for i := range is {
		is[i].Name = was[i].Name
		if !bytes.Equal(is[i].Source, was[i].Source) {
			changes = append(changes, is[i])
		}
	}
	// As reading the files then will give it: with their whole names.
	next = b.content(is[:len(next.files)], is[len(next.files):], next.specs)
	set, faults, err := b.judge(ctx, next)
	if errors.Is(err, context.DeadlineExceeded) {
		return &router.ConflictError{Reason: "the draft takes too long to load and test, so it is not put in force: simplify it, or change the files where the server has them"}
	}
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		for i := range faults {
			faults[i].File = filepath.Base(faults[i].File)
		}
		return &router.RulesRefusedError{Faults: faults}
	}
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return &router.ConflictError{Reason: "Nomad takes too long to check the jobspecs, so the draft is not put in force: try again when it answers"}
	case err != nil:
		return err // nobody waits for the answer
	}
	if err := b.remember(ctx, now, router.KeptRules{Origin: fileChanged}); err != nil {
		return err // nothing is overwritten that cannot be put back
	}
	v := router.KeptRules{Who: a.Who, Origin: a.Origin, Note: a.Note}
	if b.shared != nil {
		now, err := read() // again, as below
		if err != nil {
			return err
		}
		if err := b.shared.KeepRulesAfter(ctx, now.last, keptOf(now, router.KeptRules{Origin: fileChanged}), keptOf(next, v)); err != nil {
			return err
		}
		b.enforce(ctx, next, set, a.Origin, a.Who, began)
		b.app.TellRules(context.WithoutCancel(ctx))
		return nil
	}
	// Somebody may have edited the files while the draft was checked.
	unchanged := func() error {
		_, err := read()
		return err
	}
	if err := writeFiles(changes, was, unchanged); err != nil {
		return err
	}
	b.record(context.WithoutCancel(ctx), next, v)
	b.enforce(ctx, next, set, a.Origin, a.Who, began)
	return nil
}

// keptOf returns content as a version that is kept.
func keptOf(c content, v router.KeptRules) router.KeptRules {
	v.At, v.Hash, v.Files = time.Now(), c.text, named(slices.Concat(c.files, c.tests))
	return v
}

// remember keeps a version of the rules.
func (b *Book) remember(ctx context.Context, c content, v router.KeptRules) error {
	if b.keep == nil {
		return nil
	}
	_, err := b.keep(ctx, keptOf(c, v))
	return err
}

// record is remember for rules that take effect even if it fails.
func (b *Book) record(ctx context.Context, c content, v router.KeptRules) {
	if err := b.remember(ctx, c, v); err != nil && ctx.Err() == nil {
		b.log.Error("cannot keep a version of the rules, so it cannot be put back later", "hash", c.hash, "err", err)
	}
}

// writeFiles writes all files or none, if it can: first each beside its place,
// then all take their places, unless something has changed. was is what
// they hold now, to go back to.
func writeFiles(files, was []rules.File, unchanged func() error) (err error) {
	var beside []string
	defer func() {
		for _, name := range beside {
			_ = os.Remove(name) // it was renamed, or is of no use
		}
	}()
	for _, f := range files {
		name, err := writeBeside(f)
		if err != nil {
			return unwritable(f.Name, err)
		}
		beside = append(beside, name)
	}
	if err := unchanged(); err != nil {
		return err
	}
	for i, f := range files {
		if err := os.Rename(beside[i], f.Name); err != nil {
			err = unwritable(f.Name, err)
			for _, done := range files[:i] {
				at := slices.IndexFunc(was, func(w rules.File) bool { return w.Name == done.Name })
				name, undone := writeBeside(was[at])
				if undone == nil {
					undone = os.Rename(name, done.Name)
				}
				err = errors.Join(err, undone)
			}
			return err
		}
	}
	for _, f := range files { // after all renames: nothing slow happens between the check and the renames
		if dir, err := os.Open(filepath.Dir(f.Name)); err == nil { // Windows has no such sync, and needs none
			_ = dir.Sync()
			_ = dir.Close()
		}
	}
	return nil
}

// writeBeside writes a file under a temporary name, which no rules file has, in its directory,
// with the mode of the present file.
func writeBeside(f rules.File) (name string, err error) {
	info, err := os.Lstat(f.Name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is a link, as in a volume that Kubernetes makes of a ConfigMap")
	}
	t, err := os.CreateTemp(filepath.Dir(f.Name), "."+filepath.Base(f.Name)+".*.new")
	if err != nil {
		return "", err
	}
	_, err = t.Write(f.Source)
	err = errors.Join(err, t.Chmod(info.Mode().Perm()), t.Sync(), t.Close())
	if err != nil {
		_ = os.Remove(t.Name())
		return "", err
	}
	return t.Name(), nil
}

// unwritable returns an error that says to people why a file cannot be written.
func unwritable(name string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return &router.ConflictError{Reason: fmt.Sprintf("%s cannot be written here: %v; change it where it comes from, and the server will load it", filepath.Base(name), err)}
}
