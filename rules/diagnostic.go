package rules

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/yamlfile"
)

// A Diagnostic is one finding in a file. Line and Column start at 1; Column
// counts runes. Its JSON form is a contract.
type Diagnostic struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Rule    string `json:"rule,omitempty"`    // "" when it lies outside a rule
	Code    string `json:"code,omitempty"`    // of a lint, such as "never-wins"; "" for a fault that keeps the file from loading
	Warning bool   `json:"warning,omitempty"` // the file works all the same
	Message string `json:"message"`           // what is wrong, then what would be right
}

// String writes file:line:column: message. What is no plain fault has its kind too:
// file:line:column: warning: message [code].
func (d Diagnostic) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", d.File, d.Line, d.Column)
	if d.Warning {
		s += "warning: "
	}
	s += d.Message
	if d.Code != "" {
		s += " [" + d.Code + "]"
	}
	return s
}

// found returns a fault at a spot.
func found(s cond.Spot, rule, message string) Diagnostic {
	return Diagnostic{File: s.File, Line: s.Line, Column: s.Column, Rule: rule, Message: message}
}

// Diagnostics are the findings in one or more files, sorted by place.
type Diagnostics []Diagnostic

// Error lists every fault, one a line.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the faults of a file in their order, nil when there are none.
func sorted(r *yamlfile.Reader) Diagnostics {
	if len(r.Faults) == 0 {
		return nil
	}
	all := make(Diagnostics, len(r.Faults))
	for i, f := range r.Faults {
		all[i] = Diagnostic{File: r.File, Line: f.Line, Column: f.Column, Rule: f.Rule, Message: f.Message}
	}
	return all.sort().cut()
}

// cut leaves out those that nobody reads, and says so.
func (ds Diagnostics) cut() Diagnostics {
	if len(ds) <= yamlfile.MaxFaults {
		return ds
	}
	more := ds[yamlfile.MaxFaults]
	more.Rule, more.Code, more.Warning, more.Message = "", "", false, fmt.Sprintf("there are more than %d faults: those from here on are left out", yamlfile.MaxFaults)
	return append(ds[:yamlfile.MaxFaults:yamlfile.MaxFaults], more)
}

// sort orders by place and drops doubles.
func (ds Diagnostics) sort() Diagnostics {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ds)
}

// Excerpt shows the line of src that the diagnostic points at, with a caret under the place, as two
// lines that each end in a line break. It is "" when src has no such line. Nothing unprintable of
// src gets through, tabs become spaces, and a long line is cut around the place.
func (d Diagnostic) Excerpt(src []byte) string {
	return Diagnostics{d}.Excerpts(d.File, src)[0]
}

// Excerpts returns the Excerpt of each finding that is in the file, "" for the
// others. It goes through src once.
func (ds Diagnostics) Excerpts(file string, src []byte) []string {
	at := map[int][]int{}
	last := 0
	for i, d := range ds {
		if d.File == file && d.Line > 0 {
			at[d.Line] = append(at[d.Line], i)
			last = max(last, d.Line)
		}
	}
	excerpts := make([]string, len(ds))
	for n, more := 1, true; more && n <= last; n++ {
		var line []byte
		line, src, more = bytes.Cut(src, []byte("\n"))
		for _, i := range at[n] {
			excerpts[i] = ds[i].excerpt(string(bytes.TrimSuffix(line, []byte("\r"))))
		}
	}
	return excerpts
}

// excerpt shows the line; see Excerpt.
func (d Diagnostic) excerpt(line string) string {
	const before, after = 60, 40 // characters kept around the place
	at := max(d.Column-1, 0)
	var text, pad strings.Builder
	number := fmt.Sprintf("%5d | ", d.Line)
	text.WriteString(number)
	pad.WriteString(strings.Repeat(" ", len(number)-2) + "| ")
	if at > before {
		text.WriteString("…")
		pad.WriteByte(' ')
	}
	n := 0
	for i, r := range line {
		switch {
		case n < at-before:
		case n > at+after:
			text.WriteString("…")
			line = line[:i]
		default:
			shown, width := showRune(r)
			text.WriteString(shown)
			if n < at {
				pad.WriteString(strings.Repeat(" ", width))
			}
		}
		n++
		if n > at+after+1 {
			break
		}
	}
	return text.String() + "\n" + pad.String() + "^\n"
}

// showRune returns what a terminal gets in place of r, and how many cells that takes.
func showRune(r rune) (string, int) {
	switch {
	case r == '\t':
		return " ", 1
	case r == utf8.RuneError || !unicode.IsPrint(r):
		return "\u00b7", 1 // a middle dot stands for what must not be printed
	case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
		return string(r), 0
	case wide(r):
		return string(r), 2
	default:
		return string(r), 1
	}
}

// wide reports whether terminals give r two cells: the East Asian wide blocks
// and emoji, coarsely (https://www.unicode.org/reports/tr11/, read 2026-11).
func wide(r rune) bool {
	return r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd
}
