package jobspecs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAJobspecThatClaims(t *testing.T) {
	specs, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range specs.Names() {
		if spec, _ := specs.Get(name); !spec.Claims || !Claims(spec.Parsed) || !spec.Verifies || !Verifies(spec.Parsed) {
			t.Errorf("the built-in %s does not claim, or does not verify", name)
		}
	}
	task := func(inner string) string {
		return "job \"x\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"raw_exec\"\n" + inner + "\n    }\n  }\n}\n"
	}
	jsonTask := func(inner string) string {
		return `{"Job": {"ID": "x", "Meta": {"SWITCHYARD_CLAIM_URL": ""}, "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", ` + inner + `}]}]}}`
	}
	for _, tt := range []struct {
		name, file, text string
		want             bool
	}{
		{"an artifact", "a.nomad.hcl", task(`artifact { source = "${NOMAD_META_SWITCHYARD_CLAIM_URL}" }`), true},
		{"an artifact whose address is written out", "a.nomad.hcl", task("artifact {\n source = \"https://yard/runner/v1/claim\"\n headers { Authorization = \"Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}\" }\n}"), true},
		{"a script in a template", "a.nomad.hcl", task("template {\n data = <<EOT\n#!/bin/sh\ncurl -fH \"Authorization: Bearer $NOMAD_META_SWITCHYARD_CLAIM_TOKEN\" \"$NOMAD_META_SWITCHYARD_CLAIM_URL\"\nEOT\n destination = \"local/run.sh\"\n}"), true},
		{"a template's env", "a.nomad.hcl", task("template {\n data = \"U={{ env \\\"NOMAD_META_SWITCHYARD_CLAIM_URL\\\" }}\"\n destination = \"local/x\"\n}"), true},
		{"the environment", "a.nomad.hcl", task("env {\n CLAIM = \"${NOMAD_META_SWITCHYARD_CLAIM_URL}\"\n}"), true},
		{"arguments", "a.nomad.hcl", task("config {\n args = [\"-c\", \"curl $NOMAD_META_SWITCHYARD_CLAIM_URL\"]\n}"), true},
		{"a prestart task", "a.nomad.hcl", "job \"x\" {\n group \"g\" {\n task \"fetch\" {\n driver = \"exec\"\n lifecycle { hook = \"prestart\" }\n env { U = \"${NOMAD_META_SWITCHYARD_CLAIM_URL}\" }\n }\n task \"t\" { driver = \"exec\" }\n }\n}", true},
		{"nothing", "a.nomad.hcl", task(`config { command = "/bin/sleep" }`), false},
		{"a comment", "a.nomad.hcl", task("# artifact { source = \"${NOMAD_META_SWITCHYARD_CLAIM_URL}\" }\n/* NOMAD_META_SWITCHYARD_CLAIM_URL */\n// NOMAD_META_SWITCHYARD_CLAIM_URL"), false},
		{"a comment of a script", "a.nomad.hcl", task("template {\n data = <<EOT\n#!/bin/sh\n  # no $NOMAD_META_SWITCHYARD_CLAIM_URL here\nEOT\n destination = \"local/run.sh\"\n}"), false},
		{"keys that are declared only", "a.nomad.hcl", "job \"x\" {\n parameterized { meta_optional = [\"SWITCHYARD_CLAIM_URL\"] }\n meta { SWITCHYARD_CLAIM_TOKEN = \"\" }\n group \"g\" {\n task \"t\" { driver = \"exec\" }\n }\n}", false},
		{"JSON that does", "a.nomad.json", jsonTask(`"Artifacts": [{"GetterSource": "${NOMAD_META_SWITCHYARD_CLAIM_URL}"}]`), true},
		{"JSON that does not", "a.nomad.json", jsonTask(`"Driver": "raw_exec"`), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			specs, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if spec, _ := specs.Get("a"); spec.Claims != tt.want {
				t.Errorf("it claims: %v, want %v", spec.Claims, tt.want)
			}
		})
	}
}
