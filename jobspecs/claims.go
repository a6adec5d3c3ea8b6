package jobspecs

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// claimMeta begins the names under which a task finds the URL and the token of
// the claim, in an artifact, a template, its environment or a script.
const claimMeta = "NOMAD_META_SWITCHYARD_CLAIM_"

// Claims reports whether a Nomad job, as JSON, uses the claim's URL or token anywhere in
// its groups except in comments. An image that claims by itself is not noticed.
func Claims(job []byte) bool {
	var j struct{ TaskGroups any }
	return json.Unmarshal(job, &j) == nil && claimsIn(j.TaskGroups)
}

func claimsIn(v any) bool {
	switch v := v.(type) {
	case string:
		return claimsText(v)
	case []any:
		return slices.ContainsFunc(v, claimsIn)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), claimsIn)
	}
	return false
}

// claimsText leaves out the lines that are comments of a script.
func claimsText(s string) bool {
	for line := range strings.Lines(s) {
		comment := strings.HasPrefix(strings.TrimSpace(line), "#")
		if !comment && strings.Contains(line, claimMeta) {
			return true
		}
	}
	return false
}

// claimsHCL is Claims for a jobspec that Nomad has not read.
func claimsHCL(src []byte) bool {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos) // its faults are load's
	var text strings.Builder
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment {
			text.WriteByte('\n') // which ends with the line
			continue
		}
		text.Write(t.Bytes)
	}
	return claimsText(text.String())
}
