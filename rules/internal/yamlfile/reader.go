// Package yamlfile owns reading YAML with places: it parses a file within
// bounds, walks its nodes, and collects every fault with its line and column.
// Package rules reads rules files and files of tests with it.
package yamlfile

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"switchyard/rules/internal/words"
)

// MaxFaults is the most faults of one file, and findings in it, that anybody reads.
const MaxFaults = 1000

// MaxBytes bounds the size of a file.
const MaxBytes = 4 << 20

const (
	maxDepth   = 64     // brackets, or marks before a value, within each other
	maxEntries = 10_000 // of one mapping, or between brackets
	maxEmpty   = 100    // lines in a row
)

// What is refused before the library's parser sees it.
var (
	tooDeep        = fmt.Sprintf("more than %d brackets, marks or mappings within each other", maxDepth)
	tooManyEntries = fmt.Sprintf("more than %d entries within one mapping or pair of brackets", maxEntries)
	tooLongList    = fmt.Sprintf("more than %d entries in one list", maxEntries)
	tooManyTokens  = fmt.Sprintf("too many YAML tokens: the maximum is %d in all, and above %d one for every %d bytes", maxTokens, fewTokens, bytesPerToken)
)

// A Fault is one fault in the file, at its place: both from 1, the column in runes.
type Fault struct {
	Line, Column int
	Rule         string // "" outside a rule
	Message      string
}

// A Reader walks a file's YAML tree and collects every fault with its place. A faulty node is left
// out, so that one mistake is one fault.
type Reader struct {
	File   string
	Src    string
	lines  []string // of src
	Faults []Fault
}

// FaultAt reports a fault. The library misplaces some faults in escaped and folded texts: their
// place is moved into the file.
func (r *Reader) FaultAt(line, column int, format string, args ...any) {
	if r.Full() {
		return
	}
	if n := len(r.lines); n > 0 {
		line = min(line, n)
		if text := r.lines[max(line, 1)-1]; len(text) < 4096 || column > len(text)+1 { // not counted again and again for faults in one long line
			column = min(column, utf8.RuneCountInString(text)+1)
		}
	}
	r.Faults = append(r.Faults, Fault{max(line, 1), max(column, 1), "", fmt.Sprintf(format, args...)})
}

// Full reports whether there are more faults than anybody reads: then reading on is of no use.
func (r *Reader) Full() bool { return len(r.Faults) > MaxFaults }

// Fault reports a fault at the start of a node.
func (r *Reader) Fault(n ast.Node, format string, args ...any) {
	line, column := Place(n)
	r.FaultAt(line, column, format, args...)
}

// Place returns where a node starts: line and column from 1.
func Place(n ast.Node) (line, column int) {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return Place(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return Place(m.Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1, 1
	}
	p := n.GetToken().Position
	return p.Line, p.Column
}

// Tree parses the file. It returns nil when there is nothing to walk. v is what earlier files had,
// and gets what this one has.
func (r *Reader) Tree(v *Volume) (root ast.Node) {
	if len(r.Src) > MaxBytes {
		r.FaultAt(1, 1, "the file has %d bytes; a rules file has at most %d", len(r.Src), MaxBytes)
		return nil
	}
	r.Src = strings.TrimPrefix(r.Src, "\ufeff")     // that some editors put before the text
	r.Src = strings.ReplaceAll(r.Src, "\r\n", "\n") // the library counts lines wrongly with \r
	r.lines = strings.Split(r.Src, "\n")
	if !r.readable() || !r.countable(v) {
		return nil
	}
	defer func() {
		// The library is given whatever an operator's editor saved.
		if p := recover(); p != nil {
			r.FaultAt(1, 1, "the file cannot be read as YAML: %s", words.OneLine(fmt.Sprint(p)))
			root = nil
		}
	}()
	list := lexer.Tokenize(r.Src)
	if !r.acceptable(list) {
		return nil
	}
	f, err := parser.Parse(list, 0)
	for _, t := range list { // so that a part of the tree can be let go
		t.Prev, t.Next = nil, nil
	}
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		line, column := 1, 1
		if syntax.Token != nil && syntax.Token.Position != nil {
			line, column = syntax.Token.Position.Line, syntax.Token.Position.Column
		}
		hint, at := r.inYAML(line)
		column = cmp.Or(at, column)
		if hint == "" && strings.Contains(syntax.Message, "flow map") {
			hint = `: within { } a text with a comma must be in quotes, as in if: 'has("linux", "gpu")'`
		}
		r.FaultAt(line, column, "not YAML: %s%s", words.OneLine(syntax.Message), hint)
		return nil
	}
	if err != nil {
		r.FaultAt(1, 1, "not YAML: %s", words.OneLine(err.Error()))
		return nil
	}
	for _, d := range f.Docs {
		switch {
		case d.Body == nil:
		case root == nil:
			root = d.Body
		default:
			r.Fault(d.Body, "a second YAML document: a rules file has only one")
			return nil
		}
	}
	if root == nil {
		r.FaultAt(1, 1, "the file is empty: a rules file begins with version: 1")
	}
	return root
}

// readable refuses what is not text, and more than one YAML document.
func (r *Reader) readable() bool {
	documents, empty := 0, 0
	for i, text := range r.lines {
		for at, c := range text {
			if c >= ' ' && c != 0x7f && (c != utf8.RuneError || strings.HasPrefix(text[at:], "\ufffd")) {
				continue
			}
			what := fmt.Sprintf("byte 0x%02x is not text: a rules file is UTF-8", text[at])
			if c == '\t' {
				what = "a tab: YAML is indented by spaces"
			}
			r.FaultAt(i+1, utf8.RuneCountInString(text[:at])+1, "%s", what)
			return false
		}
		empty++
		if strings.TrimLeft(text, " ") != "" {
			empty = 0
		}
		if empty > maxEmpty { // the library is slow on them
			r.FaultAt(i+1, 1, "more than %d empty lines in a row", maxEmpty)
			return false
		}
		if strings.HasPrefix(text, "---") {
			if documents++; documents > 1 {
				r.FaultAt(i+1, 1, "a second YAML document: a rules file has only one")
				return false
			}
		}
	}
	return true
}

// acceptable refuses, before the library's parser sees them, what hides what a
// rule says, and what the parser recurses on or takes quadratic time for:
// brackets, marks, and the entries of one mapping.
func (r *Reader) acceptable(tokens token.Tokens) bool {
	before := len(r.Faults)
	type mapping struct{ column, keys int }
	var open []mapping // the block mappings around a token
	depth, marks, commas := 0, 0, 0
	for _, t := range tokens {
		if r.Full() {
			return false
		}
		line, column := t.Position.Line, t.Position.Column
		key := t.Type == token.MappingValueType && depth == 0 && t.Prev != nil
		if key {
			column = t.Prev.Position.Column
		}
		if key || t.Type == token.SequenceEntryType {
			for len(open) > 0 && open[len(open)-1].column > column {
				open = open[:len(open)-1]
			}
		}
		marks++
		entries := 0
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			r.FaultAt(line, column, "anchors, aliases and merge keys are not supported: write the value out, and a text that begins with * or & in quotes")
		case token.TagType, token.DirectiveType:
			hint := "leave it out"
			if line <= len(r.lines) && beginsWithNot.MatchString(r.lines[line-1]) {
				hint = "a text that begins with ! must be in quotes, or write not, as in if: not repo.fork"
			}
			r.FaultAt(line, column, "YAML tags and directives are not supported: %s", hint)
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			if depth = max(depth-1, 0); depth == 0 {
				commas = 0
			}
		case token.CollectEntryType:
			commas++
			entries = commas
		case token.SequenceEntryType, token.MappingKeyType:
		case token.MappingValueType:
			if !key {
				break
			}
			if len(open) == 0 || open[len(open)-1].column < column {
				open = append(open, mapping{column: column})
			}
			open[len(open)-1].keys++
			entries = open[len(open)-1].keys
		default:
			marks = 0
		}
		if depth > maxDepth || marks > maxDepth || len(open) > maxDepth {
			r.FaultAt(line, column, "%s", tooDeep)
			return false
		}
		if entries > maxEntries {
			r.FaultAt(line, column, "%s", tooManyEntries)
			return false
		}
	}
	return len(r.Faults) == before
}

// A Pair is one entry of a mapping.
type Pair struct {
	Key     string
	KeyNode ast.Node
	Value   ast.Node
}

// Pairs reads a mapping in file order; it returns nil, after a fault, for anything else. what names
// what was expected.
func (r *Reader) Pairs(n ast.Node, what string) []Pair {
	var entries []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		entries = m.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{m}
	case *ast.NullNode:
	default:
		hint := ""
		if _, list := n.(*ast.SequenceNode); list && what == "labels" {
			hint = ": each label with what it means, labels: { linux: {}, gpu: { devices: [nvidia/gpu] } }"
		}
		r.Fault(n, "%s must be a mapping, not %s%s", what, KindOf(n), hint)
		return nil
	}
	pairs := make([]Pair, 0, len(entries))
	for _, e := range entries {
		key, ok := Scalar(e.Key)
		if !ok {
			r.Fault(e.Key, "a key must be one word, not %s", KindOf(e.Key))
			continue
		}
		pairs = append(pairs, Pair{key, e.Key, e.Value})
	}
	return pairs
}

// Fields reads a mapping with known keys; it returns nil, after a fault, for anything else.
func (r *Reader) Fields(n ast.Node, what string, known ...string) map[string]ast.Node {
	pairs := r.Pairs(n, what)
	if pairs == nil {
		return nil
	}
	m := make(map[string]ast.Node, len(pairs))
	for _, p := range pairs {
		if !slices.Contains(known, p.Key) {
			hint := cmp.Or(inKey(p.Key, what, p.Value), words.DidYouMean(p.Key, known))
			if hint == "" {
				hint = "; it takes " + strings.Join(known, ", ")
			}
			r.Fault(p.KeyNode, "unknown key %s in %s%s", words.Quote(p.Key), what, hint)
			continue
		}
		m[p.Key] = p.Value
	}
	return m
}

// Items reads a list; it returns nil, after a fault, for anything else.
func (r *Reader) Items(n ast.Node, what string) []ast.Node {
	switch s := n.(type) {
	case *ast.SequenceNode:
		return s.Values
	case *ast.NullNode:
		return []ast.Node{}
	}
	hint := ""
	if s, ok := Scalar(n); ok && strings.TrimSpace(s) != "" {
		hint = ": write [" + listItem(s) + "]"
		if parts := strings.Split(s, ","); len(parts) > 1 && !strings.ContainsAny(s, "{['\"") {
			hint = ": write [" + words.OneLine(s) + "]"
		}
	}
	r.Fault(n, "%s must be a list, not %s%s", what, KindOf(n), hint)
	return nil
}

// listItem writes a text as it can stand within brackets.
func listItem(s string) string {
	s = strings.TrimSpace(s)
	if plainItem.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(words.OneLine(s), "'", "''") + "'"
}

var (
	plainItem     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
	beginsWithNot = regexp.MustCompile(`\b(if|scope):\s*!`)
)

// Scalar returns the text of a scalar as it was written.
func Scalar(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// Text reads a scalar that is not empty.
func (r *Reader) Text(n ast.Node, what string) (string, bool) {
	s, ok := Scalar(n)
	if !ok {
		hint := ""
		if list, isList := n.(*ast.SequenceNode); isList && (what == "if" || what == "scope") {
			hint = ": write one text, with and between its parts"
			if !slices.ContainsFunc(list.Values, func(v ast.Node) bool { s, ok := Scalar(v); return !ok || !PlainLabel.MatchString(s) }) {
				hint = ": write has(" + labelsOf(list) + ")"
			}
		}
		r.Fault(n, "%s must be a text, not %s%s", what, KindOf(n), hint)
		return "", false
	}
	if strings.TrimSpace(s) == "" {
		r.Fault(n, "%s must not be empty", what)
		return "", false
	}
	return s, true
}

// KindOf returns the kind of a node for people.
func KindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "a text"
}

// Within turns a place within a scalar's text, line from 1 and column in runes
// from 0, into a place in the file. Scalars that are folded or escaped hide it:
// the place is then their start, and exact is false.
func (r *Reader) Within(n ast.Node, line, column int) (fileLine, fileColumn int, exact bool) {
	startLine, startColumn := Place(n)
	switch s := n.(type) {
	case *ast.LiteralNode:
		at, text := startLine+line, strings.Split(s.Value.Value, "\n")
		if line <= len(text) && at <= len(r.lines) {
			if indent, ok := strings.CutSuffix(r.lines[at-1], text[line-1]); ok {
				return at, utf8.RuneCountInString(indent) + column + 1, true
			}
		}
		return startLine, startColumn, false
	case *ast.StringNode:
		origin := strings.TrimSpace(s.Token.Origin)
		quoted := s.Token.Type == token.SingleQuoteType || s.Token.Type == token.DoubleQuoteType
		if line != 1 || strings.Contains(origin, "\n") ||
			s.Token.Type == token.DoubleQuoteType && strings.Contains(origin, `\`) ||
			s.Token.Type == token.SingleQuoteType && strings.Contains(s.Value, "'") {
			return startLine, startColumn, false
		}
		if quoted {
			startColumn++
		}
		return startLine, startColumn + column, true
	}
	return startLine, startColumn + column, line == 1
}
