package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What each package may import of ours, and does: the table of the README's
// "Project structure". cmd/switchyard wires all of them.
var mayImport = map[string][]string{
	"switchyard/rules":    {"rules/internal/cond", "rules/internal/words", "rules/internal/yamlfile"},
	"switchyard/jobspecs": {},

	"switchyard/rules/internal/cond":     {"rules/internal/words"},
	"switchyard/rules/internal/words":    {},
	"switchyard/rules/internal/yamlfile": {"rules/internal/words"},

	"switchyard/router":           {"rules"},
	"switchyard/router/telemetry": {"router"},
	"switchyard/router/decide":    {"jobspecs", "router", "rules"},
	"switchyard/router/intake":    {"router", "router/telemetry"},
	"switchyard/router/runners":   {"router", "router/decide", "router/intake", "router/telemetry", "rules"},
	"switchyard/router/dispatch":  {"router", "router/decide", "router/intake", "router/runners", "router/telemetry", "rules"},
	"switchyard/router/claim":     {"router", "router/decide", "router/intake", "router/runners", "router/telemetry", "rules"},
	"switchyard/router/feedback":  {"router", "router/decide", "router/intake", "router/telemetry", "rules"},
	"switchyard/router/overflow":  {"router", "router/decide", "router/telemetry", "rules"},
	"switchyard/router/rerun":     {"router", "router/telemetry"},
	"switchyard/router/warm":      {"router", "router/decide", "router/telemetry", "rules"},
	"switchyard/router/operate":   {"router", "router/runners", "router/telemetry"},
	"switchyard/router/server": {
		"router", "router/claim", "router/decide", "router/dispatch", "router/feedback", "router/health", "router/intake", "router/operate", "router/overflow",
		"router/rerun", "router/runners", "router/telemetry", "router/warm", "rules",
	},

	"switchyard/router/health":   {"router", "router/telemetry"},
	"switchyard/router/demo":     {"router", "router/githubsim", "router/nomadsim"},
	"switchyard/router/rulebook": {"jobspecs", "router", "rules"},

	"switchyard/router/webhook":        {"router"},
	"switchyard/router/store":          {"router"},
	"switchyard/router/gh":             {"router"},
	"switchyard/router/feasible":       {},
	"switchyard/router/nomad":          {"router", "jobspecs"},
	"switchyard/router/nomad/capacity": {"router", "router/feasible", "router/nomad", "jobspecs", "rules"},
	"switchyard/router/simulate":       {"router", "router/feasible", "rules"},
	"switchyard/router/usage":          {"router", "rules"},
	"switchyard/router/web":            {"router", "router/simulate", "router/usage", "router/web/api", "router/web/auth", "router/web/problem", "rules"},
	"switchyard/router/web/api":        {"router", "router/usage", "router/web/auth", "router/web/problem", "rules"},
	"switchyard/router/web/auth":       {"router", "router/web/problem", "rules"},
	"switchyard/router/web/problem":    {"router"},
	"switchyard/router/nomadsim":       {"router/feasible"},
	"switchyard/router/githubsim":      {},
}

// What only tests import: conformance suites import what they test against.
var testOnly = map[string][]string{
	"switchyard/router/store/postgrestest": {},
	"switchyard/router/store/storetest":    {"router", "router/server", "router/store", "router/store/postgrestest", "router/usage", "router/web", "router/web/api", "rules"},
	"switchyard/router/nomadsim/nomadtest": {"router", "router/nomadsim"},

	"switchyard/router/githubsim/githubtest": {},
	"switchyard/router/routertest": {
		"jobspecs", "router", "router/gh", "router/githubsim", "router/nomad", "router/nomad/capacity", "router/nomadsim", "router/server", "router/store",
		"router/store/storetest", "router/telemetry", "router/testnet", "router/webhook", "rules",
	},
	"switchyard/router/testnet": {},
}

func TestImportsFollowTheArrowsOfTheDesign(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}|{{join .Imports " "}}`, "switchyard/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), "|")
		if pkg == "switchyard/cmd/switchyard" {
			continue
		}
		seen[pkg] = true
		allowed, known := mayImport[pkg]
		if !known {
			allowed, known = testOnly[pkg]
		}
		if !known {
			t.Errorf("package %s is not in the table", pkg)
		}
		var ours []string
		for _, imp := range strings.Fields(imports) {
			if short, is := strings.CutPrefix(imp, "switchyard/"); is {
				ours = append(ours, short)
			}
			if _, test := testOnly[imp]; test && testOnly[pkg] == nil {
				t.Errorf("%s imports %s, which is for tests", pkg, imp)
			}
		}
		slices.Sort(allowed)
		if slices.Sort(ours); !slices.Equal(ours, allowed) {
			t.Errorf("%s imports %v of ours, and the table has %v", pkg, ours, allowed)
		}
	}
	for _, table := range []map[string][]string{mayImport, testOnly} {
		for pkg := range table {
			if !seen[pkg] {
				t.Errorf("the table has %s, which is no package", pkg)
			}
		}
	}
}
