package rules

import "strings"

// maxTokens bounds the words and marks of a set of files: the YAML library takes
// 300 bytes for each. 10,000 rules and as many tests have fewer.
const maxTokens = 600_000

// A byteScanner goes through YAML before the library does, which takes memory in
// proportion to words and marks, and recurses on what is nested. It need not
// read all of YAML right: what it reads in another way is counted once more, by acceptable.
type byteScanner struct {
	tokens int
	depth  int      // of brackets
	marks  int      // before a value, in a row
	lists  []listAt // the block sequences around a line
	quote  byte     // of the text that goes on; 0: none does
	within int      // lines of more indent than this are of a | or > text; -1: none is
}

type listAt struct{ column, entries int }

// countable refuses files with more words and marks, more nesting or longer lists
// than are taken. tokens are those that other files of the set have; it adds its own.
func (r *reader) countable(tokens *int) bool {
	s := byteScanner{tokens: *tokens, within: -1}
	for i, line := range r.lines {
		column, refused := s.line(line)
		if refused != "" {
			r.faultAt(i+1, len([]rune(line[:min(column, len(line))]))+1, "%s", refused)
			return false
		}
	}
	*tokens = s.tokens
	return true
}

// line counts one line; refused says what is too much, at a byte of the line.
func (s *byteScanner) line(line string) (at int, refused string) {
	at = len(line) - len(strings.TrimLeft(line, " "))
	key := at // where the key begins that a | or > text belongs to
	if s.quote == 0 && s.depth == 0 {
		switch {
		case at == len(line) || line[at] == '#':
			return 0, ""
		case s.within >= 0 && at > s.within:
			return 0, ""
		}
		s.within, s.marks = -1, 0
		for strings.HasPrefix(line[at:], "- ") || line[at:] == "-" {
			if refused := s.entry(at); refused != "" {
				return at, refused
			}
			key = at
			rest := strings.TrimLeft(line[at+1:], " ")
			if at = len(line) - len(rest); rest == "" {
				return 0, ""
			}
			key++ // of a mapping in the list, if one begins here
		}
		if s.marks == 0 {
			s.close(at - 1)
		} else if strings.Contains(line[at:], ": ") {
			key = at
		} else {
			key--
		}
	}
	start := s.quote == 0 // a value may begin here
	for ; at < len(line); at++ {
		c := line[at]
		next := byte(' ')
		if at+1 < len(line) {
			next = line[at+1]
		}
		switch {
		case s.quote != 0:
			switch {
			case c == '\\' && s.quote == '"', c == '\'' && s.quote == '\'' && next == '\'':
				at++
			case c == s.quote:
				s.quote = 0
			}
			continue
		case c == ' ':
			continue
		case c == '#' && (at == 0 || line[at-1] == ' '):
			return 0, ""
		case start && (c == '\'' || c == '"'):
			s.quote, start, s.marks = c, false, 0
			s.tokens++
			continue
		case (start || s.depth > 0) && (c == '[' || c == '{'):
			s.depth++
			s.marks++
			s.tokens++
			start = true
		case s.depth > 0 && (c == ']' || c == '}'):
			s.depth--
			s.tokens++
			start = false
		case s.depth > 0 && c == ',':
			s.tokens++
			start = true
		case c == ':' && (next == ' ' || s.depth > 0), start && (c == '?' || c == '-') && next == ' ':
			s.tokens++
			s.marks++
			start = true
		case start && (c == '&' || c == '*' || c == '!'): // refused later
			s.tokens++
			for at+1 < len(line) && line[at+1] != ' ' && !strings.ContainsRune("[]{},", rune(line[at+1])) {
				at++
			}
		case start && s.depth == 0 && (c == '|' || c == '>'):
			s.within = key
			return s.full(at)
		case start:
			s.tokens++
			start, s.marks = false, 0
		}
		if at, refused := s.full(at); refused != "" {
			return at, refused
		}
	}
	return s.full(at)
}

// entry counts an entry of a list at a column.
func (s *byteScanner) entry(column int) (refused string) {
	s.close(column)
	if n := len(s.lists); n == 0 || s.lists[n-1].column < column {
		s.lists = append(s.lists, listAt{column: column})
	}
	list := &s.lists[len(s.lists)-1]
	list.entries++
	s.marks++
	s.tokens++
	if list.entries > maxEntries+1 { // of one more, rules and tests say how many there are
		return tooLongList
	}
	_, refused = s.full(column)
	return refused
}

// close ends the lists that stand further right than a column.
func (s *byteScanner) close(column int) {
	for len(s.lists) > 0 && s.lists[len(s.lists)-1].column > column {
		s.lists = s.lists[:len(s.lists)-1]
	}
}

func (s *byteScanner) full(at int) (int, string) {
	switch {
	case s.depth > maxDepth || s.marks > maxDepth || len(s.lists) > maxDepth:
		return at, tooDeep
	case s.tokens > maxTokens:
		return at, tooManyTokens
	}
	return 0, ""
}
