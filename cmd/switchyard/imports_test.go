package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The design's arrows: what each package may import of ours. A package below
// router that is not listed may import nothing of ours.
var mayImport = map[string][]string{
	"switchyard/rules":            {},
	"switchyard/jobspecs":         {},
	"switchyard/router":           {"switchyard/rules"},
	"switchyard/router/server":    {"switchyard/router", "switchyard/rules"},
	"switchyard/router/webhook":   {"switchyard/router"},
	"switchyard/router/store":     {"switchyard/router"},
	"switchyard/router/gh":        {"switchyard/router"},
	"switchyard/router/feasible":  {},
	"switchyard/router/nomad":     {"switchyard/router", "switchyard/jobspecs", "switchyard/router/feasible"},
	"switchyard/router/web":       {"switchyard/router", "switchyard/rules"},
	"switchyard/router/nomadsim":  {"switchyard/router/feasible"},
	"switchyard/router/githubsim": {},
}

// What only tests import: conformance suites import what they test against.
var testOnly = map[string][]string{
	"switchyard/router/store/storetest":    {"switchyard/router", "switchyard/router/store", "switchyard/rules"},
	"switchyard/router/nomadsim/nomadtest": {},

	"switchyard/router/githubsim/githubtest": {},
	"switchyard/router/testnet":              {},
}

func TestImportsFollowTheArrowsOfTheDesign(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}|{{join .Imports " "}}`, "switchyard/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < len(mayImport)-1 { // router/web is to come
		t.Fatalf("go list found %d packages, want at least %d:\n%s", len(lines), len(mayImport)-1, out)
	}
	for _, line := range lines {
		pkg, imports, _ := strings.Cut(line, "|")
		if pkg == "switchyard/cmd/switchyard" {
			continue
		}
		allowed, known := mayImport[pkg]
		if !known {
			allowed, known = testOnly[pkg]
		}
		if !known {
			t.Errorf("package %s is not in the table of the design", pkg)
		}
		for _, imp := range strings.Fields(imports) {
			if strings.HasPrefix(imp, "switchyard/") && !slices.Contains(allowed, imp) {
				t.Errorf("%s imports %s, want only %v of ours", pkg, imp, allowed)
			}
			if _, test := testOnly[imp]; test {
				t.Errorf("%s imports %s, which is for tests", pkg, imp)
			}
		}
	}
}
