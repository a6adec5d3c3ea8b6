package yamlfile

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"switchyard/rules/internal/words"
)

// What people who know GitHub's workflows, or YAML a little, write first, and
// what they meant. Each is asked for only where something is wrong already.

// inKey returns what was likely meant by an unknown key, whose value is n; "" when it cannot tell.
func inKey(key, what string, n ast.Node) string {
	if what != "a rule" {
		return ""
	}
	switch key {
	case "runs-on", "runs_on", "labels", "label":
		return ": a rule asks for labels in its condition, if: has(" + labelsOf(n) + ")"
	case "image":
		return ": it is one of the driver's, task: { config: { image: … } }"
	case "cpu", "cores", "memory", "disk":
		return ": it stands in resources, resources: { " + key + ": … }"
	case "condition", "match", "where", "matches":
		return "; did you mean if?"
	case "pool":
		return "; did you mean node_pool?"
	}
	return ""
}

// labelsOf writes the labels at a node as arguments of has.
func labelsOf(n ast.Node) string {
	items := []ast.Node{n}
	if s, ok := n.(*ast.SequenceNode); ok {
		items = s.Values
	}
	var names []string
	for _, item := range items {
		if text, ok := Scalar(item); ok && (text != "self-hosted" || len(items) == 1) {
			names = append(names, words.Quote(text))
		}
	}
	return words.OneLine(cmp.Or(strings.Join(names, ", "), `"linux"`))
}

var (
	quotedStart = regexp.MustCompile(`^(.*?\b(?:if|scope):\s+)((["']).*)$`)
	// nomadInFlow is a text with ${ } in no quotes, within brackets.
	nomadInFlow = regexp.MustCompile(`[\[{,:]\s*(\$\{[^}]*\}[^\],}'"]*)`)
	loopInFlow  = regexp.MustCompile(`\w+\(\w+, #`)
)

var afterComma = regexp.MustCompile(`,\s*[a-z_]+:(\s|$)`)

var PlainLabel = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._=-]+$`)

// CutByComment returns the expression that YAML cut at a #, "" when it did not.
func (r *Reader) CutByComment(n ast.Node) string {
	s, ok := n.(*ast.StringNode)
	if !ok || s.Token.Type != token.StringType {
		return ""
	}
	line, column := Place(n)
	if line < 1 || line > len(r.lines) {
		return ""
	}
	runes := []rune(r.lines[line-1])
	if column > len(runes) {
		return ""
	}
	if whole := strings.TrimSpace(string(runes[column-1:])); strings.Contains(whole, " #") && strings.HasPrefix(whole, strings.TrimSpace(s.Value)) {
		return whole
	}
	return ""
}

// inYAML returns what was likely meant by a line that is not YAML, and from which column on; ""
// when it cannot tell.
func (r *Reader) inYAML(line int) (hint string, column int) {
	if line < 1 || line > len(r.lines) {
		return "", 0
	}
	text := r.lines[line-1]
	flow := strings.ContainsAny(text, "{[")
	if m := quotedStart.FindStringSubmatch(text); m != nil {
		inner, mark := m[2], m[3]
		key := "if"
		if strings.HasSuffix(strings.TrimSpace(m[1]), "scope:") {
			key = "scope"
		}
		column = len([]rune(m[1])) + 1
		if flow {
			inner = strings.TrimRight(strings.TrimRight(strings.TrimSpace(inner), "}"), " ")
			if at := afterComma.FindStringIndex(inner); at != nil {
				inner = inner[:at[0]]
			}
		}
		if at := strings.Index(inner, " #"); at > 0 && !strings.Contains(inner[:at], "(") {
			inner = inner[:at]
		}
		inner = strings.TrimSpace(inner)
		if n := len(inner); n > 2 && mark == `"` && inner[n-1] == '"' && strings.Contains(inner[1:n-1], `("`) && strings.Count(inner, `"`)%2 == 0 && !strings.Contains(inner, `" in `) {
			inner = inner[1 : n-1] // "has("linux")"
		}
		inner = strings.ReplaceAll(inner, "'", `"`)
		return fmt.Sprintf("; the text ended at its second quote: put the whole expression in single quotes, %s: '%s'", key, words.OneLine(inner)), column
	}
	if loopInFlow.MatchString(text) {
		return "; YAML takes # for the begin of a comment: put the expression in single quotes, if: 'any(labels, # == \"gpu\")'", 0
	}
	if m := nomadInFlow.FindStringSubmatchIndex(text); m != nil && flow {
		return fmt.Sprintf("; within { } and [ ] a text with ${…} must be in quotes: '%s'", words.OneLine(strings.TrimSpace(text[m[2]:m[3]]))), len([]rune(text[:m[2]])) + 1
	}
	return "", 0
}
