package rules

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

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

// Find reports whether a lower-case label is known, and returns its param and the text that its
// pattern leaves open. With All it is the vocabulary as conditions see it.
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

// A compound says how one label holds several; the zero value is off.
type compound struct{ prefix, separator string }

// knownLabels are the labels that a set of rules knows: it expands compound ones,
// finds what each means, and what an unknown one was likely meant to be.
type knownLabels struct {
	compound   compound
	vocabulary vocabulary
	mentions   map[string]bool // labels that expressions ask for, lower case
	names      []string        // all that the vocabulary or an expression has, sorted; patterns as they stand
}

// expand replaces compound labels by self-hosted and their parts, lowers and trims the labels and
// drops doubles. The first part of a compound label is the run's ID, which makes it unique, and no
// label. It returns at most MaxLabels; err says what is wrong with the labels as they came.
func (k *knownLabels) expand(as []string) (labels []string, err error) {
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
		rest, isCompound := strings.CutPrefix(l, k.compound.prefix)
		if k.compound.prefix == "" || !isCompound {
			add(l)
			continue
		}
		parts := strings.Split(rest, k.compound.separator)
		if strings.TrimSpace(parts[0]) == "" {
			fail("compound label %s begins with no unique part: write %sID%slinux", words.Quote(raw), k.compound.prefix, k.compound.separator)
		} else if wrong := k.noID(parts[0]); wrong != "" {
			fail("compound label %s %s: write %s", words.Quote(raw), wrong, k.compoundOf(parts))
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

// noID returns why the first part of a compound label is not the ID of a run, "" when it may be
// one. Nobody would ask for a label there.
func (k *knownLabels) noID(part string) string {
	switch {
	case strings.Contains(part, "$"):
		return "has " + words.Quote(part) + " where the run's ID belongs, which nobody filled in"
	case strings.ContainsAny(part, " ,;[]{}()<>|\"'`\u00a0") || strings.IndexFunc(part, unicode.IsSpace) >= 0:
		return "has " + words.Quote(part) + " where the run's ID belongs, which is one word"
	}
	if k.isLabel(part) {
		return "has the label " + words.Quote(part) + " where the run's ID belongs"
	}
	for _, piece := range strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune("/:+&,;|", r) }) {
		if k.isLabel(piece) {
			return fmt.Sprintf("has %s where the run's ID belongs, and its parts are separated by %s", words.Quote(part), words.Quote(k.compound.separator))
		}
	}
	return ""
}

// isLabel reports whether the rules give a text a meaning as a label. What fits
// only a pattern that means nothing, such as run-*, may be the ID of a run.
func (k *knownLabels) isLabel(text string) bool {
	if k.mentions[text] {
		return true
	}
	if l, _ := k.vocabulary.find(text); l != nil {
		_, open := l.prefix()
		return !open || l.param != nil || l.pattern != "*" && !reflect.DeepEqual(l.layer, layer{})
	}
	return slices.ContainsFunc(k.vocabulary.prefixes, func(l *label) bool { // cpu=, without a value
		prefix, _ := l.prefix()
		return l.param != nil && text == prefix
	})
}

// compoundOf writes what a compound label of these parts should have been, from those that are
// labels.
func (k *knownLabels) compoundOf(parts []string) string {
	text := k.compound.prefix + "${{ github.run_id }}"
	n := 0
	for _, p := range parts {
		for _, l := range strings.FieldsFunc(p, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("/:+&,;|[]{}()<>\"'`", r) }) {
			if n < 8 && k.isLabel(l) && l != "self-hosted" {
				n++
				text += k.compound.separator + l
			}
		}
	}
	if n == 0 {
		text += k.compound.separator + "…"
	}
	return text
}

// read returns what the labels mean, in vocabulary order, and fills in the params. unknown are
// those that neither the vocabulary nor a condition knows.
func (k *knownLabels) read(env *cond.Env) (meanings []meaning, unknown []string, err error) {
	meanings = make([]meaning, 0, len(env.Labels))
	said := map[string]string{}
	for _, name := range env.Labels {
		l, open := k.vocabulary.find(name)
		if l == nil {
			if !k.mentions[name] {
				unknown = append(unknown, name)
			}
			continue
		}
		if l.param != nil {
			v, e := any(nil), env.Spend(l.param.Steps(open))
			if e == nil {
				v, e = l.param.Read(open)
			}
			switch before, twice := said[l.param.Name]; {
			case e != nil && err != nil:
				continue
			case e != nil:
				err = fmt.Errorf("label %s: %w", words.Quote(name), e)
				continue
			case twice && env.Param[l.param.Name] != v:
				err = cmp.Or(err, fmt.Errorf("labels %s and %s both set %s: a job has one of them", words.Quote(before), words.Quote(name), l.param.Name))
				continue
			}
			if env.Param == nil {
				env.Param = map[string]any{}
			}
			env.Param[l.param.Name], said[l.param.Name] = v, name
		}
		if !slices.ContainsFunc(meanings, func(m meaning) bool { return m.label == l }) {
			meanings = append(meanings, meaning{l, name})
		}
	}
	slices.SortFunc(meanings, func(a, b meaning) int { return a.order - b.order })
	return meanings, unknown, err
}

// meant returns what rules see of a job, and what its labels mean, as far as nothing is wrong with them.
func (k *knownLabels) meant(f Facts) (*cond.Env, []meaning) {
	labels, _ := k.expand(f.Labels)
	env := newEnv(labels, f)
	meanings, _, _ := k.read(env)
	return env, meanings
}

// allNames returns the labels that the vocabulary or a condition knows, patterns as they stand.
func (k *knownLabels) allNames() []string {
	known := make([]string, 0, len(k.vocabulary.exact)+len(k.vocabulary.prefixes)+len(k.mentions))
	for l := range k.vocabulary.exact {
		known = append(known, l)
	}
	for _, l := range k.vocabulary.prefixes {
		known = append(known, l.pattern)
	}
	for l := range k.mentions {
		known = append(known, l)
	}
	slices.Sort(known)
	return slices.Compact(known)
}

// Named returns which entries of Vocabulary a job's labels name, by LabelInfo.Name without doubles,
// and which labels are unknown. It leaves out a label that no job may have, such as one with an
// escape in it.
func (k *knownLabels) Named(labels []string) (entries, unknown []string) {
	all, _ := k.expand(labels)
	for _, l := range all {
		name := l
		switch lb, _ := k.vocabulary.find(l); {
		case lb != nil:
			name = lb.pattern
		case !k.mentions[l]:
			unknown = append(unknown, l)
			continue
		}
		if !slices.Contains(entries, name) {
			entries = append(entries, name)
		}
	}
	return entries, unknown
}

// Knows reports whether each of a job's labels is one that these rules know, by name: the
// vocabulary has it, or a pattern of it other than "*", or an expression asks for it. A job with no
// labels, or with one that no job may have, is false. A job that it does not know may be that of
// other runners on the same GitHub, whatever the scope says.
func (k *knownLabels) Knows(labels []string) bool {
	if len(labels) == 0 || len(labels) > MaxLabels {
		return false
	}
	for _, l := range labels {
		if l = strings.TrimSpace(l); l == "" || !words.Printable(l) || utf8.RuneCountInString(l) > MaxLabelLength {
			return false
		}
	}
	all, _ := k.expand(labels)
	return !slices.ContainsFunc(all, func(l string) bool {
		lb, _ := k.vocabulary.find(l)
		return !k.mentions[l] && (lb == nil || lb.pattern == "*")
	})
}

// Nearest returns up to two known labels that someone who wrote an unknown one may
// have meant; nil when none is near.
func (k *knownLabels) Nearest(label string) []string {
	near, _ := words.Meant(strings.ToLower(label), k.names, 2)
	return near
}

// A meaning is an entry of the vocabulary that one of the job's labels names.
type meaning struct {
	*label
	as string // the job's label
}
