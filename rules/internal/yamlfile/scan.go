package yamlfile

import "strings"

// The bounds of the words and marks of a set of files, for each of which the YAML library takes 300
// bytes. 10,000 rules and as many tests have fewer in all, and what people write has more bytes for
// each, even in braces on one line.
const (
	maxTokens     = 600_000
	fewTokens     = 50_000 // that are taken of any file
	bytesPerToken = 3      // at least, of a larger one
)

// A Volume is how much there is of a set of files.
type Volume struct{ bytes, tokens int }

// A byteScanner goes through YAML before the library does, which takes memory for every word and
// mark, and recurses on what is nested. It need not read all of YAML right: acceptable counts what
// it reads in another way once more.
type byteScanner struct {
	Volume
	depth  int     // of brackets
	marks  int     // before a value, in a row
	commas int     // within brackets
	lists  columns // the block sequences around a line
	maps   columns // the block mappings around it
	quote  byte    // of the text that goes on; 0: none does
	within int     // lines of more indent than this are of a | or > text; -1: none is
}

// columns are lists or mappings that begin further and further right.
type columns []struct{ column, entries int }

// close ends those that stand further right than a column.
func (c *columns) close(column int) {
	for len(*c) > 0 && (*c)[len(*c)-1].column > column {
		*c = (*c)[:len(*c)-1]
	}
}

// add counts an entry at a column, and returns how many there are.
func (c *columns) add(column int) int {
	c.close(column)
	if n := len(*c); n == 0 || (*c)[n-1].column < column {
		*c = append(*c, struct{ column, entries int }{column, 0})
	}
	last := &(*c)[len(*c)-1]
	last.entries++
	return last.entries
}

// countable refuses files with more words and marks, deeper nesting or longer lists than the
// maximum. v is what earlier files had, and gets what this one has.
func (r *Reader) countable(v *Volume) bool {
	s := byteScanner{Volume: *v, within: -1}
	s.bytes += len(r.Src)
	for i, line := range r.lines {
		column, refused := s.line(line)
		if refused != "" {
			r.FaultAt(i+1, len([]rune(line[:min(column, len(line))]))+1, "%s", refused)
			return false
		}
	}
	*v = s.Volume
	return true
}

// line counts one line; refused says what exceeds a maximum, at a byte of the line.
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
			s.lists.close(at - 1)
		}
		if i := strings.IndexByte(line[at:], ':'); i > 0 && (at+i+1 == len(line) || line[at+i+1] == ' ') && s.maps.add(at) > maxEntries {
			return at, tooManyEntries
		}
		if s.marks > 0 {
			if key--; strings.Contains(line[at:], ": ") {
				key = at
			}
		}
	}
	start := s.quote == 0 // a value may begin here
	word, keys := at, 0   // where the last one began, and keys of the line
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
			if s.depth == 0 {
				s.commas = 0
			}
		case s.depth > 0 && c == ',':
			s.tokens++
			start = true
			if s.commas++; s.commas > maxEntries {
				return at, tooManyEntries
			}
		case c == ':' && (next == ' ' || s.depth > 0), start && (c == '?' || c == '-') && next == ' ':
			if s.depth == 0 && c == ':' {
				if keys++; keys > maxDepth {
					return word, tooDeep
				}
			}
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
			word = at
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
	s.maps.close(column)
	s.marks++
	s.tokens++
	if s.lists.add(column) > maxEntries+1 { // of one more, rules and tests say how many there are
		return tooLongList
	}
	_, refused = s.full(column)
	return refused
}

func (s *byteScanner) full(at int) (int, string) {
	switch {
	case s.depth > maxDepth || s.marks > maxDepth || len(s.lists)+len(s.maps) > 2*maxDepth:
		return at, tooDeep
	case s.tokens > min(maxTokens, fewTokens+s.bytes/bytesPerToken):
		return at, tooManyTokens
	}
	return 0, ""
}
