package router

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable returns a stranger's text in a form that is safe on a terminal or a page:
// characters that do not print as themselves, such as escapes and marks that change
// the direction of writing, are escaped as in Go.
func Printable(s string) string {
	ok := func(r rune) bool { return r == ' ' || strconv.IsPrint(r) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if ok(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// OneLine returns s with a space in place of each character that does not print, line breaks
// included.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// PrintableJSON returns JSON with the same meaning as b that is as safe to show as
// Printable's text.
func PrintableJSON(b []byte) []byte {
	hidden := func(r rune) bool { return r >= 0x7f && !strconv.IsPrint(r) } // encoders escape those before
	if !bytes.ContainsFunc(b, hidden) {
		return b
	}
	safe := make([]byte, 0, len(b)+64)
	for _, r := range string(b) {
		switch {
		case !hidden(r):
			safe = utf8.AppendRune(safe, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			safe = fmt.Appendf(safe, `\u%04x\u%04x`, high, low)
		default:
			safe = fmt.Appendf(safe, `\u%04x`, r)
		}
	}
	return safe
}

// Count returns a number of things in words: "1 job", "2 jobs".
func Count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// Thousands returns a number with a separator between its thousands.
func Thousands(n int, separator string) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + separator + s[i:]
	}
	return s
}
