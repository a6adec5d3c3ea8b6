package routertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// DenyAll returns a rules file whose one rule has a name, and no jobspec.
func DenyAll(name string) string {
	return fmt.Sprintf("version: 1\nlabels: { self-hosted: {} }\nrules:\n  - { name: %s, if: has(\"self-hosted\"), deny: not now }\n", name)
}

// Write writes a file that only its owner can read.
func Write(t testing.TB, path, text string) {
	t.Helper()
	Must(t, os.WriteFile(path, []byte(text), 0o600))
}

// Replace writes as editors do: a new file takes the name of the old one.
func Replace(t testing.TB, path, text string) {
	t.Helper()
	Write(t, path+"~new", text)
	Must(t, os.Rename(path+"~new", path))
}

// A RulesLink is a directory of rules with 10-base.yaml, in which links lead out of it.
type RulesLink struct {
	Rules string            // what is read: the directory, or 10-base.yaml
	Links map[string]string // where they lead, by name; the directory has outside beside it as x
	Fault string            // the link that is refused
}

// RulesLinks returns links, by what they are, to the directory outside, which has a token
// and good.yaml.
func RulesLinks(outside string) map[string]RulesLink {
	return map[string]RulesLink{
		"of rules":               {".", map[string]string{"20-x.yaml": filepath.Join(outside, "token")}, "20-x.yaml"},
		"to good rules":          {".", map[string]string{"20-x.yaml": filepath.Join(outside, "good.yaml")}, "20-x.yaml"},
		"relative":               {".", map[string]string{"20-x.yaml": "../x/token"}, "20-x.yaml"},
		"by a link to a link":    {".", map[string]string{"20-x.yaml": ".next", ".next": filepath.Join(outside, "token")}, "20-x.yaml"},
		"by a linked directory":  {".", map[string]string{"20-x.yaml": "..data/token", "..data": outside}, "20-x.yaml"},
		"of tests":               {".", map[string]string{"x.test.yaml": filepath.Join(outside, "token")}, "x.test.yaml"},
		"of tests beside a file": {"10-base.yaml", map[string]string{"10-base.test.yaml": filepath.Join(outside, "token")}, "10-base.test.yaml"},
		"to nothing":             {".", map[string]string{"20-x.yaml": filepath.Join(outside, "none")}, "20-x.yaml"},
		"to a device":            {".", map[string]string{"20-x.yaml": os.DevNull}, "20-x.yaml"},
	}
}
