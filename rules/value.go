package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A value is one setting of the rules file: a literal, or a template that the job's facts fill in.
// The zero value is not set.
type value[T any] struct {
	set      bool
	literal  T
	template *cond.Template // nil: literal holds
	read     func(any) (T, error)
}

// get returns the value for a job.
func (v *value[T]) get(env *cond.Env) (T, error) {
	if v.template == nil {
		return v.literal, nil
	}
	var zero T
	got, err := v.template.Value(env)
	if err != nil {
		return zero, err
	}
	t, err := v.read(got)
	if err != nil {
		return zero, fmt.Errorf("%s gives an invalid value: %w", words.OneLine(v.template.Source), err)
	}
	return t, nil
}

// The readers of single values. They get a text, or what an expression gave.

// memorySize reads MiB, cpuShares MHz.
func memorySize(v any) (int, error) { return sizeOf(v, cond.ParseSize) }
func cpuShares(v any) (int, error) {
	n, err := sizeOf(v, cond.ParseMHz)
	return between(n, err, 1, math.MaxInt32)
}

func sizeOf(v any, parse func(string) (int, error)) (int, error) {
	s, err := cond.AsText(v)
	if err != nil {
		return 0, err
	}
	return parse(s)
}

// wholeBetween reads a whole number.
func wholeBetween(least, most int) func(any) (int, error) {
	return func(v any) (int, error) {
		n, err := sizeOf(v, cond.ParseWhole)
		return between(n, err, least, most)
	}
}

const maxGroup = math.MaxInt32 // ID of a runner group

// groupID reads the ID of a runner group.
func groupID(v any) (int, error) {
	n, err := wholeBetween(1, maxGroup)(v)
	if s, ok := v.(string); ok && err != nil && strings.IndexFunc(s, unicode.IsLetter) >= 0 {
		err = fmt.Errorf("%s is a name: write the ID of the runner group, a number, as it stands in the address of its page on GitHub", words.Quote(s))
	}
	return n, err
}

func between(n int, err error, least, most int) (int, error) {
	if err == nil && (n < least || n > most) {
		return 0, fmt.Errorf("%d is not between %d and %d", n, least, most)
	}
	return n, err
}

// The names that Nomad accepts (nomad/structs, Nomad 2.0).
var (
	namespaceName  = regexp.MustCompile(`^[a-zA-Z0-9-]{1,128}$`)
	enterpriseSlug = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$`)
	poolName       = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
	datacenterGlob = regexp.MustCompile(`^[a-zA-Z0-9_.*-]{1,128}$`)
	deviceName     = regexp.MustCompile(`^[^\s/${}]{1,128}(/[^\s/${}]{1,128}){0,2}$`)
	envName        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	plainName      = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N} ._/+:-]{0,127}$`)
)

func named(re *regexp.Regexp, what string) func(any) (string, error) {
	return func(v any) (string, error) {
		s, err := cond.AsText(v)
		if err == nil && !re.MatchString(s) {
			err = fmt.Errorf("%s is not a valid %s", words.Quote(s), what)
		}
		return s, err
	}
}

// oneOf reads one of a few words.
func oneOf(known ...string) func(any) (string, error) {
	last := len(known) - 1
	want := known[last]
	if last > 0 {
		want = strings.Join(known[:last], ", ") + " or " + want
	}
	return func(v any) (string, error) {
		s, err := cond.AsText(v)
		if err == nil && !slices.Contains(known, s) {
			err = fmt.Errorf("%s: want %s%s", words.Quote(s), want, words.DidYouMean(s, known))
		}
		return s, err
	}
}

// anyText reads a text as it is, up to 32 KiB.
func anyText(v any) (string, error) {
	s, err := cond.AsText(v)
	switch {
	case err != nil:
		return "", err
	case len(s) > 32<<10:
		return "", fmt.Errorf("a text of %d bytes; the maximum is %d", len(s), 32<<10)
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("%s holds a NUL", words.Quote(s))
	}
	return s, nil
}
