package rules

import (
	"strconv"
	"strings"
	"unicode"

	"switchyard/rules/internal/words"
)

// ParseLabels reads labels that somebody typed or pasted: with commas between them, as a list of
// YAML or JSON in brackets, or as one with dashes, with or without "runs-on:" before it. A label
// that has commas or brackets in it stands in quotes. A blank is part of a label, as in a workflow.
func ParseLabels(text string) []string {
	text = strings.TrimSpace(text)
	text = strings.TrimSpace(strings.TrimPrefix(text, "runs-on:"))
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	labels := []string{}
	if len(lines) > 0 && isItem(lines[0]) {
		for _, line := range lines {
			if item := strings.TrimSpace(strings.TrimPrefix(line, "-")); len(lines) == 1 {
				for one := range strings.SplitSeq(item, " - ") { // a list that a shell put on one line
					labels = append(labels, bareLabel(one))
				}
			} else {
				labels = append(labels, bareLabel(item))
			}
		}
		return labels
	}
	between := ","
	if strings.HasPrefix(text, "[") {
		between = " "
	}
	text = strings.Join(lines, between)
	list := strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]")
	if list {
		text = strings.TrimSpace(text[1 : len(text)-1])
	}
	for len(text) > 0 {
		end := labelEnd(text)
		labels = append(labels, bareLabel(text[:end]))
		if end == len(text) {
			break
		}
		if text = text[end+1:]; text == "" && !list {
			labels = append(labels, "")
		}
	}
	for list && len(labels) > 0 && labels[len(labels)-1] == "" { // a comma at the end
		labels = labels[:len(labels)-1]
	}
	return labels
}

// isItem reports whether a line is an item of a list with dashes.
func isItem(line string) bool { return line == "-" || strings.HasPrefix(line, "- ") }

// labelEnd returns where the first label of a text ends: at a comma outside quotes, or at the end.
func labelEnd(text string) int {
	from := len(text) - len(strings.TrimLeft(text, " \t"))
	if from < len(text) && (text[from] == '"' || text[from] == '\'') {
		for i := from + 1; i < len(text); i++ {
			switch {
			case text[i] == '\\' && text[from] == '"', strings.HasPrefix(text[i:], "''") && text[from] == '\'':
				i++
			case text[i] == text[from]:
				from = i
				i = len(text)
			}
		}
	}
	if i := strings.IndexByte(text[from:], ','); i >= 0 {
		return from + i
	}
	return len(text)
}

// bareLabel returns a label without the blanks and quotes around it.
func bareLabel(s string) string {
	s = strings.TrimSpace(s)
	if n := len(s); n >= 2 && s[0] == s[n-1] {
		switch s[0] {
		case '"':
			if plain, err := strconv.Unquote(s); err == nil {
				return plain
			}
			return s[1 : n-1]
		case '\'':
			return strings.ReplaceAll(s[1:n-1], "''", "'")
		}
	}
	return s
}

// ShowLabels writes labels for people so that ParseLabels reads the same ones:
// with commas between them, and those in quotes that could be taken for several.
func ShowLabels(labels []string) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(showLabel(l))
	}
	return b.String()
}

func showLabel(l string) string {
	plain := l != "" && !strings.ContainsAny(l, ",;[]{}\"'`") && strings.IndexFunc(l, unicode.IsSpace) < 0 &&
		!strings.HasPrefix(l, "-") && !strings.HasPrefix(l, "runs-on:") && words.Printable(l)
	if plain {
		return l
	}
	return strconv.Quote(l)
}
