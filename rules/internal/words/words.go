// Package words owns how strings are shown to people (quoted, shortened, with
// nothing unprintable in them) and which known word a misspelt one means. The
// packages of the rules file write their messages with it.
package words

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quote shows a string from a stranger: escaped, so that nothing in it reaches
// a terminal raw, and shortened to what a sentence can hold.
func Quote(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) > most {
		n, end := 0, 0
		for i := range s {
			if n == most {
				end = i
				break
			}
			n++
		}
		return strconv.Quote(s[:end]) + "…"
	}
	return strconv.Quote(s)
}

// QuoteAll quotes the first few of a list, and counts the others.
func QuoteAll(list []string) string {
	const most = 8
	var b strings.Builder
	for i, s := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Quote(s))
	}
	return b.String()
}

// OneLine makes a message fit for a sentence: no line breaks, nothing
// unprintable, at most 300 characters.
func OneLine(s string) string {
	const most = 300
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == most {
			b.WriteString("…")
			break
		}
		n++
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Printable reports whether s holds only printable characters and spaces.
// Bidirectional marks and other format characters are not printable.
func Printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// nearestWork bounds what nearest compares: pairs of characters, some
// nanoseconds each. It reaches 2,000 candidates of 15 characters.
const nearestWork = 500_000

// Nearest returns up to most of the candidates that s is likely a misspelling
// of, nearest first; candidates of the same distance keep their order.
func Nearest(s string, candidates []string, most int) []string {
	if len(s) > 64 {
		return nil
	}
	type found struct {
		name     string
		distance int
	}
	var all []found
	limit := max(1, utf8.RuneCountInString(s)/3)
	left := nearestWork
	for _, c := range candidates {
		if d := len(c) - len(s); d > 4*limit || -d > 4*limit { // bytes: a rune has at most four
			continue
		}
		if left -= (1 + len(s)) * (1 + len(c)); left < 0 {
			break
		}
		if d := Distance(s, c); d <= limit {
			all = append(all, found{c, d})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return a.distance - b.distance })
	var names []string
	for i := 0; i < len(all) && i < most; i++ {
		names = append(names, all[i].name)
	}
	return names
}

// sameThing groups words that people use for one thing.
var sameThing = [][]string{
	{"linux", "ubuntu", "debian"},
	{"macos", "osx", "mac", "darwin"},
	{"windows", "win", "win32", "win64"},
	{"x64", "amd64", "x86_64", "x86-64", "intel"},
	{"arm64", "arm", "aarch64", "armv8"},
	{"gpu", "cuda", "nvidia"},
}

// Hosted are the labels of GitHub's own runners, such as ubuntu-latest and
// macos-14-xlarge (https://docs.github.com/en/actions/reference/runners/github-hosted-runners, read 2026-11).
var Hosted = regexp.MustCompile(`^(ubuntu|macos|windows)-(latest|slim|[0-9]+(\.[0-9]+)?)(-[a-z0-9-]+)?$`)

// Meant returns up to most known labels that someone who wrote s may have meant: by another word
// for it, or by a misspelling. ofGitHub says that s is a label of GitHub's own runners.
func Meant(s string, known []string, most int) (names []string, ofGitHub bool) {
	word := s
	if m := Hosted.FindStringSubmatch(s); m != nil {
		word, ofGitHub = m[1], true
	}
	for _, group := range sameThing {
		if slices.Contains(group, word) {
			for _, other := range group {
				if slices.Contains(known, other) && len(names) < most {
					names = append(names, other)
				}
			}
		}
	}
	if names == nil {
		names = Nearest(s, known, most)
	}
	return names, ofGitHub
}

// DidYouMean returns a hint to append to a message, "" when no candidate is near.
func DidYouMean(s string, candidates []string) string {
	if near := Nearest(s, candidates, 1); len(near) > 0 {
		return fmt.Sprintf("; did you mean %s?", near[0])
	}
	return ""
}

// Distance returns the number of edits between a and b, without case; exchanging two neighbouring
// characters is one edit.
func Distance(a, b string) int {
	x, y := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
