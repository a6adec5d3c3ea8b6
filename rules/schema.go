package rules

import (
	"bytes"
	_ "embed"
)

//go:generate go test -run TestTheSchemaIsThatOfTheTypes . -update

//go:embed rules.schema.json
var schema []byte

// Schema returns the JSON Schema (draft-07) of a rules file, for editors. A
// file that loads is valid; one that is valid may still have faults, as the
// schema knows nothing of expressions or of what names stand for.
func Schema() []byte { return bytes.Clone(schema) }
