package rules

import (
	"strings"
	"testing"
)

// What people type first gets a message that shows what they meant, at its place, which § marks.
func TestWhatPeopleTypeFirst(t *testing.T) {
	const labels = "version: 1\nlabels: { self-hosted: {}, linux: {}, gpu: {} }\n"
	const rest = "rules: [{ name: r, if: has(\"linux\"), jobspec: j }]\n"
	condition := func(c string) string {
		return labels + "rules:\n  - name: r\n    jobspec: j\n    if: " + c + "\n"
	}
	for _, tt := range []struct{ name, src, want string }{
		// YAML
		{"quotes that end too early", condition(`§"gpu" in labels`), `put the whole expression in single quotes, if: '"gpu" in labels'`},
		{"the same in single quotes", condition(`§'gpu' in labels`), `put the whole expression in single quotes, if: '"gpu" in labels'`},
		{"two labels so", condition(`§"gpu" in labels and "linux" in labels`), `if: '"gpu" in labels and "linux" in labels'`},
		{"quotes in quotes", condition(`§"has("linux")"`), `if: 'has("linux")'`},
		{"within braces", labels + `rules: [{ name: r, if: §"gpu" in labels, jobspec: j }]` + "\n", `if: '"gpu" in labels'`},
		{"in the scope", labels + "scope: §\"self-hosted\" in labels\n" + rest, `scope: '"self-hosted" in labels'`},
		{"a comment that was none", condition(`any(labels§, # == "gpu")`), `YAML takes what follows # for a comment: put the expression in single quotes, 'any(labels, # == "gpu")'`},
		{"the same later", condition(`has("linux") and any(labels§, # startsWith 'x')`), `'has("linux") and any(labels, # startsWith "x")'`},
		{"a mark that YAML takes for a tag", condition(`§!repo.fork`), `a text that begins with ! must be in quotes, or write not, as in if: not repo.fork`},
		{"an attribute within braces", labels + "defaults: { constraints: §${attr.kernel.name} = linux }\n" + rest, `must be in quotes: '${attr.kernel.name} = linux'`},
		{"an attribute within brackets", labels + "defaults: { constraints: [§${attr.kernel.name} = linux] }\n" + rest, `must be in quotes: '${attr.kernel.name} = linux'`},

		// GitHub's expressions
		{"contains of labels", condition(`§contains(labels, "gpu")`), `contains is not a function: write has("gpu")`},
		{"contains of labels in another condition", condition(`repo.private and §contains(labels, 'gpu')`), `write has('gpu')`},
		{"contains of a text", condition(`§contains(github.ref, "main")`), `write job.branch contains "main"`},
		{"startsWith", condition(`§startsWith(job.branch, "release/")`), `startsWith is an operator, not a function: write job.branch startsWith "release/"`},
		{"endsWith of what has brackets", condition(`§endsWith(lower(repo.name), "x,y(")`), `write lower(repo.name) endsWith "x,y("`},
		{"contains as a method", condition(`labels.§contains("gpu")`), `to ask for a label, write has("gpu")`},
		{"the repository of a workflow", condition(`§github.repository == "acme/web"`), `github.repository exists only in workflows: write repo.full_name`},
		{"the event of a workflow", condition(`§github.event_name == "push"`), `write run.event`},
		{"what no rule sees of a workflow", condition(`§github.token == "x"`), `rules see repo, job and run`},
		{"the runner's system", condition(`§runner.os == "Linux"`), `ask for the job's label, has("linux")`},
		{"inputs", condition(`§inputs.size == "x"`), `inputs exists only in workflows: rules see labels, param, repo, job and run`},
		{"fromJSON", condition(`§fromJSON("true")`), `fromJSON exists only in workflows`},
		{"a name without its fact", condition(`§branch == "main"`), `write job.branch`},

		// Expressions
		{"one = to compare", condition(`repo.owner §= "acme"`), `write == to compare`},
		{"a word in upper case", condition(`repo.private §AND has("gpu")`), `write and, in lower case`},
		{"like", condition(`repo.name §like "web%"`), `write matches, with a regular expression`},
		{"~", condition(`job.branch §~ "^x"`), `write matches`},
		{"a label that is compared", condition(`labels §== "gpu"`), `to ask for a label, write has("gpu")`},
		{"labels that contain", condition(`labels §contains "gpu"`), `to ask for a label, write has("gpu")`},
		{"a label by itself", condition(`§linux`), `to ask for a label, write has("linux")`},
		{"a label as the scope", labels + "scope: §self-hosted\n" + rest, `to ask for a label, write has("self-hosted")`},
		{"round quotes", condition(`has(§“linux”)`), `write straight quotes`},
		{"a bracket that is missing", condition(`has("linux", "gpu§"`), `a ) is missing`},
		{"a list of labels", condition(`§[linux, gpu]`), `if must be a text, not a list: write has("linux", "gpu")`},

		// Keys and values
		{"runs-on in a rule", labels + "rules:\n  - name: r\n    §runs-on: [self-hosted, linux, gpu]\n    jobspec: j\n", `a rule asks for labels in its condition, if: has("linux", "gpu")`},
		{"labels in a rule", labels + "rules:\n  - name: r\n    §labels: linux\n    jobspec: j\n", `if: has("linux")`},
		{"an image in a rule", labels + "rules:\n  - name: r\n    §image: x\n    jobspec: j\n", `task: { config: { image: … } }`},
		{"memory in a rule", labels + "rules:\n  - name: r\n    §memory: 4GiB\n    jobspec: j\n", `resources: { memory: … }`},
		{"labels as a list", "version: 1\nlabels: §[self-hosted, linux]\n" + rest, `labels: { linux: {}, gpu: { devices: [nvidia/gpu] } }`},
		{"one datacenter", labels + "defaults: { datacenters: §dc1 }\n" + rest, `must be a list, not a text: write [dc1]`},
		{"one device", labels + "defaults: { devices: §nvidia/gpu }\n" + rest, `write [nvidia/gpu]`},
		{"one constraint", labels + "defaults:\n  constraints: §${attr.kernel.name} = linux\n" + rest, `write ['${attr.kernel.name} = linux']`},
		{"a test's labels as a text", labels + rest + "tests: [{ name: a, expect: { rule: r }, labels: §\"self-hosted, linux\" }]\n", `write [self-hosted, linux]`},
		{"decimal units", labels + "defaults: { resources: { memory: §4GB } }\n" + rest, `write 4GiB`},
		{"an attribute without its mark", labels + "defaults: { constraints: [§'attr.kernel.name = linux'] }\n" + rest, `write ${attr.kernel.name}`},
		{"the same in a mapping", labels + "defaults: { constraints: [§{ attribute: attr.cpu.arch, value: amd64 }] }\n" + rest, `write '${attr.cpu.arch}'`},
		{"an attribute with our marks", labels + "defaults: { constraints: [§'${{ attr.cpu.arch }} = amd64'] }\n" + rest, `Nomad's has one brace, ${attr.cpu.arch}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, want := faults(t, tt.src, []string{""})
			if len(got) != 1 || len(want) != 1 || !strings.HasPrefix(got[0], want[0]) || !strings.Contains(got[0], tt.want) {
				t.Errorf("faults:\n%s\nwant one at %s that says %s", strings.Join(got, "\n"), strings.Join(want, ", "), tt.want)
			}
		})
	}
	for name, src := range map[string]string{
		"a byte order mark":    "\ufeff" + condition(`has("linux")`),
		"the ends of Windows":  strings.ReplaceAll(condition(`has("linux")`), "\n", "\r\n"),
		"&& and ||":            condition(`has('linux') && !repo.fork || repo.private`),
		"a comment behind":     condition(`has("linux") # and has("gpu")`),
		"contains as operator": condition(`job.branch contains ("main")`),
	} {
		if got, _ := faults(t, src, nil); len(got) > 0 {
			t.Errorf("%s: %q, want no fault", name, got)
		}
	}
}
