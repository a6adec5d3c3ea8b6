package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/web"
	"switchyard/rules"
)

// A rulebook is the files that a reloader watches, for the console.
type rulebook struct {
	*reloader
	*store.Store // where versions are kept
}

var _ web.Rulebook = rulebook{}

// named returns the files without their directories.
func named(files []rules.File) []rules.File {
	files = slices.Clone(files)
	for i := range files {
		files[i].Name = filepath.Base(files[i].Name)
	}
	return files
}

// Files implements web.Rulebook.
func (b rulebook) Files() ([]rules.File, string, error) {
	c, err := b.read()
	if err != nil {
		return nil, "", &router.ConflictError{Reason: err.Error()} // its words are for whoever edits them
	}
	return named(slices.Concat(c.files, c.tests)), c.text, nil
}

// draft is the content that these files would be.
func (b rulebook) draft(files []rules.File) (content, error) {
	var of, tests []rules.File
	for _, f := range files {
		if isTests(f.Name) {
			tests = append(tests, f)
		} else {
			of = append(of, f)
		}
	}
	for _, list := range [][]rules.File{of, tests} { // as a directory has them
		slices.SortFunc(list, func(a, b rules.File) int { return strings.Compare(a.Name, b.Name) })
	}
	specs, err := jobspecs.Load(b.specDir)
	if err != nil {
		return content{}, fmt.Errorf("load jobspecs: %w", err)
	}
	return b.content(of, tests, specs), nil
}

// Check implements web.Rulebook.
func (b rulebook) Check(ctx context.Context, files []rules.File) (router.RulesCheck, *rules.Set, error) {
	c, err := b.draft(files)
	if err != nil {
		return router.RulesCheck{}, nil, err
	}
	set, found, err := load(ctx, c.files)
	check := router.RulesCheck{Findings: found}
	if set == nil || err != nil {
		return check, nil, err
	}
	if check.Findings, err = lint(ctx, set, c.specs); err != nil {
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
			Message: fmt.Sprintf("there was no time for %d of %s: the server would refuse the draft", report.Skipped, count(report.Passed+report.Failed+report.Skipped, "test")),
		})
	}
	slices.SortStableFunc(check.Findings, func(a, b rules.Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return check, set, nil
}

// Jobspecs implements web.Rulebook.
func (b rulebook) Jobspecs() []string {
	specs, err := jobspecs.Load(b.specDir)
	if err != nil {
		return nil // a check says it
	}
	return specs.Names()
}

// Recent implements web.Rulebook.
func (b rulebook) Recent(ctx context.Context, since time.Time, within router.Scope) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for j, err := range b.Store.Recent(ctx, since, within) {
			r := recorded(j)
			r.ID = j.Job.ID // by which the console and the API know it, on whatever GitHub it is
			if !yield(r, err) {
				return
			}
		}
	}
}

// Apply implements web.Rulebook. What the files held is kept before they are
// written, and no look of the reloader falls between their being written and
// their being in force. After a crash the server starts with what lies there:
// each file is the old or the new one, whole.
func (b rulebook) Apply(ctx context.Context, a router.RulesEdit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	began := time.Now()
	now, err := b.read()
	if err != nil {
		return &router.ConflictError{Reason: "the rules' files cannot be read now: " + err.Error()}
	}
	if now.text != a.Base {
		return router.ErrRulesChanged
	}
	next, err := b.draft(a.Files)
	if err != nil {
		return err
	}
	was, is := slices.Concat(now.files, now.tests), slices.Concat(next.files, next.tests)
	if !slices.EqualFunc(named(was), is, func(a, b rules.File) bool { return a.Name == b.Name }) {
		return &router.ConflictError{Reason: fmt.Sprintf("the files would be %s, but they are %s: add and remove files where the server has them",
			strings.Join(names(is), ", "), strings.Join(names(named(was)), ", "))}
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
		return &router.ConflictError{Reason: "the draft takes longer to load and to test than one may, so it is not put in force: simplify it, or change the files where the server has them"}
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
	if err := ctx.Err(); err != nil {
		return err // nobody waits for it any more
	}
	if err := b.remember(ctx, now, router.KeptRules{Origin: fileChanged}); err != nil {
		return err // nothing is replaced that cannot be put back
	}
	// To judge a draft takes a while, in which somebody may have edited the files.
	unchanged := func() error {
		switch c, err := b.read(); {
		case err != nil:
			return &router.ConflictError{Reason: "the rules' files cannot be read now: " + err.Error()}
		case c.text != a.Base:
			return router.ErrRulesChanged
		}
		return nil
	}
	if err := writeFiles(changes, was, unchanged); err != nil {
		return err
	}
	b.record(context.WithoutCancel(ctx), next, router.KeptRules{Who: a.Who, Origin: a.Origin, Note: a.Note})
	b.enforce(ctx, next, set, a.Origin, began)
	return nil
}

// remember keeps a version.
func (r *reloader) remember(ctx context.Context, c content, v router.KeptRules) error {
	if r.keep == nil {
		return nil
	}
	v.At, v.Hash, v.Files = time.Now(), c.text, named(slices.Concat(c.files, c.tests))
	_, err := r.keep(ctx, v)
	return err
}

// record is remember for rules that work all the same when it fails.
func (r *reloader) record(ctx context.Context, c content, v router.KeptRules) {
	if err := r.remember(ctx, c, v); err != nil && ctx.Err() == nil {
		r.log.Error("cannot keep a version of the rules; it cannot be put back later", "hash", c.hash, "err", err)
	}
}

// writeFiles writes all files or none, if it can: first each beside its place,
// then all take their places, unless something changed meanwhile. was is what
// they hold now, to go back to.
func writeFiles(files, was []rules.File, unchanged func() error) (err error) {
	var beside []string
	defer func() {
		for _, name := range beside {
			_ = os.Remove(name) // it is there no more, or of no use
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
	for _, f := range files { // after all renames: nothing slow stands between the last look and them
		if dir, err := os.Open(filepath.Dir(f.Name)); err == nil { // Windows has no such sync, and needs none
			_ = dir.Sync()
			_ = dir.Close()
		}
	}
	return nil
}

// writeBeside writes a file under another name in its directory, which no rules
// have, with the mode of the one that is there.
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

// unwritable says to people what keeps a file from being written.
func unwritable(name string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return &router.ConflictError{Reason: fmt.Sprintf("%s cannot be written here: %v; change it where it comes from, and the server takes it up", filepath.Base(name), err)}
}
