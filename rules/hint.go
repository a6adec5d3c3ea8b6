package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A repair is what somebody likely meant by one label.
type repair struct {
	labels []string // in its place
	is     string   // what the label is, the end of a sentence; "": meant says it
	meant  string
}

// hint writes the repair for people, to stand in brackets behind the label.
func (r repair) hint() string {
	if r.is != "" {
		return r.is
	}
	return "did you mean " + r.meant + "?"
}

// nearScope returns which labels would bring a job into scope if they were written as they were
// likely meant; "" when none would.
func (s *Set) nearScope(f Facts, env *cond.Env) string {
	if len(f.Labels) > MaxLabels {
		return ""
	}
	var labels, said []string
	for _, raw := range f.Labels {
		l := strings.ToLower(strings.TrimSpace(raw))
		labels = append(labels, l)
		if l == "" || len(l) > 4*MaxLabelLength || s.isLabel(l) || strings.HasPrefix(l, cmp.Or(s.compound.prefix, "\x00")) {
			continue
		}
		if env.Spend(50*(10+len(s.vocabulary.prefixes)+len(s.scope.Labels))) != nil {
			return ""
		}
		r, ok := s.repair(l, s.scope.Labels)
		if !ok {
			continue
		}
		labels = append(labels[:len(labels)-1], r.labels...)
		switch {
		case len(said) == 2:
		case r.is != "":
			said = append(said, words.Quote(strings.TrimSpace(raw))+" is "+r.is)
		default:
			said = append(said, fmt.Sprintf("did you mean %s by %s?", r.meant, words.Quote(strings.TrimSpace(raw))))
		}
	}
	if said == nil {
		return ""
	}
	f.Labels = labels
	spent := env.Spent
	env, _ = s.meant(f)
	env.Spent += spent
	if in, err := s.scope.Holds(env); err != nil || !in {
		return ""
	}
	return strings.Join(said, "; ")
}

// sameSize groups words that people use for one size.
var sameSize = [][]string{
	{"cpu", "cpus", "vcpu", "vcpus", "core", "cores", "processors", "threads"},
	{"memory", "mem", "ram"},
	{"disk", "storage", "ssd", "hdd"},
	{"gpu", "gpus"},
}

// The ways in which people write a value: the word first, the number first, and a word with a text.
var (
	wordNumber = regexp.MustCompile(`^([a-z][a-z_-]*?)[\s=:_-]*([0-9][0-9.]*\s?[a-z]*)$`)
	numberWord = regexp.MustCompile(`^([0-9][0-9.]*)[\s_x-]*([a-z]+)$`)
	wordText   = regexp.MustCompile(`^([a-z][a-z0-9_-]*?)\s*[=:_ -]+\s*(.+)$`)
)

// likeness rates how close a word is to the name of a param: 0 for the same, 4 for unlike.
func likeness(word, of string) int {
	word = strings.TrimRight(word, "_-")
	switch {
	case word == of:
		return 0
	case slices.ContainsFunc(sameSize, func(all []string) bool { return slices.Contains(all, word) && slices.Contains(all, of) }):
		return 1
	case len(word) >= 3 && strings.HasPrefix(of, word):
		return 2
	case len(word) >= 3 && len(of) >= 3 && words.Distance(word, of) == 1:
		return 3
	}
	return 4
}

// unitOf returns the unit that people mean by a word, "" for none.
func unitOf(word string) string {
	switch word {
	case "m", "mb", "mib", "mi":
		return "MiB"
	case "g", "gb", "gib", "gi":
		return "GiB"
	case "t", "tb", "tib", "ti":
		return "TiB"
	}
	return ""
}

// written writes a value as the param takes it; "" when it is none.
func written(p *cond.Param, value string) string {
	digits := value[:len(value)-len(strings.TrimLeft(value, "0123456789"))]
	unit := strings.TrimSpace(value[len(digits):])
	switch {
	case p.Kind == "string":
		if v, err := p.Read(value); err == nil {
			return strings.ToLower(v.(string))
		}
		return ""
	case digits == "":
		return ""
	case p.Kind == "int":
		return digits
	case unitOf(unit) != "":
		return digits + unitOf(unit)
	case unit != "":
		return ""
	}
	if _, err := p.Read(digits); err == nil {
		return digits
	}
	return digits + "GiB"
}
