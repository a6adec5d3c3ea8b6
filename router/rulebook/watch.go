package rulebook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/rules"
)

const (
	settle       = 200 * time.Millisecond // time without a change before the files are read
	settleAtMost = 2 * time.Second
	reread       = time.Minute     // network file systems lose events
	askNomad     = 5 * time.Second // timeout for one jobspec
	judgeAtMost  = time.Minute     // to load and test a version; 10,000 rules with as many tests take some seconds
	maxShown     = 100             // faults of a refused version that are logged and reported
	maxRead      = 16 << 20        // bytes of a file; the rules allow fewer, and say so with its place
)

// Why a version of the rules is loaded: the values of RulesVersion.Origin.
const (
	fileChanged = "file changed"
	hangup      = "SIGHUP"
	start       = "start"
)

// An App decides by the rules; *server.App implements it.
type App interface {
	Reload(*rules.Set, router.RulesVersion)
	RefuseRules(router.RefusedRules)
	KeepRules()
	TellRules(ctx context.Context) // tells the other replicas that rules were applied
}

// Run puts new rules in force as the files change, until ctx ends. hup makes it read them at
// any time. Bind must be called before.
func (b *Book) Run(ctx context.Context, hup <-chan os.Signal) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		b.log.Warn("cannot watch the rules; they are read every minute, and on SIGHUP", "err", err)
		b.loop(ctx, nil, nil, hup, func() watched { return nil })
		return
	}
	defer func() { _ = w.Close() }()
	b.loop(ctx, w.Events, w.Errors, hup, func() watched { return b.watch(w) })
}

// loop refreshes the rules: at once, when relevant events have settled, on a signal, when another
// replica has applied rules, and every minute. watch is called before each refresh, so that no change is missed between the two.
func (b *Book) loop(ctx context.Context, events <-chan fsnotify.Event, errs <-chan error, hup <-chan os.Signal, watch func() watched) {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	var first time.Time // the first event since the last refresh; zero: none
	var on watched
	var ended chan struct{} // closed when the refresh under way has ended; nil: none is under way
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
			b.log.Warn("events of the rules were lost; they are read again", "err", err)
			changed()
			continue
		case <-ended:
			ended = nil
			continue
		case <-hup:
			origin = hangup
		case <-b.told:
		case <-settled.C:
		case <-tick.C:
		}
		first = time.Time{}
		on = watch()
		if ended != nil && origin == fileChanged && !b.newer(ctx) {
			continue
		}
		// A version that takes long must not delay a newer one.
		stop()
		refreshing, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		ended, stop = done, func() {
			cancel()
			<-done
		}
		go func() {
			defer close(done)
			b.refresh(refreshing, origin)
		}()
	}
}

// newer reports whether the source differs from what is being checked.
func (b *Book) newer(ctx context.Context) bool {
	c, err := b.read()
	if err == nil {
		c, _, err = b.counts(ctx, c)
	}
	hash := b.judged.Load()
	return err != nil || hash == nil || c.hash != *hash
}

// load loads the rules, checks them against the jobspecs and runs their tests.
func (c content) load(ctx context.Context) (*rules.Set, rules.Diagnostics, error) {
	set, faults, err := Load(ctx, c.files)
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

var errJudgeAtMost = fmt.Errorf("loading and testing them takes more than %v", judgeAtMost)

// refresh reads the source and puts it in force if it is new and good.
func (b *Book) refresh(ctx context.Context, origin string) {
	if b.turn.Acquire(ctx, 1) != nil {
		return // a newer version has come, or the server stops
	}
	defer b.turn.Release(1)
	began := time.Now()
	c, err := b.read()
	if err == nil {
		var unknown error
		if c, unknown = b.take(ctx, c, origin); unknown != nil {
			if ctx.Err() == nil {
				b.log.Warn("the rules are not read again at the moment", "err", unknown)
			}
			return
		}
	}
	key := c.hash
	if err != nil {
		key = err.Error()
	}
	switch {
	case key == b.current:
		if b.refused != "" {
			b.log.Info("the files have the rules in force again", "hash", key)
			b.app.KeepRules()
			b.refused = ""
		} else if origin == hangup {
			b.log.Info("rules unchanged", "hash", key)
		}
		return
	case key == b.refused && origin != hangup:
		return
	}
	refused := router.RefusedRules{Hash: c.hash, Origin: cmp.Or(c.kept.Origin, origin)}
	b.judged.Store(&c.hash)
	var set *rules.Set
	if err == nil {
		within, cancel := context.WithTimeoutCause(ctx, judgeAtMost, errJudgeAtMost)
		defer cancel()
		b.record(within, c, router.KeptRules{Origin: origin})
		set, refused.Diagnostics, err = b.judge(within, c)
	} else {
		refused.Diagnostics, err = Faults(err)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil || len(refused.Diagnostics) > 0 {
		b.refused = key
		b.refuse(refused, err)
		return
	}
	b.enforce(ctx, c, set, refused.Origin, c.kept.Who, began)
}

// judge loads content and has Nomad check the jobspecs that it uses. The faults that it
// returns keep the content from coming into force.
func (b *Book) judge(ctx context.Context, c content) (*rules.Set, rules.Diagnostics, error) {
	set, faults, err := c.load(ctx)
	if err == nil && len(faults) == 0 {
		faults = checkJobspecs(ctx, b.nomad, set, c.specs, b.log)
	}
	return set, faults, err
}

// enforce puts content in force that judge found good.
func (b *Book) enforce(ctx context.Context, c content, set *rules.Set, origin, who string, began time.Time) {
	b.nomad.Use(c.specs) // first, so that no new rule meets an old jobspec. A job that lost its jobspec is decided again
	v := c.version(origin)
	v.Who, v.Changes = who, c.changes(b.inForce)
	b.app.Reload(set, v)
	b.current, b.refused, b.inForce = c.hash, "", c
	b.rememberGood(context.WithoutCancel(ctx), c)
	b.log.Info("rules in force", "hash", c.hash, "origin", origin, "files", len(c.files), "rules", len(set.Rules()), "took", time.Since(began))
	LogLint(ctx, b.log, set, c.specs)
}

// refuse reports what was refused, because of err or of its diagnostics.
func (b *Book) refuse(refused router.RefusedRules, err error) {
	message := "new rules refused, the old ones stay in force"
	if refused.Origin == start {
		message = "the rules are bad at the start, the last good ones in the database are in force"
	}
	found := len(refused.Diagnostics)
	if err != nil {
		refused.Reason = strings.ReplaceAll(err.Error(), "\n", "; ") // those of several jobspecs
		b.log.Error(message, "err", refused.Reason)
	} else {
		refused.Reason = router.Count(found, "fault")
	}
	if found > maxShown {
		refused.Diagnostics = refused.Diagnostics[:maxShown]
		refused.Reason += fmt.Sprintf(", the first %d are shown", maxShown)
	}
	for _, d := range refused.Diagnostics {
		b.log.Error(message, logged(d)...)
	}
	b.app.RefuseRules(refused)
}

// logged returns a finding as attributes of a log line.
func logged(d rules.Diagnostic) []any {
	return []any{"file", d.File, "line", d.Line, "column", d.Column, "rule", d.Rule, "code", d.Code, "err", d.Message}
}

// LogLint logs what switchyard check reports about rules that come into force. They are not
// refused for it.
func LogLint(ctx context.Context, log *slog.Logger, set *rules.Set, specs *jobspecs.Set) {
	found, err := Lint(ctx, set, specs)
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

// checkJobspecs has Nomad check the jobspecs that the rules use, and returns those that it
// refuses, as faults of the rules that use them. A Nomad that is down is no fault: jobs wait
// for it.
func checkJobspecs(ctx context.Context, client Nomad, set *rules.Set, specs *jobspecs.Set, log *slog.Logger) rules.Diagnostics {
	var refused rules.Diagnostics
	for _, name := range set.Jobspecs() {
		within, cancel := context.WithTimeout(ctx, askNomad)
		warnings, err := client.ValidateWith(within, specs, name)
		cancel()
		for _, w := range warnings {
			log.Warn("nomad warns about a jobspec", "jobspec", name, "warning", w)
		}
		switch {
		case err == nil:
		case errors.As(err, new(*router.JobspecError)):
			// The rules that use it are those that would miss it.
			others := slices.DeleteFunc(specs.Names(), func(other string) bool { return other == name })
			for _, d := range set.CheckJobspecs(others) {
				d.Code, d.Message = router.JobspecRefused, err.Error()
				refused = append(refused, d)
			}
		case errors.As(err, new(*router.FixError)):
			log.Warn("cannot have nomad check a jobspec", "jobspec", name, "err", err)
		default:
			if ctx.Err() == nil {
				log.Warn("cannot reach nomad, so the jobspecs are not checked", "jobspec", name, "err", err)
			}
			return refused
		}
	}
	return refused
}

// A watched has the relevant names in each watched directory; a nil set means every name of
// rules and jobspecs.
type watched map[string]map[string]bool

// matters reports whether an event under this name can change the content.
func (on watched) matters(name string) bool {
	if _, dir := on[name]; dir {
		return true // moved or deleted
	}
	names, ok := on[filepath.Dir(name)]
	base := filepath.Base(name)
	if ok && names == nil { // not a database in the same directory; ..data is how Kubernetes swaps a directory
		return strings.HasPrefix(base, "..") || slices.Contains([]string{".yaml", ".yml", ".hcl", ".json"}, filepath.Ext(base))
	}
	return ok && names[base]
}

// add watches a name in dir; "" is every name.
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

// addPath watches everything that decides where path leads: its last directory and each link on
// the way, as when a Kubernetes volume swaps its ..data. For what is missing it watches the
// directory where it should be.
func (on watched) addPath(path string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return // the working directory is gone
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

// watch makes w watch the source as it is now, and nothing else.
func (b *Book) watch(w *fsnotify.Watcher) watched {
	on := watched{}
	for _, path := range []string{b.rules, testsOf(b.rules), b.specDir} {
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
			b.log.Warn("cannot watch a directory of the rules; they are read every minute, and on SIGHUP", "dir", dir, "err", err)
		}
	}
	return on
}
