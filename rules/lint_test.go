package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What the tests lint against.
var someJobspecs = []Jobspec{
	{Name: "docker-linux", Driver: "docker", Constraints: []Constraint{{Attribute: "${attr.kernel.name}", Operator: "=", Value: "linux"}}},
	{Name: "raw-exec-macos", Driver: "raw_exec", Constraints: []Constraint{{Attribute: "${attr.kernel.name}", Operator: "=", Value: "darwin"}}},
	{Name: "mine"},
	{Name: "bring", NoClaim: true, NoVerify: true, NoWait: true},
}

// Labels and a rule for what the case is not about. The compound gives jobs a
// way to keep their runners.
const (
	lintLabels = `version: 1
labels:
  self-hosted: {}
  linux: {}
  macos: {}
  gpu: { devices: [nvidia/gpu] }
  "cpu=*": { param: { name: cpu, type: int, min: 2, max: 8 }, resources: { cores: '${{ param.cpu }}' } }
compound: { prefix: 'yard=', separator: '/' }
`
	lintUnique = "compound: { prefix: 'yard=', separator: '/' }\n"
	lintRules  = "rules:\n  - { name: macos, if: has(\"macos\"), jobspec: raw-exec-macos }\n"
	lintRest   = "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux }\n"
)

// A rule that denies what a condition holds for, in a file that is good besides.
func denies(condition string) string {
	return strings.Replace(lintLabels, "compound", `  "memory=*": { param: { name: memory, type: size, min: 1GiB, max: 128GiB }, resources: { memory: '${{ param.memory }}' } }
  "image=*": { param: { name: image, type: string, one_of: [Ubuntu-22.04, Windows-2022] }, task: { env: { IMAGE: '${{ param.image }}' } } }
  "tag=*": { param: { name: tag, type: string, pattern: '[a-z]+[0-9]*' }, task: { env: { TAG: '${{ param.tag }}' } } }
  "run-*": {}
compound`, 1) + "rules:\n  - { name: x, deny: no, if: '" + condition + "' }\n" + lintRules[7:] + lintRest
}

// § stands before the place of the finding, ‹code› in front of it names it.
func TestLintFindsEachFaultAtItsPlace(t *testing.T) {
	for _, tt := range []struct {
		name, src string
		want      string // of the message
	}{
		{"jobs without labels, and no group", "version: 1\nscope: len(labels) == 0 or has(\"self-hosted\")\nlabels: { self-hosted: {}, linux: {} }\ndefaults: { runner: { scope: organization } }\nrules:\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux }\n  - { name: any, jobspec: docker-linux, if: ‹no-group›§len(labels) == 0 }\n", "names no group: add runner: { scope: organization, group: NAME }"},
		{"jobs without labels of some repositories, and no group", "version: 1\nscope: 'true'\nlabels: { linux: {} }\nrules:\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux }\n  - { name: own, jobspec: docker-linux, if: ‹no-group›§repo.owner == \"initech\" }\n", "takes jobs without labels"},
		{"a group of a repository", "version: 1\nlabels: { self-hosted: {}, linux: {} }\nrules:\n  - ‹repository-group›§{ name: linux, if: has(\"linux\"), jobspec: docker-linux, runner: { group: 7 } }\n", "runner group 7 (rule linux) is one of an organization"},
		{"a default group of a repository", "version: 1\nlabels: { self-hosted: {}, linux: {} }\ndefaults: { runner: { group: 7 } }\nrules:\n  - ‹repository-group›§{ name: linux, if: has(\"linux\"), jobspec: docker-linux }\n", "runner group 7 (defaults)"},
		{"a rule below the same rule", lintLabels + lintRules + lintRest + "  - ‹never-wins›§name: again\n    if: has(\"linux\")\n    jobspec: mine\n", "rule again takes no job: rule linux (line 11) takes every job that it could"},
		{"a rule below a more general one", lintLabels + lintRules + lintRest + "  - ‹never-wins›§{ name: gpu, if: 'has(\"gpu\", \"linux\")', jobspec: mine }\n", "rule linux (line 11)"},
		{"a rule below one without a condition", lintLabels + lintRules + "  - { name: all, jobspec: docker-linux, if: '‹bare-self-hosted›§repo.private' }\n  - { name: nothing, deny: no }\n  - ‹never-wins›§{ name: late, if: has(\"linux\"), jobspec: docker-linux }\n", "rule nothing (line 12)"},
		{"a rule below two that share its jobs", lintLabels + lintRules + "  - { name: open, if: has(\"linux\") and not repo.private, jobspec: docker-linux }\n  - { name: closed, if: has(\"linux\") and repo.private, jobspec: docker-linux }\n  - ‹never-wins›§{ name: late, if: has(\"linux\"), jobspec: mine }\n", "the rules open (line 11), closed (line 12) together take every job that it could"},
		{"a rule below a deny", lintLabels + "rules:\n  - { name: deny, if: 'hasAny(\"gpu\", \"macos\")', deny: no }\n  - ‹never-wins›§{ name: late, if: '\"linux\" in labels and \"gpu\" in labels', jobspec: docker-linux }\n" + lintRest, "rule deny (line 10)"},
		{"a rule for a list of owners that was split above", lintLabels + "rules:\n  - { name: a, if: repo.owner == \"a\", deny: no }\n  - { name: b, if: 'repo.full_name in [\"b/x\", \"b/y\"]', deny: no }\n  - ‹never-wins›§{ name: late, if: 'repo.owner in [\"a\"] or repo.full_name == \"b/x\"', deny: no }\n" + lintRules[7:] + lintRest, "the rules a (line 10), b (line 11) together"},
		{"a repository of an owner that was taken", lintLabels + "rules:\n  - { name: a, if: repo.owner == \"acme\", deny: no }\n  - ‹never-wins›§{ name: late, if: 'repo.full_name == \"acme/web\"', deny: no }\n" + lintRules[7:] + lintRest, "rule a (line 10)"},
		{"exactly below has", lintLabels + lintRules + lintRest + "  - ‹never-wins›§{ name: late, if: 'exactly(\"self-hosted\", \"linux\")', jobspec: mine }\n", "rule linux"},
		{"only that leaves nothing", lintLabels + lintRules + "  - { name: small, if: 'only(\"self-hosted\", \"linux\", \"gpu\") and has(\"linux\")', jobspec: docker-linux }\n  - ‹never-wins›§{ name: late, if: 'exactly(\"self-hosted\", \"linux\")', jobspec: mine }\n" + lintRest, "rule small (line 11)"},
		{"the same program", lintLabels + lintRules + "  - { name: big, if: has(\"linux\") and (param.cpu ?? 1) > 4, jobspec: docker-linux }\n  - ‹never-wins›§{ name: late, if: '(param.cpu ?? 1) > 4 and has(\"gpu\", \"linux\")', jobspec: mine }\n" + lintRest, "rule big"},
		{"a rule out of scope", strings.Replace(lintLabels, "labels:", "scope: '\"self-hosted\" in labels and repo.owner == \"acme\"'\nlabels:", 1) + lintRules + "  - ‹never-wins›§{ name: other, if: has(\"linux\") and repo.owner == \"other\", jobspec: docker-linux }\n" + lintRest, "out of scope"},
		{"a run that was taken", lintLabels + lintRules + "  - { name: prs, if: has(\"linux\") and run.event == \"pull_request\", jobspec: docker-linux }\n  - ‹never-wins›§{ name: late, if: has(\"linux\") and run.event == \"pull_request\" and run.fork, deny: no }\n" + lintRest, "rule prs"},

		{"public repositories that were denied", lintLabels + "rules:\n  - { name: closed, if: not repo.private, deny: no }\n  - ‹never-wins›§{ name: open, if: 'has(\"linux\") and repo.visibility == \"public\"', jobspec: docker-linux }\n" + lintRules[7:] + lintRest, "rule closed (line 10)"},

		{"a label that is there and is not", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: '‹always-false›§has(\"gpu\") and not hasAny(\"gpu\", \"macos\")' }\n", "if is true for no job"},
		{"two owners at once", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: ‹always-false›§repo.owner == \"a\" and repo.owner == \"b\" }\n", "true for no job"},
		{"an owner and another's repository", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: ‹always-false›§repo.owner == \"a\" and repo.full_name == \"b/c\" }\n", "true for no job"},
		{"exactly and another label", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: '‹always-false›§exactly(\"self-hosted\", \"linux\") and has(\"gpu\")' }\n", "true for no job"},
		{"a rule that is switched off", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: ‹always-false›§false }\n", "true for no job"},
		{"numbers that are what they are", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: '‹always-false›§1 > 2' }\n", "true for no job"},
		{"a label that is there or is not", lintLabels + lintRules + lintRest + "  - { name: x, deny: no, if: ‹always-true›§has(\"gpu\") or not has(\"gpu\") }\n", "true for every job"},
		{"a part that is always true", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: '‹always-true›§has(\"gpu\") and \"a\" != \"b\"' }\n", `the part "a" != "b" of if is true for every job`},
		{"a part that is always false", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: ‹always-false›§has(\"gpu\") or false }\n", `the part false of if is false`},
		{"a scope that nothing meets", strings.Replace(lintLabels, "labels:", "scope: ‹always-false›§has(\"a\") and not has(\"a\")\nlabels:", 1) + lintRules + lintRest, "scope is true for no job"},

		{"a jobspec without the claim", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: ‹no-claim›§bring }\n" + lintRules[7:], `the jobspec "bring" does not fetch the claim`},
		{"one in a fallback", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, fallback: [{ after: 1m, jobspec: ‹no-claim›§bring }] }\n", `write runner: { registration: own } if this is intended`},
		{"one whose defaults speak of others", lintLabels + "defaults: { runner: { registration: token } }\nrules:\n  - { name: open, if: not repo.private, deny: no }\n  - { name: linux, if: has(\"linux\"), jobspec: ‹no-claim›§bring }\n" + lintRules[7:], "its runner brings its own registration"},
		{"warm runners for other jobs", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: mine, warm: [{ idle: 1 }, ‹warm-unused›§{ idle: 1, labels: [self-hosted] }] }\n" + lintRules[7:], `warm has no effect: rule linux does not take a job with the labels "self-hosted"`},
		{"warm runners of a jobspec that does not wait", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: bring, runner: { registration: jit }, warm: ‹warm-unused›§{ idle: 1 } }\n" + lintRules[7:], `warm has no effect: the jobspec "bring" does not wait at the claim`},
		{"a rerun that is not used", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: bring, runner: { registration: own }, rerun: ‹rerun-unused›§{ when: [drained] } }\n" + lintRules[7:], `rerun has no effect on jobs that the jobspec "bring" runs`},
		{"an urgency of jobs that do not wait by it", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, limit: { running: 2 }, urgency: ‹urgency-unused›§10 }\n" + lintRules[7:], `jobs of rule linux do not wait by urgency`},
		{"a verification that nobody does", lintLabels + "defaults: { runner: { verify: true } }\nrules:\n  - { name: linux, if: has(\"linux\"), jobspec: ‹no-verify›§bring, runner: { registration: jit } }\n" + lintRules[7:], `the jobspec "bring" does not ask whether its runner may serve a job`},
		{"an own registration that is not used", lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: ‹claim-unused›§docker-linux, runner: { registration: own } }\n" + lintRules[7:], `the jobspec "docker-linux" fetches the claim`},
		{"a rule without a condition", lintLabels + lintRules + lintRest + "  - ‹bare-self-hosted›§{ name: rest, jobspec: mine }\n", "rule rest takes jobs that ask for nothing but self-hosted"},
		{"a rule for a branch", lintLabels + lintRules + "  - { name: release, if: '‹bare-self-hosted›§job.branch == \"release\"', jobspec: mine }\n" + lintRest, "rule release takes"},
		{"a rule for what is no mac", lintLabels + lintRules + lintRest + "  - { name: rest, if: '‹bare-self-hosted›§not has(\"macos\")', jobspec: mine }\n", "rule rest takes"},
		{"a rule for exactly that", lintLabels + lintRules + lintRest + "  - { name: bare, if: '‹bare-self-hosted›§exactly(\"self-hosted\")', jobspec: mine }\n", "rule bare takes"},

		{"a misspelled label", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: 'has(\"gpu\", ‹unknown-label›§\"gup\")' }\n", `the vocabulary has no label "gup"; did you mean gpu?`},
		{"a label in a block", lintLabels + lintRules + lintRest + "  - name: x\n    jobspec: mine\n    if: |\n      has(\"gpu\") and\n        ‹unknown-label›§\"fast\" in labels\n", `no label "fast"`},
		{"a label without a value", lintLabels + lintRules + lintRest + "  - { name: x, jobspec: mine, if: '‹unknown-label›§\"cpu\" in labels' }\n", `no label "cpu"`},

		{"a label that nobody asks for", strings.Replace(lintLabels, "  gpu:", "  ‹ignored-label›§x64: {}\n  gpu:", 1) + lintRules + lintRest, `label "x64" changes nothing`},
		{"a param that nobody asks for", strings.Replace(lintLabels, "  gpu:", "  ‹ignored-label›§\"n=*\": { param: { name: n, type: int, min: 1, max: 2 } }\n  gpu:", 1) + lintRules + lintRest, `label "n=*" changes nothing`},

		{"a label whose rules all say otherwise", strings.Replace(lintLabels, "  gpu:", "  ‹unusable-label›§arm64: { constraints: ['${attr.cpu.arch} = arm64'] }\n  gpu:", 1) + "defaults: { constraints: ['${attr.cpu.arch} = amd64'] }\n" + lintRules + lintRest, "no node can satisfy both ${attr.cpu.arch} = amd64 (defaults) and ${attr.cpu.arch} = arm64 (label)"},
		{"a label that is too large for all", strings.Replace(lintLabels, "  gpu:", "  ‹unusable-label›§huge: { resources: { memory: 64GiB } }\n  gpu:", 1) + "defaults: { max: { memory: 32GiB } }\n" + lintRules + lintRest, "its memory, 64GiB, exceeds the maximum that rule macos allows, 32GiB (defaults)"},
		{"a param whose least is too large", strings.Replace(lintLabels, "  gpu:", "  ‹unusable-label›§\"memory=*\": { param: { name: m, type: size, min: 64GiB, max: 128GiB }, resources: { memory: '${{ param.m }}' } }\n  gpu:", 1) + "defaults: { max: { memory: 32GiB } }\n" + lintRules + lintRest, "exceeds the maximum"},
		{"a label that no rule takes", strings.Replace(lintLabels, "  gpu:", "  ‹unusable-label›§windows: {}\n  gpu:", 1) + "rules:\n  - { name: linux, if: 'has(\"linux\") and not hasAny(\"windows\")', jobspec: docker-linux }\n  - { name: macos, if: 'exactly(\"self-hosted\", \"macos\")', jobspec: raw-exec-macos }\n", "no rule takes a job that has it"},
		{"a label in the compound prefix", "version: 1\ncompound: { prefix: 'yard=', separator: '/' }\nlabels:\n  self-hosted: {}\n  linux: {}\n  ‹unusable-label›§\"yard=*\": { resources: { cpu: 1000 } }\nrules:\n" + lintRest, `it begins with the compound prefix "yard="`},

		{"constraints of a rule", lintLabels + lintRules + "  - name: linux\n    if: has(\"linux\")\n    jobspec: docker-linux\n    constraints: ['${attr.cpu.arch} = amd64', ‹contradictory-constraints›§'${attr.cpu.arch} = arm64']\n", "no node can satisfy both ${attr.cpu.arch} = amd64 (rule linux) and ${attr.cpu.arch} = arm64 (rule linux)"},
		{"a constraint against the defaults", lintLabels + "defaults: { constraints: ['${meta.team} is_not_set'] }\nrules:\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: [‹contradictory-constraints›§'${meta.team} = web'] }\n" + lintRules[7:], "(defaults)"},
		{"constraints of a label", strings.Replace(lintLabels, "  gpu:", "  odd: { constraints: ['${meta.a} = 1', ‹contradictory-constraints›§{ attribute: '${meta.a}', operator: '!=', value: 1 }] }\n  gpu:", 1) + lintRules + lintRest, `of the label "odd"`},
		{"constraints of a fallback", lintLabels + lintRules + "  - name: linux\n    if: has(\"linux\")\n    jobspec: docker-linux\n    fallback:\n      - { after: 1m, constraints: ['${meta.a} is_set', ‹contradictory-constraints›§'${meta.a} is_not_set'] }\n", "(rule linux, fallback 1): the fallback is never used"},

		{"no such jobspec", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: ‹no-such-jobspec›§docker-linx }\n", `there is no jobspec "docker-linx"; did you mean docker-linux?`},
		{"no such jobspec in a fallback", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, fallback: [{ after: 1m, jobspec: ‹no-such-jobspec›§docker }] }\n", `there is no jobspec "docker"`},
		{"another system than the jobspec's", lintLabels + "rules:\n  - { name: macos, if: has(\"macos\"), jobspec: docker-linux, constraints: [‹driver-ruled-out›§'${attr.kernel.name} = darwin'] }\n" + lintRest, "jobspec docker-linux can run on no node: it needs ${attr.kernel.name} = linux (the jobspec itself)"},
		{"nodes without the driver", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: [‹driver-ruled-out›§'${attr.driver.docker} is_not_set'] }\n", "the driver docker"},
		{"defaults against the driver", lintLabels + "defaults: { constraints: ['${attr.kernel.name} = linux'] }\nrules:\n  - { name: macos, if: has(\"macos\"), jobspec: ‹driver-ruled-out›§raw-exec-macos }\n" + lintRest, "but defaults asks for"},

		{"the defaults' max", lintLabels + "defaults: { resources: { memory: 8GiB }, max: { memory: ‹max-below-default›§4GiB } }\n" + lintRules + lintRest, "max memory 4GiB (defaults) is below what a job gets without asking, 8GiB (defaults)"},
		{"a rule's max", lintLabels + "defaults: { resources: { cpu: 4000 } }\n" + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, max: { cores: 8, cpu: ‹max-below-default›§2000 } }\n", "rule linux: max cpu 2000 MHz (rule linux) is below what a job gets without asking, 4000 MHz (defaults)"},
		{"a rule's size over the defaults' max", lintLabels + "defaults: { max: { disk: ‹max-below-default›§10GiB } }\n" + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, resources: { disk: 20GiB } }\n", "rule linux: max disk 10GiB (defaults)"},

		{"a fallback that says nothing", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, fallback: [‹fallback-no-change›§{ after: 5m }] }\n", "fallback 1 of rule linux asks for the same placement as before"},
		{"a fallback that says the same", lintLabels + "defaults: { node_pool: ci }\n" + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, fallback: [{ after: 5m, node_pool: big }, ‹fallback-no-change›§{ after: 10m, node_pool: big }] }\n", "fallback 2"},

		{"an overflow to the rule itself", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, overflow: { after: 10m, variable: RUNNER, to: ‹overflow-to-itself›§'[\"self-hosted\",\"linux\",\"gpu\"]', back: '[\"self-hosted\",\"linux\"]' } }\n", `rule linux takes jobs that ask for "self-hosted", "linux", "gpu", which its overflow is to send elsewhere`},

		{"a runner with more labels", strings.Replace(lintLabels, lintUnique, "", 1) + lintRules + "  - ‹runner-theft›§{ name: gpu, if: 'has(\"linux\", \"gpu\")', jobspec: docker-linux, node_pool: gpus }\n" + lintRest, `a runner for "self-hosted", "linux", "gpu" (rule gpu) has all labels of a job with "self-hosted", "linux" (rule linux)`},
		{"a token for public repositories", lintLabels + "defaults: { runner: { registration: token } }\n" + lintRules[:7] + "  - ‹public-token›§{ name: linux, if: has(\"linux\") and not has(\"gpu\"), jobspec: docker-linux }\n  - { name: no-public, if: not repo.private, deny: no }\n  - { name: gpu, if: 'has(\"linux\", \"gpu\")', jobspec: docker-linux }\n  - { name: macos, if: has(\"macos\"), jobspec: raw-exec-macos }\n", "rule linux gives runners of public repositories a registration token"},
		{"a runner of an enterprise", strings.Replace(lintLabels, lintUnique, "", 1) + "defaults: { runner: { scope: enterprise, enterprise: acme } }\n" + lintRules + "  - ‹runner-theft›§{ name: gpu, if: 'has(\"linux\", \"gpu\") and repo.owner == \"a\"', jobspec: docker-linux, node_pool: gpus }\n  - { name: linux, if: has(\"linux\") and not has(\"gpu\") and repo.owner == \"b\", jobspec: docker-linux }\n", `a runner for "self-hosted", "linux", "gpu" (rule gpu) has all labels of a job with "self-hosted", "linux" (rule linux)`},
		{"rules that only differ by branch", strings.Replace(lintLabels, lintUnique, "", 1) + lintRules + "  - ‹runner-theft›§{ name: release, if: has(\"linux\") and job.branch == \"release\", jobspec: docker-linux, priority: 90 }\n  - ‹runner-theft›§{ name: linux, if: has(\"linux\"), jobspec: docker-linux }\n", "GitHub may give it that job"},

		{"a label for each run keeps no other job off", strings.Replace(strings.Replace(lintLabels, lintUnique, "", 1), "  gpu:", "  \"run-*\": {}\n  gpu:", 1) + lintRules + "  - ‹runner-theft›§{ name: gpu, if: 'has(\"linux\", \"gpu\")', jobspec: docker-linux, node_pool: gpus }\n" + lintRest, "a label like run-* helps only where every job has one"},
		{"public repositories that are denied, and runners of the organization", lintLabels + "defaults: { runner: { scope: organization } }\nrules:\n  - ‹deny-open-runner›§{ name: no-public, if: not repo.private, deny: no }\n" + lintRules[7:] + lintRest, "GitHub may give them one of rule macos, which registers for the whole organization"},
		{"pull requests that are denied, and a rule of the organization", lintLabels + lintRules + "  - ‹deny-open-runner›§{ name: no-forks, if: has(\"linux\") and run.fork, deny: no }\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, runner: { scope: organization } }\n", "one of rule linux"},
		{"a deny below, for what is left, and a label that registers for all", strings.Replace(lintLabels, "  gpu:", "  all: { runner: { scope: organization } }\n  gpu:", 1) + lintRules + "  - { name: ours, if: 'has(\"all\", \"linux\") and repo.name == \"infra\"', jobspec: docker-linux }\n  - ‹deny-open-runner›§{ name: rest, if: has(\"linux\"), deny: no }\n", "one of rule ours"},
		{"an owner that is denied, and runners of the enterprise", lintLabels + "defaults: { runner: { scope: enterprise, enterprise: acme } }\nrules:\n  - ‹deny-open-runner›§{ name: not-them, if: 'repo.owner == \"them\"', deny: no }\n" + lintRules[7:] + lintRest, "for the whole enterprise"},
		{"whole cores that a max of MHz does not bound", lintLabels + "defaults: { max: { cpu: ‹unbounded-size›§8000, memory: 32GiB } }\n" + lintRules + lintRest, `max cpu (defaults) does not bound what the label "cpu=*" asks for, cores: add cores to max`},
		{"whole cores that the max of a rule does not bound", lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, max: { cpu: ‹unbounded-size›§8000 } }\n", "max cpu (rule linux)"},
		{"whole cores of a label that are too many", strings.Replace(strings.Replace(lintLabels, "  gpu:", "  xl: { resources: { cores: 64 } }\n  gpu:", 1), ", resources: { cores: '${{ param.cpu }}' }", ", node_pool: a", 1) + "defaults: { max: { cpu: ‹unbounded-size›§8000 } }\n" + lintRules + lintRest, `the label "xl"`},
		{"MHz that a max of cores does not bound", strings.Replace(lintLabels, "  gpu:", "  \"mhz=*\": { param: { name: mhz, type: int, min: 1000, max: 64000 }, resources: { cpu: '${{ param.mhz }}' } }\n  gpu:", 1) + "defaults: { max: { cores: ‹unbounded-size›§16 } }\n" + lintRules + lintRest, `the label "mhz=*" asks for, cpu`},
		{"memory beyond max that is not reserved", strings.Replace(lintLabels, "  gpu:", "  mm: { resources: { memory_max: 64GiB } }\n  gpu:", 1) + "defaults: { max: { memory: ‹unbounded-size›§32GiB } }\n" + lintRules + lintRest, `the label "mm" asks for, memory_max`},
		{"any label beside one with a value", strings.Replace(lintLabels, "  gpu:", "  ‹empty-value›§\"*\": {}\n  gpu:", 1) + lintRules + lintRest, `the pattern "*" makes the label "cpu=" known without a value`},
		{"a wide pattern beside one with a value", strings.Replace(lintLabels, "  gpu:", "  ‹empty-value›§\"c*\": {}\n  gpu:", 1) + lintRules + lintRest, `the pattern "c*" makes the label "cpu="`},
		{"a label of the vocabulary in the compound prefix", strings.Replace(lintLabels, "  gpu:", "  ‹unusable-label›§yard=1: { node_pool: a }\n  gpu:", 1) + lintRules + lintRest, `it begins with the compound prefix "yard="`},
		{"runs that are cancelled in the default scope", lintLabels + "unroutable: { after: 10m, action: ‹cancel-other-runners›§cancel }\n" + lintRules + lintRest, `a job with no labels but "self-hosted", "linux", "macos" is in scope`},
		{"runs that are cancelled in a scope that is wide", lintLabels + "scope: hasAny(\"self-hosted\", \"nomad\")\nunroutable:\n  after: 10m\n  action: ‹cancel-other-runners›§cancel\n" + lintRules + lintRest, "a label of your own"},
		{"runs that are cancelled for one owner", lintLabels + "scope: has(\"self-hosted\") and repo.owner == \"acme\"\nunroutable: { after: 10m, action: ‹cancel-other-runners›§cancel }\n" + lintRules + lintRest, "a label of your own"},

		// Values that a job never has.
		{"a visibility that there is not", denies(`repo.visibility == ‹impossible-value›§"secret"`), `repo.visibility == "secret" holds for no job: repo.visibility is one of "public", "private", "internal"`},
		{"a visibility that is misspelled, in another case", denies(`repo.visibility == ‹impossible-value›§"Pubilc"`), "did you mean public?"},
		{"a visibility that no job is without", denies(`has("gpu") and repo.visibility != ‹impossible-value›§"secret"`), `repo.visibility != "secret" holds for every job`},
		{"one of several visibilities", denies(`repo.visibility in ["Public", ‹impossible-value›§"open"]`), `repo.visibility is never "open"`},
		{"a visibility, the other way round", denies(`‹impossible-value›§"secret" == repo.visibility`), "holds for no job"},
		{"a visibility in a part", denies(`has("gpu") and (repo.fork or not (repo.visibility == ‹impossible-value›§"secret"))`), "holds for no job"},
		{"a visibility, lowered", denies(`lower(repo.visibility) == ‹impossible-value›§"Secret"`), "holds for no job"},
		{"a visibility that begins so", denies(`repo.visibility startsWith ‹impossible-value›§"sec"`), "holds for no job"},
		{"a visibility in a choice", denies(`repo.private ? repo.visibility == ‹impossible-value›§"secret" : false`), "holds for no job"},
		{"an event that there is not", denies(`run.event == ‹impossible-value›§"pullrequest"`), "GitHub has no such event; did you mean pull_request?"},
		{"an event in a list that is left out", denies(`run.event not in ["push", ‹impossible-value›§"cron"]`), "GitHub has no such event"},
		{"an event that begins so", denies(`run.event startsWith ‹impossible-value›§"pull-"`), "GitHub has no such event"},
		{"an owner with a slash", denies(`repo.owner == ‹impossible-value›§"acme/web"`), "repo.owner has no /, which repo.full_name has"},
		{"an owner with a slash in a list", denies(`not (repo.owner in ["Acme", ‹impossible-value›§"Acme/Web"])`), "repo.owner is never"},
		{"an owner with a blank", denies(`repo.owner == ‹impossible-value›§"Evil Corp"`), "has only letters, digits and -"},
		{"an owner with an at", denies(`repo.owner == ‹impossible-value›§"@acme"`), "has only letters, digits and -"},
		{"no owner", denies(`repo.owner == ‹impossible-value›§""`), "repo.owner is never empty"},
		{"an empty list", denies(`repo.owner in ‹impossible-value›§[]`), "nothing is in an empty list"},
		{"an owner that begins with a slash's", denies(`repo.owner startsWith ‹impossible-value›§"Acme/"`), "repo.owner has no /"},
		{"a repository's name with its owner", denies(`repo.name == ‹impossible-value›§"acme/web"`), "repo.name has no /"},
		{"a full name without an owner", denies(`repo.full_name == ‹impossible-value›§"web"`), "repo.full_name is owner/name"},
		{"a full name that is an address", denies(`repo.full_name in [‹impossible-value›§"https://github.com/acme/web"]`), "repo.full_name is owner/name"},
		{"a host that is an address", denies(`repo.host == ‹impossible-value›§"https://github.com"`), "letters, digits, - and dots"},
		{"a login with an at", denies(`job.sender == ‹impossible-value›§"@octocat" or run.actor == "dependabot[bot]"`), "as octocat or dependabot[bot]"},
		{"a branch by its whole name", denies(`job.branch == ‹impossible-value›§"refs/heads/main"`), "job.branch is the name alone"},
		{"a branch that begins with its whole name", denies(`job.branch startsWith ‹impossible-value›§"refs/heads/release"`), "job.branch is the name alone"},
		{"an attempt that there is not", denies(`job.attempt == ‹impossible-value›§0`), "job.attempt is a whole number from 1"},
		{"an attempt before the first", denies(`job.attempt < ‹impossible-value›§1`), "job.attempt is a whole number from 1"},

		{"a fact that is there always", denies(`repo.owner != ‹impossible-value›§nil and has("gpu")`), "repo.owner is never nil"},
		{"an owner by a pattern with a slash", denies(`repo.owner matches ‹impossible-value›§"^Acme/"`), "repo.owner has no /"},
		{"a full name by a pattern without one", denies(`repo.full_name matches ‹impossible-value›§"^acme$"`), "repo.full_name is owner/name"},
		{"a branch by a pattern of its whole name", denies(`job.branch matches ‹impossible-value›§"^refs/heads/(main|next)$"`), "job.branch is the name alone"},
		{"a visibility by a pattern", denies(`repo.visibility matches ‹impossible-value›§"^secret$"`), "is one of"},

		// Params.
		{"more than the most", denies(`(param.cpu ?? 0) > ‹impossible-value›§8`), "(param.cpu ?? 0) > 8 holds for no job: param.cpu is a whole number from 2 to 8"},
		{"a number exceeds the maximum", denies(`param.cpu == ‹impossible-value›§64`), "param.cpu == 64 holds for no job"},
		{"a number exceeds the maximum, the other way round", denies(`param.cpu != nil and ‹impossible-value›§8 < param.cpu`), "8 < param.cpu holds for no job"},
		{"a number below the least", denies(`param.cpu != nil and param.cpu < ‹impossible-value›§2`), "holds for no job"},
		{"a number in a list", denies(`param.cpu in [2, ‹impossible-value›§64]`), "param.cpu is never 64"},
		{"half a number", denies(`param.cpu == ‹impossible-value›§2.5`), "holds for no job"},
		{"a number exceeds the maximum after arithmetic", denies(`(‹impossible-value›§param.cpu ?? 2) * 2 > 16`), "no value of param.cpu makes it true"},
		{"a size in GiB", denies(`(param.memory ?? 0) == ‹impossible-value›§64`), "param.memory is a whole number from 1024 to 131072"},
		{"a size in GiB that it is over", denies(`param.memory != nil and param.memory >= ‹impossible-value›§64`), "64GiB are 65536"},
		{"a text that is none of a few", denies(`param.image == ‹impossible-value›§"ubuntu-20.04"`), `param.image is one of "Ubuntu-22.04", "Windows-2022"; did you mean Ubuntu-22.04?`},
		{"a text that none of a few begins with", denies(`(param.image ?? "") startsWith ‹impossible-value›§"debian"`), "holds for no job"},
		{"a text that does not match", denies(`param.tag == ‹impossible-value›§"v1.0"`), "param.tag matches [a-z]+[0-9]*"},
		{"a param without its label", denies(`‹absent-param›§param.cpu > 4`), `if fails for a job without the label "cpu=*": param.cpu is nil then; write (param.cpu ?? 0)`},
		{"a param after what says nothing of it", denies(`has("linux") and ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param before what asks for it", denies(`‹absent-param›§param.cpu > 4 and param.cpu != nil`), "if fails for a job"},
		{"a param or not", denies(`has("gpu") or ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param after the wrong question", denies(`param.cpu == nil and ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param after another's", denies(`param.memory != nil and ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param after labels that can be", denies(`has("linux") and not has("gpu") and any(labels, # startsWith "l") and ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param after a fact that can be", denies(`run.event != "push" and job.branch startsWith "release/" and ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a text param", denies(`len(‹absent-param›§param.tag) > 4`), `write (param.tag ?? "")`},
		{"a param in a choice", denies(`has("gpu") ? true : ‹absent-param›§param.cpu > 4`), "if fails for a job"},
		{"a param in arithmetic", denies(`‹absent-param›§param.cpu * 2 > 8`), "if fails for a job"},
		{"a param that fails or is true", denies(`has("gpu") and (‹absent-param›§param.cpu > 4 or not (param.cpu > 4))`), "if fails for a job"},
		{"a param of a scope", strings.Replace(denies(`has("gpu")`), "labels:", "scope: has(\"self-hosted\") and ‹absent-param›§param.cpu < 8\nlabels:", 1), "scope fails for a job"},
		{"two params", denies(`(param.memory ?? 0) > 4096 and ‹absent-param›§param.cpu > 4`), "without the label \"cpu=*\""},

		// What deciding costs.
		{"a pattern that repeats much", denies(`‹costly-pattern›§any(labels, # matches "(a?b?a?b?){80}c")`), "would take 5 times as long to decide as it may"},
		{"patterns that repeat much together", denies(`‹costly-pattern›§any(labels, # matches "(a?b?){20}c") and ‹costly-pattern›§any(labels, # matches "(a?b?){20}d")`), "would take with the other long patterns 2 times as long"},

		// Labels.
		{"a pattern for a label", denies(`has(‹pattern-literal›§"run-*")`), `"run-*" is a pattern, and one label is meant here: to ask for any of them, write any(labels, # startsWith "run-")`},
		{"a pattern of a param for a label", denies(`has("linux", ‹pattern-literal›§"cpu=*")`), "write param.cpu != nil"},
		{"a pattern in labels", denies(`‹pattern-literal›§"Run-*" in labels`), "is a pattern"},
		{"a pattern that is refused", denies(`has("gpu") and not hasAny(‹pattern-literal›§"run-*")`), "is a pattern"},
		{"a pattern for each label", denies(`any(labels, # == ‹pattern-literal›§"run-*")`), "is a pattern"},
		{"a pattern for the beginning of each label", denies(`any(labels, # startsWith ‹pattern-literal›§"run-*")`), `write startsWith "run-"`},
		{"a pattern for one of the labels", denies(`labels[0] == ‹pattern-literal›§"run-*"`), "is a pattern"},
		{"a pattern for an owner", denies(`repo.owner == ‹pattern-literal›§"Acme-*"`), `write repo.owner startsWith "Acme-"`},
		{"a pattern for a repository", denies(`repo.full_name in ["acme/web", ‹pattern-literal›§"acme/*"]`), `write repo.full_name startsWith "acme/"`},
		{"a pattern for a branch", denies(`job.branch == ‹pattern-literal›§"release/*"`), `write job.branch startsWith "release/"`},
		{"a label exceeds the maximum", denies(`has(‹impossible-value›§"cpu=64")`), `no job with the label "cpu=64" gets a runner: 64 is not between 2 and 8`},
		{"a label that is none of a few", denies(`exactly("self-hosted", "linux", ‹impossible-value›§"IMAGE=debian")`), "gets a runner"},
		{"two labels in one", denies(`has(‹impossible-value›§"linux, gpu")`), `write each by itself, as in has("linux", "gpu")`},
		{"two labels in one, with a blank", denies(`has(‹impossible-value›§"linux gpu")`), `write each by itself, as in has("linux", "gpu")`},
		{"a label without its value", denies(`has(‹unknown-label›§"memory")`), "it has memory=*, with a value: memory=…"},
		{"a label with blanks around", denies(`has(‹impossible-value›§" linux")`), `write "linux"`},
		{"an empty label", denies(`has(‹impossible-value›§"")`), "no job has an empty label"},

		// Parts that say otherwise.
		{"owners in a part", denies(`has("gpu") or (‹always-false›§repo.owner == "a" and repo.owner == "B")`), `the part repo.owner == "a" and repo.owner == "B" of if is true for no job`},
		{"a label in a part that is always there", denies(`has("macos") and repo.fork and (‹always-true›§has("gpu") or not has("gpu"))`), "is true for every job"},
		{"more and less", denies(`‹always-false›§(param.cpu ?? 0) > 6 and (param.cpu ?? 0) < 4`), "if is true for no job"},
		{"a param that is there and is not", denies(`‹always-false›§param.cpu == nil and (param.cpu ?? 0) > 4`), "if is true for no job"},
		{"a label and another value of its param", denies(`‹always-false›§has("cpu=4") and param.cpu == 8`), "if is true for no job"},
		{"two values of a param", denies(`‹always-false›§has("cpu=4") and has("CPU=8")`), "if is true for no job"},
		{"more memory and less", denies(`‹always-false›§(param.memory ?? 0) > 8192 and (param.memory ?? 0) < 4096`), "if is true for no job"},
		{"an owner in another case", denies(`‹always-false›§repo.owner == "A" and repo.owner != "a"`), "if is true for no job"},
		{"a param that is always below", denies(`has("gpu") and (‹always-true›§param.cpu ?? 0) < 9`), "is true for every job"},
		{"a rule below one for each value of a param", denies(`(param.cpu ?? 0) > 4`) + "  - ‹never-wins›§{ name: y, deny: no, if: 'param.cpu != nil and param.cpu > 5' }\n", "rule x (line "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, want := marked(tt.src)
			s := parse(t, src)
			var got []string
			said := false
			for _, d := range s.Lint(t.Context(), someJobspecs) {
				got = append(got, fmt.Sprintf("%d:%d %s", d.Line, d.Column, d.Code))
				said = said || strings.Contains(d.Message, tt.want)
			}
			if d := cmp.Diff(want, got); d != "" || !said {
				t.Errorf("findings (-want +got):\n%s\nwant one that says %q\n%v", d, tt.want, s.Lint(t.Context(), someJobspecs))
			}
		})
	}
}

// marked takes ‹code›§ out of a source and returns what they mark: line:column code.
func marked(src string) (plain string, want []string) {
	for {
		before, rest, found := strings.Cut(src, "‹")
		plain += before
		if !found {
			return plain, want
		}
		code, after, _ := strings.Cut(rest, "›§")
		line := strings.Count(plain, "\n") + 1
		column := utf8.RuneCountInString(plain[strings.LastIndexByte(plain, '\n')+1:]) + 1
		if strings.HasSuffix(plain, ": '") && slices.Contains([]string{"always-false", "always-true", "bare-self-hosted"}, code) {
			column-- // a condition is placed at its quote
		}
		want = append(want, fmt.Sprintf("%d:%d %s", line, column, code))
		src = after
	}
}

func TestLintSaysNothingOfGoodFiles(t *testing.T) {
	files := map[string]string{
		"public repositories that are denied, and runners of repositories":  lintLabels + "rules:\n  - { name: no-public, if: not repo.private, deny: no }\n" + lintRules[7:] + lintRest,
		"public repositories that are denied, and a runner group":           lintLabels + "defaults: { runner: { scope: organization, group: 3 } }\nrules:\n  - { name: no-public, if: not repo.private, deny: no }\n" + lintRules[7:] + lintRest,
		"an owner that is denied, and runners of organizations":             lintLabels + "defaults: { runner: { scope: organization } }\nrules:\n  - { name: not-them, if: 'repo.owner == \"them\"', deny: no }\n" + lintRules[7:] + lintRest,
		"labels that are denied, and runners of organizations":              lintLabels + "defaults: { runner: { scope: organization } }\nrules:\n  - { name: both, if: 'has(\"linux\", \"macos\")', deny: no }\n" + lintRules[7:] + lintRest,
		"a deny for what asks for more than any runner of the organization": lintLabels + "defaults: { runner: { scope: organization } }\n" + lintRules + "  - { name: no-forks, if: 'has(\"linux\", \"gpu\") and repo.fork', deny: no }\n  - { name: linux, if: has(\"linux\") and not has(\"gpu\"), jobspec: docker-linux }\n",
		"runs that are cancelled when they ask for a label of our own":      strings.Replace(lintLabels, "  gpu:", "  nomad: {}\n  gpu:", 1) + "scope: has(\"nomad\")\nunroutable: { after: 10m, action: cancel }\n" + lintRules + lintRest,
		"runs that are cancelled when they ask for one of two of our own":   strings.Replace(lintLabels, "  gpu:", "  nomad: {}\n  gpu:", 1) + "scope: hasAny(\"nomad\", \"gpu\") and not has(\"elsewhere\")\nunroutable: { after: 10m, action: cancel }\n" + lintRules + lintRest,
		"a max of both ways to ask":                                         lintLabels + "defaults: { max: { cpu: 8000, cores: 8 } }\n" + lintRules + lintRest,
		"a max of memory alone":                                             lintLabels + "defaults: { max: { memory: 8GiB } }\n" + lintRules + lintRest,
		"a max of cores, and a label of some MHz":                           strings.Replace(lintLabels, "  gpu:", "  large: { resources: { cpu: 8000, memory: 16GiB, memory_max: 24GiB } }\n  gpu:", 1) + "defaults: { max: { cores: 16, memory: 32GiB } }\n" + lintRules + lintRest,
		"a max of MHz, and a label of few cores":                            strings.Replace(strings.Replace(lintLabels, "  gpu:", "  small: { resources: { cores: 2 } }\n  gpu:", 1), ", resources: { cores: '${{ param.cpu }}' }", ", node_pool: a", 1) + "defaults: { max: { cpu: 8000 } }\n" + lintRules + lintRest,
		"a pattern for each run beside one with a value":                    strings.Replace(lintLabels, "  gpu:", "  \"run-*\": {}\n  \"c-*\": {}\n  gpu:", 1) + lintRules + lintRest,
		"feedback in the default scope":                                     lintLabels + "feedback: { kind: check_run }\n" + lintRules + lintRest,
		"a label for each run, and rules that ask for the same":             strings.Replace(lintLabels, lintUnique, "", 1) + "  \"run-*\": {}\n" + lintRules + lintRest,
		"the usual":                                  lintLabels + lintRules + lintRest,
		"a special rule above the general":           lintLabels + lintRules + "  - { name: gpu, if: 'has(\"gpu\", \"linux\")', jobspec: docker-linux, node_pool: gpus }\n" + lintRest,
		"a deny for the rest":                        lintLabels + lintRules + lintRest + "  - { name: rest, deny: ask for linux or macos }\n",
		"no vocabulary":                              "version: 1\nrules: [{ name: linux, if: has(\"linux\"), jobspec: docker-linux }]\n",
		"any label":                                  "version: 1\nlabels: { self-hosted: {}, \"*\": {} }\nrules: [{ name: linux, if: has(\"linux\"), jobspec: docker-linux }]\n",
		"jobs without labels for a group":            "version: 1\nscope: len(labels) == 0 or has(\"self-hosted\")\nlabels: { self-hosted: {}, linux: {} }\nrules:\n  - { name: groups, if: len(labels) == 0, jobspec: docker-linux, runner: { scope: organization, group: 7 } }\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux }\n",
		"jobs without labels for GitHub's own group": "version: 1\nscope: len(labels) == 0 or has(\"self-hosted\")\nlabels: { self-hosted: {}, linux: {} }\nrules:\n  - { name: all, if: len(labels) == 0 or has(\"linux\"), jobspec: docker-linux, runner: { scope: organization, group: 1 } }\n",
		"jobs without labels that are denied":        "version: 1\nscope: len(labels) == 0 or has(\"self-hosted\")\nlabels: { self-hosted: {}, linux: {} }\nrules:\n  - { name: groups, if: len(labels) == 0, deny: say a label }\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux }\n",
		"a group that one rule has no use for":       "version: 1\nlabels: { self-hosted: {}, linux: {}, macos: {} }\ndefaults: { runner: { scope: organization, group: 7 } }\nrules:\n  - { name: linux, if: has(\"linux\") and not has(\"macos\"), jobspec: docker-linux, runner: { scope: repository } }\n  - { name: macos, if: has(\"macos\") and not has(\"linux\"), jobspec: raw-exec-macos }\n",
		"an open scope":                              "version: 1\nscope: 'true'\nlabels: { linux: {}, \"run-*\": {} }\nrules: [{ name: linux, if: has(\"linux\"), jobspec: docker-linux }]\n",
		"owners that part a rule but not all of it":  lintLabels + "rules:\n  - { name: a, if: 'repo.owner in [\"a\", \"b\"]', deny: no }\n  - { name: c, if: 'repo.owner in [\"a\", \"c\"] and has(\"linux\")', jobspec: docker-linux }\n" + lintRules[7:],
		"branches that may meet":                     lintLabels + lintRules + "  - { name: m, if: 'has(\"linux\") and job.branch matches \"^main\"', jobspec: docker-linux, priority: 60 }\n  - { name: s, if: 'has(\"linux\") and job.branch startsWith \"main\"', jobspec: docker-linux, priority: 70 }\n" + lintRest,
		"a param in parts":                           lintLabels + lintRules + "  - { name: big, if: 'has(\"linux\") and (param.cpu ?? 0) > 6', jobspec: docker-linux, node_pool: big }\n  - { name: middle, if: 'has(\"linux\") and (param.cpu ?? 0) > 3', jobspec: docker-linux }\n" + lintRest,
		"a label that is refused on purpose":         strings.Replace(lintLabels, "  gpu:", "  windows: {}\n  gpu:", 1) + "rules:\n  - { name: windows, if: has(\"windows\"), deny: not yet }\n  - { name: linux, if: has(\"linux\") and not has(\"windows\"), jobspec: docker-linux }\n" + lintRules[7:],
		"a rule that may ask for the run":            lintLabels + "rules:\n  - { name: forks, if: 'has(\"linux\") and run.fork', deny: no }\n  - { name: prs, if: 'has(\"linux\") and run.event == \"pull_request\"', jobspec: docker-linux }\n" + lintRules[7:] + lintRest,
		"teams by owner without unique labels":       "version: 1\nlabels: { self-hosted: {}, linux: {}, gpu: { devices: [nvidia/gpu] } }\nrules:\n  - { name: a, if: 'repo.full_name == \"acme/a\" and has(\"linux\", \"gpu\")', jobspec: docker-linux, node_pool: a }\n  - { name: b, if: 'repo.full_name == \"acme/b\" and has(\"linux\")', jobspec: docker-linux, node_pool: b }\n",
		"platforms without unique labels":            "version: 1\nlabels: { self-hosted: {}, linux: {}, macos: {} }\nrules:\n  - { name: macos, if: has(\"macos\") and not has(\"linux\"), jobspec: raw-exec-macos }\n  - { name: linux, if: has(\"linux\") and not has(\"macos\"), jobspec: docker-linux }\n",
		"two rules that ask Nomad for the same":      "version: 1\nlabels: { self-hosted: {}, linux: {} }\nrules:\n  - { name: a, if: has(\"linux\") and repo.private, jobspec: docker-linux }\n  - { name: b, if: has(\"linux\"), jobspec: docker-linux }\n",
		"compound labels":                            "version: 1\ncompound: { prefix: 'y=', separator: '/' }\nlabels: { self-hosted: {}, linux: {}, gpu: { devices: [nvidia/gpu] } }\nrules:\n  - { name: g, if: 'has(\"linux\", \"gpu\")', jobspec: docker-linux, node_pool: g }\n  - { name: l, if: has(\"linux\"), jobspec: docker-linux }\n",
		"a fallback that helps":                      lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: ['${meta.ssd} is_set'], limit: { running: 3, per: owner }, fallback: [{ after: 5m, constraints: [] }, { after: 10m, node_pool: big, jobspec: mine }] }\n",
		"max that is enough":                         lintLabels + "defaults: { resources: { cpu: 2000, memory: 4GiB }, max: { cpu: 2000, cores: 8, memory: 4GiB } }\n" + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, max: { memory: 64GiB }, resources: { memory: 32GiB } }\n",
		"a size that a rule lowers below max":        lintLabels + "defaults: { resources: { cpu: 2000 } }\n" + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, resources: { cores: 4 }, max: { cpu: 1000, cores: 8 } }\n",
		"constraints that can be met":                lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: ['${attr.kernel.name} = linux', '${attr.cpu.arch} != arm64', '${attr.driver.docker} is_set', '${meta.a} = ${meta.b}'] }\n",
		"values from expressions":                    strings.Replace(lintLabels, "  gpu:", "  \"zone=*\": { param: { name: zone, type: string, one_of: [a, b] }, constraints: ['${meta.zone} = ${{ param.zone }}'] }\n  gpu:", 1) + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: ['${meta.zone} = ${{ job.branch }}'], resources: { memory: '${{ job.attempt > 1 ? 8192 : 4096 }}' }, max: { memory: 4GiB } }\n",
		"a label that only an expression may see":    strings.Replace(lintLabels, "  gpu:", "  x64: {}\n  gpu:", 1) + lintRules + lintRest[:len(lintRest)-1] + "\n  - { name: many, if: 'has(\"gpu\") and len(labels) > 3', jobspec: mine }\n",
		"a dispatched job":                           lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), dispatch: runner }\n",
		"a denial in any case":                       denies(`repo.owner == "EvilCorp" or repo.full_name in ["Acme/Secret", "acme/Web"]`),
		"a visibility in any case":                   denies(`repo.visibility == "Public" or repo.visibility in ["INTERNAL"]`),
		"a visibility that GitHub did not say":       denies(`repo.visibility == ""`),
		"whatever is not private":                    denies(`repo.visibility != "private"`),
		"a visibility that begins so":                denies(`repo.visibility startsWith "in"`),
		"owners that are left out":                   denies(`not (repo.owner in ["Acme-Inc", "octo_corp", "a1"])`),
		"owners that begin so":                       denies(`repo.owner startsWith "Acme-" and repo.name endsWith ".github.io"`),
		"a repository of one owner":                  denies(`repo.owner == "Acme" and repo.full_name startsWith "acme/"`),
		"a part of a full name":                      denies(`repo.full_name contains "/web-" or repo.full_name endsWith "-docs" or repo.full_name matches "^Acme/"`),
		"a full name with dots":                      denies(`repo.full_name == "acme/acme.github.io" or repo.name == ".github"`),
		"a server's host":                            denies(`repo.host == "Acme.ghe.com" or repo.host == "git.example.com:8443"`),
		"a bot":                                      denies(`job.sender == "dependabot[bot]" or run.actor in ["renovate[bot]", "github-actions[bot]"]`),
		"events":                                     denies(`run.event in ["pull_request", "pull_request_target", "workflow_dispatch", "merge_group", "schedule"] or run.event startsWith "pull_request"`),
		"patterns of names":                          denies(`repo.owner matches "^(acme|evil)-[a-z]+$" or repo.full_name matches "^acme/(web|api)$" or job.branch matches "^(refs/heads/)?main$" or run.event matches "pull_request" or repo.visibility matches "^p"`),
		"branches":                                   denies(`job.branch == "release/1.0" or job.branch startsWith "dependabot/" or job.branch matches "^v[0-9]" or job.branch contains "/" or job.branch == ""`),
		"branches that are named so":                 denies(`job.branch in ["main", "feat/a+b", "user@home", "#12", "Über"]`),
		"names with blanks and stars":                denies(`job.name == "build (linux, *)" or job.workflow == "CI: all"`),
		"attempts":                                   denies(`job.attempt > 1 or job.attempt == 3`),
		"a param with a default":                     denies(`(param.cpu ?? 1) > 4 or (param.image ?? "none") == "none" or (param.cpu ?? 0) == 0`),
		"a param after it was asked for":             denies(`param.cpu != nil and param.cpu > 4`),
		"a param or none":                            denies(`param.cpu == nil or param.cpu > 4`),
		"a param unless there is none":               denies(`not (param.cpu == nil) and param.cpu > 4`),
		"a param after neither":                      denies(`not (param.cpu == nil or has("gpu")) and param.cpu > 4`),
		"a param after it was looked for":            denies(`"cpu" in param and param.cpu > 4`),
		"a param in a choice":                        denies(`param.cpu != nil ? param.cpu > 4 : false`),
		"a param in a choice by its label":           denies(`has("cpu=8") ? param.cpu > 4 : has("gpu")`),
		"a param in a value's choice":                denies(`(param.cpu == nil ? 1 : param.cpu) > 4`),
		"a param after its label":                    denies(`has("cpu=8") and param.cpu > 4`),
		"a param after one of its labels":            denies(`hasAny("cpu=8", "cpu=4") and param.cpu > 4`),
		"a param after any of its labels":            denies(`any(labels, # startsWith "CPU=") and param.cpu > 4`),
		"a param after what excludes each other":     denies(`not has("linux") and any(labels, # == "linux") and param.cpu > 4`),
		"a param after two of one fact":              denies(`run.event == "push" and run.event startsWith "pull" and param.cpu > 4`),
		"a param after a count of its labels":        denies(`count(labels, hasPrefix(#, "cpu=")) > 0 and (param.cpu > 4 or param.cpu == 2)`),
		"a param after its value":                    denies(`param.image == "ubuntu-22.04" and param.image startsWith "Ubuntu"`),
		"a param after a bound":                      denies(`(param.cpu ?? 0) > 4 and param.cpu < 8`),
		"a param that is equal, or one of a few":     denies(`param.cpu == 8 or param.cpu in [2, 4] or param.image in ["UBUNTU-22.04"] or param.tag == "V1" or param.tag startsWith "v"`),
		"a param that is not equal":                  denies(`param.cpu != 8 and not (param.image == "windows-2022")`),
		"a param at its bounds":                      denies(`(param.cpu ?? 0) >= 8 or (param.cpu ?? 3) <= 2 or (param.memory ?? 0) > 65536`),
		"a param after a rule for jobs without":      strings.Replace(denies(`has("linux") and param.cpu == nil`), lintRest, "  - { name: y, deny: no, if: 'has(\"linux\") and param.cpu > 4' }\n"+lintRest, 1),
		"a param in a scope that has it":             strings.Replace(denies(`param.cpu > 4`), "labels:", "scope: has(\"self-hosted\") and param.cpu != nil\nlabels:", 1),
		"a param in a choice of another":             denies(`(repo.private ? has("cpu=8") : false) and param.cpu > 4`),
		"a param after a choice by its label":        denies(`(has("cpu=8") ? param.cpu > 4 : false) and param.cpu > 6`),
		"two params that are asked for":              denies(`param.cpu != nil and param.memory != nil and param.memory / param.cpu > 4096`),
		"a param that is printed":                    denies(`string(param.cpu ?? 0) == "4" or len(param.tag ?? "") > 3`),
		"labels in any case":                         denies(`has("LINUX", "Gpu") and "CPU=8" in labels and labels[0] == "Self-Hosted"`),
		"labels that begin so":                       denies(`any(labels, # startsWith "RUN-") and none(labels, # matches "^run-[0-9]*$")`),
		"labels in a text":                           denies(`join(labels, ",") contains "linux,gpu" or join(labels, " ") endsWith "GPU"`),
		"values between":                             denies(`(param.cpu ?? 0) > 4 and (param.cpu ?? 0) < 8 and not (param.cpu == 6)`),
		"owners apart":                               denies(`repo.owner == "A" and repo.name == "a" or repo.owner == "b" and repo.name == "B"`),
		"what lower gives":                           denies(`lower(repo.owner) == "Acme" or upper(job.branch) startsWith "rel" or trim(repo.owner) == "acme"`),
		"what is put together":                       denies(`repo.owner + "/" + repo.name == "Acme/Web" or split(repo.full_name, "/")[0] == "ACME" or repo.owner[0:2] == "AC"`),
		"a template that counts labels":              strings.Replace(lintLabels, "  gpu:", "  x64: {}\n  gpu:", 1) + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, task: { env: { N: '${{ len(labels) }}' } } }\n",
		"a param by a name that is made up":          strings.Replace(lintLabels, "  gpu:", "  \"n=*\": { param: { name: n, type: int, min: 1, max: 2 } }\n  gpu:", 1) + lintRules + "  - { name: linux, if: 'has(\"linux\") and param[trim(\" n\")] != 1', jobspec: docker-linux }\n",
		"an urgency":                                 lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, limit: { running: 3, order: priority }, urgency: '${{ job.branch == \"main\" ? 10 : 0 }}' }\n",
		"a limit for each set of labels":             strings.Replace(lintLabels, "  gpu:", "  x64: {}\n  gpu:", 1) + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, limit: { running: 1, per: label } }\n",
		"one value of a param alone":                 lintLabels + "rules:\n  - { name: linux, if: 'only(\"self-hosted\", \"linux\", \"gpu\", \"cpu=8\") and has(\"linux\")', jobspec: docker-linux }\n  - { name: macos, if: 'exactly(\"self-hosted\", \"macos\")', jobspec: raw-exec-macos }\n",
		"a param whose greatest value fits":          strings.Replace(lintLabels, "  gpu:", "  \"n=*\": { param: { name: n, type: int, min: 1, max: 1000 }, resources: { memory: '${{ 9000 - param.n * 8 }}' } }\n  gpu:", 1) + "defaults: { max: { memory: 4000 } }\n" + lintRules + lintRest,
		"a label that means less with another":       strings.Replace(lintLabels, "  gpu:", "  \"n=*\": { param: { name: n, type: int, min: 1, max: 2 }, resources: { memory: '${{ param.n * (param.cpu == nil ? 8000 : 1000) }}' } }\n  gpu:", 1) + "defaults: { max: { memory: 4000 } }\n" + lintRules + lintRest,
		"defaults that each rule changes":            lintLabels + "defaults: { resources: { memory: 8GiB }, max: { memory: 4GiB } }\nrules:\n  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, max: { memory: 16GiB } }\n  - { name: macos, if: has(\"macos\"), jobspec: raw-exec-macos, resources: { memory: 2GiB } }\n",
		"a fallback that is the same for one repo":   lintLabels + lintRules + "  - { name: linux, if: has(\"linux\"), jobspec: docker-linux, constraints: ['${meta.zone} = ${{ repo.name }}'], fallback: [{ after: 1m, constraints: ['${meta.zone} = web'] }] }\n",
		"a fallback that is the same with one label": strings.Replace(lintLabels, "  gpu:", "  big: { node_pool: big }\n  gpu:", 1) + lintRules + "  - { name: linux, if: 'hasAny(\"big\", \"linux\")', jobspec: docker-linux, fallback: [{ after: 1m, node_pool: other }] }\n",
		"pools of repositories":                      "version: 1\nlabels: { self-hosted: {}, linux: {}, gpu: {} }\nrules:\n  - { name: a, if: 'repo.name == \"a\" and has(\"linux\", \"gpu\")', jobspec: docker-linux, node_pool: '${{ repo.name }}' }\n  - { name: b, if: 'has(\"linux\") and not has(\"gpu\")', jobspec: docker-linux, node_pool: '${{ repo.name }}' }\n",
		"a jobspec without the claim that is meant":  lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: bring, runner: { registration: own } }\n" + lintRules[7:],
		"all jobspecs without the claim":             strings.Replace(lintLabels, "labels:", "defaults: { runner: { registration: own } }\nlabels:", 1) + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: bring }\n  - { name: macos, if: has(\"macos\"), jobspec: bring }\n",
		"an image that claims by itself":             lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), jobspec: bring, runner: { registration: jit } }\n" + lintRules[7:],
		"a dispatch":                                 lintLabels + "rules:\n  - { name: linux, if: has(\"linux\"), dispatch: { job: classic, meta: { A: '${{ repo.url }}' } } }\n" + lintRules[7:],
		"a rule that says true":                      lintLabels + lintRules + lintRest + "  - { name: rest, if: 'true', deny: ask for a platform }\n",
	}
	if len(files) < 70 {
		t.Errorf("%d good files", len(files))
	}
	for name, src := range files {
		t.Run(name, func(t *testing.T) {
			if got := parse(t, src).Lint(t.Context(), someJobspecs); len(got) > 0 {
				t.Errorf("Lint says\n%v\nof\n%s", got, src)
			}
		})
	}
	t.Run("the example", func(t *testing.T) {
		specs := append(someJobspecs, Jobspec{Name: "raw-exec-windows"})
		if got := example(t).Lint(t.Context(), specs); len(got) > 0 {
			t.Errorf("Lint says\n%v", got)
		}
	})
}

func TestLintNamesTheFileOfARuleInAnother(t *testing.T) {
	s, err := Load(t.Context(), File{"10-first.yaml", []byte(lintLabels + lintRules + lintRest)}, File{"20-team.yaml", []byte("version: 1\nrules: [{ name: late, if: has(\"linux\"), jobspec: mine }]\n")})
	if err != nil {
		t.Fatal(err)
	}
	got, want := s.Lint(t.Context(), someJobspecs).Error(), "20-team.yaml:2:9: warning: rule late takes no job: rule linux (10-first.yaml:11) takes every job"
	if !strings.HasPrefix(got, want) {
		t.Errorf("Lint says\n%s\nwant\n%s…", got, want)
	}
}

// What is left out of a file that takes too long is said, at its place.
func TestLintSaysWhatItLeavesOut(t *testing.T) {
	src, want := marked(strings.Replace(manySame(50, `job.branch matches "^%d$" or repo.private`), "  - { name: r1,", "  - ‹not-checked›§{ name: r1,", 1))
	var got []string
	for _, d := range lint(t.Context(), parse(t, src), someJobspecs, 100) {
		if d.Code == "not-checked" {
			got = append(got, fmt.Sprintf("%d:%d %s", d.Line, d.Column, d.Code))
		}
	}
	same(t, want, got, "findings")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if found := parse(t, src).Lint(ended, someJobspecs); len(found) != 1 || found[0].Code != "not-checked" || !strings.Contains(found[0].Message, "the rules from r0 on") {
		t.Errorf("when nobody waits, Lint says %v", found)
	}
}

func TestEveryLintCodeIsTested(t *testing.T) {
	table := readFile(t, "lint_test.go")
	for _, c := range lintCodes {
		if !strings.Contains(string(table), "‹"+c.code+"›§") {
			t.Errorf("no case has the finding %s", c.code)
		}
		if c.what == "" || c.code == "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestLintOfManyRulesEnds(t *testing.T) {
	for name, src := range map[string]string{
		"a realistic mix":                  manyRules(1000),
		"rules that all ask for one label": manySame(300, `has("linux") and job.branch matches "^%d$"`),
		"rules that no index finds":        manySame(300, `job.branch matches "^%d$" or repo.private`),
	} {
		t.Run(name, func(t *testing.T) {
			s := parse(t, src)
			s.Lint(t.Context(), someJobspecs) // one that does not end in time ends with the tests' own deadline
		})
	}
}

func manySame(n int, condition string) string {
	var b strings.Builder
	b.WriteString("version: 1\nlabels: { self-hosted: {}, linux: {} }\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - { name: r%d, jobspec: mine, priority: %d, if: '"+condition+"' }\n", i, i%100+1, i)
	}
	return b.String()
}
