package rules

import (
	"maps"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
)

// A label is one entry of the vocabulary.
type label struct {
	pattern string // lower case: "gpu", "cpu=*", "run-*" or "*"
	at      cond.Spot
	order   int         // its place in the vocabulary
	param   *cond.Param // nil when the text after the prefix means nothing
	layer   layer
}

func (l *label) prefix() (string, bool) { return strings.CutSuffix(l.pattern, "*") }

// A vocabulary finds what a label means.
type vocabulary struct {
	exact    map[string]*label
	prefixes []*label      // the longest first, so that the closest meaning wins
	params   []*cond.Param // in file order
	size     int           // labels
}

func (v *vocabulary) add(l *label) {
	v.size++
	prefix, open := l.prefix()
	if !open {
		v.exact[l.pattern] = l
		return
	}
	at, _ := slices.BinarySearchFunc(v.prefixes, prefix, func(have *label, prefix string) int {
		return len(prefix) + 1 - len(have.pattern)
	})
	v.prefixes = slices.Insert(v.prefixes, at, l)
}

// all returns the entries in file order.
func (v *vocabulary) all() []*label {
	list := slices.AppendSeq(slices.Clone(v.prefixes), maps.Values(v.exact))
	slices.SortFunc(list, func(a, b *label) int { return a.order - b.order })
	return list
}

// find returns the meaning of a lower-case label and the text that its pattern leaves open; nil
// when it has none.
func (v *vocabulary) find(name string) (l *label, open string) {
	if l := v.exact[name]; l != nil {
		return l, ""
	}
	for _, l := range v.prefixes {
		prefix, _ := l.prefix()
		if rest, ok := strings.CutPrefix(name, prefix); ok && (rest != "" || prefix == "") {
			return l, rest
		}
	}
	return nil, ""
}

// Find reports whether a lower-case label is known, and returns its param and
// the text that its pattern leaves open. With All it is the vocabulary as
// conditions see it.
func (v *vocabulary) Find(name string) (p *cond.Param, open string, known bool) {
	l, open := v.find(name)
	if l == nil {
		return nil, "", false
	}
	return l.param, open, true
}

// All returns the params in file order.
func (v *vocabulary) All() []*cond.Param { return v.params }

// exactly returns the entry with a pattern, nil when there is none.
func (v *vocabulary) exactly(pattern string) *label {
	for _, l := range v.prefixes {
		if l.pattern == pattern {
			return l
		}
	}
	return v.exact[pattern]
}

// param returns the param with a name, nil when there is none.
func (v *vocabulary) param(name string) *cond.Param {
	for _, p := range v.params {
		if p.Name == name {
			return p
		}
	}
	return nil
}
