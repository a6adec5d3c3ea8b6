package cond

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
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

// LeastMiB is the least memory and ephemeral disk that Nomad takes
// (MinResources and EphemeralDisk.Validate in nomad/structs, Nomad 2.0).
const LeastMiB = 10

// MostMiB bounds sizes to what fits Nomad's 32-bit MB fields.
const MostMiB = math.MaxInt32

// ParseSize reads a size such as "512", "512MiB", "16GiB" or "1TiB", in any
// case, and returns MiB, which is what Nomad calls MB. A bare number is MiB. It
// fails on sizes under 10 MiB (Nomad's least), on fractions, on decimal units
// ("GB", "G"), which are ambiguous, and on sizes over 2^31-1 MiB.
func ParseSize(s string) (mib int, err error) {
	digits, unit := splitNumber(s)
	if digits == "" {
		return 0, fmt.Errorf("%s is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB", words.Quote(s))
	}
	factor := 0
	switch strings.ToLower(unit) {
	case "", "mib":
		factor = 1
	case "gib":
		factor = 1 << 10
	case "tib":
		factor = 1 << 20
	case "m", "mb", "g", "gb", "t", "tb":
		letter := strings.ToUpper(unit[:1])
		return 0, fmt.Errorf("size %s is ambiguous: write %s%siB", words.Quote(s), digits, letter)
	default:
		return 0, fmt.Errorf("size %s has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB", words.Quote(s))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > MostMiB/int64(factor) {
		return 0, fmt.Errorf("size %s is too large: the maximum is %d MiB", words.Quote(s), MostMiB)
	}
	if n*int64(factor) < LeastMiB {
		return 0, fmt.Errorf("size %s is too small: Nomad's minimum is %d MiB", words.Quote(s), LeastMiB)
	}
	return int(n) * factor, nil
}

// ParseMHz reads a CPU share: a bare number of MHz, or one with the unit.
func ParseMHz(s string) (int, error) {
	digits, unit := splitNumber(s)
	if digits == "" || (unit != "" && !strings.EqualFold(unit, "mhz")) {
		return 0, fmt.Errorf("%s is not a CPU size: write MHz as a whole number, such as 2000; whole cores go to cores", words.Quote(s))
	}
	return ParseWhole(digits)
}

// ParseWhole reads a whole number of decimal digits.
func ParseWhole(s string) (int, error) {
	digits, rest := splitNumber(strings.TrimPrefix(s, "-"))
	if digits == "" || rest != "" {
		return 0, fmt.Errorf("%s is not a whole number", words.Quote(s))
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is too large", words.Quote(s))
	}
	return int(n), nil
}

// splitNumber splits leading decimal digits from what follows them.
func splitNumber(s string) (digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// FormatMiB writes the shortest form that ParseSize reads back.
func FormatMiB(mib int) string {
	switch {
	case mib >= 1<<20 && mib%(1<<20) == 0:
		return strconv.Itoa(mib>>20) + "TiB"
	case mib >= 1<<10 && mib%(1<<10) == 0:
		return strconv.Itoa(mib>>10) + "GiB"
	default:
		return strconv.Itoa(mib) + "MiB"
	}
}
