package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

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

// unknownLabels writes the reason of a job with unknown labels, with the nearest known ones.
func (k *knownLabels) unknownLabels(unknown []string) string {
	var said []string
	for i, l := range unknown {
		if i == 3 {
			said = append(said, fmt.Sprintf("%d more", len(unknown)-i))
			break
		}
		hint, name := "", strings.TrimSuffix(l, "=")
		fixed, broken := k.repair(l, nil)
		switch near, ofGitHub := words.Meant(l, k.names, 2); {
		case broken:
			hint = " (" + fixed.hint() + ")"
		case k.vocabulary.exactly(name+"=*") != nil:
			hint = " (it needs a value: " + name + "=…)"
		case ofGitHub && len(near) > 0:
			hint = " (a label of GitHub's own runners; did you mean " + strings.Join(near, " or ") + "?)"
		case ofGitHub:
			hint = " (a label of GitHub's own runners: leave self-hosted out to run there)"
		case len(near) > 0:
			hint = " (did you mean " + strings.Join(near, " or ") + "?)"
		}
		said = append(said, words.Quote(l)+hint)
	}
	what, which := "unknown label ", "it"
	if len(unknown) > 1 {
		what, which = "unknown labels ", "them"
	}
	return what + strings.Join(said, ", ") + ": neither the vocabulary nor a rule knows " + which
}

// repair returns what an unknown label, in lower case, was likely meant to be. It may be another
// spelling of a name in also.
func (k *knownLabels) repair(l string, also []cond.Mention) (r repair, ok bool) {
	if words.Hosted.MatchString(l) {
		return r, false
	}
	if !words.Printable(l) {
		clean := strings.Map(func(c rune) rune {
			if !words.Printable(string(c)) {
				return -1
			}
			return c
		}, l)
		return repair{labels: []string{clean}, is: "a label with a character that cannot be printed: type it again"}, true
	}
	if value := k.valueMeant(l); value != "" {
		return repair{labels: []string{value}, meant: value}, true
	}
	if whole := k.compoundMeant(l); whole != "" {
		return repair{labels: []string{whole}, is: "no compound label: write " + whole}, true
	}
	if parts := k.listMeant(l); parts != nil {
		r = repair{labels: parts, is: "one label: write runs-on: [" + words.OneLine(ShowLabels(parts)) + "]"}
		if strings.HasPrefix(l, "[") {
			r.is += ", or runs-on: ${{ fromJSON(…) }} where a variable holds the list"
		}
		return r, true
	}
	bare := func(s string) string { return strings.NewReplacer("-", "", "_", "", " ", "", ".", "").Replace(s) }
	for _, m := range also {
		if bare(m.Label) == bare(l) || len(l) >= 6 && len(l) <= 64 && words.Distance(m.Label, l) == 1 {
			return repair{labels: []string{m.Label}, meant: m.Label}, true
		}
	}
	return r, false
}

// listMeant splits a label that holds several; it returns nil when it does not.
func (k *knownLabels) listMeant(l string) []string {
	sure := strings.ContainsAny(l, ",;[\"'")
	inner := strings.TrimSuffix(strings.TrimPrefix(l, "["), "]")
	parts := strings.FieldsFunc(inner, func(c rune) bool {
		return unicode.IsSpace(c) || strings.ContainsRune(",;\"'`", c) || !sure && strings.ContainsRune("/|+&", c)
	})
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "-" || p == "runs-on:" })
	known := 0
	for _, p := range parts {
		if k.isLabel(p) {
			known++
		}
	}
	switch blanks := strings.IndexFunc(inner, unicode.IsSpace) >= 0; {
	case known == 0, len(parts) == 1 && parts[0] == l, len(parts) > MaxLabels:
		return nil
	case !sure && (!blanks && known < len(parts) || 2*known < len(parts)): // a name with a blank or a / in it
		return nil
	}
	return parts
}

// compoundMeant returns the compound label that a label was meant to be, "" for none.
func (k *knownLabels) compoundMeant(l string) string {
	prefix, sep := k.compound.prefix, k.compound.separator
	isWord := func(c rune) bool { return unicode.IsLetter(c) || unicode.IsDigit(c) }
	word := strings.TrimRightFunc(prefix, func(c rune) bool { return !isWord(c) })
	if word == "" || strings.HasPrefix(l, prefix) {
		return ""
	}
	rest, found := strings.CutPrefix(l, word)
	if !found || strings.IndexFunc(rest, isWord) == 0 {
		at := strings.IndexAny(l, "=: ")
		if at < 0 || len(word) < 3 || at > 64 || words.Distance(l[:at], word) > 1 {
			return ""
		}
		rest = l[at:]
	}
	body := strings.TrimLeftFunc(rest, func(c rune) bool { return !isWord(c) })
	if body == "" || body == rest || word != prefix && !strings.ContainsAny(rest, "/:=,; "+sep) {
		return ""
	}
	if !strings.Contains(body, sep) {
		body = strings.Join(strings.FieldsFunc(body, func(c rune) bool { return strings.ContainsRune("/:,;|+ ", c) }), sep)
	}
	if whole := prefix + body; len(whole) <= MaxLabelLength {
		if labels, err := k.expand([]string{whole}); err == nil && len(labels) > 1 {
			return whole
		}
	}
	return ""
}

// valueMeant returns the label with a value that a label was meant to be: cpu=8 for cpu:8, 8cpu or
// cores=8. It returns "" when none is near.
func (k *knownLabels) valueMeant(l string) string {
	if len(l) > 64 || len(k.vocabulary.params) == 0 {
		return ""
	}
	var word, value string
	number := true
	if m := wordNumber.FindStringSubmatch(l); m != nil {
		word, value = m[1], m[2]
	} else if m := numberWord.FindStringSubmatch(l); m != nil {
		word, value = m[2], m[1]
		if unitOf(word) != "" { // 16gb
			word, value = "memory", l
		}
	} else if m := wordText.FindStringSubmatch(l); m != nil {
		word, value, number = m[1], m[2], false
	} else {
		return ""
	}
	best, found, tries := 4, "", 20
	for _, lb := range k.vocabulary.prefixes {
		if lb.param == nil || number == (lb.param.Kind == "string") {
			continue
		}
		prefix, _ := lb.prefix()
		how := likeness(word, strings.TrimRight(prefix, "=:_- "))
		if how >= best || !number && how > 0 || tries == 0 {
			continue
		}
		tries--
		as := written(lb.param, value)
		if !number && as == "" || prefix+as == l {
			continue
		}
		best, found = how, prefix+cmp.Or(as, "…")
	}
	return found
}
