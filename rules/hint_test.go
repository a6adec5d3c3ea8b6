package rules

import (
	"strings"
	"testing"
)

const hintRules = `version: 1
compound: { prefix: 'yard=', separator: '/' }
labels:
  self-hosted: {}
  linux: {}
  gpu: { devices: [nvidia/gpu] }
  "gpus=*": { param: { name: gpus, type: int, min: 1, max: 8 }, devices: [{ name: nvidia/gpu, count: '${{ param.gpus }}' }] }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } }
  "memory=*": { param: { name: memory, type: size, min: 1GiB, max: 64GiB }, resources: { memory: '${{ param.memory }}' } }
  "zone=*": { param: { name: zone, type: string, one_of: [tokyo-a, tokyo-b] }, constraints: ['${meta.zone} = ${{ param.zone }}'] }
  "run-*": {}
rules:
  - { name: beta, if: 'has("linux", "beta")', jobspec: j }
  - { name: linux, if: has("linux"), jobspec: j }
`

// A label in the place of a run's ID would be asked for by nobody.
func TestTheFirstPartOfACompoundLabelIsAnID(t *testing.T) {
	s := parse(t, hintRules)
	for _, tt := range []struct{ label, want string }{ // "": it is taken
		{"yard=4711/linux", ""},
		{"yard=4711-1/linux", ""},
		{"yard=run-4711/linux", ""}, // a label that means nothing, and is made for this
		{"yard=4711-linux-gpu/linux", ""},
		{"yard=" + strings.Repeat("a", 40) + "/linux", ""},
		{"yard=linux/gpu", `compound label "yard=linux/gpu" has the label "linux" where the run's ID belongs: write yard=${{ github.run_id }}/linux/gpu`},
		{"Yard=Linux/GPU", `compound label "Yard=Linux/GPU" has the label "linux" where the run's ID belongs: write yard=${{ github.run_id }}/linux/gpu`},
		{"yard=linux", `has the label "linux" where the run's ID belongs: write yard=${{ github.run_id }}/linux`},
		{"yard=self-hosted/linux", `has the label "self-hosted" where the run's ID belongs: write yard=${{ github.run_id }}/linux`},
		{"yard=cpu=8/linux", `has the label "cpu=8" where the run's ID belongs: write yard=${{ github.run_id }}/cpu=8/linux`},
		{"yard=cpu=64/linux", `has the label "cpu=64"`},
		{"yard=cpu=/linux", `has the label "cpu="`},
		{"yard=beta/linux", `has the label "beta" where the run's ID belongs`}, // that only a condition asks for
		{"yard=my big runner/linux", `compound label "yard=my big runner/linux" has "my big runner" where the run's ID belongs, which is one word: write yard=${{ github.run_id }}/linux`},
		{"yard= 4711 /linux", `where the run's ID belongs, which is one word`},
		{"yard=   /linux", `begins with no unique part: write yard=ID/linux`},
		{"yard=[self-hosted, linux]", `which is one word: write yard=${{ github.run_id }}/linux`},
		{"yard=1,linux", `has "1,linux" where the run's ID belongs, which is one word: write yard=${{ github.run_id }}/linux`},
		{"yard=1:linux:cpu=8", `has "1:linux:cpu=8" where the run's ID belongs, and its parts are separated by "/": write yard=${{ github.run_id }}/linux/cpu=8`},
		{"yard=1+gpu/linux", `its parts are separated by "/": write yard=${{ github.run_id }}/gpu/linux`},
		{"yard=${{ github.run_id }}/linux", `has "${{ github.run_id }}" where the run's ID belongs, which nobody filled in: write yard=${{ github.run_id }}/linux`},
		{"yard=$GITHUB_RUN_ID/linux", `which nobody filled in`},
		{"yard=1//linux", `compound label "yard=1//linux" has an empty part`},
		{"yard=1/linux/", `has an empty part`},
		{"yard=1/ /linux", `has an empty part`},
	} {
		d := s.Decide(Facts{Labels: []string{tt.label}}, false)
		if tt.want == "" && d.Outcome != Routed || tt.want != "" && (d.Outcome != Unroutable || !strings.Contains(d.Reason, tt.want)) {
			t.Errorf("%s: %s: %s; want %s", tt.label, d.Outcome, d.Reason, tt.want)
		}
	}
}

// What a job out of scope was likely meant to ask for is in its reason, and
// nothing when it was meant for others.
func TestAJobThatIsNearlyInScopeIsToldSo(t *testing.T) {
	const out = `out of scope: "self-hosted" in labels is false`
	s := parse(t, hintRules)
	for _, tt := range []struct {
		labels []string
		want   string
	}{
		{[]string{"self-hosted, linux"}, `; "self-hosted, linux" is one label: write runs-on: [self-hosted, linux]`},
		{[]string{"self-hosted,linux,gpu"}, `; "self-hosted,linux,gpu" is one label: write runs-on: [self-hosted, linux, gpu]`},
		{[]string{"Self-Hosted Linux"}, `; "Self-Hosted Linux" is one label: write runs-on: [self-hosted, linux]`},
		{[]string{"self-hosted/linux"}, `; "self-hosted/linux" is one label: write runs-on: [self-hosted, linux]`},
		{[]string{`["self-hosted","linux"]`}, `; "[\"self-hosted\",\"linux\"]" is one label: write runs-on: [self-hosted, linux], or runs-on: ${{ fromJSON(…) }} where a variable holds the list`},
		{[]string{"[self-hosted, linux]"}, `; "[self-hosted, linux]" is one label: write runs-on: [self-hosted, linux], or runs-on: ${{ fromJSON`},
		{[]string{"- self-hosted - linux"}, ` is one label: write runs-on: [self-hosted, linux]`},
		{[]string{"yard:1/linux"}, `; "yard:1/linux" is no compound label: write yard=1/linux`},
		{[]string{"yard-1/linux"}, `; "yard-1/linux" is no compound label: write yard=1/linux`},
		{[]string{"yard/1/linux"}, `is no compound label: write yard=1/linux`},
		{[]string{"yard = 1/linux"}, `is no compound label: write yard=1/linux`},
		{[]string{"yard:1,linux,cpu=8"}, `is no compound label: write yard=1/linux/cpu=8`},
		{[]string{"yrad=1/linux"}, `is no compound label: write yard=1/linux`},
		{[]string{"yards=1/linux"}, `is no compound label: write yard=1/linux`},
		{[]string{"self_hosted", "linux"}, `; did you mean self-hosted by "self_hosted"?`},
		{[]string{"selfhosted"}, `; did you mean self-hosted by "selfhosted"?`},
		{[]string{"self hosted", "linux"}, `; did you mean self-hosted by "self hosted"?`},
		{[]string{"self-hosetd"}, `; did you mean self-hosted by "self-hosetd"?`},
		{[]string{"self-hosted\u200b", "linux"}, `; "self-hosted\u200b" is a label with a character that cannot be printed: type it again`},

		{[]string{"ubuntu-latest"}, ""},
		{[]string{"ubuntu-24.04-arm"}, ""},
		{[]string{"macos-14-xlarge"}, ""},
		{[]string{"windows-2022"}, ""},
		{[]string{"ubuntu-latest-16-cores"}, ""},
		{[]string{"linux"}, ""},
		{[]string{"linux", "gpu"}, ""},
		{[]string{"linux, gpu"}, ""}, // would be out of scope, too
		{[]string{"arc-runner-set"}, ""},
		{[]string{"hosted"}, ""},
		{[]string{"yardstick"}, ""},
		{[]string{"my big runner"}, ""},
		{[]string{"my big self-hosted runner"}, ""},
		{[]string{"8cpu-runner"}, ""},
		{[]string{strings.Repeat("self-hosted,", 1000)}, ""},
		{nil, ""},
		{[]string{""}, ""},
	} {
		d := s.Decide(Facts{Labels: tt.labels}, false)
		if got, _ := strings.CutPrefix(d.Reason, out); d.Outcome != Ignored || !strings.HasPrefix(d.Reason, out) || tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%q: %s: %s; want %s%s", tt.labels, d.Outcome, d.Reason, out, tt.want)
		}
	}
}

func TestAnUnknownLabelHasWhatWasMeant(t *testing.T) {
	s := parse(t, hintRules)
	for label, want := range map[string]string{
		"cpu:8":             `"cpu:8" (did you mean cpu=8?)`,
		"cpu-8":             `(did you mean cpu=8?)`,
		"cpu_8":             `(did you mean cpu=8?)`,
		"cpu8":              `(did you mean cpu=8?)`,
		"cpu 8":             `(did you mean cpu=8?)`,
		"cpu = 8":           `(did you mean cpu=8?)`,
		"cpu==8":            `label "cpu==8": "=8" is not a whole number`,
		"4cpu":              `(did you mean cpu=4?)`,
		"8-cpu":             `(did you mean cpu=8?)`,
		"4 cpus":            `(did you mean cpu=4?)`,
		"cpus=8":            `(did you mean cpu=8?)`,
		"cores=8":           `(did you mean cpu=8?)`,
		"vcpu-8":            `(did you mean cpu=8?)`,
		"8core":             `(did you mean cpu=8?)`,
		"cpu=8.5cores":      `label "cpu=8.5cores": "8.5cores" is not a whole number`,
		"mem=16G":           `(did you mean memory=16GiB?)`,
		"mem:16gb":          `(did you mean memory=16GiB?)`,
		"ram-16":            `(did you mean memory=16GiB?)`,
		"memory-2048":       `(did you mean memory=2048?)`,
		"memory16g":         `(did you mean memory=16GiB?)`,
		"16gb":              `(did you mean memory=16GiB?)`,
		"16gb-ram":          `neither the vocabulary nor a rule knows it`,
		"2gpu":              `(did you mean gpus=2?)`,
		"gpu=2":             `(did you mean gpus=2?)`,
		"gpus:2":            `(did you mean gpus=2?)`,
		"zone:tokyo-a":      `(did you mean zone=tokyo-a?)`,
		"zone-Tokyo-B":      `(did you mean zone=tokyo-b?)`,
		"zone:osaka":        `neither the vocabulary nor a rule knows it`,
		"linux, gpu":        `(one label: write runs-on: [linux, gpu])`,
		"linux gpu":         `(one label: write runs-on: [linux, gpu])`,
		"linux/gpu":         `(one label: write runs-on: [linux, gpu])`,
		`["linux","cpu=8"]`: `(one label: write runs-on: [linux, cpu=8], or runs-on: ${{ fromJSON(…) }} where a variable holds the list)`,
		"yard:1/linux":      `(no compound label: write yard=1/linux)`,
		"my, own":           `"my, own": neither`,
		"linx":              `(did you mean linux?)`,
		"osx":               `"osx": neither`,
		"ubuntu-latest":     `(a label of GitHub's own runners; did you mean linux?)`,
		"cpu":               `(it needs a value: cpu=…)`,
		"cpu=":              `(it needs a value: cpu=…)`,
		"a100-8":            `"a100-8": neither`,
		"8":                 `"8": neither`,
	} {
		d := s.Decide(Facts{Labels: []string{"self-hosted", "linux", label}}, false)
		if d.Outcome != Unroutable || !strings.Contains(d.Reason, want) {
			t.Errorf("%s: %s: %s; want %s", label, d.Outcome, d.Reason, want)
		}
	}
}
