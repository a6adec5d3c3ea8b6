package router

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable makes a stranger's text safe to show on a terminal or a page:
// characters that are not printed as themselves, such as escapes and marks
// that turn the direction of writing, are escaped as in Go.
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
