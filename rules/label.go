package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The bounds of what Decide takes of a job's labels. GitHub registers a runner
// with at most 100 (its OpenAPI description, read 2026-11-24).
const (
	MaxLabels      = 100
	MaxLabelLength = 256 // characters
)

// A label is one entry of the vocabulary.
type label struct {
	pattern string // lower case: "gpu", "cpu=*", "run-*" or "*"
	at      spot
	order   int    // its place in the vocabulary
	param   *param // nil when the text after the prefix means nothing
	layer   layer
}

func (l *label) prefix() (string, bool) { return strings.CutSuffix(l.pattern, "*") }

// A vocabulary finds what a label means.
type vocabulary struct {
	exact    map[string]*label
	prefixes []*label // the longest first, so that the closest meaning wins
	params   []*param // in file order
	size     int      // labels
}

func (v *vocabulary) add(l *label) {
	v.size++
	prefix, any := l.prefix()
	if !any {
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

// find returns the meaning of a lower-case label and the text that its pattern
// leaves open; nil when it has none.
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

// param finds a param by its name; nil when there is none.
func (v *vocabulary) param(name string) *param {
	for _, p := range v.params {
		if p.name == name {
			return p
		}
	}
	return nil
}

// A param is the typed, bounded value in a label such as cpu=8.
type param struct {
	name      string
	kind      string // int, size or string
	min, max  int    // of an int; MiB of a size
	oneOf     []string
	pattern   *regexp.Regexp // nil: oneOf says what there is
	patternAs string
}

// read turns the open part of a label into the param's value: an int, MiB of a
// size, or a string that is one of the rules file's own or matches its pattern.
func (p *param) read(s string) (any, error) {
	switch p.kind {
	case "int", "size":
		n, err := parseWhole(s)
		show := fmt.Sprint
		if p.kind == "size" {
			n, err = ParseSize(s)
			show = func(n ...any) string { return formatMiB(n[0].(int)) }
		}
		if err != nil {
			return nil, err
		}
		if n < p.min || n > p.max {
			return nil, fmt.Errorf("%s is not between %s and %s", show(n), show(p.min), show(p.max))
		}
		return n, nil
	}
	if p.pattern != nil {
		if !p.pattern.MatchString(s) {
			return nil, fmt.Errorf("%s does not match %s", quote(s), p.patternAs)
		}
		return s, nil
	}
	for _, one := range p.oneOf {
		if strings.EqualFold(one, s) {
			return one, nil
		}
	}
	return nil, fmt.Errorf("%s is none of %s%s", quote(s), quoteAll(p.oneOf), didYouMean(s, p.oneOf))
}

// compound says how one label holds several; the zero value is off.
type compound struct{ prefix, separator string }

// expand replaces compound labels by self-hosted and their parts, lowers and
// trims the labels and drops doubles. The first part of a compound label is
// its unique ID and no label. It takes at most MaxLabels of them; err says
// what is wrong with the labels as they came.
func (c compound) expand(as []string) (labels []string, err error) {
	fail := func(format string, args ...any) {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	labels = make([]string, 0, min(len(as), MaxLabels)+1)
	add := func(l string) {
		switch {
		case slices.Contains(labels, l):
		case len(labels) == MaxLabels:
			fail("the job has more than %d labels", MaxLabels)
		default:
			labels = append(labels, l)
		}
	}
	for i, l := range as {
		if i == MaxLabels { // also when some are there twice: its runner is registered with all
			fail("the job has more than %d labels", MaxLabels)
			break
		}
		l = strings.TrimSpace(l)
		if l == "" {
			fail("the job has an empty label")
			continue
		}
		if !printable(l) { // asked first: lowering would mend what is not UTF-8
			fail("label %s holds a character that cannot be printed", quote(l))
			continue
		}
		if l = strings.ToLower(l); len(l) > MaxLabelLength && len([]rune(l)) > MaxLabelLength {
			fail("label %s is longer than %d characters", quote(l), MaxLabelLength)
			continue
		}
		rest, isCompound := strings.CutPrefix(l, c.prefix)
		if c.prefix == "" || !isCompound {
			add(l)
			continue
		}
		parts := strings.Split(rest, c.separator)
		if strings.TrimSpace(parts[0]) == "" {
			fail("compound label %s begins with no unique part: write %sID%slinux", quote(l), c.prefix, c.separator)
		}
		add("self-hosted")
		for _, p := range parts[1:] {
			if p = strings.TrimSpace(p); p == "" {
				fail("compound label %s has an empty part", quote(l))
				continue
			}
			add(p)
		}
	}
	return labels, err
}
