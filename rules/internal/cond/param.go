package cond

import (
	"fmt"
	"regexp"
	"strings"

	"switchyard/rules/internal/words"
)

// A Param is the typed, bounded value in a label such as cpu=8.
type Param struct {
	Name      string
	Kind      string // int, size or string
	Min, Max  int    // of an int; MiB of a size
	OneOf     []string
	Pattern   *regexp.Regexp // nil: oneOf says what there is
	PatternAs string
	Size      int // of the pattern
}

// Steps returns how many steps Read takes.
func (p *Param) Steps(s string) int {
	if p.Pattern != nil {
		return p.Size * len(s)
	}
	return len(p.OneOf)
}

// Read turns the open part of a label into the param's value: an int, MiB of a
// size, or a string that is one of the rules file's own or matches its pattern.
func (p *Param) Read(s string) (any, error) {
	switch p.Kind {
	case "int", "size":
		n, err := ParseWhole(s)
		show := fmt.Sprint
		if p.Kind == "size" {
			n, err = ParseSize(s)
			show = func(n ...any) string { return FormatMiB(n[0].(int)) }
		}
		if err != nil {
			return nil, err
		}
		if n < p.Min || n > p.Max {
			return nil, fmt.Errorf("%s is not between %s and %s", show(n), show(p.Min), show(p.Max))
		}
		return n, nil
	}
	if p.Pattern != nil {
		if !p.Pattern.MatchString(s) {
			return nil, fmt.Errorf("%s does not match %s", words.Quote(s), p.PatternAs)
		}
		return s, nil
	}
	for _, one := range p.OneOf {
		if strings.EqualFold(one, s) {
			return one, nil
		}
	}
	return nil, fmt.Errorf("%s is none of %s%s", words.Quote(s), words.QuoteAll(p.OneOf), words.DidYouMean(s, p.OneOf))
}

// values returns the numbers that stand for the param's values; ok is false when there are no such
// numbers.
func (p *Param) values() (low, high int, ok bool) {
	switch {
	case p == nil || p.Kind == "string" && p.Pattern != nil:
		return 0, 0, false
	case p.Kind == "string":
		return 0, len(p.OneOf) - 1, len(p.OneOf) > 0
	}
	return p.Min, p.Max, p.Max >= p.Min
}
