package web_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func readAll(t *testing.T, patterns ...string) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			must(t, err)
			all.Write(b)
		}
	}
	return all.String()
}

// unusedClasses returns the classes of a stylesheet that no page has. One that a
// page makes of a word, such as is-{{.State}}, ends in a digit, or in a text of
// the code or the page.
func unusedClasses(css, pages, code string) (unused []string) {
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`class(?:Name)? ?= ?"((?:\{\{.*?\}\}|[^"])*)"`).FindAllStringSubmatch(pages, -1) {
		for word := range strings.FieldsSeq(regexp.MustCompile(`\{\{.*?\}\}`).ReplaceAllString(m[1], " ")) {
			used[word] = true
		}
	}
	made := func(class string) bool {
		for i := range class {
			end := class[i:]
			if used[class[:i]] && strings.Contains(pages, class[:i]+"{{") && (len(end) == 1 && end <= "9" || used[end] || strings.Contains(code, `"`+end+`"`)) {
				return true
			}
		}
		return false
	}
	seen := map[string]bool{}
	for _, selector := range regexp.MustCompile(`[^{};]+\{`).FindAllString(regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(css, ""), -1) {
		for _, m := range regexp.MustCompile(`\.([a-z][a-z0-9-]*)`).FindAllStringSubmatch(selector, -1) {
			class := m[1]
			diff := strings.Contains(selector, ".diff ."+class) && strings.Contains(code, `"`+class+`"`) // class="{{.Kind}}"
			if !seen[class] && !used[class] && !diff && !made(class) {
				unused = append(unused, class)
			}
			seen[class] = true
		}
	}
	return unused
}

// A class that no page has is left over.
func TestEveryClassOfTheStylesheetIsUsed(t *testing.T) {
	css := readAll(t, "assets/app.css")
	pages := readAll(t, "templates/*.html", "assets/app.js", "editor/main.js")
	code := readAll(t, "*.go", "api/*.go", "../*.go", "../../rules/*.go")
	if unused := unusedClasses(css, pages, code); len(unused) > 0 {
		t.Errorf("no page has the classes %q", unused)
	}
	// Words of the code, and of other attributes, are no classes.
	more := css + " .rule { color: red } .band2xyz { color: red } .is-xyzzy { color: red } .viewport { color: red }"
	if unused := unusedClasses(more, pages, code); len(unused) != 4 {
		t.Errorf("of four classes that no page has, only %q are found", unused)
	}
}
