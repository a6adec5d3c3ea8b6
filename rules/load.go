package rules

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// The bounds of a rules file.
const (
	maxRules        = 10_000
	maxConstraints  = 200 // of one section, and so on for the other lists
	maxDevices      = 128 // Nomad asks for no more in practice; it bounds a typing error
	maxCores        = 4096
	defaultScope    = `"self-hosted" in labels`
	maxParamOptions = 1000
)

// A File is one file of rules.
type File struct {
	Name   string // in messages
	Source []byte
}

// Parse loads one file, without a deadline.
func Parse(file string, src []byte) (*Set, error) { return Load(context.Background(), File{file, src}) }

// Load loads and checks one or more files as one set, so that teams can own their files.
// Vocabularies add up and rules follow each other in the order of the files; scope, compound,
// defaults, unroutable, feedback and prices stand in one of them. The error is a Diagnostics with every
// fault that was found, in the order of the files, or that of ctx when it ends before.
func Load(ctx context.Context, files ...File) (*Set, error) {
	s := &Set{knownLabels: knownLabels{vocabulary: vocabulary{exact: map[string]*label{}}, mentions: map[string]bool{}}}
	c := &common{set: s, first: map[string]cond.Spot{}, done: ctx.Done()}
	loaders := make([]*loader, len(files))
	for i, f := range files {
		loaders[i] = &loader{placementReader: placementReader{valueReader{c, &yamlfile.Reader{File: f.Name, Src: string(f.Source)}}}}
		loaders[i].open()
	}
	// Expressions can be compiled only when all params are known.
	c.lang = cond.NewLanguage(&s.vocabulary, s.mentions)
	c.lang.Patterns = c.patterns
	for _, r := range loaders {
		r.load()
	}
	if c.stopped() {
		return nil, context.Cause(ctx)
	}
	if last := loaders[len(loaders)-1]; c.first["scope"] == (cond.Spot{}) && s.scope.Root == nil {
		s.scope = last.condition(nil, "scope", defaultScope)
	}
	if r := loaders[0]; r.root != nil && c.first["rules"] == (cond.Spot{}) {
		r.Fault(r.root, "rules is missing: list at least one rule")
	}
	var faults Diagnostics
	for _, r := range loaders {
		r.enterprises()
		r.overflows()
		r.ownTests()
		faults = append(faults, sorted(r.Reader)...)
		if c.stopped() {
			return nil, context.Cause(ctx)
		}
	}
	switch {
	case len(faults) > 0:
		return nil, faults.cut()
	case len(s.rules) > maxRules:
		at := s.rules[maxRules].at
		return nil, Diagnostics{{File: at.File, Line: at.Line, Column: at.Column, Message: fmt.Sprintf("there are %d rules; the maximum is %d", len(s.rules), maxRules)}}
	}
	s.asked, s.sees, s.facts = c.lang.Asked, c.lang.Sees, c.lang.Facts
	s.names = s.allNames()
	s.index = cond.NewIndex(len(s.rules), func(i int) *cond.Node { return s.rules[i].when.Root })
	return s, nil
}

// common is what the loaders of the files of one set share.
type common struct {
	set   *Set
	lang  *cond.Language
	first map[string]cond.Spot // where what there is one of was found first, by "rule linux", "scope"

	done            <-chan struct{} // closed when nobody waits for it any more
	yamlfile.Volume                 // of all files so far
	patterns        int             // size of those of params
}

// stopped reports whether nobody waits for the result any more.
func (c *common) stopped() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// A loader reads the sections of one file.
type loader struct {
	placementReader
	root     ast.Node // nil: there is nothing to read
	sections map[string]ast.Node
	entries  []entry
}

// open parses the file and reads the names of the labels.
func (r *loader) open() {
	if r.stopped() {
		return
	}
	root := r.Tree(&r.common.Volume)
	if root == nil {
		return
	}
	r.sections = r.Fields(root, "a rules file", "version", "scope", "compound", "labels", "defaults", "unroutable", "feedback", "prices", "rules", "tests")
	if r.sections == nil {
		return
	}
	r.root = root
	checkVersion(r.Reader, root, r.sections, "a rules file")
	if n := r.sections["labels"]; n != nil {
		labels := labelReader{valueReader: r.valueReader}
		labels.vocabulary(n)
		r.entries = labels.entries
	}
}

// checkVersion checks the version of a file whose mapping is at root; what says what it is.
func checkVersion(r *yamlfile.Reader, root ast.Node, f map[string]ast.Node, what string) {
	if v, ok := f["version"]; !ok {
		r.Fault(root, "version is missing: %s begins with version: 1", what)
	} else if text, ok := r.Text(v, "version"); ok && text != "1" {
		r.Fault(v, "version %s is not one that this Switchyard reads: write version: 1", words.Quote(text))
	}
}

// load reads the rest of the file.
func (r *loader) load() {
	if r.root == nil {
		return
	}
	for _, e := range r.entries {
		if r.Full() || r.stopped() {
			return
		}
		r.layer(e.fields, &e.layer, "label "+words.Quote(e.pattern))
		e.layer.urgency = r.urgency(e.fields["urgency"], "label "+words.Quote(e.pattern)+": urgency")
	}
	if n, ok := r.sections["scope"]; ok && r.once(n, "scope") {
		if source, ok := r.Text(n, "scope"); ok {
			r.set.scope = r.condition(n, "scope", source)
		}
	}
	if n, ok := r.sections["compound"]; ok && r.once(n, "compound") {
		r.compound(n)
	}
	if n, ok := r.sections["defaults"]; ok && r.once(n, "defaults") {
		f := r.Fields(n, "defaults", append(placementKeys, "max", "time_limit")...)
		r.layer(f, &r.set.defaults, "defaults")
		r.max(f["max"], &r.set.defaults, "defaults")
		r.set.timeLimit = r.timeLimit(f["time_limit"])
	}
	if n, ok := r.sections["unroutable"]; ok && r.once(n, "unroutable") {
		r.unroutable(n)
	}
	if n, ok := r.sections["feedback"]; ok && r.once(n, "feedback") {
		r.feedback(n)
	}
	if n, ok := r.sections["prices"]; ok && r.once(n, "prices") {
		r.prices(n)
	}
	if n := r.sections["rules"]; n != nil {
		r.rules(n)
	}
}

func (r *loader) compound(n ast.Node) {
	f := r.Fields(n, "compound", "prefix", "separator")
	if f == nil {
		return
	}
	for key, at := range map[string]*string{"prefix": &r.set.compound.prefix, "separator": &r.set.compound.separator} {
		v, ok := f[key]
		if !ok {
			r.Fault(n, "compound needs a prefix and a separator, such as { prefix: 'yard=', separator: '/' }")
			continue
		}
		if s, ok := r.Text(v, "compound "+key); ok {
			*at = strings.ToLower(s)
		}
	}
}

func (r *loader) rules(n ast.Node) {
	if r.first["rules"] == (cond.Spot{}) {
		r.first["rules"] = r.at(n)
	}
	items := r.Items(n, "rules")
	if items != nil && len(items) == 0 {
		r.Fault(n, "rules is empty: list at least one rule")
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		list.Entries = nil // the same once more
	}
	reader := ruleReader{r.placementReader}
	for i, item := range items {
		if r.Full() || r.stopped() {
			return
		}
		items[i] = nil // of ten thousand rules the tree is larger than what comes of it
		before, doubts := len(r.Faults), len(r.set.doubts)
		ru := reader.rule(item)
		r.set.rules = append(r.set.rules, ru)
		for i := range r.Faults[before:] {
			r.Faults[before+i].Rule = ru.name
		}
		for i := range r.set.doubts[doubts:] {
			r.set.doubts[doubts+i].Rule = ru.name
		}
	}
}

// maxQueued is how long GitHub keeps a job that waits for a self-hosted runner, maxRunning how long
// it lets one run: docs.github.com, "Actions limits", read 2026-11-25.
const (
	maxQueued  = 24 * time.Hour
	maxRunning = 5 * 24 * time.Hour
)

// unroutable reads what happens to the run of a job that stays unroutable.
func (r *loader) unroutable(n ast.Node) {
	f := r.Fields(n, "unroutable", "after", "action")
	for _, k := range []string{"after", "action"} {
		if _, ok := f[k]; f != nil && !ok {
			r.Fault(n, "unroutable needs %s, as in { after: 10m, action: cancel }", k)
		}
	}
	if v, ok := f["after"]; ok {
		r.set.unroutable.after, _ = r.duration(v, "unroutable after", time.Second, maxQueued)
	}
	if v, ok := f["action"]; ok {
		r.set.unroutable.at = r.at(v)
	}
	r.set.unroutable.action = literal(&r.valueReader, f["action"], "unroutable action", oneOf("cancel")).literal
}

// feedback reads what is written on the commits of jobs that wait.
func (r *loader) feedback(n ast.Node) {
	f := r.Fields(n, "feedback", "kind", "after")
	if _, ok := f["kind"]; f != nil && !ok {
		r.Fault(n, "feedback needs a kind: check_run or commit_status")
	}
	r.set.feedback.after = 30 * time.Second
	if v, ok := f["after"]; ok {
		r.set.feedback.after, _ = r.duration(v, "feedback after", time.Second, maxQueued)
	}
	r.set.feedback.kind = literal(&r.valueReader, f["kind"], "feedback kind", oneOf("check_run", "commit_status")).literal
}

// enterprises reports each scope enterprise in the file for which no section names the enterprise:
// its rules could place no job.
func (r *loader) enterprises() {
	named := r.set.defaults.get(runnerEnterprise) != nil
	for _, l := range r.set.vocabulary.all() {
		named = named || l.layer.get(runnerEnterprise) != nil
	}
	check := func(l *layer, rule string) {
		if s := l.get(runnerScope); s != nil && s.literal == "enterprise" && l.get(runnerEnterprise) == nil && !named && s.at.File == r.File {
			r.Faults = append(r.Faults, yamlfile.Fault{Line: s.at.Line, Column: s.at.Column, Rule: rule, Message: "runner scope enterprise needs the enterprise: { scope: enterprise, enterprise: SLUG }, as in github.com/enterprises/SLUG"})
		}
	}
	check(&r.set.defaults, "")
	for i := range r.set.rules {
		check(&r.set.rules[i].layer, r.set.rules[i].name)
	}
}
