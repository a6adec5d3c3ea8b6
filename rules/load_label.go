package rules

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A labelReader reads the names and params of labels.
type labelReader struct {
	valueReader
	entries []entry
}

// An entry is a label of the vocabulary whose meaning is yet to be read.
type entry struct {
	*label
	fields map[string]ast.Node
}

// vocabulary reads the names and params of the labels.
func (r *labelReader) vocabulary(n ast.Node) {
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
			f = r.Fields(p.Value, "label "+words.Quote(l.pattern), append(placementKeys, "param", "urgency")...)
		}
		if n, ok := f["param"]; ok {
			l.param = r.param(n, l, star >= 0)
		}
		r.set.vocabulary.add(l)
		r.entries = append(r.entries, entry{l, f})
	}
}

var paramName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func (r *labelReader) param(n ast.Node, l *label, open bool) *cond.Param {
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
		got := literal(&r.valueReader, v, "param "+key, memorySize)
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

func (r *labelReader) stringParam(n ast.Node, f map[string]ast.Node, p *cond.Param) {
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
