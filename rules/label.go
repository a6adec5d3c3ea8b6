package rules

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
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

// exactly finds the entry with a pattern; nil when there is none.
func (v *vocabulary) exactly(pattern string) *label {
	for _, l := range v.prefixes {
		if l.pattern == pattern {
			return l
		}
	}
	return v.exact[pattern]
}

// param finds a param by its name; nil when there is none.
func (v *vocabulary) param(name string) *cond.Param {
	for _, p := range v.params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// compound says how one label holds several; the zero value is off.
type compound struct{ prefix, separator string }

// expand replaces compound labels by self-hosted and their parts, lowers and
// trims the labels and drops doubles. The first part of a compound label is the
// run's ID, by which no other run has it, and no label. It takes at most
// MaxLabels of them; err says what is wrong with the labels as they came.
func (s *Set) expand(as []string) (labels []string, err error) {
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
		raw := strings.TrimSpace(l)
		if raw == "" {
			fail("the job has an empty label")
			continue
		}
		if !words.Printable(raw) { // asked first: lowering would mend what is not UTF-8
			fail("label %s holds a character that cannot be printed", words.Quote(raw))
			continue
		}
		l = strings.ToLower(raw)
		if len(l) > MaxLabelLength && len([]rune(l)) > MaxLabelLength {
			fail("label %s is longer than %d characters", words.Quote(l), MaxLabelLength)
			continue
		}
		rest, isCompound := strings.CutPrefix(l, s.compound.prefix)
		if s.compound.prefix == "" || !isCompound {
			add(l)
			continue
		}
		parts := strings.Split(rest, s.compound.separator)
		if strings.TrimSpace(parts[0]) == "" {
			fail("compound label %s begins with no unique part: write %sID%slinux", words.Quote(raw), s.compound.prefix, s.compound.separator)
		} else if wrong := s.noID(parts[0]); wrong != "" {
			fail("compound label %s %s: write %s", words.Quote(raw), wrong, s.compoundOf(parts))
		}
		add("self-hosted")
		for _, p := range parts[1:] {
			if p = strings.TrimSpace(p); p == "" {
				fail("compound label %s has an empty part", words.Quote(raw))
				continue
			}
			add(p)
		}
	}
	return labels, err
}

// noID says why the first part of a compound label is not the ID of a run, ""
// when it may be one. A label there would be asked for by nobody.
func (s *Set) noID(part string) string {
	switch {
	case strings.Contains(part, "$"):
		return "has " + words.Quote(part) + " where the run's ID belongs, which nobody filled in"
	case strings.ContainsAny(part, " ,;[]{}()<>|\"'`\u00a0") || strings.IndexFunc(part, unicode.IsSpace) >= 0:
		return "has " + words.Quote(part) + " where the run's ID belongs, which is one word"
	}
	if s.isLabel(part) {
		return "has the label " + words.Quote(part) + " where the run's ID belongs"
	}
	for _, piece := range strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune("/:+&,;|", r) }) {
		if s.isLabel(piece) {
			return fmt.Sprintf("has %s where the run's ID belongs, and its parts are separated by %s", words.Quote(part), words.Quote(s.compound.separator))
		}
	}
	return ""
}

// isLabel reports whether the rules give a text a meaning as a label. What fits
// only a pattern that means nothing, such as run-*, may be the ID of a run.
func (s *Set) isLabel(text string) bool {
	if s.mentions[text] {
		return true
	}
	if l, _ := s.vocabulary.find(text); l != nil {
		_, open := l.prefix()
		return !open || l.param != nil || l.pattern != "*" && !reflect.DeepEqual(l.layer, layer{})
	}
	return slices.ContainsFunc(s.vocabulary.prefixes, func(l *label) bool { // cpu=, without a value
		prefix, _ := l.prefix()
		return l.param != nil && text == prefix
	})
}

// compoundOf writes what a compound label of these parts should have been, as
// far as they are labels.
func (s *Set) compoundOf(parts []string) string {
	text := s.compound.prefix + "${{ github.run_id }}"
	n := 0
	for _, p := range parts {
		for _, l := range strings.FieldsFunc(p, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("/:+&,;|[]{}()<>\"'`", r) }) {
			if n < 8 && s.isLabel(l) && l != "self-hosted" {
				n++
				text += s.compound.separator + l
			}
		}
	}
	if n == 0 {
		text += s.compound.separator + "…"
	}
	return text
}
