package web_test

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// Text is told from what it stands on as WCAG's level AA asks (1.4.3), and so
// are the edges of fields (1.4.11), in the light and in the dark.
func TestColoursAreToldApart(t *testing.T) {
	luminance := func(hex string) (l float64) {
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			c := float64(n) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			l += weight * c
		}
		return l
	}
	colours := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\)`).FindAllStringSubmatch(readAll(t, "assets/app.css"), -1) {
		colours[m[1]] = [2]string{m[2], m[3]}
	}
	for _, c := range []struct {
		ink, paper string
		least      float64
	}{
		{"text good busy wait bad soft accent", "bg card raised", 4.5},
		{"accent-text", "accent", 4.5},
		{"edge focus", "bg card", 3},
	} {
		for ink := range strings.FieldsSeq(c.ink) {
			for paper := range strings.FieldsSeq(c.paper) {
				for i, scheme := range []string{"light", "dark"} {
					if colours[ink][i] == "" || colours[paper][i] == "" {
						t.Fatalf("app.css has no --%s or no --%s", ink, paper)
					}
					a, b := luminance(colours[ink][i]), luminance(colours[paper][i])
					if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < c.least {
						t.Errorf("%s: --%s on --%s has a contrast of %.2f, want %.1f", scheme, ink, paper, got, c.least)
					}
				}
			}
		}
	}
}

// What no page has needs no look.
func TestEveryClassOfTheStylesheetIsUsed(t *testing.T) {
	css := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(readAll(t, "assets/app.css"), "")
	pages := readAll(t, "templates/*.html", "assets/app.js", "editor/main.js")
	words := readAll(t, "*.go", "../domain.go", "../../rules/*.go")
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
