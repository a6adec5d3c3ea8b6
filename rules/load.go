package rules

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
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

// Load loads and checks one or more files as one: teams own their files. They
// merge in the order given. The error is a Diagnostics with every fault that
// was found. The Set is immutable and safe for concurrent use.
func Load(files ...File) (*Set, error) {
	return Parse(files[0].Name, files[0].Source)
}

// Parse is Load for one file.
func Parse(file string, src []byte) (*Set, error) {
	r := &loader{reader: reader{file: file, src: string(src)}}
	s := r.load()
	if faults := r.sorted(); faults != nil {
		return nil, faults
	}
	return s, nil
}

// A loader reads the sections of a rules file.
type loader struct {
	reader
	lang *language
	set  *Set
}

func (r *loader) load() *Set {
	root := r.tree()
	if root == nil {
		return nil
	}
	sections := r.fields(root, "a rules file", "version", "scope", "compound", "labels", "defaults", "rules")
	if sections == nil {
		return nil
	}
	if v, ok := sections["version"]; !ok {
		r.fault(root, "version is missing: a rules file begins with version: 1")
	} else if text, ok := r.text(v, "version"); ok && text != "1" {
		r.fault(v, "version %s is not one that this Switchyard reads: write version: 1", quote(text))
	}
	s := &Set{file: r.file, vocabulary: vocabulary{exact: map[string]*label{}}, mentions: map[string]bool{}}
	r.set = s
	entries := r.vocabulary(sections["labels"])
	r.lang = newLanguage(s.vocabulary.params, s.mentions)
	for _, e := range entries {
		r.layer(e.fields, &e.layer, "label "+quote(e.pattern))
	}
	r.scope(sections["scope"])
	r.compound(sections["compound"])
	if n, ok := sections["defaults"]; ok {
		f := r.fields(n, "defaults", append(placementKeys, "max")...)
		r.layer(f, &s.defaults, "defaults")
		r.max(f["max"], &s.defaults, "defaults")
	}
	r.rules(sections["rules"], root)
	s.index()
	return s
}

func (r *loader) scope(n ast.Node) {
	source := defaultScope
	if n != nil {
		var ok bool
		if source, ok = r.text(n, "scope"); !ok {
			return
		}
	}
	r.set.scope = r.condition(n, "scope", source)
}

// condition compiles a condition that stands at n.
func (r *loader) condition(n ast.Node, what, source string) condition {
	source = strings.TrimRight(source, "\n")
	if inner, ok := strings.CutPrefix(strings.TrimSpace(source), opening); ok && strings.HasSuffix(inner, closing) {
		r.fault(n, "%s is an expression already: leave ${{ and }} out", what)
		return condition{}
	}
	c, err := r.lang.condition(source)
	if err != nil {
		r.expressionFault(n, what, err)
	}
	return c
}

// expressionFault reports an error of an expression in a scalar at its place.
func (r *loader) expressionFault(n ast.Node, what string, err error) {
	var e *expressionError
	if !errors.As(err, &e) {
		r.fault(n, "%s: %v", what, err)
		return
	}
	line, column, exact := r.within(n, e.line, e.column)
	if !exact {
		r.faultAt(line, column, "%s: %s (line %d, column %d of the expression; a plain, quoted or | text shows the place)", what, e.message, e.line, e.column+1)
		return
	}
	r.faultAt(line, column, "%s: %s", what, e.message)
}

func (r *loader) compound(n ast.Node) {
	if n == nil {
		return
	}
	f := r.fields(n, "compound", "prefix", "separator")
	if f == nil {
		return
	}
	for key, at := range map[string]*string{"prefix": &r.set.compound.prefix, "separator": &r.set.compound.separator} {
		v, ok := f[key]
		if !ok {
			r.fault(n, "compound needs a prefix and a separator, such as { prefix: 'yard=', separator: '/' }")
			continue
		}
		if s, ok := r.text(v, "compound "+key); ok {
			*at = strings.ToLower(s)
		}
	}
}

// An entry is a label of the vocabulary whose meaning is yet to be read.
type entry struct {
	*label
	fields map[string]ast.Node
}

// vocabulary reads the names and params of the labels: their expressions can
// be compiled only when all of them are known.
func (r *loader) vocabulary(n ast.Node) []entry {
	if n == nil {
		return nil
	}
	var entries []entry
	pairs := r.pairs(n, "labels")
	seen := map[string]bool{}
	for i, p := range pairs {
		l := &label{pattern: strings.ToLower(strings.TrimSpace(p.key)), order: i}
		star := strings.IndexByte(l.pattern, '*')
		switch {
		case l.pattern == "":
			r.fault(p.keyNode, "a label must not be empty")
			continue
		case utf8.RuneCountInString(l.pattern) > MaxLabelLength || !printable(l.pattern):
			r.fault(p.keyNode, "label %s must be printable and have at most %d characters", quote(l.pattern), MaxLabelLength)
			continue
		case star >= 0 && star != len(l.pattern)-1:
			r.fault(p.keyNode, "label %s: * stands at the end only, as in cpu=* or run-*", quote(l.pattern))
			continue
		case seen[l.pattern]:
			r.fault(p.keyNode, "label %s is there twice: labels that differ in case only are one label", quote(l.pattern))
			continue
		}
		seen[l.pattern] = true
		f := map[string]ast.Node{}
		if p.value != nil {
			f = r.fields(p.value, "label "+quote(l.pattern), append(placementKeys, "param")...)
		}
		if n, ok := f["param"]; ok {
			l.param = r.param(n, l, star >= 0)
		}
		r.set.vocabulary.add(l)
		entries = append(entries, entry{l, f})
	}
	return entries
}

var paramName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func (r *loader) param(n ast.Node, l *label, open bool) *param {
	if !open {
		r.fault(n, "label %s has a param but leaves nothing open: end its name with *, as in %s=*", quote(l.pattern), l.pattern)
		return nil
	}
	if l.pattern == "*" {
		r.fault(n, `label "*" stands for any label and has no param`)
		return nil
	}
	f := r.fields(n, "param", "name", "type", "min", "max", "one_of", "pattern")
	if f == nil {
		return nil
	}
	p := &param{kind: "int"}
	if v, ok := f["name"]; !ok {
		r.fault(n, "param needs a name, for expressions to say param.NAME")
	} else if s, ok := r.text(v, "param name"); ok {
		switch {
		case !paramName.MatchString(s):
			r.fault(v, "param name %s must be lower case letters, digits and _, a letter first", quote(s))
		case slices.Contains(r.set.vocabulary.params, s):
			r.fault(v, "param %s is defined by another label already", quote(s))
		}
		p.name = s
		r.set.vocabulary.params = append(r.set.vocabulary.params, s)
	}
	if v, ok := f["type"]; !ok {
		r.fault(n, "param needs a type: int, size or string")
		return nil
	} else if s, ok := r.text(v, "param type"); !ok {
		return nil
	} else if p.kind = s; !slices.Contains([]string{"int", "size", "string"}, s) {
		r.fault(v, "param type %s: want int, size or string%s", quote(s), didYouMean(s, []string{"int", "size", "string"}))
		return nil
	}
	refuse := func(keys ...string) {
		for _, k := range keys {
			if v, ok := f[k]; ok {
				r.fault(v, "a param of type %s has no %s", p.kind, k)
			}
		}
	}
	if p.kind == "string" {
		refuse("min", "max")
		r.stringParam(n, f, p)
		return p
	}
	refuse("one_of", "pattern")
	bound := func(key string) (int, bool) {
		v, ok := f[key]
		if !ok {
			r.fault(n, "a param of type %s needs min and max: what teams write is bounded", p.kind)
			return 0, false
		}
		if p.kind == "int" {
			return r.whole(v, "param "+key, math.MinInt32, math.MaxInt32)
		}
		got := literal(r, v, "param "+key, memorySize)
		return got.literal, got.set
	}
	low, okLow := bound("min")
	high, okHigh := bound("max")
	if okLow && okHigh && low > high {
		r.fault(f["max"], "param max is below its min")
	}
	p.min, p.max = low, high
	return p
}

func (r *loader) stringParam(n ast.Node, f map[string]ast.Node, p *param) {
	oneOf, hasOneOf := f["one_of"]
	pattern, hasPattern := f["pattern"]
	if hasOneOf == hasPattern {
		r.fault(n, "a param of type string needs one_of or pattern: what teams write is bounded")
		return
	}
	if hasPattern {
		s, ok := r.text(pattern, "param pattern")
		if !ok {
			return
		}
		_, err := regexp.Compile(s) // by itself: "a)|(b" must not get out of the brackets
		if err != nil {
			r.fault(pattern, "param pattern %s is no regular expression: %s", quote(s), oneLine(err.Error()))
			return
		}
		whole, err := regexp.Compile(`^(?:` + s + `)$`) // it can be too deep only so
		if err != nil {
			r.fault(pattern, "param pattern %s is no regular expression: %s", quote(s), oneLine(err.Error()))
			return
		}
		p.pattern, p.patternAs = whole, s
		return
	}
	items := r.items(oneOf, "one_of")
	if items != nil && len(items) == 0 || len(items) > maxParamOptions {
		r.fault(oneOf, "one_of must list 1 to %d texts", maxParamOptions)
	}
	for _, i := range items {
		if s, ok := r.text(i, "one_of"); ok {
			p.oneOf = append(p.oneOf, s)
		}
	}
}

// A rule is a condition and what follows when it holds.
type rule struct {
	name     string
	when     condition
	deny     string // "" when the rule places
	jobspec  string
	dispatch string
	layer    layer

	jobspecLine, jobspecColumn int
}

func (r *loader) rules(n, root ast.Node) {
	if n == nil {
		r.fault(root, "rules is missing: list at least one rule")
		return
	}
	items := r.items(n, "rules")
	if items == nil {
		return
	}
	if len(items) == 0 || len(items) > maxRules {
		r.fault(n, "rules has %d entries; 1 to %d are taken", len(items), maxRules)
		return
	}
	lines := map[string]int{}
	for _, item := range items {
		before := len(r.faults)
		r.oneRule(item, lines)
		name := r.set.rules[len(r.set.rules)-1].name
		for i := range r.faults[before:] {
			r.faults[before+i].Rule = name
		}
	}
}

func (r *loader) oneRule(n ast.Node, lines map[string]int) {
	f := r.fields(n, "a rule", append([]string{"name", "if", "deny", "jobspec", "dispatch", "max"}, placementKeys...)...)
	line, _ := place(n)
	ru := rule{}
	defer func() { r.set.rules = append(r.set.rules, ru) }()
	if f == nil {
		return
	}
	if v, ok := f["name"]; !ok {
		r.fault(n, "a rule needs a name")
	} else if s, ok := r.text(v, "rule name"); ok {
		ru.name = s
		switch before, there := lines[s]; {
		case !plainName.MatchString(s):
			r.fault(v, "rule name %s: write letters, digits, spaces and ._/+:-, at most 128", quote(s))
		case there:
			r.fault(v, "rule %s is there already, at line %d", quote(s), before)
		}
		lines[s] = line
	}
	if v, ok := f["if"]; ok {
		if s, ok := r.text(v, "if"); ok {
			ru.when = r.condition(v, "if", s)
		}
	}
	switch kinds := present(f, "deny", "jobspec", "dispatch"); len(kinds) {
	case 0:
		r.fault(n, "a rule needs one of jobspec, dispatch or deny")
	case 1:
	default:
		r.fault(f[kinds[1]], "a rule has one of jobspec, dispatch and deny, not both %s and %s", kinds[0], kinds[1])
	}
	if v, ok := f["deny"]; ok {
		ru.deny = oneLine(strings.TrimSpace(literal(r, v, "deny", anyText).literal))
		for _, k := range present(f, append([]string{"max"}, placementKeys...)...) {
			r.fault(f[k], "a rule that denies places nothing: %s has no effect", k)
		}
	}
	if v, ok := f["jobspec"]; ok {
		ru.jobspec = literal(r, v, "jobspec", named(plainName, "name of a jobspec")).literal
		ru.jobspecLine, ru.jobspecColumn = place(v)
	}
	if v, ok := f["dispatch"]; ok {
		ru.dispatch = literal(r, v, "dispatch", func(v any) (string, error) {
			s, err := asText(v)
			if err == nil && (strings.ContainsAny(s, " \x00") || len(s) > 300 || !printable(s)) {
				err = fmt.Errorf("%s is no ID of a Nomad job", quote(s))
			}
			return s, err
		}).literal
		for _, k := range present(f, append([]string{"max"}, placementKeys...)...) {
			if k != "namespace" && k != "runner" {
				r.fault(f[k], "a dispatched Nomad job runs as it is: %s has no effect", k)
			}
		}
	}
	r.layer(f, &ru.layer, "rule")
	r.max(f["max"], &ru.layer, "rule "+ru.name)
}

// present returns which of the keys are there.
func present(f map[string]ast.Node, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { _, ok := f[k]; return !ok })
}
