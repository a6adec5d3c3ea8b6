package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/rules"
)

const (
	settle       = 200 * time.Millisecond // without a change, before the files are read
	settleAtMost = 2 * time.Second
	reread       = time.Minute     // network file systems lose events
	askNomad     = 5 * time.Second // for one jobspec
	judgeAtMost  = time.Minute     // that a version is loaded and tested; 10,000 rules with as many tests take some seconds
	maxShown     = 100             // faults that are logged and reported of a refused version
	maxRead      = 16 << 20        // bytes of a file; the rules take fewer, and say so at its place
)

// What makes a version of the rules be loaded; RulesVersion.Origin.
const (
	fileChanged = "file changed"
	hangup      = "SIGHUP"
	started     = "start"
)

// A source is where the rules and jobspecs come from.
type source struct {
	rules   string // file, or directory of files
	specDir string // "": none but the built-in jobspecs
}

// content is what a source held at one moment.
type content struct {
	files []rules.File
	tests []rules.File // *.test.yaml beside them
	specs *jobspecs.Set
	text  string // hex SHA-256 of the names and bytes of files and tests
	hash  string // hex SHA-256 of these, and of the jobspecs if any is the operator's own
}

func (s source) read() (content, error) {
	// A server must neither wait for the writer of a pipe nor fill its memory.
	if info, err := os.Stat(s.rules); err == nil && !info.IsDir() && (!info.Mode().IsRegular() || info.Size() > maxRead) {
		return content{}, fmt.Errorf("read the rules: %s is no regular file of at most %d MiB", s.rules, maxRead>>20)
	}
	files, err := readRules(context.Background(), s.rules) // plain files
	if err != nil {
		return content{}, fmt.Errorf("read the rules: %w", err)
	}
	tests, err := testsBeside(s.rules)
	if err != nil {
		return content{}, fmt.Errorf("look for tests: %w", err)
	}
	testFiles, err := readWithin(tests)
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

func (c content) version(origin string) router.RulesVersion {
	return router.RulesVersion{Hash: c.hash, Origin: origin, Files: names(c.files)}
}

// report runs the tests of the rules, unless there are faults in their files.
func (c content) report(ctx context.Context, set *rules.Set) (report rules.TestReport, faults rules.Diagnostics) {
	tests := set.Tests()
	for _, f := range c.tests {
		if ctx.Err() != nil {
			break
		}
		more, found := parseTests(set, f)
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

// readRules reads what rulesFiles names. The error holds rules.Diagnostics when
// it is a fault of a file that a directory holds.
func readRules(ctx context.Context, path string) ([]rules.File, error) {
	names, err := rulesFiles(path)
	if err != nil {
		return nil, err
	}
	if len(names) == 1 && names[0] == path { // whoever named it may have it be a link, or a pipe
		return readFiles(ctx, names)
	}
	return readWithin(names)
}

// rulesFiles is a rules file, or the *.yaml and *.yml files of a directory in
// name order. Files of tests (*.test.yaml) and dotfiles are left out.
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

func readFiles(ctx context.Context, names []string) ([]rules.File, error) {
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

// readNamed reads a file that may be a pipe; its end is not waited for longer
// than ctx.
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

// readWithin is readFiles for files that nobody named: they are read because of
// the directory that they lie in. The error holds rules.Diagnostics for those
// that jobspecs.Open does not open, or that are too large; they are not read.
func readWithin(names []string) (files []rules.File, err error) {
	var faults rules.Diagnostics
	for _, name := range names {
		src, err := readPlain(name)
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

func readPlain(name string) ([]byte, error) {
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

// faultsOf returns the faults that an error of readRules or readWithin holds, or
// the error, when it is another.
func faultsOf(err error) (rules.Diagnostics, error) {
	if faults, ok := errors.AsType[rules.Diagnostics](err); ok {
		return faults, nil
	}
	return nil, err
}

// isRulesFile tells a directory's rules from what else lies there.
func isRulesFile(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !isTests(name) && !isHidden(name)
}

// isHidden tells editors' own files, such as Emacs's lock .#rules.yaml.
func isHidden(name string) bool { return name[0] == '.' || name[0] == '#' }

// A reloader puts new rules in force while the server runs.
type reloader struct {
	source
	app   inForce
	nomad *nomad.Client // with the jobspecs in force
	log   *slog.Logger
	keep  func(context.Context, router.KeptRules) (int64, error) // nil: no version is kept
	marks marks                                                  // nil: no good version is remembered

	judged atomic.Pointer[string] // hash of the content that is looked at, or was

	mu      sync.Mutex // of what follows, and held while files are written
	current string     // hash of what is in force
	refused string     // hash, or error, of what was refused last; "": nothing newer
	say     func()     // tells the App of what was refused at the start; nil: nothing was
}

// inForce is the App, as the reloader uses it.
type inForce interface {
	Reload(*rules.Set, router.RulesVersion)
	RefuseRules(router.RefusedRules)
	KeepRules()
}

// run watches the source until ctx ends. hup asks for a look at any time.
func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		r.log.Warn("cannot watch the rules; they are read every minute, and on SIGHUP", "err", err)
		r.loop(ctx, nil, nil, hup, func() watched { return nil })
		return
	}
	defer func() { _ = w.Close() }()
	r.loop(ctx, w.Events, w.Errors, hup, func() watched { return r.watch(w) })
}

// loop looks at the source when told to: at once, when events that matter have
// settled, on a signal, and every minute. Before each look, watch begins anew,
// so that no change falls between the two.
func (r *reloader) loop(ctx context.Context, events <-chan fsnotify.Event, errs <-chan error, hup <-chan os.Signal, watch func() watched) {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	var first time.Time // the first event since the last look; zero: none
	var on watched
	var ended chan struct{} // closed when the look that goes on has ended; nil: none goes on
	stop := func() {}
	defer func() { stop() }()
	changed := func() {
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(min(settle, time.Until(first.Add(settleAtMost))))
	}
	for {
		origin := fileChanged
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if on.matters(e.Name) {
				changed()
			}
			continue
		case err := <-errs:
			r.log.Warn("events of the rules were lost; they are read again", "err", err)
			changed()
			continue
		case <-ended:
			ended = nil
			continue
		case <-hup:
			origin = hangup
		case <-settled.C:
		case <-tick.C:
		}
		first = time.Time{}
		on = watch()
		if ended != nil && origin == fileChanged && !r.newer() {
			continue
		}
		// A version that takes long holds up no newer one.
		stop()
		looking, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		ended, stop = done, func() {
			cancel()
			<-done
		}
		go func() {
			defer close(done)
			r.look(looking, origin)
		}()
	}
}

// newer reports whether the source has something else than what is looked at.
func (r *reloader) newer() bool {
	c, err := r.read()
	hash := r.judged.Load()
	return err != nil || hash == nil || c.hash != *hash
}

// load loads the rules, checks them against the jobspecs and runs their tests.
func (c content) load(ctx context.Context) (*rules.Set, rules.Diagnostics, error) {
	set, faults, err := load(ctx, c.files)
	if set == nil {
		return nil, faults, err
	}
	if faults = set.CheckJobspecs(c.specs.Names()); len(faults) == 0 {
		faults = c.test(ctx, set)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("run the tests: %w", context.Cause(ctx))
	}
	return set, faults, nil
}

var errJudgeAtMost = fmt.Errorf("to load and to test them takes more than %v", judgeAtMost)

// look reads the source and puts it in force if it is new and good.
func (r *reloader) look(ctx context.Context, origin string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	c, err := r.read()
	key := c.hash
	if err != nil {
		key = err.Error()
	}
	switch {
	case key == r.current:
		if r.refused != "" {
			r.log.Info("the rules are again those in force", "hash", key)
			r.app.KeepRules()
			r.refused = ""
		} else if origin == hangup {
			r.log.Info("rules unchanged", "hash", key)
		}
		return
	case key == r.refused && origin != hangup:
		return
	}
	refused := router.RefusedRules{Hash: c.hash, Origin: origin}
	r.judged.Store(&c.hash)
	var set *rules.Set
	if err == nil {
		within, cancel := context.WithTimeoutCause(ctx, judgeAtMost, errJudgeAtMost)
		defer cancel()
		r.record(within, c, router.KeptRules{Origin: origin})
		set, refused.Diagnostics, err = r.judge(within, c)
	} else {
		refused.Diagnostics, err = faultsOf(err)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil || len(refused.Diagnostics) > 0 {
		r.refused = key
		r.refuse(refused, err)
		return
	}
	r.enforce(ctx, c, set, origin, began)
}

// judge loads content and has Nomad check the jobspecs that it uses. What is
// found keeps it from coming into force.
func (r *reloader) judge(ctx context.Context, c content) (*rules.Set, rules.Diagnostics, error) {
	set, faults, err := c.load(ctx)
	if err == nil && len(faults) == 0 {
		faults = checkJobspecs(ctx, r.nomad.WithJobspecs(c.specs), set, c.specs, r.log)
	}
	return set, faults, err
}

// enforce puts what was judged good in force.
func (r *reloader) enforce(ctx context.Context, c content, set *rules.Set, origin string, began time.Time) {
	r.nomad.Use(c.specs) // first, so that no new rule meets an old jobspec. A job that lost its jobspec is decided anew
	r.app.Reload(set, c.version(origin))
	r.current, r.refused = c.hash, ""
	r.rememberGood(context.WithoutCancel(ctx), c)
	r.log.Info("rules in force", "hash", c.hash, "origin", origin, "files", len(c.files), "rules", len(set.Rules()), "took", time.Since(began))
	logLint(ctx, r.log, set, c.specs)
}

// refuse reports what was refused, for err or for its diagnostics.
func (r *reloader) refuse(refused router.RefusedRules, err error) {
	message := "new rules refused, the old ones stay in force"
	if refused.Origin == started {
		message = "the rules are bad at the start, the last good ones in the database are in force"
	}
	found := len(refused.Diagnostics)
	if err != nil {
		refused.Reason = strings.ReplaceAll(err.Error(), "\n", "; ") // those of several jobspecs
		r.log.Error(message, "err", refused.Reason)
	} else {
		refused.Reason = count(found, "fault")
	}
	if found > maxShown {
		refused.Diagnostics = refused.Diagnostics[:maxShown]
		refused.Reason += fmt.Sprintf(", the first %d are shown", maxShown)
	}
	for _, d := range refused.Diagnostics {
		r.log.Error(message, logged(d)...)
	}
	r.app.RefuseRules(refused)
}

// logged is a finding as attributes of a log line.
func logged(d rules.Diagnostic) []any {
	return []any{"file", d.File, "line", d.Line, "column", d.Column, "rule", d.Rule, "code", d.Code, "err", d.Message}
}

// logLint logs what switchyard check says of rules that come into force: it is
// no reason to refuse them.
func logLint(ctx context.Context, log *slog.Logger, set *rules.Set, specs *jobspecs.Set) {
	found, err := lint(ctx, set, specs)
	if err != nil {
		log.Warn("cannot check the rules in force", "err", err)
	}
	for _, d := range found[:min(len(found), maxShown)] {
		log.Warn("switchyard check finds something in the rules in force", logged(d)...)
	}
	if more := len(found) - maxShown; more > 0 {
		log.Warn("switchyard check finds more in the rules in force", "findings", more)
	}
}

// checkJobspecs has Nomad check the jobspecs that the rules use, and returns
// what it refuses, at the rules that use it. A cluster that is away is no
// fault: jobs wait for it.
func checkJobspecs(ctx context.Context, client *nomad.Client, set *rules.Set, specs *jobspecs.Set, log *slog.Logger) rules.Diagnostics {
	var refused rules.Diagnostics
	for _, name := range set.Jobspecs() {
		within, cancel := context.WithTimeout(ctx, askNomad)
		warnings, err := client.Validate(within, name)
		cancel()
		for _, w := range warnings {
			log.Warn("nomad warns about a jobspec", "jobspec", name, "warning", w)
		}
		var verdict *nomad.JobspecError
		var fix *router.FixError
		switch {
		case err == nil:
		case errors.As(err, &verdict):
			// The rules that use it are those that would miss it.
			others := slices.DeleteFunc(specs.Names(), func(other string) bool { return other == name })
			for _, d := range set.CheckJobspecs(others) {
				d.Code, d.Message = nomad.JobspecRefused, err.Error()
				refused = append(refused, d)
			}
		case errors.As(err, &fix):
			log.Warn("cannot have nomad check a jobspec", "jobspec", name, "err", err)
		default:
			if ctx.Err() == nil {
				log.Warn("nomad is away, so the jobspecs are not checked", "jobspec", name, "err", err)
			}
			return refused
		}
	}
	return refused
}

// watched says which names matter in which directories; a nil set is all that may be rules or jobspecs.
type watched map[string]map[string]bool

// matters reports whether an event under this name can change the content.
func (on watched) matters(name string) bool {
	if _, dir := on[name]; dir {
		return true // moved or deleted
	}
	names, ok := on[filepath.Dir(name)]
	base := filepath.Base(name)
	if ok && names == nil { // not the database that may lie beside; ..data is how Kubernetes swaps a directory
		return strings.HasPrefix(base, "..") || slices.Contains([]string{".yaml", ".yml", ".hcl", ".json"}, filepath.Ext(base))
	}
	return ok && names[base]
}

// add has a name in dir watched; "" is every name.
func (on watched) add(dir, name string) {
	names, ok := on[dir]
	switch {
	case name == "":
		on[dir] = nil
	case !ok:
		on[dir] = map[string]bool{name: true}
	case names != nil:
		names[name] = true
	}
}

// addPath has everything watched that decides what path leads to: its last
// directory and each link on the way, as when a Kubernetes volume swaps its
// ..data. What is missing is watched for in the directory that is there.
func (on watched) addPath(path string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return // there is no working directory any more
	}
	root := filepath.VolumeName(path) + string(filepath.Separator)
	dir, rest := root, strings.TrimPrefix(path, root)
	for range 255 { // links on the way, or one that leads to itself
		name, more, _ := strings.Cut(rest, string(filepath.Separator))
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		switch {
		case err != nil || more == "" && info.Mode()&os.ModeSymlink == 0:
			on.add(dir, name)
			if err == nil && info.IsDir() {
				on.add(at, "")
			}
			return
		case info.Mode()&os.ModeSymlink == 0:
			dir, rest = at, more
			continue
		}
		on.add(dir, name)
		target, err := os.Readlink(at)
		if err != nil {
			return
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		target = filepath.Join(target, more)
		root := filepath.VolumeName(target) + string(filepath.Separator)
		dir, rest = root, strings.TrimPrefix(target, root)
	}
}

// watch has w watch the source as it is now, and nothing else.
func (r *reloader) watch(w *fsnotify.Watcher) watched {
	on := watched{}
	for _, path := range []string{r.rules, testsOf(r.rules), r.specDir} {
		if path == "" {
			continue
		}
		on.addPath(path)
		entries, err := os.ReadDir(path)
		if err != nil {
			continue // a file, or not there
		}
		for _, e := range entries {
			if e.Type()&os.ModeSymlink != 0 {
				on.addPath(filepath.Join(path, e.Name()))
			}
		}
	}
	for _, dir := range w.WatchList() {
		_ = w.Remove(dir) // another directory may have its name by now
	}
	for dir := range on {
		if err := w.Add(dir); err != nil {
			r.log.Warn("cannot watch a directory of the rules; they are read every minute, and on SIGHUP", "dir", dir, "err", err)
		}
	}
	return on
}

// hangups delivers SIGHUP until stop. Windows has the name, but never sends it.
func hangups() (hup <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
