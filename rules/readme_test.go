package rules

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what the README shows of the code")

// What the README shows is what the code does: the variables, the decisions of
// its first example, and the faults of its last. -update rewrites them.
func TestTheREADMEIsTrue(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	want = regexp.MustCompile(`(?s)(<!-- variables: [^\n]*\n).*(<!-- end -->)`).ReplaceAllStringFunc(want, func(s string) string {
		first, _, _ := strings.Cut(s, "\n")
		return first + "\n" + variables(t) + "<!-- end -->"
	})
	blocks := yamlBlocks(want)
	first := parse(t, blocks[0])
	want = regexp.MustCompile("(?m)^\\| `([^`]*)` \\|[^|\n]*\\|$").ReplaceAllStringFunc(want, func(s string) string {
		labels := strings.Split(s, "`")[1]
		if !strings.HasPrefix(strings.ToLower(labels), "self-hosted,") && labels != "ubuntu-latest" {
			return s
		}
		f := job()
		f.Labels = strings.Split(labels, ",")
		d := first.Decide(f, false)
		said := strings.Join(outline(d), "; ")
		if d.Outcome == Routed {
			said = "rule " + d.Rule + ", jobspec " + d.Jobspec + "; " + said
		}
		return "| `" + labels + "` | " + strings.ReplaceAll(said, "|", "\\|") + " |"
	})
	bad := blocks[len(blocks)-1]
	_, err = Parse("rules.yaml", []byte(bad))
	var faults Diagnostics
	if !errors.As(err, &faults) {
		t.Fatalf("the last example has no faults: %v", err)
	}
	var shown strings.Builder
	for _, f := range faults {
		shown.WriteString(f.String() + "\n" + f.Excerpt([]byte(bad)))
	}
	want = regexp.MustCompile("(?s)```text\n.*?```").ReplaceAllLiteralString(want, "```text\n"+shown.String()+"```")

	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := gocmp.Diff(want, string(text)); d != "" {
		t.Errorf("README.md is old; go test ./rules -update rewrites it (-want +is):\n%s", d)
	}
}

func TestTheExamplesOfTheREADMEAreGood(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
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
	for name := range labelFunctions {
		if !strings.Contains(string(text), "`"+name+"(") {
			t.Errorf("the README does not name the function %s", name)
		}
	}
	for _, key := range append(placementKeys, sizeKeys...) {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("the README does not name the key %s", key)
		}
	}
}

func yamlBlocks(text string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// variables is the table of what an expression sees: the fields of Env, with
// their comments.
func variables(t *testing.T) string {
	comments := map[string]string{} // "Repo.Owner": its comment
	for _, file := range []string{"decision.go", "expression.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						comments[spec.Name.Name+"."+name.Name] = strings.TrimSpace(field.Comment.Text())
					}
				}
			}
			return false
		})
	}
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
	for f := range reflect.TypeFor[Env]().Fields() {
		name := f.Tag.Get("expr")
		if name == "" {
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
