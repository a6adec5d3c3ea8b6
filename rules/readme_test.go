package rules

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"switchyard/rules/internal/cond"
)

var update = flag.Bool("update", false, "rewrite what the README shows of the code")

// What the pages show is what the code does: fields, variables, lint codes,
// decisions and findings. -update rewrites them.
func TestTheREADMEIsTrue(t *testing.T) {
	checkPage(t, "README.md", func(page string) string {
		page = regexp.MustCompile(`(?s)<!-- ([^\n]*): written by [^\n]*\n.*?<!-- end -->`).ReplaceAllStringFunc(page, func(s string) string {
			first, _, _ := strings.Cut(s, "\n")
			what, _, _ := strings.Cut(strings.TrimPrefix(first, "<!-- "), ":")
			written := ""
			if names, ok := strings.CutPrefix(what, "fields of "); ok {
				written = fieldTables(t, strings.Split(names, ", "))
			} else {
				written = map[string]func(*testing.T) string{"variables": variables, "lint codes": lintTable, "cluster codes": clusterTable}[what](t)
			}
			return first + "\n" + written + "<!-- end -->"
		})
		return page
	})
}

func TestThePageForNewcomersIsTrue(t *testing.T) {
	checkPage(t, "coming-from.md", func(page string) string {
		for _, part := range strings.Split(page, "```yaml\n")[1:] {
			src, text, _ := strings.Cut(part, "```")
			for _, found := range parse(t, src).Lint(t.Context(), nil) {
				if found.Code != "no-such-jobspec" && !strings.Contains(text, "`"+found.Code+"`") {
					t.Errorf("the text after the rules does not say %s\n%s", found, found.Excerpt([]byte(src)))
				}
			}
		}
		return page
	})
}

// checkPage compares a page with itself once its decisions, its findings, and
// what more there is to write are written again.
func checkPage(t *testing.T, name string, write func(string) string) {
	t.Helper()
	text := readFile(t, name)
	want := write(findings(decisions(t, string(text))))
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := gocmp.Diff(want, string(text)); d != "" {
		t.Errorf("%s is old; go test ./rules -update rewrites it (-want +is):\n%s", name, d)
	}
}

// findings writes what check says of the YAML before a text.
func findings(page string) string {
	return regexp.MustCompile("```yaml\n[^`]*```\n\n```text\n[^`]*```").ReplaceAllStringFunc(page, func(part string) string {
		src := yamlBlocks(part)[0]
		var found Diagnostics
		if s, err := Parse("rules.yaml", []byte(src)); !errors.As(err, &found) {
			found = s.Lint(context.Background(), someJobspecs)
		}
		before, _, _ := strings.Cut(part, "```text\n")
		var b strings.Builder
		for _, f := range found {
			b.WriteString(f.String() + "\n" + f.Excerpt([]byte(src)))
		}
		return before + "```text\n" + b.String() + "```"
	})
}

// decisions writes the tables of decisions. The rules of each are the YAML before it.
func decisions(t *testing.T, page string) string {
	const head = "| `runs-on` | decision |\n| --- | --- |\n"
	var rules string
	return regexp.MustCompile("(?s)```yaml\n.*?```|"+regexp.QuoteMeta(head)+"(\\|[^\n]*\n)+").ReplaceAllStringFunc(page, func(part string) string {
		rows, ok := strings.CutPrefix(part, head)
		if !ok {
			rules = yamlBlocks(part)[0]
			return part
		}
		s := parse(t, rules)
		var b strings.Builder
		b.WriteString(head)
		for row := range strings.Lines(rows) {
			labels := strings.Split(row, "`")[1]
			f := job()
			f.Labels = strings.Split(labels, ",")
			d := s.Decide(f, false)
			said := outline(d)
			if d.Outcome == Routed {
				said = slices.Insert(said, 0, "rule "+d.Rule)
				if d.Jobspec != "" {
					said[0] += ", jobspec " + d.Jobspec
				}
			}
			for _, fb := range d.Fallback {
				said = append(said, fmt.Sprintf("after %s: %s", fb.After, strings.Join(outline(Decision{Outcome: Routed, Placement: fb.Placement}), "; ")))
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", labels, strings.ReplaceAll(strings.Join(said, "; "), "|", "\\|"))
		}
		return b.String()
	})
}

func TestTheExamplesOfTheREADMEAreGood(t *testing.T) {
	text := readFile(t, "README.md")
	blocks := yamlBlocks(string(text))
	for i, b := range blocks[:len(blocks)-1] {
		if !strings.Contains(b, "rules:") {
			b += "rules: [{ name: r, jobspec: j }]\n"
		}
		if !strings.HasPrefix(b, "version:") {
			b = "version: 1\n" + b
		}
		if _, err := Parse(fmt.Sprintf("example %d", i+1), []byte(b)); err != nil {
			t.Error(err)
		}
		checkValid(t, b)
	}
	// Constraints and devices within the text.
	for _, m := range regexp.MustCompile("`'(\\$\\{[^`]*|distinct_hosts)'").FindAllStringSubmatch(string(text), -1) {
		attribute, operator, value, err := splitConstraint(m[1])
		if err = cmp.Or(err, checkValue(operator, value)); err != nil || operators[operator].canonical == "" {
			t.Errorf("%s (%s): %v", m[1], attribute, err)
		}
	}
	for name := range operators {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("the README does not name the operator %s", name)
		}
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(cond.LabelFunctions)), slices.Collect(maps.Keys(cond.Bounded)), cond.Builtins) {
		if !strings.Contains(string(text), "`"+name+"(") {
			t.Errorf("the README does not name the function %s", name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-zA-Z]+\\([^`]*\\))`").FindAllStringSubmatch(string(text), -1) {
		if _, err := cond.NewLanguage(&vocabulary{params: []*cond.Param{{Name: "cpu", Kind: "int", Min: 1, Max: 8}}}, map[string]bool{}).Compile(m[1], true); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	for name, form := range forms() {
		for _, f := range fieldsOf(form) {
			if !strings.Contains(string(text), "`"+f.key+"`") && f.key != "" {
				t.Errorf("the README does not name the key %s of a %s", f.key, name)
			}
		}
	}
}

func lintTable(*testing.T) string {
	var b strings.Builder
	b.WriteString("| code | severity | is | what to do |\n| --- | --- | --- | --- |\n")
	for _, c := range lintCodes {
		severity := "fault"
		if c.warning {
			severity = "warning"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.code, severity, c.what, c.remedy)
	}
	return b.String()
}

// clusterTable shows the constants of the package that asks the cluster.
func clusterTable(t *testing.T) string {
	src := readFile(t, "../router/nomad/capacity/survey.go")
	_, consts, _ := strings.Cut(string(src), "// The codes of findings.\n")
	consts, _, _ = strings.Cut(consts, "\n)\n")
	var b strings.Builder
	b.WriteString("| code | is |\n| --- | --- |\n")
	capital := regexp.MustCompile(`\B[A-Z]`)
	for _, m := range regexp.MustCompile(`= (?:"([a-z-]+)"|router\.(\w+)) +// (.*)`).FindAllStringSubmatch(consts, -1) {
		code := cmp.Or(m[1], strings.ToLower(capital.ReplaceAllString(m[2], "-$0"))) // the domain's constants are named after their codes
		fmt.Fprintf(&b, "| `%s` | %s |\n", code, m[3])
	}
	if got, want := strings.Count(b.String(), "\n")-2, strings.Count(consts, "= "); got != want || want == 0 {
		t.Errorf("%d of the %d codes of findings have a comment", got, want)
	}
	return b.String()
}

// fieldTables shows types of document_test.go, each with its comment and its fields.
func fieldTables(t *testing.T, names []string) string {
	comments := commentsOf(t, "document_test.go")
	var b strings.Builder
	for i, name := range names {
		form := forms()[name]
		if form == nil {
			t.Fatalf("document_test.go has no %s", name)
		}
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(comments[name+"Form"] + "\n\n| key | value | is |\n| --- | --- | --- |\n")
		placement := false
		for _, f := range fieldsOf(form) {
			switch {
			case f.key == "":
			case f.of == "placementForm" && name != "placement":
				if !placement {
					b.WriteString("| the keys of a placement | | see [placements](#placements) |\n")
				}
				placement = true
			default:
				key := "`" + f.key + "`"
				if f.Tag.Get("required") != "" {
					key += ", needed"
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", key, valueWords(f.Type, f.Tag), strings.ReplaceAll(f.comment(comments), "|", "\\|"))
			}
		}
	}
	return b.String()
}

// forms finds the types of document_test.go by their names, without Form.
func forms() map[string]reflect.Type {
	found := map[string]reflect.Type{}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Slice, reflect.Map:
			add(t.Elem())
		case reflect.Struct:
			if found[formName(t)] == nil {
				found[formName(t)] = t
				for f := range t.Fields() {
					add(f.Type)
				}
				for _, f := range fieldsOf(t) {
					add(f.Type)
				}
			}
		}
	}
	add(reflect.TypeFor[fileForm]())
	return found
}

// valueWords says what a value may be.
func valueWords(typ reflect.Type, tag reflect.StructTag) string {
	words := ""
	switch typ {
	case reflect.TypeFor[conditionForm]():
		words = "an [expression](#expressions)"
	case reflect.TypeFor[operatorForm]():
		words = "an [operator](#constraints)"
	case reflect.TypeFor[mhzForm]():
		words = "MHz"
	case reflect.TypeFor[sizeForm]():
		words = "a [size](#sizes)"
	case reflect.TypeFor[boundForm]():
		words = "a number or a size"
	case reflect.TypeFor[durationForm]():
		words = "a time"
	}
	low, high := tag.Get("min"), tag.Get("max")
	enum := strings.Fields(tag.Get("enum"))
	switch kind := typ.Kind(); {
	case words != "":
	case len(enum) == 1:
		words = "`" + enum[0] + "`"
	case len(enum) > 0:
		last := len(enum) - 1
		words = "`" + strings.Join(enum[:last], "`, `") + "` or `" + enum[last] + "`"
		if kind == reflect.Slice {
			words = "a list of any of " + words
		}
	case kind == reflect.Int && low == high:
		words = "`" + low + "`"
	case kind == reflect.Int && high == fmt.Sprint(math.MaxInt32):
		words = "a number from " + low
	case kind == reflect.Int:
		words = "a number, " + low + " to " + high
	case kind == reflect.String:
		words = "a text"
	case kind == reflect.Bool:
		words = "true or false"
	case kind == reflect.Struct:
		words = "a mapping: the " + formName(typ)
	case kind == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
		words = "a list: each a " + formName(typ.Elem())
	case kind == reflect.Slice:
		words = "a list of texts"
	case kind == reflect.Map && typ.Elem().Kind() == reflect.Struct:
		words = "a mapping of names to values, each a " + formName(typ.Elem())
	case kind == reflect.Map:
		words = "a mapping of names to values"
	}
	if tag.Get("open") != "" {
		words += ", or `${{ }}`"
	}
	return strings.ReplaceAll(words, "each a a", "each an a")
}

func yamlBlocks(text string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// variables is the table of what an expression sees: the fields of Env, with their comments.
func variables(t *testing.T) string {
	comments := commentsOf(t, "internal/cond/facts.go")
	var b strings.Builder
	b.WriteString("| variable | type | is |\n| --- | --- | --- |\n")
	row := func(name string, f reflect.StructField, owner string) {
		kind := map[string]string{"bool": "true or false", "int": "number", "string": "text", "[]string": "texts", "map[string]interface {}": "as its label says"}[f.Type.String()]
		comment := comments[owner+"."+f.Name]
		if kind == "" || comment == "" {
			t.Errorf("%s.%s has no comment, or the type %s no word", owner, f.Name, f.Type)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, kind, strings.ReplaceAll(comment, `""`, "empty"))
	}
	for f := range reflect.TypeFor[cond.Env]().Fields() {
		name := f.Tag.Get("expr")
		if name == "" || name == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			for sub := range f.Type.Fields() {
				row(name+"."+sub.Tag.Get("expr"), sub, f.Type.Name())
			}
			continue
		}
		if name == "param" {
			name = "param.NAME"
		}
		row(name, f, "Env")
	}
	return b.String()
}
