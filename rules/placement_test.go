package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// outline writes what a decision asks for, and where each part came from, a
// line each. What is the same for every job is left out.
func outline(d Decision) []string {
	if d.Outcome != Routed {
		return []string{string(d.Outcome) + ": " + d.Reason}
	}
	values := map[string]any{"datacenters": d.Datacenters, "time_limit": d.TimeLimit.orNone()}
	for _, f := range singles {
		if f.key != "jobspec" {
			values[f.path] = f.text(&d.Placement)
		}
	}
	for k, v := range d.Task.Env {
		values["task.env."+k] = v
	}
	for k, v := range d.Task.Config {
		values["task.config."+k] = v
	}
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(d.From)) {
		if from := d.From[key]; from != "built in" && key != "jobspec" {
			lines = append(lines, fmt.Sprintf("%s = %v (%s)", key, values[key], from))
		}
	}
	for key, v := range values { // nothing comes from nowhere
		if _, there := d.From[key]; !there && fmt.Sprint(v) != "0" && fmt.Sprint(v) != "" && fmt.Sprint(v) != "[]" {
			lines = append(lines, fmt.Sprintf("%s = %v (nowhere)", key, v))
		}
	}
	for _, c := range d.Constraints {
		lines = append(lines, fmt.Sprintf("%s (%s)", c, c.From))
	}
	for _, a := range d.Affinities {
		lines = append(lines, fmt.Sprintf("%s %+d (%s)", Constraint{Attribute: a.Attribute, Operator: a.Operator, Value: a.Value}, a.Weight, a.From))
	}
	for _, dev := range d.Devices {
		lines = append(lines, fmt.Sprintf("%d %s (%s)", dev.Count, dev.Name, dev.From))
		for _, c := range dev.Constraints {
			lines = append(lines, fmt.Sprintf("  %s (%s)", c, c.From))
		}
	}
	return lines
}

// In each case the labels are one line each, in vocabulary order, then come
// the defaults and the rule.
func TestMerging(t *testing.T) {
	for _, tt := range []struct {
		name     string
		labels   string // sections of the file
		defaults string
		rule     string
		job      []string
		want     []string
	}{
		{name: "nothing asked for is nothing set"},
		{
			name:     "a rule replaces a default, and a label both",
			defaults: `{ node_pool: a, namespace: a, priority: 1, datacenters: [a], resources: { memory: 4GiB, disk: 1GiB }, runner: { scope: organization, group: 2 } }`,
			rule:     `{ namespace: b, priority: 2, datacenters: [b, c], resources: { memory: 2GiB, disk: 2GiB }, runner: { scope: enterprise, enterprise: e } }`,
			labels:   `{ l: { priority: 3, datacenters: [d], runner: { group: 3 } } }`,
			job:      []string{"l"},
			want: []string{"datacenters = [d] (label l)", "namespace = b (rule r)", "node_pool = a (defaults)", "priority = 3 (label l)",
				"resources.disk_mb = 2048 (rule r)", "resources.memory_mb = 2048 (rule r)", "runner.enterprise = e (rule r)", "runner.group = 3 (label l)", "runner.scope = enterprise (rule r)"},
		},
		{
			name:     "constraints and affinities add up, in the order of defaults, rule and vocabulary",
			labels:   `{ a: { constraints: ['${meta.a} = 1'] }, b: { constraints: ['${meta.b} = 1'], affinities: [{ attribute: '${node.class}', value: b, weight: -3 }] } }`,
			defaults: `{ constraints: ['${meta.d} = 1'], affinities: [{ attribute: '${node.class}', value: d, weight: 1 }] }`,
			rule:     `{ constraints: ['${meta.r} = 1', distinct_hosts], affinities: [{ attribute: '${node.class}', operator: '!=', value: r, weight: 2 }] }`,
			job:      []string{"b", "a"},
			want: []string{"${meta.d} = 1 (defaults)", "${meta.r} = 1 (rule r)", "distinct_hosts (rule r)", "${meta.a} = 1 (label a)", "${meta.b} = 1 (label b)",
				"${node.class} = d +1 (defaults)", "${node.class} != r +2 (rule r)", "${node.class} = b -3 (label b)"},
		},
		{
			name:     "a constraint that was said already is there once, with its first source",
			labels:   `{ a: { constraints: ['${meta.d} is 1'] } }`,
			defaults: `{ constraints: ['${meta.d} = 1', '${meta.d}=1', '${meta.d} == 1'] }`,
			job:      []string{"a"},
			want:     []string{"${meta.d} = 1 (defaults)"},
		},
		{
			name:     "a label raises a size",
			labels:   `{ large: { resources: { cpu: 8000, memory: 16GiB, memory_max: 32GiB, disk: 50GiB } } }`,
			defaults: `{ resources: { cpu: 2000, memory: 4GiB } }`,
			job:      []string{"large"},
			want: []string{"resources.cpu = 8000 (label large)", "resources.disk_mb = 51200 (label large)",
				"resources.memory_max_mb = 32768 (label large)", "resources.memory_mb = 16384 (label large)"},
		},
		{
			name:     "a label never lowers a size",
			labels:   `{ small: { resources: { cpu: 500, memory: 1GiB, disk: 1GiB } } }`,
			defaults: `{ resources: { cpu: 2000, disk: 1GiB } }`,
			rule:     `{ resources: { memory: 4GiB } }`,
			job:      []string{"small"},
			want:     []string{"resources.cpu = 2000 (defaults)", "resources.disk_mb = 1024 (defaults)", "resources.memory_mb = 4096 (rule r)"},
		},
		{
			name:   "the largest of two labels wins, whichever comes first",
			labels: `{ a: { resources: { memory: 8GiB, disk: 1GiB } }, b: { resources: { memory: 4GiB, disk: 2GiB } } }`,
			job:    []string{"a", "b"},
			want:   []string{"resources.disk_mb = 2048 (label b)", "resources.memory_mb = 8192 (label a)"},
		},
		{
			name:   "memory_max follows memory up",
			labels: `{ a: { resources: { memory: 8GiB } } }`,
			rule:   `{ resources: { memory: 1GiB, memory_max: 2GiB } }`,
			job:    []string{"a"},
			want:   []string{"resources.memory_max_mb = 8192 (label a)", "resources.memory_mb = 8192 (label a)"},
		},
		{
			name:     "the largest count of each device",
			labels:   `{ a: { devices: [{ name: nvidia/gpu, count: 4 }, gpu] }, b: { devices: [{ name: nvidia/gpu, count: 2, constraints: ['${device.attr.memory} >= 16GiB'] }] } }`,
			defaults: `{ devices: [{ name: nvidia/gpu, constraints: ['${device.model} = H100'] }] }`,
			job:      []string{"a", "b"},
			want:     []string{"4 nvidia/gpu (label a)", "  ${device.model} = H100 (defaults)", "  ${device.attr.memory} >= 16GiB (label b)", "1 gpu (label a)"},
		},
		{
			name:     "env and config merge by name",
			labels:   `{ a: { task: { env: { A: a }, config: { image: a } } } }`,
			defaults: `{ task: { env: { A: d, B: d, C: '' }, config: { image: d, caps: [x], n: 1, nest: { on: true, f: 1.5 } } } }`,
			rule:     `{ task: { env: { B: r }, config: { caps: [y, z] } } }`,
			job:      []string{"a"},
			want: []string{"task.config.caps = [y z] (rule r)", "task.config.image = a (label a)", "task.config.n = 1 (defaults)", "task.config.nest = map[f:1.5 on:true] (defaults)",
				"task.env.A = a (label a)", "task.env.B = r (rule r)", "task.env.C =  (defaults)"},
		},
		{
			name:   "two labels that say the same agree",
			labels: `{ a: { node_pool: p, datacenters: [x], task: { env: { A: x }, config: { c: 8 } } }, b: { node_pool: p, datacenters: [x], task: { env: { A: x }, config: { c: '${{ 4 + 4 }}' } } } }`,
			job:    []string{"a", "b"},
			want:   []string{"datacenters = [x] (label a)", "node_pool = p (label a)", "task.config.c = 8 (label a)", "task.env.A = x (label a)"},
		},
		{
			name: "two labels that set a value differently are an error", labels: `{ a: { node_pool: x }, b: { node_pool: y } }`, job: []string{"b", "a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label b: label a sets node_pool to "x" and label b to "y": a job has one of them`},
		},
		{
			name: "two labels with different env are an error", labels: `{ a: { task: { env: { X: x } } }, b: { task: { env: { X: y } } } }`, job: []string{"a", "b"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label b: label a sets task.env.X to "x" and label b to "y": a job has one of them`},
		},
		{
			name: "two labels with different datacenters are an error", labels: `{ a: { datacenters: [x] }, b: { datacenters: [x, y] } }`, job: []string{"a", "b"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label b: label a sets datacenters to "[x]" and label b to "[x y]": a job has one of them`},
		},
		{
			name: "whole cores of a label replace the MHz of defaults and rule", labels: `{ a: { resources: { cores: 4 } } }`, defaults: `{ resources: { cpu: 2000 } }`, rule: `{ resources: { cpu: 9000 } }`, job: []string{"a"},
			want: []string{"resources.cores = 4 (label a)"},
		},
		{
			name: "MHz of a rule replace the whole cores of the defaults", defaults: `{ resources: { cores: 4 } }`, rule: `{ resources: { cpu: 500 } }`,
			want: []string{"resources.cpu = 500 (rule r)"},
		},
		{
			name: "whole cores of a rule replace the MHz of the defaults", defaults: `{ resources: { cpu: 500 } }`, rule: `{ resources: { cores: 2 } }`,
			want: []string{"resources.cores = 2 (rule r)"},
		},
		{
			name: "a label never lowers whole cores", labels: `{ a: { resources: { cores: 2 } } }`, rule: `{ resources: { cores: 4 } }`, job: []string{"a"},
			want: []string{"resources.cores = 4 (rule r)"},
		},
		{
			name: "one label with MHz and one with cores contradict", labels: `{ a: { resources: { cpu: 8000 } }, b: { resources: { cores: 4 } } }`, job: []string{"a", "b"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label b: label a asks for cpu in MHz and label b for whole cores: a Nomad task has one of them`},
		},
		{
			name: "the order in the vocabulary does not decide that", labels: `{ b: { resources: { cores: 4 } }, a: { resources: { cpu: 8000 } } }`, job: []string{"a", "b"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label a: label a asks for cpu in MHz and label b for whole cores: a Nomad task has one of them`},
		},
		{
			name: "nor whether the MHz raised anything", labels: `{ a: { resources: { cpu: 100 } }, b: { resources: { cores: 4 } } }`, defaults: `{ resources: { cpu: 2000 } }`, job: []string{"a", "b"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label b: label a asks for cpu in MHz and label b for whole cores: a Nomad task has one of them`},
		},
		{
			name: "MHz of a label contradict the whole cores of a rule", labels: `{ a: { resources: { cpu: 8000 } } }`, rule: `{ resources: { cores: 4 } }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: label a: label a asks for cpu in MHz and rule r for whole cores: a Nomad task has one of them`},
		},
		{
			name: "over the most memory", labels: `{ a: { resources: { memory: 16GiB } } }`, defaults: `{ max: { memory: 8GiB } }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: memory 16GiB (label a) exceeds the maximum of 8GiB (defaults)`},
		},
		{
			name: "over the most of the rule, which replaces that of the defaults", labels: `{ a: { resources: { cpu: 3000 } } }`, defaults: `{ max: { cpu: 8000 } }`, rule: `{ max: { cpu: 2000 } }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: cpu 3000 MHz (label a) exceeds the maximum of 2000 MHz (rule r)`},
		},
		{
			name: "up to the most is fine, and a rule may raise it", labels: `{ a: { resources: { cores: 8, disk: 2GiB } } }`, defaults: `{ max: { cores: 4, disk: 2GiB } }`, rule: `{ max: { cores: 8 } }`, job: []string{"a"},
			want: []string{"resources.cores = 8 (label a)", "resources.disk_mb = 2048 (label a)"},
		},
		{
			name: "a rule may raise the most of every size", labels: `{ a: { resources: { cpu: 9000, memory: 9GiB, memory_max: 9GiB, disk: 9GiB } } }`, job: []string{"a"},
			defaults: `{ max: { cpu: 1000, memory: 1GiB, memory_max: 1GiB, disk: 1GiB } }`, rule: `{ max: { cpu: 9000, memory: 9GiB, memory_max: 9GiB, disk: 9GiB } }`,
			want: []string{"resources.cpu = 9000 (label a)", "resources.disk_mb = 9216 (label a)", "resources.memory_max_mb = 9216 (label a)", "resources.memory_mb = 9216 (label a)"},
		},
		{
			name: "over the most cores, by one", labels: `{ a: { resources: { cores: 5 } } }`, defaults: `{ max: { cores: 4 } }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: cores 5 (label a) exceeds the maximum of 4 (defaults)`},
		},
		{
			name: "over the most disk and memory_max", labels: `{ a: { resources: { memory_max: 8GiB, disk: 8GiB } } }`, defaults: `{ max: { memory_max: 4GiB, disk: 4GiB } }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: memory_max 8GiB (label a) exceeds the maximum of 4GiB (defaults)`},
		},
		{
			name: "two constraints that no node can satisfy", labels: `{ x64: { constraints: ['${attr.cpu.arch} = amd64'] }, arm64: { constraints: ['${attr.cpu.arch} = arm64'] } }`, job: []string{"arm64", "x64"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: no node can satisfy both ${attr.cpu.arch} = amd64 (label x64) and ${attr.cpu.arch} = arm64 (label arm64)`},
		},
		{
			name: "two constraints that no device can satisfy", labels: `{ a: { devices: [{ name: gpu, constraints: ['${device.model} = A'] }] } }`, rule: `{ devices: [{ name: gpu, constraints: ['${device.model} = B'] }] }`, job: []string{"a"},
			want: []string{`unroutable: rule r took the job, but it cannot be placed: no device gpu can satisfy both ${device.model} = B (rule r) and ${device.model} = A (label a)`},
		},
		{
			name: "a param label is named as the job has it", labels: `{ "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ param.cpu }}' } } }`, job: []string{"CPU=8"},
			want: []string{"resources.cores = 8 (label cpu=8)"},
		},
		{
			name: "the closest of several patterns is what a label means", labels: `{ self-hosted: {}, "*": { priority: 1 }, "run-*": { priority: 2 }, "run-big-*": { priority: 3 }, "run-big-one": { priority: 4 } }`, job: []string{"run-big-one"},
			want: []string{"priority = 4 (label run-big-one)"},
		},
		{
			name: "a longer prefix comes before a shorter one", labels: `{ self-hosted: {}, "*": { priority: 1 }, "run-*": { priority: 2 }, "run-big-*": { priority: 3 } }`, job: []string{"run-big-1"},
			want: []string{"priority = 3 (label run-big-1)"},
		},
		{
			name: "a star alone takes any label", labels: `{ self-hosted: {}, "*": { priority: 1 }, "run-*": { priority: 2 } }`, job: []string{"anything"},
			want: []string{"priority = 1 (label anything)"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkOutline(t, tt.labels, tt.defaults, tt.rule, job(tt.job...), tt.want)
		})
	}
}

// checkOutline decides a job by a file of the given sections.
func checkOutline(t *testing.T, labels, defaults, rule string, f Facts, want []string) {
	t.Helper()
	if labels == "" {
		labels = "{}"
	}
	if defaults == "" {
		defaults = "{}"
	}
	how := "jobspec: j, "
	if strings.Contains(rule, "dispatch:") {
		how = ""
	}
	rule = strings.TrimPrefix(strings.TrimSpace(rule), "{")
	if rule == "" {
		rule = "}"
	}
	s := parse(t, "version: 1\nlabels: "+labels+"\ndefaults: "+defaults+"\nrules: [{ name: r, "+how+rule+"]\n")
	d := s.Decide(f, false)
	same(t, want, outline(d), "placement")
}

func TestADispatchedJobRunsAsItIs(t *testing.T) {
	const defaults = `{ namespace: ci, node_pool: a, priority: 5, resources: { cpu: 2000 }, constraints: ['${meta.a} = 1'], max: { cpu: 1 }, runner: { group: 4 } }`
	const labels = `{ gpu: { devices: [gpu] }, team: { namespace: team, runner: { scope: organization } } }`
	checkOutline(t, labels, defaults, `{ dispatch: github_runner }`, job(),
		[]string{"dispatch = github_runner (rule r)", "namespace = ci (defaults)", "runner.group = 4 (defaults)"})
	checkOutline(t, labels, defaults, `{ dispatch: github_runner, namespace: other, region: osaka, runner: { group: 5 } }`, job("gpu", "team"),
		[]string{"dispatch = github_runner (rule r)", "namespace = team (label team)", "region = osaka (rule r)", "runner.group = 5 (rule r)", "runner.scope = organization (label team)"})

	s := parse(t, "version: 1\nlabels: "+labels+"\nrules: [{ name: r, dispatch: github_runner }]\n")
	for _, tt := range []struct{ label, want string }{
		{"team", "rule r dispatches the Nomad job github_runner as it is"},
		{"gpu", `rule r dispatches the Nomad job github_runner as it is; what the labels "gpu" mean is not applied`},
	} {
		if got := s.Decide(job(tt.label), false).Reason; got != tt.want {
			t.Errorf("Reason for %s = %q, want %q", tt.label, got, tt.want)
		}
	}
}

func TestHowARunnerRegisters(t *testing.T) {
	const enterprise = `{ runner: { enterprise: acme-corp, registration: token } }`
	checkOutline(t, `{}`, enterprise, `{ runner: { scope: enterprise, registration: jit } }`, job(),
		[]string{"runner.enterprise = acme-corp (defaults)", "runner.registration = jit (rule r)", "runner.scope = enterprise (rule r)"})
	checkOutline(t, `{}`, enterprise, `{ dispatch: d, runner: { scope: enterprise } }`, job(),
		[]string{"dispatch = d (rule r)", "runner.enterprise = acme-corp (defaults)", "runner.registration = token (defaults)", "runner.scope = enterprise (rule r)"})
	// Another scope has no use for the default.
	checkOutline(t, `{}`, enterprise, `{ runner: { scope: organization } }`, job(),
		[]string{"runner.registration = token (defaults)", "runner.scope = organization (rule r)"})
	checkOutline(t, `{}`, enterprise, `{ runner: { scope: '${{ repo.private ? "enterprise" : "repository" }}', enterprise: '${{ repo.owner }}', registration: '${{ has("linux") ? "jit" : "token" }}' } }`, job(),
		[]string{"runner.enterprise = acme (rule r)", "runner.registration = token (rule r)", "runner.scope = enterprise (rule r)"})
	checkOutline(t, `{}`, `{}`, `{ runner: { scope: '${{ repo.private ? "enterprise" : "repository" }}' } }`, job(),
		[]string{"unroutable: rule r took the job, but it cannot be placed: runner.scope enterprise (rule r): no rule, label or default names the enterprise"})
}

func TestATimeLimitOfARuleReplacesThatOfTheDefaults(t *testing.T) {
	const fallback = `fallback: [{ after: 5m, node_pool: a }]`
	checkOutline(t, `{}`, `{ time_limit: 24h }`, `{ time_limit: 90m, `+fallback+` }`, job(), []string{"time_limit = 1h30m (rule r)"})
	checkOutline(t, `{}`, `{ time_limit: 24h }`, `{ `+fallback+` }`, job(), []string{"time_limit = 24h (defaults)"})
	checkOutline(t, `{}`, `{ time_limit: 24h }`, `{ dispatch: d }`, job(), []string{"dispatch = d (rule r)", "time_limit = 24h (defaults)"})
	checkOutline(t, `{}`, `{}`, `{}`, job(), nil)
}

func TestTemplatesWorkInEveryPlace(t *testing.T) {
	const labels = `{ "n=*": { param: { name: n, type: int, min: 1, max: 99999 } }, "s=*": { param: { name: s, type: string, pattern: '.*' } }, "m=*": { param: { name: m, type: size, min: 10, max: 1TiB } } }`
	checkOutline(t, labels, `{}`,
		`{ constraints: ['${meta.a} >= ${{ param.n }}', { attribute: '${meta.b}', operator: regexp, value: '^${{ param.s }}-${{ param.n + 1 }}$' }, '${meta.c} = ${attr.os.name}-${{ param.s }}'],
  affinities: [{ attribute: '${node.class}', value: '${{ param.s }}', weight: '${{ param.n > 50 ? 50 : -1 }}' }],
  devices: [{ name: 'nvidia/${{ param.s }}', count: '${{ param.n }}', constraints: ['${device.model} = ${{ param.s }}'] }, '${{ param.s }}'],
  resources: { cpu: '${{ param.n * 1000 }}', memory: '${{ param.m }}', memory_max: '${{ param.n }}GiB', disk: '${{ has("big") ? "2TiB" : "1TiB" }}' },
  node_pool: 'pool-${{ param.s }}', namespace: '${{ repo.owner }}', priority: '${{ param.n }}', datacenters: ['dc${{ param.n }}', x],
  task: { env: { A: 'é ${{ repo.full_name }} ${NOMAD_TASK_DIR}', B: '${{ param.m == nil ? "" : "x" }}' }, config: { image: 'i:${{ param.s }}', nest: [{ n: '${{ param.n }}', b: '${{ repo.private }}' }] } },
  runner: { scope: '${{ repo.private ? "organization" : "repository" }}', group: '${{ param.n }}' } }`,
		job("n=8", "s=gpu", "m=4GiB", "big"), []string{
			"datacenters = [dc8 x] (rule r)", "namespace = acme (rule r)", "node_pool = pool-gpu (rule r)", "priority = 8 (rule r)",
			"resources.cpu = 8000 (rule r)", "resources.disk_mb = 2097152 (rule r)", "resources.memory_max_mb = 8192 (rule r)", "resources.memory_mb = 4096 (rule r)",
			"runner.group = 8 (rule r)", "runner.scope = organization (rule r)",
			"task.config.image = i:gpu (rule r)", "task.config.nest = [map[b:true n:8]] (rule r)",
			"task.env.A = é acme/web ${NOMAD_TASK_DIR} (rule r)", "task.env.B = x (rule r)",
			"${meta.a} >= 8 (rule r)", "${meta.b} regexp ^gpu-9$ (rule r)", "${meta.c} = ${attr.os.name}-gpu (rule r)",
			"${node.class} = gpu -1 (rule r)", "8 nvidia/gpu (rule r)", "  ${device.model} = gpu (rule r)", "1 gpu (rule r)",
		})
}

// What comes out of an expression may be a stranger's: it is one value, and never more.
func TestWhatAnExpressionGivesIsChecked(t *testing.T) {
	const unroutable = "unroutable: rule r took the job, but it cannot be placed: rule r: "
	for _, tt := range []struct {
		name, rule, jobName string
		want                string
	}{
		{"an operator in a value is part of the value", `constraints: ['${meta.a} = ${{ job.name }}']`, "x != y", "${meta.a} = x != y (rule r)"},
		{"interpolation", `constraints: ['${meta.a} = ${{ job.name }}']`, "${attr.unique.hostname}",
			unroutable + `constraint on ${meta.a}: ${{ job.name }} gives "${attr.unique.hostname}": a value from an expression must be printable and hold no ${`},
		{"interpolation in a longer text", `constraints: ['${meta.a} = x-${{ job.name }}']`, "${attr.unique.hostname}",
			unroutable + `constraint on ${meta.a}: x-${{ job.name }} gives "x-${attr.unique.hostname}": a value from an expression must be printable and hold no ${`},
		{"interpolation made of two halves", `task: { env: { A: '$${{ job.name }}' } }`, "{NOMAD_META_SWITCHYARD_CLAIM_TOKEN}",
			unroutable + `task.env.A: $${{ job.name }} gives "${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}": a value from an expression must be printable and hold no ${`},
		{"interpolation made of two values", `task: { env: { A: '${{ job.name }}${{ job.branch }}' } }`, "$",
			unroutable + `task.env.A: ${{ job.name }}${{ job.branch }} gives "${x}": a value from an expression must be printable and hold no ${`},
		{"interpolation in config", `task: { config: { args: ['${{ job.name }}'] } }`, "${env.SECRET}",
			unroutable + `task.config.args: ${{ job.name }} gives "${env.SECRET}": a value from an expression must be printable and hold no ${`},
		{"our own expressions are not read twice", `task: { env: { A: '${{ job.name }}.' } }`, "{{ 1 }}", "task.env.A = {{ 1 }}. (rule r)"},
		{"a line break", `task: { env: { A: 'x ${{ job.name }}' } }`, "a\nB=c",
			unroutable + `task.env.A: x ${{ job.name }} gives "a\nB=c": a value from an expression must be printable and hold no ${`},
		{"a NUL", `node_pool: '${{ job.name }}'`, "a\x00",
			unroutable + `node_pool: ${{ job.name }} gives "a\x00": a value from an expression must be printable and hold no ${`},
		{"quotes and shell are text", `task: { env: { A: '${{ job.name }}' } }`, "\"; rm -rf / `id` $(id) $HOME", "task.env.A = \"; rm -rf / `id` $(id) $HOME (rule r)"},
		{"an empty value of a constraint", `constraints: ['${meta.a} = ${{ job.name }}']`, "", unroutable + `constraint on ${meta.a}: operator = needs a value`},
		{"a regular expression that is none", `constraints: ['${meta.a} regexp ${{ job.name }}']`, "(",
			unroutable + "constraint on ${meta.a}: \"(\" is not a regular expression: error parsing regexp: missing closing ): `(`"},
		{"a version that is none", `constraints: ['${meta.a} version >= ${{ job.name }}']`, "new",
			unroutable + `constraint on ${meta.a}: ">= new" is not a version constraint: write it as '>= 1.6, < 2.0'`},
		{"a name of a node pool that is none", `node_pool: '${{ job.name }}'`, "a/b",
			unroutable + `node_pool: ${{ job.name }} gives an invalid value: "a/b" is not a valid name of a Nomad node pool`},
		{"a device that is none", `devices: ['${{ job.name }}']`, "a b", unroutable +
			`device: ${{ job.name }} gives an invalid value: "a b" is not a valid device: write type, vendor/type or vendor/type/model, such as nvidia/gpu`},
		{"a number that is none", `priority: '${{ job.name }}'`, "9.5", unroutable + `priority: ${{ job.name }} gives an invalid value: "9.5" is not a whole number`},
		{"a number out of bounds", `priority: '${{ job.attempt * 101 }}'`, "", unroutable + `priority: ${{ job.attempt * 101 }} gives an invalid value: 101 is not between 1 and 100`},
		{"a number with a fraction", `resources: { cores: '${{ 3 / 2 }}' }`, "", unroutable + `resources.cores: ${{ 3 / 2 }} gives an invalid value: "1.5" is not a whole number`},
		{"a size that reads two ways", `resources: { memory: '${{ job.name }}' }`, "1G", unroutable +
			`resources.memory_mb: ${{ job.name }} gives an invalid value: size "1G" is ambiguous: write 1GiB`},
		{"more devices than there can be", `devices: [{ name: gpu, count: '${{ job.attempt * 1000 }}' }]`, "", unroutable +
			`device gpu: ${{ job.attempt * 1000 }} gives an invalid value: 1000 is not between 1 and 128`},
		{"a weight of 0", `affinities: [{ attribute: '${node.class}', value: a, weight: '${{ job.attempt - 1 }}' }]`, "", unroutable +
			`${{ job.attempt - 1 }} gives an invalid value: a weight of 0 has no effect`},
		{"a nil", `priority: '${{ param.p }}'`, "", unroutable + `priority: ${{ param.p }} is nil; give a value for that case: ${{ param.x ?? 1 }}`},
		{"a nil in a text", `task: { env: { A: 'x${{ param.p }}' } }`, "", unroutable + `task.env.A: nil has no text; give a value for that case: ${{ param.x ?? 1 }} in x${{ param.p }}`},
		{"a list", `task: { config: { a: '${{ labels }}' } }`, "", unroutable + `task.config.a: ${{ labels }} gives an invalid value: a []string has no text: want a string, a number or a boolean`},
		{"an expression that fails", `priority: '${{ labels[9] }}'`, "", unroutable + `priority: index out of range: 9 (array length is 1) in ${{ labels[9] }}`},
		{"a text that is too long", `task: { env: { A: '${{ job.name }}' } }`, strings.Repeat("x", 32<<10+1), unroutable +
			`task.env.A: ${{ job.name }} gives an invalid value: a text of 32769 bytes; the maximum is 32768`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := job()
			f.Job.Name, f.Job.Branch = tt.jobName, "{x}"
			checkOutline(t, `{ "p=*": { param: { name: p, type: int, min: 1, max: 9 } } }`, "", "{ "+tt.rule+" }", f, []string{tt.want})
		})
	}
}
