package jobspecs_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// A change of a file that Switchyard reads again by itself restarts nothing: a
// restart loses deliveries, and with bad rules it would be one after the other.
// What is read once, the environment, is the only reason for one.
func TestWhatRestartsSwitchyard(t *testing.T) {
	src, err := os.ReadFile("switchyard.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	file, diags := hclsyntax.ParseConfig(src, "switchyard.nomad.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	text := func(b *hclsyntax.Block, name string) string {
		a, ok := b.Body.Attributes[name]
		if !ok {
			return ""
		}
		r := a.Expr.Range()
		return string(src[r.Start.Byte:r.End.Byte])
	}
	got := map[string]string{}
	var walk func(hclsyntax.Blocks)
	walk = func(blocks hclsyntax.Blocks) {
		for _, b := range blocks {
			if b.Type == "template" {
				got[text(b, "destination")] = text(b, "env") + text(b, "change_mode")
			}
			walk(b.Body.Blocks)
		}
	}
	walk(file.Body.(*hclsyntax.Body).Blocks)
	want := map[string]string{
		`"local/rules.yaml"`: `"noop"`, `"secrets/webhook.secret"`: `"noop"`, `"secrets/app.pem"`: `"noop"`, `"secrets/github.token"`: `"noop"`,
		`"secrets/github.env"`: "true",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("templates by how they are changed (-want +got):\n%s", d)
	}
}
