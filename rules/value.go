package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

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

const (
	maxGroup     = math.MaxInt32 // ID of a runner group
	maxGroupName = 128           // characters
)

// readGroup reads the name of a runner group, or its ID. What has no letter must be an ID.
func readGroup(v any) (string, error) {
	s, err := cond.AsText(v)
	switch {
	case err != nil:
		return "", err
	case strings.IndexFunc(s, unicode.IsLetter) < 0:
		id, err := wholeBetween(1, maxGroup)(v)
		return strconv.Itoa(id), err
	case utf8.RuneCountInString(s) > maxGroupName || strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl):
		return "", fmt.Errorf("%s is not a valid name of a runner group", words.Quote(s))
	}
	return s, nil
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
	regionName     = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	enterpriseSlug = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$`)
	poolName       = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)
	datacenterGlob = regexp.MustCompile(`^[a-zA-Z0-9_.*-]{1,128}$`)
	deviceName     = regexp.MustCompile(`^[^\s/${}]{1,128}(/[^\s/${}]{1,128}){0,2}$`)
	envName        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	plainName      = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N} ._/+:-]*$`)
)

// isPlainName has the bound of plainName: in the pattern it would take every start of the program
// milliseconds to compile.
func isPlainName(s string) bool { return utf8.RuneCountInString(s) <= 128 && plainName.MatchString(s) }

func named(is func(string) bool, what string) func(any) (string, error) {
	return func(v any) (string, error) {
		s, err := cond.AsText(v)
		if err == nil && !is(s) {
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
