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
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
	}
	return all.String()
}

// What no page has needs no look.
func TestEveryClassOfTheStylesheetIsUsed(t *testing.T) {
	css := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(readAll(t, "assets/app.css"), "")
	pages := readAll(t, "templates/*.html", "assets/app.js", "editor/main.js")
	words := readAll(t, "*.go", "../*.go", "../../rules/*.go")
	seen := map[string]bool{}
	for _, selector := range regexp.MustCompile(`[^{};]+\{`).FindAllString(css, -1) {
		for _, m := range regexp.MustCompile(`\.([a-z][a-z0-9-]*)`).FindAllStringSubmatch(selector, -1) {
			class := m[1]
			if seen[class] || regexp.MustCompile(`class(Name)? ?=[^>]*\b`+class+`\b`).MatchString(pages) {
				continue
			}
			seen[class] = true
			// A page makes it of a word: is-{{.State}}, band{{$i}}.
			made := false
			for i := range class {
				made = made || strings.Contains(pages, class[:i]+"{{") && (class[i:] <= "9" || strings.Contains(words, `"`+class[i:]+`"`))
			}
			if !made {
				t.Errorf("nothing has the class %q", class)
			}
		}
	}
}
