package rules

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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

// Load loads and checks one or more files as one set, so that teams can own
// their files. Vocabularies add up and rules follow each other in the order of
// the files; scope, compound, defaults, unroutable and feedback stand in one of
// them. The error is a Diagnostics with every fault that was found, in the
// order of the files, or that of ctx when it ends before.
func Load(ctx context.Context, files ...File) (*Set, error) {
	s := &Set{vocabulary: vocabulary{exact: map[string]*label{}}, mentions: map[string]bool{}}
	c := &common{set: s, first: map[string]cond.Spot{}, done: ctx.Done()}
	loaders := make([]*loader, len(files))
	for i, f := range files {
		loaders[i] = &loader{common: c, Reader: yamlfile.Reader{File: f.Name, Src: string(f.Source)}}
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
		r.ownTests()
		faults = append(faults, sorted(&r.Reader)...)
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
	s.asked, s.sees = c.lang.Asked, c.lang.Sees
	s.known = s.allNames()
	s.found = cond.NewIndex(len(s.rules), func(i int) *cond.Node { return s.rules[i].when.Root })
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

// stopped reports whether nobody waits for what is loaded any more.
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
	*common
	yamlfile.Reader
	root     ast.Node // nil: there is nothing to read
	sections map[string]ast.Node
	entries  []entry
}

// at is where a node stands.
func (r *loader) at(n ast.Node) cond.Spot {
	line, column := yamlfile.Place(n)
	return cond.Spot{File: r.File, Line: line, Column: column}
}

// once notes what there must be one of, and reports a second one.
func (r *loader) once(n ast.Node, what string) bool {
	before, there := r.first[what]
	switch {
	case !there:
		r.first[what] = r.at(n)
	case before.File == r.File:
		r.Fault(n, "%s is already defined at line %d", what, before.Line)
	default:
		r.Fault(n, "%s is already defined at %s:%d:%d: define it in one file only", what, before.File, before.Line, before.Column)
	}
	return !there
}

// open reads the tree and the names of the labels.
func (r *loader) open() {
	if r.stopped() {
		return
	}
	root := r.Tree(&r.common.Volume)
	if root == nil {
		return
	}
	r.sections = r.Fields(root, "a rules file", "version", "scope", "compound", "labels", "defaults", "unroutable", "feedback", "rules", "tests")
	if r.sections == nil {
		return
	}
	r.root = root
	if v, ok := r.sections["version"]; !ok {
		r.Fault(root, "version is missing: a rules file begins with version: 1")
	} else if text, ok := r.Text(v, "version"); ok && text != "1" {
		r.Fault(v, "version %s is not one that this Switchyard reads: write version: 1", words.Quote(text))
	}
	r.vocabulary(r.sections["labels"])
}

// load reads the rest.
func (r *loader) load() {
	if r.root == nil {
		return
	}
	for _, e := range r.entries {
		if r.Full() || r.stopped() {
			return
		}
		r.layer(e.fields, &e.layer, "label "+words.Quote(e.pattern))
	}
	if n, ok := r.sections["scope"]; ok && r.once(n, "scope") {
		r.scope(n)
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
	r.rules(r.sections["rules"])
}

func (r *loader) scope(n ast.Node) {
	if source, ok := r.Text(n, "scope"); ok {
		r.set.scope = r.condition(n, "scope", source)
	}
}

// condition compiles a condition that stands at n.
func (r *loader) condition(n ast.Node, what, source string) cond.Condition {
	source = strings.TrimRight(source, "\n")
	if inner, ok := strings.CutPrefix(strings.TrimSpace(source), cond.Opening); ok && strings.HasSuffix(inner, cond.Closing) {
		r.Fault(n, "%s is an expression already: leave ${{ and }} out", what)
		return cond.Condition{}
	}
	c, err := r.lang.Condition(source, what == "if")
	if err != nil {
		r.expressionFault(n, what, err)
	}
	if n == nil {
		return c
	}
	c.At = r.at(n)
	for _, d := range c.Doubts {
		r.doubt(n, d.Line, d.Column, d)
	}
	c.Root.Each(func(part *cond.Node) {
		line, column, _ := r.Within(n, max(part.At.Line, 1), part.At.Column)
		part.At = cond.Spot{File: r.File, Line: line, Column: column}
		for i := range part.Uses {
			u := &part.Uses[i]
			line, column, _ := r.Within(n, u.Line, u.Column)
			u.At = cond.Spot{File: r.File, Line: line, Column: column}
		}
	})
	for i := range c.Labels {
		m := &c.Labels[i]
		line, column, _ := r.Within(n, m.Line, m.Column)
		m.At = cond.Spot{File: r.File, Line: line, Column: column}
	}
	return c
}

// doubt notes what Lint is to report of an expression in a scalar.
func (r *loader) doubt(n ast.Node, line, column int, d cond.Doubt) {
	line, column, _ = r.Within(n, line, column)
	d.At = cond.Spot{File: r.File, Line: line, Column: column}
	r.set.doubts = append(r.set.doubts, d)
}

// expressionFault reports an error of an expression in a scalar at its place.
func (r *loader) expressionFault(n ast.Node, what string, err error) {
	var e *cond.ExpressionError
	if !errors.As(err, &e) {
		r.Fault(n, "%s: %v", what, err)
		return
	}
	message := e.Message
	if whole := r.CutByComment(n); whole != "" {
		message += ": YAML takes what follows # for a comment: put the expression in single quotes, '" + words.OneLine(strings.ReplaceAll(whole, "'", `"`)) + "'"
	} else if source, ok := yamlfile.Scalar(n); ok {
		if meant := inExpression(source, message); meant != "" {
			message, _, _ = strings.Cut(message, "; there are ")
			message, _, _ = strings.Cut(message, ": a text must be in quotes")
			message += ": " + meant
		}
	}
	line, column, exact := r.Within(n, e.Line, e.Column)
	if !exact {
		r.FaultAt(line, column, "%s: %s (line %d, column %d of the expression; a plain, quoted or | text shows the place)", what, message, e.Line, e.Column+1)
		return
	}
	r.FaultAt(line, column, "%s: %s", what, message)
}

func (r *loader) compound(n ast.Node) {
	if n == nil {
		return
	}
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

// An entry is a label of the vocabulary whose meaning is yet to be read.
type entry struct {
	*label
	fields map[string]ast.Node
}

// vocabulary reads the names and params of the labels.
func (r *loader) vocabulary(n ast.Node) {
	if n == nil {
		return
	}
	for _, p := range r.Pairs(n, "labels") {
		l := &label{pattern: strings.ToLower(strings.TrimSpace(p.Key)), at: r.at(p.KeyNode), order: r.set.vocabulary.size}
		star := strings.IndexByte(l.pattern, '*')
		switch {
		case l.pattern == "":
			r.Fault(p.KeyNode, "a label must not be empty")
			continue
		case utf8.RuneCountInString(l.pattern) > MaxLabelLength || !words.Printable(l.pattern):
			r.Fault(p.KeyNode, "label %s must be printable and have at most %d characters", words.Quote(l.pattern), MaxLabelLength)
			continue
		case star >= 0 && star != len(l.pattern)-1:
			r.Fault(p.KeyNode, "label %s: * is allowed only at the end, as in cpu=* or run-*", words.Quote(l.pattern))
			continue
		}
		if before, there := r.first["label "+l.pattern]; there && before.File == r.File {
			r.Fault(p.KeyNode, "label %s is defined twice: labels that differ only in case are the same label", words.Quote(l.pattern))
			continue
		}
		if !r.once(p.KeyNode, "label "+l.pattern) {
			continue
		}
		f := map[string]ast.Node{}
		if p.Value != nil {
			f = r.Fields(p.Value, "label "+words.Quote(l.pattern), append(placementKeys, "param")...)
		}
		if n, ok := f["param"]; ok {
			l.param = r.param(n, l, star >= 0)
		}
		r.set.vocabulary.add(l)
		r.entries = append(r.entries, entry{l, f})
	}
}

var paramName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func (r *loader) param(n ast.Node, l *label, open bool) *cond.Param {
	if !open {
		r.Fault(n, "label %s has a param but leaves nothing open: end its name with *, as in %s=*", words.Quote(l.pattern), l.pattern)
		return nil
	}
	if l.pattern == "*" {
		r.Fault(n, `label "*" stands for any label and has no param`)
		return nil
	}
	f := r.Fields(n, "param", "name", "type", "min", "max", "one_of", "pattern")
	if f == nil {
		return nil
	}
	p := &cond.Param{Kind: "int"}
	if v, ok := f["name"]; !ok {
		r.Fault(n, "param needs a name, for expressions to say param.NAME")
	} else if s, ok := r.Text(v, "param name"); ok {
		switch {
		case !paramName.MatchString(s):
			r.Fault(v, "param name %s must be lower case letters, digits and _, a letter first", words.Quote(s))
		case r.set.vocabulary.param(s) != nil:
			r.Fault(v, "param %s is defined by another label already", words.Quote(s))
		}
		p.Name = s
		r.set.vocabulary.params = append(r.set.vocabulary.params, p)
	}
	if v, ok := f["type"]; !ok {
		r.Fault(n, "param needs a type: int, size or string")
		return nil
	} else if s, ok := r.Text(v, "param type"); !ok {
		return nil
	} else if p.Kind = s; !slices.Contains([]string{"int", "size", "string"}, s) {
		r.Fault(v, "param type %s: want int, size or string%s", words.Quote(s), words.DidYouMean(s, []string{"int", "size", "string"}))
		return nil
	}
	refuse := func(keys ...string) {
		for _, k := range keys {
			if v, ok := f[k]; ok {
				r.Fault(v, "a param of type %s has no %s", p.Kind, k)
			}
		}
	}
	if p.Kind == "string" {
		refuse("min", "max")
		r.stringParam(n, f, p)
		return p
	}
	refuse("one_of", "pattern")
	bound := func(key string) (int, bool) {
		v, ok := f[key]
		if !ok {
			r.Fault(n, "a param of type %s needs min and max: what workflows ask for must be bounded", p.Kind)
			return 0, false
		}
		if p.Kind == "int" {
			return r.whole(v, "param "+key, math.MinInt32, math.MaxInt32)
		}
		got := literal(r, v, "param "+key, memorySize)
		return got.literal, got.set
	}
	low, okLow := bound("min")
	high, okHigh := bound("max")
	if okLow && okHigh && low > high {
		r.Fault(f["max"], "param max is below its min")
	}
	p.Min, p.Max = low, high
	return p
}

func (r *loader) stringParam(n ast.Node, f map[string]ast.Node, p *cond.Param) {
	oneOf, hasOneOf := f["one_of"]
	pattern, hasPattern := f["pattern"]
	if hasOneOf == hasPattern {
		r.Fault(n, "a param of type string needs one_of or pattern: what workflows ask for must be bounded")
		return
	}
	if hasPattern {
		s, ok := r.Text(pattern, "param pattern")
		if !ok {
			return
		}
		if err := cond.CheckPattern(s); err != nil { // by itself: "a)|(b" must not get out of the brackets
			r.Fault(pattern, "param pattern %v", err)
			return
		}
		whole, err := regexp.Compile(`^(?:` + s + `)$`) // it can be too deep only so
		if err != nil {
			r.Fault(pattern, "param pattern %s is not a regular expression: %s", words.Quote(s), words.OneLine(err.Error()))
			return
		}
		p.Pattern, p.PatternAs, p.Size = whole, s, cond.PatternSize(s)
		if r.patterns += p.Size; r.patterns > cond.MaxAllPatterns {
			r.Fault(pattern, "with this one the patterns of params are too large together: the maximum is %d steps", cond.MaxAllPatterns)
		}
		return
	}
	items := r.Items(oneOf, "one_of")
	if items != nil && len(items) == 0 || len(items) > maxParamOptions {
		r.Fault(oneOf, "one_of must list 1 to %d texts", maxParamOptions)
	}
	for _, i := range items {
		if s, ok := r.Text(i, "one_of"); ok {
			p.OneOf = append(p.OneOf, s)
		}
	}
}

// A rule is a condition and what follows when it holds.
type rule struct {
	at       cond.Spot
	name     string
	when     cond.Condition
	deny     string // "" when the rule places
	jobspec  string
	dispatch string
	meta     []envSpec // of the dispatch
	layer    layer
	limit    *limitSpec
	fallback []fallback

	timeLimit time.Duration // 0: that of the defaults
	jobspecAt cond.Spot
}

func (r *loader) rules(n ast.Node) {
	if n == nil {
		return
	}
	if c := r.first; c["rules"] == (cond.Spot{}) {
		c["rules"] = r.at(n)
	}
	items := r.Items(n, "rules")
	if items != nil && len(items) == 0 {
		r.Fault(n, "rules is empty: list at least one rule")
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		list.Entries = nil // the same once more
	}
	for i, item := range items {
		if r.Full() || r.stopped() {
			return
		}
		items[i] = nil // of ten thousand rules the tree is larger than what comes of it
		before, doubts := len(r.Faults), len(r.set.doubts)
		r.oneRule(item)
		name := r.set.rules[len(r.set.rules)-1].name
		for i := range r.Faults[before:] {
			r.Faults[before+i].Rule = name
		}
		for i := range r.set.doubts[doubts:] {
			r.set.doubts[doubts+i].Rule = name
		}
	}
}

// ruleKeys are the keys of a rule besides those of a placement.
var ruleKeys = []string{"name", "if", "deny", "jobspec", "dispatch", "max", "limit", "time_limit", "fallback"}

func (r *loader) oneRule(n ast.Node) {
	f := r.Fields(n, "a rule", append(ruleKeys, placementKeys...)...)
	ru := rule{at: r.at(n)}
	defer func() { r.set.rules = append(r.set.rules, ru) }()
	if f == nil {
		return
	}
	if v, ok := f["name"]; !ok {
		r.Fault(n, "a rule needs a name")
	} else if s, ok := r.Text(v, "rule name"); ok {
		ru.name = s
		if !plainName.MatchString(s) {
			r.Fault(v, "rule name %s: write letters, digits, spaces and ._/+:-, at most 128", words.Quote(s))
		} else {
			r.once(v, "rule "+s)
		}
	}
	if v, ok := f["if"]; ok {
		if s, ok := r.Text(v, "if"); ok {
			ru.when = r.condition(v, "if", s)
		}
	}
	switch kinds := presentKeys(f, "deny", "jobspec", "dispatch"); len(kinds) {
	case 0:
		r.Fault(n, "a rule needs one of jobspec, dispatch or deny")
	case 1:
	default:
		r.Fault(f[kinds[1]], "a rule has one of jobspec, dispatch and deny, not both %s and %s", kinds[0], kinds[1])
	}
	if v, ok := f["deny"]; ok {
		ru.deny = words.OneLine(strings.TrimSpace(literal(r, v, "deny", anyText).literal))
		for _, k := range presentKeys(f, append([]string{"max", "limit", "time_limit", "fallback"}, placementKeys...)...) {
			r.Fault(f[k], "a rule that denies places nothing: %s has no effect", k)
		}
	}
	if v, ok := f["jobspec"]; ok {
		ru.jobspec = literal(r, v, "jobspec", named(plainName, "name of a jobspec")).literal
		ru.jobspecAt = r.at(v)
	}
	if v, ok := f["dispatch"]; ok {
		r.dispatch(v, &ru)
		for _, k := range presentKeys(f, append([]string{"max", "fallback"}, placementKeys...)...) {
			if !slices.ContainsFunc(placementFields, func(f *field) bool { return f.key == k && f.dispatched }) {
				r.Fault(f[k], "a dispatched Nomad job runs as it is: %s has no effect", k)
			}
		}
	}
	r.layer(f, &ru.layer, "rule")
	r.max(f["max"], &ru.layer, "rule "+ru.name)
	if v, ok := f["limit"]; ok {
		ru.limit = r.limit(v)
	}
	ru.timeLimit = r.timeLimit(f["time_limit"])
	if v, ok := f["fallback"]; ok {
		r.fallback(v, &ru)
	}
}

func (r *loader) limit(n ast.Node) *limitSpec {
	f := r.Fields(n, "limit", "running", "per")
	if f == nil {
		return nil
	}
	l := &limitSpec{per: "rule"}
	if v, ok := f["running"]; !ok {
		r.Fault(n, "limit needs running: how many jobs may run at once")
	} else {
		l.running, _ = r.whole(v, "limit running", 1, math.MaxInt32)
	}
	if v, ok := f["per"]; ok {
		if l.per, ok = r.Text(v, "limit per"); ok && !slices.Contains(limitPer, l.per) {
			r.Fault(v, "limit per %s: want %s%s", words.Quote(l.per), strings.Join(limitPer, ", "), words.DidYouMean(l.per, limitPer))
		}
	}
	return l
}

const maxFallback = 10

// fallback reads the fallbacks of a rule.
func (r *loader) fallback(n ast.Node, ru *rule) {
	items := r.Items(n, "fallback")
	if items != nil && len(items) == 0 || len(items) > maxFallback {
		r.Fault(n, "fallback must list 1 to %d placements", maxFallback)
		return
	}
	for i, item := range items {
		f := r.Fields(item, "a fallback", append([]string{"after", "jobspec"}, placementKeys...)...)
		if f == nil {
			continue
		}
		fb := fallback{at: r.at(item), from: fmt.Sprintf("rule %s, fallback %d", ru.name, i+1)}
		if v, ok := f["after"]; !ok {
			r.Fault(item, "a fallback needs after: how long since the job was dispatched, such as 5m")
		} else if d, ok := r.duration(v, "after", time.Second, 30*24*time.Hour); ok {
			if i > 0 && len(ru.fallback) == i && d <= ru.fallback[i-1].after {
				r.Fault(v, "after %s is not more than %s of the fallback before: they are tried in order", Duration(d), Duration(ru.fallback[i-1].after))
			}
			fb.after = d
		}
		if v, ok := f["jobspec"]; ok {
			fb.jobspec = literal(r, v, "jobspec", named(plainName, "name of a jobspec")).literal
			fb.jobspecAt = r.at(v)
		}
		r.layer(f, &fb.layer, "fallback")
		ru.fallback = append(ru.fallback, fb)
	}
}

// maxQueued is how long GitHub keeps a job that waits for a self-hosted runner,
// maxRunning how long it lets one run: docs.github.com, "Actions limits", read
// 2026-11-25.
const (
	maxQueued  = 24 * time.Hour
	maxRunning = 5 * 24 * time.Hour
)

// timeLimit reads the most that a job may run; 0 when n is nil.
func (r *loader) timeLimit(n ast.Node) time.Duration {
	if n == nil {
		return 0
	}
	d, _ := r.duration(n, "time_limit", time.Minute, maxRunning)
	return d
}

// unroutable reads what becomes of a job that stays unroutable.
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
	r.set.unroutable.action = literal(r, f["action"], "unroutable action", oneOf("cancel")).literal
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
	r.set.feedback.kind = literal(r, f["kind"], "feedback kind", oneOf("check_run", "commit_status")).literal
}

// duration reads a time such as 5m, from least to most.
func (r *loader) duration(n ast.Node, what string, least, most time.Duration) (time.Duration, bool) {
	s, ok := r.Text(n, what)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.Fault(n, "%s %s is not a duration: write it as 90s, 5m or 1h30m", what, words.Quote(s))
	case d < least || d > most:
		r.Fault(n, "%s %s is not between %s and %s", what, words.Quote(s), Duration(least), Duration(most))
	default:
		return d, true
	}
	return 0, false
}

// enterprises reports the scopes of the file that are an enterprise which
// nothing names: their rules could place no job.
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

// presentKeys returns which of the keys are there.
func presentKeys(f map[string]ast.Node, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { _, ok := f[k]; return !ok })
}
