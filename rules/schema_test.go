package rules

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestTheSchemaIsThatOfTheTypes(t *testing.T) {
	w := schemaWriter{t: t, comments: commentsOf(t, "document_test.go"), definitions: object{}}
	root := w.structure(reflect.TypeFor[fileForm](), false)
	root["$schema"] = "http://json-schema.org/draft-07/schema#" // what the editors' YAML servers know in full
	root["title"] = "Switchyard rules file"
	root["definitions"] = w.definitions
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("rules.schema.json", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := gocmp.Diff(want.String(), string(Schema())); d != "" {
		t.Errorf("rules.schema.json is old; go generate ./rules writes it (-want +is):\n%s", d)
	}
}

// An object is one schema, or a part of one.
type object = map[string]any

// A schemaWriter writes the schema of the types of document_test.go.
type schemaWriter struct {
	t           testing.TB
	comments    map[string]string // of commentsOf
	definitions object
}

// besides is what the tags cannot say.
var besides = map[reflect.Type]object{
	reflect.TypeFor[ruleForm](): {"oneOf": []object{
		{"required": []string{"jobspec"}}, {"required": []string{"dispatch"}}, {"required": []string{"deny"}},
	}},
	reflect.TypeFor[expectForm]():          {"minProperties": 1},
	reflect.TypeFor[expectResourcesForm](): {"minProperties": 1},
	reflect.TypeFor[expectRunnerForm]():    {"minProperties": 1},
	reflect.TypeFor[expectDebugForm]():     {"minProperties": 1},
	reflect.TypeFor[expectLimitForm]():     {"minProperties": 1},
	reflect.TypeFor[resourcesForm]():       {"not": object{"required": []string{"cpu", "cores"}}},
	reflect.TypeFor[paramForm](): {
		"if":   object{"properties": object{"type": object{"const": "string"}}},
		"then": object{"oneOf": []object{{"required": []string{"one_of"}}, {"required": []string{"pattern"}}}, "properties": object{"min": false, "max": false}},
		"else": object{"required": []string{"min", "max"}, "properties": object{"one_of": false, "pattern": false}},
	},
}

// structure is the schema of a mapping. Where a mapping stands alone, nothing
// is an empty one to the loader.
func (w *schemaWriter) structure(t reflect.Type, alone bool) object {
	types, properties, required := []string{"object"}, object{}, []string{}
	n := object{"description": w.comment(formName(t) + "Form"), "additionalProperties": false, "properties": properties}
	for _, f := range fieldsOf(t) {
		if f.Type == reflect.TypeFor[shortForm]() {
			types = append(types, "string")
			n["pattern"] = cmp.Or(f.Tag.Get("pattern"), `\S`)
			w.exemplify(n, f)
			continue
		}
		p := w.value(f.Type, f.Tag)
		if p["$ref"] == nil { // beside which draft-07 reads nothing
			p["description"] = w.plain(f.of+"."+f.Name, f.comment(w.comments))
			w.exemplify(p, f)
		}
		properties[f.key] = p
		if f.Tag.Get("required") != "" {
			required = append(required, f.key)
		}
	}
	if alone {
		types = append(types, "null")
	}
	n["type"] = types
	if len(required) > 0 {
		n["required"] = required
	}
	maps.Copy(n, besides[t])
	return n
}

func (w *schemaWriter) reference(t reflect.Type, alone bool) object {
	name := formName(t)
	if w.definitions[name] == nil {
		w.definitions[name] = w.structure(t, alone)
	}
	return object{"$ref": "#/definitions/" + name}
}

// value is the schema of a single value, a list, or a mapping with any keys.
func (w *schemaWriter) value(t reflect.Type, tag reflect.StructTag) object {
	const (
		expression = `\$\{\{`
		whole      = `^-?[0-9]+$`
		mhz        = `^[0-9]+([mM][hH][zZ])?$`
		size       = `^[0-9]+([mMgGtT][iI][bB])?$`
	)
	open := tag.Get("open") != ""
	number := func(pattern, want string) object {
		if open {
			pattern, want = pattern+"|"+expression, want+", or ${{ expression }}"
		}
		n := object{"type": []string{"integer", "string"}, "pattern": pattern, "patternErrorMessage": "want " + want} // of the YAML language server
		for keyword, key := range map[string]string{"minimum": "min", "maximum": "max"} {
			if v, err := strconv.Atoi(tag.Get(key)); err == nil {
				n[keyword] = v
			}
		}
		return n
	}
	text := func() object { return object{"type": []string{"string", "number", "boolean"}} } // as YAML reads 12 and true
	switch t {
	case reflect.TypeFor[mhzForm]():
		return number(mhz, "MHz as a whole number, such as 2000")
	case reflect.TypeFor[sizeForm]():
		return number(size, "a size such as 512MiB or 16GiB")
	case reflect.TypeFor[boundForm]():
		return object{"type": []string{"integer", "string"}}
	case reflect.TypeFor[durationForm]():
		return object{"type": "string", "pattern": `^[-+]?([0-9.]+(ns|us|µs|μs|ms|s|m|h))+$`}
	case reflect.TypeFor[moneyForm]():
		return object{"type": []string{"number", "string"}, "minimum": 0, "maximum": maxPrice, "pattern": moneyText.String()}
	case reflect.TypeFor[operatorForm]():
		return object{"enum": operatorNames()}
	}
	switch t.Kind() {
	case reflect.Int:
		return number(whole, "a whole number")
	case reflect.String:
		enum := strings.Fields(tag.Get("enum"))
		switch {
		case len(enum) > 0 && open:
			return object{"anyOf": []object{{"enum": enum}, {"type": "string", "pattern": expression}}}
		case len(enum) > 0:
			return object{"enum": enum}
		}
		n := text()
		n["pattern"] = cmp.Or(tag.Get("pattern"), `\S`)
		if tag.Get("empty") != "" {
			n["type"] = append(n["type"].([]string), "null")
			n["pattern"] = cmp.Or(tag.Get("pattern"), "")
		}
		return n
	case reflect.Slice:
		n := object{"type": []string{"array", "null"}}
		if least, err := strconv.Atoi(tag.Get("min")); err == nil {
			n["type"], n["minItems"] = "array", least
		}
		if t.Elem().Kind() == reflect.Struct {
			n["items"] = w.reference(t.Elem(), false)
		} else {
			n["items"] = w.value(t.Elem(), reflect.StructTag(`empty:"`+tag.Get("empty")+`" enum:"`+tag.Get("enum")+`"`))
		}
		return n
	case reflect.Map:
		n := object{"type": []string{"object", "null"}}
		switch t.Elem().Kind() {
		case reflect.Struct:
			n["additionalProperties"] = w.reference(t.Elem(), true)
		case reflect.String:
			n["additionalProperties"] = text()
		}
		if p := tag.Get("pattern"); p != "" {
			n["propertyNames"] = object{"pattern": p}
		}
		return n
	case reflect.Bool:
		if open {
			return object{"anyOf": []object{{"type": "boolean"}, {"type": "string", "pattern": "^(true|false)$|" + expression}}}
		}
		return object{"type": "boolean"}
	case reflect.Struct:
		if formName(t) == "list" { // one for each type of entries: written where it is used
			n := w.structure(t, false)
			contains := n["properties"].(object)["contains"].(object)
			n["type"], n["minProperties"] = []string{"array", "object"}, 1
			n["items"], n["minItems"] = contains["items"], contains["minItems"]
			return n
		}
		if tag.Get("list") != "" {
			return object{"anyOf": []object{w.reference(t, false), {"type": "array", "items": w.reference(t, false), "minItems": 1}}}
		}
		return w.reference(t, true)
	}
	w.t.Fatalf("no schema for %s", t)
	return nil
}

// comment is a comment as plain text, which editors take a description for.
func (w *schemaWriter) comment(of string) string {
	return w.plain(of, w.comments[of])
}

func (w *schemaWriter) plain(of, comment string) string {
	if comment == "" {
		w.t.Errorf("document_test.go says nothing of %s", of)
	}
	return strings.ReplaceAll(comment, "`", "")
}

func (w *schemaWriter) exemplify(n object, f formField) {
	if e := f.Tag.Get("example"); e != "" {
		n["examples"] = []any{fromYAML(w.t, e)}
	}
}

func formName(t reflect.Type) string {
	name, _, _ := strings.Cut(t.Name(), "Form")
	return name
}

// commentsOf returns the comments of types and, by Type.Field, of their fields.
func commentsOf(t testing.TB, files ...string) map[string]string {
	comments := map[string]string{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if d, ok := n.(*ast.GenDecl); ok && len(d.Specs) == 1 {
				if s, ok := d.Specs[0].(*ast.TypeSpec); ok {
					comments[s.Name.Name] = strings.TrimSpace(d.Doc.Text())
				}
			}
			s, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := s.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, name := range field.Names {
						comments[s.Name.Name+"."+name.Name] = strings.TrimSpace(cmp.Or(field.Comment.Text(), field.Doc.Text()))
					}
				}
			}
			return false
		})
	}
	return comments
}

// fromYAML reads YAML as JSON has it.
func fromYAML(t tester, src string) (v any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(src), &v); err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return v
}

var schemaCompiler = sync.OnceValues(func() (*jsonschema.Compiler, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	return c, c.AddResource("rules.schema.json", doc)
})

// validate checks a value against the schema, or against what it says at a pointer.
func validate(t tester, pointer string, v any) error {
	t.Helper()
	c, err := schemaCompiler()
	if err != nil {
		t.Fatalf("%v", err)
	}
	s, err := c.Compile("rules.schema.json#" + pointer)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s.Validate(v)
}

// checkValid reports a file that loads and yet is not valid. parse calls it, so
// that the files of all tests are checked, but not those of benchmarks and
// properties, which are large or many and alike.
func checkValid(t tester, src string) {
	t.Helper()
	if _, ok := t.(*testing.T); !ok {
		return
	}
	if err := validate(t, "", fromYAML(t, src)); err != nil {
		t.Errorf("the file loads, but is not valid by the schema: %v\n%s", err, src)
	}
}

func TestTheExampleIsValid(t *testing.T) {
	src := readFile(t, "../rules.example.yaml")
	checkValid(t, string(src))
	tests := fromYAML(t, string(src)).(object)
	for key := range tests {
		if key != "version" && key != "tests" {
			delete(tests, key)
		}
	}
	if err := validate(t, "", tests); err != nil || len(tests) != 2 {
		t.Errorf("its tests in a file of their own: %v", err)
	}
}

// An unknown key brings out the keys that the loader knows.
func TestTheSchemaHasTheKeysThatTheLoaderKnows(t *testing.T) {
	const qqq = "qqqqqqqqqqqq: 1"
	_, err := Parse("rules.yaml", []byte(`version: 1
`+qqq+`
compound: { `+qqq+` }
labels: { 'a*': { `+qqq+`, param: { `+qqq+` } } }
defaults: { `+qqq+`, max: { `+qqq+` } }
unroutable: { `+qqq+` }
feedback: { `+qqq+` }
prices: { `+qqq+`, node_classes: { qqq: { `+qqq+` } } }
rules:
  - `+qqq+`
    constraints: [{ `+qqq+` }]
    affinities: [{ `+qqq+` }]
    devices: [{ `+qqq+` }]
    resources: { `+qqq+` }
    task: { `+qqq+` }
    runner: { `+qqq+` }
    debug: { `+qqq+` }
    limit: { `+qqq+` }
    fallback: [{ `+qqq+` }]
    overflow: { `+qqq+` }
    warm: { `+qqq+` }
tests:
  - `+qqq+`
    repo: { `+qqq+` }
    job: { `+qqq+` }
    run: { `+qqq+` }
    expect: { `+qqq+`, constraints: { `+qqq+` }, resources: { `+qqq+` }, task: { `+qqq+` }, runner: { `+qqq+` }, debug: { `+qqq+` }, limit: { `+qqq+` }, fallback: [{ `+qqq+` }] }
`))
	var faults Diagnostics
	errors.As(err, &faults)
	known := map[string][]string{} // by section, in the order of the file
	for _, f := range faults {
		if m := regexp.MustCompile(`^unknown key "q+" in (.*); it takes (.*)$`).FindStringSubmatch(f.Message); m != nil {
			known[m[1]] = append(known[m[1]], sortedWords(strings.Split(m[2], ", ")))
		}
	}
	want := map[string][]string{}
	for section, types := range map[string][]reflect.Type{
		"a rules file": {reflect.TypeFor[fileForm]()}, "compound": {reflect.TypeFor[compoundForm]()}, "unroutable": {reflect.TypeFor[unroutableForm]()}, "feedback": {reflect.TypeFor[feedbackForm]()},
		"prices": {reflect.TypeFor[pricesForm]()}, `prices node_classes "qqq"`: {reflect.TypeFor[priceForm]()}, `label "a*"`: {reflect.TypeFor[labelForm]()},
		"param": {reflect.TypeFor[paramForm]()}, "defaults": {reflect.TypeFor[defaultsForm]()}, "max": {reflect.TypeFor[maxForm]()},
		"a rule": {reflect.TypeFor[ruleForm]()}, "constraint": {reflect.TypeFor[constraintForm]()}, "affinity": {reflect.TypeFor[affinityForm]()},
		"device": {reflect.TypeFor[deviceForm]()}, "rule: resources": {reflect.TypeFor[resourcesForm]()}, "rule: task": {reflect.TypeFor[taskForm]()},
		"rule: runner": {reflect.TypeFor[runnerForm]()}, "limit": {reflect.TypeFor[limitForm](), reflect.TypeFor[expectLimitForm]()},
		"a fallback": {reflect.TypeFor[fallbackForm]()}, "overflow": {reflect.TypeFor[overflowForm]()}, "warm": {reflect.TypeFor[warmForm]()}, "a test": {reflect.TypeFor[testForm]()}, "repo": {reflect.TypeFor[testRepoForm]()},
		"job": {reflect.TypeFor[testJobForm]()}, "run": {reflect.TypeFor[testRunForm]()}, "expect": {reflect.TypeFor[expectForm]()},
		"constraints": {reflect.TypeFor[listForm[constraintForm]]()}, "resources": {reflect.TypeFor[expectResourcesForm]()},
		"task": {reflect.TypeFor[taskForm]()}, "runner": {reflect.TypeFor[expectRunnerForm]()}, "rule: debug": {reflect.TypeFor[debugForm]()}, "debug": {reflect.TypeFor[expectDebugForm]()}, "fallback": {reflect.TypeFor[expectFallbackForm]()},
	} {
		for _, t := range types {
			var keys []string
			for _, f := range fieldsOf(t) {
				if f.key != "" {
					keys = append(keys, f.key)
				}
			}
			want[section] = append(want[section], sortedWords(keys))
		}
	}
	if d := gocmp.Diff(want, known); d != "" {
		t.Errorf("document_test.go and the loader differ (-document +loader):\n%s", d)
	}
}

func sortedWords(words []string) string {
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestTheSchemaRefusesFilesThatDoNotLoad(t *testing.T) {
	const head, rule = "version: 1\nrules:\n  - ", "{ name: r, jobspec: j, "
	for _, tt := range []struct{ name, src string }{
		{"nothing", "~"},
		{"a list", "[]"},
		{"no version", "rules: [{ name: r, jobspec: j }]"},
		{"a later version", "version: 2\nrules: [{ name: r, jobspec: j }]"},
		{"an unknown section", "version: 1\nlables: {}"},
		{"rules as a mapping", "version: 1\nrules: { name: r }"},
		{"no rules", "version: 1\nrules: []"},
		{"a scope that is a list", "version: 1\nscope: [linux]"},
		{"a compound without a separator", "version: 1\ncompound: { prefix: 'yard=' }"},
		{"labels as a list", "version: 1\nlabels: [gpu]"},
		{"an unknown key in a label", "version: 1\nlabels: { gpu: { devises: [] } }"},
		{"a label that is a text", "version: 1\nlabels: { gpu: nvidia }"},
		{"a param without a type", "version: 1\nlabels: { 'a=*': { param: { name: a, min: 1, max: 2 } } }"},
		{"a param of an unknown type", "version: 1\nlabels: { 'a=*': { param: { name: a, type: float, min: 1, max: 2 } } }"},
		{"a param without bounds", "version: 1\nlabels: { 'a=*': { param: { name: a, type: int } } }"},
		{"an int with a pattern", "version: 1\nlabels: { 'a=*': { param: { name: a, type: int, min: 1, max: 2, pattern: x } } }"},
		{"a string with a min", "version: 1\nlabels: { 'a=*': { param: { name: a, type: string, min: 1, one_of: [x] } } }"},
		{"a string with both bounds", "version: 1\nlabels: { 'a=*': { param: { name: a, type: string, pattern: x, one_of: [x] } } }"},
		{"a param with a capital", "version: 1\nlabels: { 'a=*': { param: { name: A, type: string, pattern: x } } }"},
		{"an unknown key in the defaults", "version: 1\ndefaults: { pool: ci }"},
		{"an unknown key in max", "version: 1\ndefaults: { max: { gpu: 1 } }"},
		{"a max from an expression", "version: 1\ndefaults: { max: { cores: '${{ 1 }}' } }"},
		{"a rule without a name", head + "{ jobspec: j }"},
		{"a rule that does nothing", head + "{ name: r }"},
		{"a rule that does two things", head + "{ name: r, jobspec: j, deny: no }"},
		{"an unknown key in a rule", head + rule + "when: x }"},
		{"a condition that is a mapping", head + rule + "if: { has: linux } }"},
		{"a constraint without an attribute", head + rule + "constraints: ['= arm64'] }"},
		{"a constraint with an unknown operator", head + rule + "constraints: [{ attribute: '${attr.cpu.arch}', operator: like, value: arm64 }] }"},
		{"an unknown key in a constraint", head + rule + "constraints: [{ attribute: '${attr.cpu.arch}', values: arm64 }] }"},
		{"one constraint without a list", head + rule + "constraints: '${attr.cpu.arch} = arm64' }"},
		{"an affinity in short", head + rule + "affinities: ['${node.class} = spot'] }"},
		{"an affinity without a weight", head + rule + "affinities: [{ attribute: '${node.class}', value: spot }] }"},
		{"a weight over 100", head + rule + "affinities: [{ attribute: '${node.class}', value: spot, weight: 101 }] }"},
		{"a device without a name", head + rule + "devices: [{ count: 1 }] }"},
		{"no device", head + rule + "devices: [{ name: nvidia/gpu, count: 0 }] }"},
		{"an unknown key in the constraint of a device", head + rule + "devices: [{ name: g, constraints: [{ atribute: x }] }] }"},
		{"cpu and cores", head + rule + "resources: { cpu: 1, cores: 1 } }"},
		{"half a core", head + rule + "resources: { cores: 0.5 } }"},
		{"a decimal size", head + rule + "resources: { memory: 16GB } }"},
		{"a size that is true", head + rule + "resources: { memory: true } }"},
		{"an empty pool", head + rule + "node_pool: '' }"},
		{"a datacenter without a list", head + rule + "datacenters: dc1 }"},
		{"a priority over 100", head + rule + "priority: 101 }"},
		{"a priority in words", head + rule + "priority: high }"},
		{"an unknown key in a task", head + rule + "task: { image: x } }"},
		{"a variable with a space", head + rule + "task: { env: { 'A B': x } } }"},
		{"a variable that is a list", head + rule + "task: { env: { A: [x] } } }"},
		{"an unknown scope of a runner", head + rule + "runner: { scope: team } }"},
		{"an unknown registration of a runner", head + rule + "runner: { registration: pat } }"},
		{"a time limit that is a number", head + rule + "time_limit: 6 }"},
		{"a time limit of a fallback", head + rule + "fallback: [{ after: 5m, time_limit: 6h }] }"},
		{"warm runners without a number", head + rule + "warm: { when: Mon-Fri } }"},
		{"an overflow without a value", head + rule + "overflow: { after: 10m, variable: RUNNER, back: '\"linux\"' } }"},
		{"an overflow by a variable with a dash", head + rule + "overflow: { after: 10m, variable: LINUX-RUNNER, to: '\"ubuntu-latest\"', back: '\"linux\"' } }"},
		{"an overflow to what is no JSON", head + rule + "overflow: { after: 10m, variable: RUNNER, to: ubuntu-latest, back: '\"linux\"' } }"},
		{"a rerun without a reason", head + rule + "rerun: { times: 1 } }"},
		{"a rerun for no reason", head + rule + "rerun: { when: [] } }"},
		{"a rerun for another reason", head + rule + "rerun: { when: [failed] } }"},
		{"a rerun without end", head + rule + "rerun: { when: [drained], times: 0 } }"},
		{"an unroutable without an action", "version: 1\nunroutable: { after: 10m }\nrules: [{ name: r, jobspec: j }]"},
		{"an unroutable with an unknown action", "version: 1\nunroutable: { after: 10m, action: retry }\nrules: [{ name: r, jobspec: j }]"},
		{"a feedback without a kind", "version: 1\nfeedback: { after: 10s }\nrules: [{ name: r, jobspec: j }]"},
		{"a feedback of an unknown kind", "version: 1\nfeedback: { kind: comment }\nrules: [{ name: r, jobspec: j }]"},
		{"a list of groups", head + rule + "runner: { group: [Default] } }"},
		{"a limit without a number", head + rule + "limit: { per: owner } }"},
		{"a limit per something else", head + rule + "limit: { running: 1, per: team } }"},
		{"no jobs at once", head + rule + "limit: { running: 0 } }"},
		{"a fallback without a time", head + rule + "fallback: [{ node_pool: x }] }"},
		{"a fallback after a number", head + rule + "fallback: [{ after: 5 }] }"},
		{"an unknown key in a fallback", head + rule + "fallback: [{ after: 5m, pool: x }] }"},
		{"a test without labels", head + "{ name: r, jobspec: j }\ntests: [{ name: t, expect: { rule: r } }]"},
		{"a test without an expectation", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [] }]"},
		{"a test that expects nothing", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], expect: {} }]"},
		{"an unknown key in a test", head + "{ name: r, jobspec: j }\ntests: [{ name: t, label: [], labels: [], expect: { rule: r } }]"},
		{"an unknown outcome", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], expect: { outcome: refused } }]"},
		{"an unknown key in what is expected", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], expect: { pool: x } }]"},
		{"an unknown way to compare lists", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], expect: { devices: { only: [gpu] } } }]"},
		{"a list that says nothing", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], expect: { devices: [] } }]"},
		{"a repository without its owner", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], repo: web, expect: { rule: r } }]"},
		{"a repository that is perhaps private", head + "{ name: r, jobspec: j }\ntests: [{ name: t, labels: [], repo: { private: perhaps }, expect: { rule: r } }]"},
		{"one fallback without a list", head + rule + "fallback: { after: 5m, node_pool: x } }"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse("rules.yaml", []byte(tt.src)); err == nil {
				t.Fatal("the file loads")
			}
			if validate(t, "", fromYAML(t, tt.src)) == nil {
				t.Error("it is valid")
			}
		})
	}
}

func TestTheExamplesOfTheSchemaAreValid(t *testing.T) {
	var walk func(at string, v any)
	found := 0
	walk = func(at string, v any) {
		n, ok := v.(object)
		if !ok {
			return
		}
		if examples, ok := n["examples"].([]any); ok {
			found++
			if err := validate(t, at, examples[0]); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
		for key, sub := range n {
			if key != "examples" {
				walk(at+"/"+strings.ReplaceAll(key, "$", "%24"), sub)
			}
		}
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	walk("", doc)
	if found < 50 {
		t.Errorf("%d examples", found)
	}
}

func TestTheWordsOfConditionsCompile(t *testing.T) {
	variables, functions := Words()
	for _, want := range []string{"labels", "repo.owner", "repo.private", "job.branch", "run.fork", "param"} {
		if !slices.Contains(variables, want) {
			t.Errorf("the variables %v have no %s", variables, want)
		}
	}
	for _, name := range variables {
		if name == "param" {
			name = "param.x"
		}
		if _, err := Parse("r.yaml", []byte("version: 1\nlabels: { 'x=*': { param: { name: x, type: int, min: 1, max: 2 } } }\nrules:\n  - { name: a, if: '"+name+" == "+name+"', deny: x }\n")); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"has", "hasAny", "only", "exactly", "split", "hasPrefix"} {
		if !slices.Contains(functions, want) {
			t.Errorf("the functions %v have no %s", functions, want)
		}
	}
}
