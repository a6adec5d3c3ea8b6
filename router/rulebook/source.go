package rulebook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/rules"
)

// A source is where the rules and jobspecs are read from.
type source struct {
	rules   string // file, or directory of files
	specDir string // "": none but the built-in jobspecs
}

// A content is what a source held at one moment.
type content struct {
	files []rules.File
	tests []rules.File // *.test.yaml beside them
	specs *jobspecs.Set
	text  string // hex SHA-256 of the names and bytes of files and tests
	hash  string // hex SHA-256 of these, and of the jobspecs if any is the operator's own

	kept router.KeptRules // that counts instead of the files, without its own; no ID: the files count
	last int64            // ID of the newest that was kept then, if replicas share the versions
}

func (s source) read() (content, error) {
	// A server must neither wait for the writer of a pipe nor fill its memory.
	if info, err := os.Stat(s.rules); err == nil && !info.IsDir() && (!info.Mode().IsRegular() || info.Size() > maxRead) {
		return content{}, fmt.Errorf("read the rules: %s is not a regular file of at most %d MiB", s.rules, maxRead>>20)
	}
	files, err := ReadRules(context.Background(), s.rules) // plain files
	if err != nil {
		return content{}, fmt.Errorf("read the rules: %w", err)
	}
	tests, err := TestsBeside(s.rules)
	if err != nil {
		return content{}, fmt.Errorf("look for tests: %w", err)
	}
	testFiles, err := ReadPlain(tests)
	if err != nil {
		return content{}, fmt.Errorf("read the tests: %w", err)
	}
	specs, err := jobspecs.Load(s.specDir)
	if err != nil {
		return content{}, fmt.Errorf("load jobspecs: %w", err)
	}
	return s.content(files, testFiles, specs), nil
}

func (s source) content(files, tests []rules.File, specs *jobspecs.Set) content {
	h := sha256.New()
	for _, f := range slices.Concat(files, tests) { // base names, so that replicas agree wherever their files are
		fmt.Fprintf(h, "%q %d\n%s", filepath.Base(f.Name), len(f.Source), f.Source)
	}
	text := hex.EncodeToString(h.Sum(nil))
	if len(specs.Own()) > 0 {
		for _, name := range specs.Names() {
			spec, _ := specs.Get(name)
			fmt.Fprintf(h, "%q %s\n", name, spec.Hash)
		}
	}
	return content{files: files, tests: tests, specs: specs, text: text, hash: hex.EncodeToString(h.Sum(nil))}
}

// split returns the files of rules, and those of tests.
func split(files []rules.File) (of, tests []rules.File) {
	for _, f := range files {
		if IsTests(f.Name) {
			tests = append(tests, f)
		} else {
			of = append(of, f)
		}
	}
	return of, tests
}

func (c content) version(origin string) router.RulesVersion {
	return router.RulesVersion{Hash: c.hash, Origin: origin, Files: Names(c.files)}
}

const (
	maxChanges = 20  // that a version reports
	maxChange  = 160 // characters of a line that was changed
	keptSame   = 20  // bytes before the first that was
)

// changes says what differs from an earlier content, in one line for each file and jobspec.
func (c content) changes(was content) []string {
	lines := []string{}
	add := func(what string, before, after []byte) {
		if !bytes.Equal(before, after) {
			lines = append(lines, what+": "+difference(string(before), string(after), !strings.HasPrefix(what, jobspecOf)))
		}
	}
	files := func(of content) map[string][]byte {
		all := map[string][]byte{}
		for _, f := range slices.Concat(of.files, of.tests) {
			all[filepath.Base(f.Name)] = f.Source
		}
		if of.specs != nil {
			for _, name := range of.specs.Names() {
				spec, _ := of.specs.Get(name)
				all[jobspecOf+name] = spec.Source
			}
		}
		return all
	}
	before, after := files(was), files(c)
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add(name, before[name], after[name])
	}
	if len(lines) > maxChanges {
		lines = append(lines[:maxChanges], fmt.Sprintf("and %d more", len(lines)-maxChanges))
	}
	return lines
}

// jobspecOf begins the name of a jobspec. Viewers may read the rules, but no jobspec: it may
// have secrets.
const jobspecOf = "jobspec "

// difference says how a text was changed: its first line that differs, itself only if it may
// be shown, and how many do.
func difference(before, after string, shown bool) string {
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	switch {
	case before == "":
		return "new"
	case after == "":
		return "removed"
	}
	first := 0
	for first < min(len(was), len(is)) && was[first] == is[first] {
		first++
	}
	for len(was) > first && len(is) > first && was[len(was)-1] == is[len(is)-1] {
		was, is = was[:len(was)-1], is[:len(is)-1]
	}
	was, is = was[first:], is[first:]
	same := 0 // bytes at the start of a long line that are the same, but for the last few
	if len(was) > 0 && len(is) > 0 {
		for i, c := range was[0] {
			if !strings.HasPrefix(is[0][min(i, len(is[0])):], string(c)) {
				break
			}
			same = i + 1 - keptSame
		}
	}
	show := func(lines []string) string {
		switch {
		case len(lines) == 0:
			return "nothing"
		case same > maxChange/2:
			return "`…" + router.Cut(strings.ToValidUTF8(lines[0][same:], ""), maxChange) + "`"
		}
		return "`" + router.Cut(strings.TrimSpace(lines[0]), maxChange) + "`"
	}
	text := fmt.Sprintf("line %d", first+1)
	if shown {
		text += fmt.Sprintf(": %s → %s", show(was), show(is))
	}
	if n := max(len(was), len(is)) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// report runs the tests of the rules, unless their files have faults.
func (c content) report(ctx context.Context, set *rules.Set) (report rules.TestReport, faults rules.Diagnostics) {
	tests := set.Tests()
	for _, f := range c.tests {
		if ctx.Err() != nil {
			break
		}
		more, found := ParseTests(set, f)
		tests, faults = append(tests, more...), append(faults, found...)
	}
	if len(faults) > 0 {
		return report, faults
	}
	return set.Test(ctx, tests), nil
}

// test runs the tests of the rules, and returns what failed.
func (c content) test(ctx context.Context, set *rules.Set) rules.Diagnostics {
	report, failed := c.report(ctx, set)
	for _, t := range report.Tests {
		for _, f := range t.Failures {
			failed = append(failed, rules.Diagnostic{
				File: t.File, Line: f.Line, Column: f.Column,
				Message: fmt.Sprintf("test %q failed: %s: expected %s, got %s", t.Name, f.What, f.Expected, f.Got),
			})
		}
	}
	return failed
}

// ReadRules reads the files that rulesFiles returns. The error holds rules.Diagnostics if a
// file of a directory is at fault.
func ReadRules(ctx context.Context, path string) ([]rules.File, error) {
	names, err := rulesFiles(path)
	if err != nil {
		return nil, err
	}
	if len(names) == 1 && names[0] == path { // a file that somebody named may be a link, or a pipe
		return ReadFiles(ctx, names)
	}
	return ReadPlain(names)
}

// rulesFiles returns the name of a rules file, or those of the *.yaml and *.yml files of a
// directory, sorted. It leaves out files of tests (*.test.yaml) and hidden files.
func rulesFiles(path string) ([]string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return []string{path}, nil // reading it says what is wrong
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isRulesFile(e.Name()) && !e.IsDir() {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if names == nil {
		return nil, fmt.Errorf("%s holds no rules file: their names end in .yaml or .yml", path)
	}
	return names, nil
}

// ReadFiles reads files that somebody named: they may be links or pipes. The end of a pipe is
// waited for until ctx ends.
func ReadFiles(ctx context.Context, names []string) ([]rules.File, error) {
	var files []rules.File
	for _, name := range names {
		src, err := readNamed(ctx, name)
		if err != nil {
			return nil, err
		}
		files = append(files, rules.File{Name: name, Source: src})
	}
	return files, nil
}

// readNamed reads one file for ReadFiles.
func readNamed(ctx context.Context, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(0, 1)) })() // only a pipe is waited for
	src, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case err == nil && len(src) > maxRead:
		return nil, fmt.Errorf("%s is larger than a file of rules may be (%d MiB)", name, maxRead>>20)
	}
	return src, err
}

// ReadPlain is ReadFiles for files that nobody named, but that are in a directory. Files that
// jobspecs.Open refuses, or that are too large, are not read, and are rules.Diagnostics in the
// error.
func ReadPlain(names []string) (files []rules.File, err error) {
	var faults rules.Diagnostics
	for _, name := range names {
		src, err := readPlainFile(name)
		var place *jobspecs.PlaceError
		switch {
		case errors.As(err, &place):
			faults = append(faults, rules.Diagnostic{File: name, Line: 1, Column: 1, Message: place.Reason})
		case err != nil:
			return nil, err
		}
		files = append(files, rules.File{Name: name, Source: src})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return files, nil
}

func readPlainFile(name string) ([]byte, error) {
	f, err := jobspecs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err == nil && len(src) > maxRead {
		err = &jobspecs.PlaceError{Path: name, Reason: fmt.Sprintf("larger than a file of rules may be (%d MiB)", maxRead>>20)}
	}
	return src, err
}

// Faults returns the faults in an error of ReadRules or ReadPlain, or the error if it is
// another one.
func Faults(err error) (rules.Diagnostics, error) {
	if faults, ok := errors.AsType[rules.Diagnostics](err); ok {
		return faults, nil
	}
	return nil, err
}

// isRulesFile reports whether a file of a directory holds rules, by its name.
func isRulesFile(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !IsTests(name) && !isHidden(name)
}

// isHidden reports whether a name is that of a hidden file or an editor's own, such as Emacs's
// lock .#rules.yaml.
func isHidden(name string) bool { return name[0] == '.' || name[0] == '#' }

// Names returns the names of files.
func Names(files []rules.File) []string {
	list := make([]string, len(files))
	for i, f := range files {
		list[i] = f.Name
	}
	return list
}

// TestsBeside returns the files of tests that belong to a rules file, which is the one of its
// name, or to a directory, which are all in it except hidden ones.
func TestsBeside(path string) ([]string, error) {
	own := testsOf(filepath.Base(path))
	dir, belongs := filepath.Dir(path), func(name string) bool { return name == own }
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir, belongs = path, func(name string) bool { return !isHidden(name) }
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) { // so the rules are not there either
		return nil, nil
	}
	var tests []string
	for _, e := range entries {
		if IsTests(e.Name()) && belongs(e.Name()) && !e.IsDir() {
			tests = append(tests, filepath.Join(dir, e.Name()))
		}
	}
	return tests, err
}

// testsOf returns the name of the file of tests of a rules file.
func testsOf(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + ".test" + ext
}

// IsTests reports whether a file of that name holds tests of rules.
var IsTests = regexp.MustCompile(`\.test\.ya?ml$`).MatchString

// ParseTests reads a file of tests, and checks them against set if it is not nil.
func ParseTests(set *rules.Set, file rules.File) (tests []rules.Test, faults rules.Diagnostics) {
	tests, err := rules.ParseTests(file.Name, file.Source)
	if !errors.As(err, &faults) && set != nil {
		faults = set.CheckTests(tests)
	}
	return tests, faults
}
