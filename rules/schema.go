package rules

import (
	"bytes"
	_ "embed"
	"maps"
	"reflect"
	"slices"

	"switchyard/rules/internal/cond"
)

//go:generate go test -run TestTheSchemaIsThatOfTheTypes . -update

//go:embed rules.schema.json
var schema []byte

// Schema returns the JSON Schema (draft-07) of a rules file, for editors. A
// file that loads is valid; one that is valid may still have faults, as the
// schema knows nothing of expressions or of what names stand for.
func Schema() []byte { return bytes.Clone(schema) }

// Words returns the variables that a condition sees, such as repo.owner, and the
// functions that it can call, each sorted; for editors.
func Words() (variables, functions []string) {
	variables = appendFields(nil, "", reflect.TypeFor[cond.Env]())
	functions = append(functions, cond.Builtins...)
	functions = slices.AppendSeq(functions, maps.Keys(cond.Bounded))
	functions = slices.AppendSeq(functions, maps.Keys(cond.LabelFunctions))
	slices.Sort(variables)
	slices.Sort(functions)
	return variables, functions
}

func appendFields(names []string, prefix string, t reflect.Type) []string {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("expr")
		switch {
		case name == "" || name == "-":
		case f.Type.Kind() == reflect.Struct:
			names = appendFields(names, prefix+name+".", f.Type)
		default:
			names = append(names, prefix+name)
		}
	}
	return names
}
