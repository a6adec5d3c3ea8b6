package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile  = 4 << 20 // bytes of a rules file
	maxDepth = 64      // brackets, or dashes of one line, within each other
)

// A reader walks a file's YAML tree and collects every fault with its place.
// A node that was found faulty is left out, so that one mistake is one fault.
type reader struct {
	file   string
	src    string
	rule   string // the rule being read; "" outside rules
	faults Diagnostics
}

func (r *reader) faultAt(line, column int, format string, args ...any) {
	r.faults = append(r.faults, Diagnostic{
		File: r.file, Line: max(line, 1), Column: max(column, 1), Rule: r.rule, Message: fmt.Sprintf(format, args...),
	})
}

// fault reports a fault at the start of a node.
func (r *reader) fault(n ast.Node, format string, args ...any) {
	line, column := place(n)
	r.faultAt(line, column, format, args...)
}

// place is where a node starts, both from 1.
func place(n ast.Node) (line, column int) {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return place(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(m.Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1, 1
	}
	p := n.GetToken().Position
	return p.Line, p.Column
}

// tree parses the file. It returns nil when there is nothing to walk.
func (r *reader) tree() (root ast.Node) {
	if len(r.src) > maxFile {
		r.faultAt(1, 1, "the file has %d bytes; a rules file has at most %d", len(r.src), maxFile)
		return nil
	}
	r.src = strings.TrimPrefix(r.src, "\ufeff")
	if !r.readable() {
		return nil
	}
	defer func() {
		// The library is given whatever an operator's editor saved.
		if p := recover(); p != nil {
			r.faultAt(1, 1, "the file cannot be read as YAML: %s", oneLine(fmt.Sprint(p)))
			root = nil
		}
	}()
	f, err := parser.ParseBytes([]byte(r.src), 0)
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		line, column := 1, 1
		if syntax.Token != nil && syntax.Token.Position != nil {
			line, column = syntax.Token.Position.Line, syntax.Token.Position.Column
		}
		r.faultAt(line, column, "not YAML: %s", oneLine(syntax.Message))
		return nil
	}
	if err != nil {
		r.faultAt(1, 1, "not YAML: %s", oneLine(err.Error()))
		return nil
	}
	var bodies []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		r.faultAt(1, 1, "the file is empty: a rules file begins with version: 1")
		return nil
	case 1:
		return bodies[0]
	}
	r.fault(bodies[1], "a second YAML document: a rules file is one")
	return nil
}

// readable refuses what is not text, and nesting that could exhaust the parser.
func (r *reader) readable() bool {
	depth := 0
	line := 0
	for text := range strings.Lines(r.src) {
		line++
		for i, c := range text {
			switch {
			case c == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"), c < ' ' && c != '\n' && c != '\r' && c != '\t', c == 0x7f:
				r.faultAt(line, utf8.RuneCountInString(text[:i])+1, "byte 0x%02x is not text: a rules file is UTF-8", text[i])
				return false
			case c == '[' || c == '{':
				depth++
			case c == ']' || c == '}':
				depth = max(depth-1, 0)
			}
			if depth > maxDepth {
				r.faultAt(line, utf8.RuneCountInString(text[:i])+1, "more than %d brackets within each other", maxDepth)
				return false
			}
		}
		rest := strings.TrimLeft(text, " ")
		for marks := 0; len(rest) > 1 && strings.ContainsRune("-?:!&*>|", rune(rest[0])); marks++ {
			if marks > maxDepth {
				r.faultAt(line, 1, "more than %d marks at the start of a line", maxDepth)
				return false
			}
			rest = strings.TrimLeft(rest[1:], " \t")
		}
		if indent := len(text) - len(strings.TrimLeft(text, " ")); indent > 1000 {
			r.faultAt(line, 1, "indented by %d spaces", indent)
			return false
		}
	}
	return true
}

// plain returns a node that is neither anchor, alias nor tag: those are
// refused, as they hide what a rule says and can grow without end.
func (r *reader) plain(n ast.Node) (ast.Node, bool) {
	switch n.(type) {
	case nil:
		return nil, false
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		r.fault(n, "anchors, aliases and merge keys are not taken: write the value out")
		return nil, false
	case *ast.TagNode, *ast.DirectiveNode:
		r.fault(n, "YAML tags and directives are not taken: leave it out")
		return nil, false
	}
	return n, true
}

// A pair is one entry of a mapping.
type pair struct {
	key     string
	keyNode ast.Node
	value   ast.Node
}

// pairs reads a mapping in file order. what says what was expected.
func (r *reader) pairs(n ast.Node, what string) []pair {
	n, ok := r.plain(n)
	if !ok {
		return nil
	}
	var entries []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		entries = m.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{m}
	case *ast.NullNode:
		return nil
	default:
		r.fault(n, "%s must be a mapping, not %s", what, kindOf(n))
		return nil
	}
	pairs := make([]pair, 0, len(entries))
	for _, e := range entries {
		if _, ok := r.plain(e.Key); !ok {
			continue
		}
		key, ok := scalar(e.Key)
		if !ok {
			r.fault(e.Key, "a key must be one word, not %s", kindOf(e.Key))
			continue
		}
		pairs = append(pairs, pair{key, e.Key, e.Value})
	}
	return pairs
}

// fields reads a mapping whose keys are known.
func (r *reader) fields(n ast.Node, what string, known ...string) map[string]ast.Node {
	m := map[string]ast.Node{}
	for _, p := range r.pairs(n, what) {
		if !slices.Contains(known, p.key) {
			hint := didYouMean(p.key, known)
			if hint == "" {
				hint = "; it takes " + strings.Join(known, ", ")
			}
			r.fault(p.keyNode, "unknown key %s in %s%s", quote(p.key), what, hint)
			continue
		}
		m[p.key] = p.value
	}
	return m
}

// items reads a list.
func (r *reader) items(n ast.Node, what string) []ast.Node {
	n, ok := r.plain(n)
	if !ok {
		return nil
	}
	switch s := n.(type) {
	case *ast.SequenceNode:
		return s.Values
	case *ast.NullNode:
		return nil
	}
	r.fault(n, "%s must be a list, not %s", what, kindOf(n))
	return nil
}

// scalar returns the text of a scalar as it was written.
func scalar(n ast.Node) (string, bool) {
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

// text reads a scalar that is not empty.
func (r *reader) text(n ast.Node, what string) (string, bool) {
	n, ok := r.plain(n)
	if !ok {
		return "", false
	}
	s, ok := scalar(n)
	if !ok {
		r.fault(n, "%s must be a text, not %s", what, kindOf(n))
		return "", false
	}
	if strings.TrimSpace(s) == "" {
		r.fault(n, "%s must not be empty", what)
		return "", false
	}
	return s, true
}

// whole reads a whole number between least and most.
func (r *reader) whole(n ast.Node, what string, least, most int) (int, bool) {
	s, ok := r.text(n, what)
	if !ok {
		return 0, false
	}
	v, err := parseWhole(s)
	if err == nil && (v < least || v > most) {
		err = fmt.Errorf("%d is not between %d and %d", v, least, most)
	}
	if err != nil {
		r.fault(n, "%s: %v", what, err)
		return 0, false
	}
	return v, true
}

// kindOf names a node for people.
func kindOf(n ast.Node) string {
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

// within turns a place within a scalar's text, line from 1 and column in runes
// from 0, into a place in the file. Folded and escaped scalars hide it: the
// place is then their start, and exact is false.
func (r *reader) within(n ast.Node, line, column int) (fileLine, fileColumn int, exact bool) {
	startLine, startColumn := place(n)
	switch s := n.(type) {
	case *ast.LiteralNode:
		if s.Start.Type != token.LiteralType {
			return startLine, startColumn, false
		}
		for i := startLine + 1; ; i++ { // the first line with text gives the indentation
			l, ok := lineOf(r.src, i)
			if !ok {
				return startLine, startColumn, false
			}
			if t := strings.TrimLeft(l, " "); strings.TrimSpace(t) != "" {
				return startLine + line, len(l) - len(t) + column + 1, true
			}
		}
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

// sorted returns the faults in the order of the file, nil when there are none.
func (r *reader) sorted() Diagnostics {
	if len(r.faults) == 0 {
		return nil
	}
	return r.faults.sort()
}
