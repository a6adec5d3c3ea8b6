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
// the claim, in an artifact, a template, its environment or a script, and verifyMeta
// those of the question whether it may serve its job.
const (
	claimMeta  = "NOMAD_META_SWITCHYARD_CLAIM_"
	verifyMeta = "NOMAD_META_SWITCHYARD_VERIFY_"
)

// warmMeta is the name under which a task finds whether it is to wait at the claim for a job.
const warmMeta = "NOMAD_META_SWITCHYARD_WARM"

// Claims reports whether a Nomad job, as JSON, uses the claim's URL or token anywhere in
// its groups except in comments. An image that claims by itself is not noticed.
func Claims(job []byte) bool { return uses(job, claimMeta) }

// Verifies is Claims for the question whether the runner may serve its job.
func Verifies(job []byte) bool { return uses(job, verifyMeta) }

// uses reports whether a Nomad job, as JSON, uses a name anywhere in its groups except in comments.
func uses(job []byte, name string) bool {
	var j struct{ TaskGroups any }
	return json.Unmarshal(job, &j) == nil && usesIn(j.TaskGroups, name)
}

func usesIn(v any, name string) bool {
	in := func(v any) bool { return usesIn(v, name) }
	switch v := v.(type) {
	case string:
		return usesText(v, name)
	case []any:
		return slices.ContainsFunc(v, in)
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), in)
	}
	return false
}

// usesText leaves out the lines that are comments of a script.
func usesText(s, name string) bool {
	for line := range strings.Lines(s) {
		comment := strings.HasPrefix(strings.TrimSpace(line), "#")
		if !comment && strings.Contains(line, name) {
			return true
		}
	}
	return false
}

// textHCL returns a jobspec that Nomad has not read without its comments, for usesText.
func textHCL(src []byte) string {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos) // its faults are load's
	var text strings.Builder
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment {
			text.WriteByte('\n') // which ends with the line
			continue
		}
		text.Write(t.Bytes)
	}
	return text.String()
}
