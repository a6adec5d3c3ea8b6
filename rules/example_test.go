package rules

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"switchyard/rules/internal/words"
)

func example(t testing.TB) *Set {
	t.Helper()
	src := readFile(t, "../rules.example.yaml")
	s, err := Parse("rules.example.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheExampleUsesTheJobspecsThatAreBuiltIn(t *testing.T) {
	files, err := os.ReadDir("../jobspecs")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".nomad.hcl"); ok {
			names = append(names, name)
		}
	}
	if faults := example(t).CheckJobspecs(names); faults != nil {
		t.Error(faults)
	}
}

func TestTheExampleRoutesOrdinaryJobsOfAllThreeSystems(t *testing.T) {
	s := example(t)
	at := func(change func(*Facts), labels ...string) Facts {
		f := job(labels...)
		if change != nil {
			change(&f)
		}
		return f
	}
	for _, tt := range []struct {
		name  string
		facts Facts
		want  []string
	}{
		{"a Linux job", job("linux", "x64"), []string{
			"rule linux, jobspec docker-linux", "datacenters = [*] (defaults)", "priority = 50 (defaults)", "resources.cpu = 2000 (defaults)", "resources.memory_mb = 4096 (defaults)",
			"${attr.kernel.name} = linux (rule linux)", "${attr.cpu.arch} = amd64 (label x64)", "${node.class} = spot +50 (rule linux)", "${node.class} = gpu -50 (rule linux)"}},
		{"as GitHub writes the labels", job("Linux", "ARM64", "large"), []string{
			"rule linux, jobspec docker-linux", "datacenters = [*] (defaults)", "priority = 50 (defaults)", "resources.cpu = 8000 (label large)", "resources.memory_mb = 16384 (label large)",
			"${attr.kernel.name} = linux (rule linux)", "${attr.cpu.arch} = arm64 (label arm64)", "${node.class} = spot +50 (rule linux)", "${node.class} = gpu -50 (rule linux)"}},
		{"a GPU job in one label", Facts{Labels: []string{"yard=1234/linux/gpus=2/cpu=8/memory=32GiB/zone=tokyo-a"}, Repo: Repo{Private: true}}, []string{
			"rule linux, jobspec docker-linux", "datacenters = [*] (defaults)", "priority = 50 (defaults)", "resources.cores = 8 (label cpu=8)", "resources.memory_mb = 32768 (label memory=32gib)",
			"${attr.kernel.name} = linux (rule linux)", "${meta.zone} = tokyo-a (label zone=tokyo-a)", "${node.class} = spot +50 (rule linux)", "${node.class} = gpu +50 (rule linux)", "2 nvidia/gpu (label gpus=2)"}},
		{"a release", at(func(f *Facts) { f.Job.Branch = "release/1.2" }, "linux", "run-77"), []string{
			"rule linux-release, jobspec docker-linux", "datacenters = [*] (defaults)", "priority = 80 (rule linux-release)", "resources.cpu = 2000 (defaults)", "resources.memory_mb = 4096 (defaults)", "time_limit = 6h (rule linux-release)",
			"${attr.kernel.name} = linux (rule linux-release)"}},
		{"a macOS job", job("macOS", "arm64"), []string{
			"rule macos, jobspec raw-exec-macos", "datacenters = [*] (defaults)", "priority = 50 (defaults)", "resources.cpu = 4000 (rule macos)", "resources.memory_mb = 8192 (rule macos)",
			"${attr.kernel.name} = darwin (rule macos)", "${attr.cpu.arch} = arm64 (label arm64)"}},
		{"a Windows job", job("Windows", "x64", "disk=100GiB"), []string{
			"rule windows, jobspec raw-exec-windows", "datacenters = [*] (defaults)", "priority = 50 (defaults)", "resources.cpu = 2000 (defaults)", "resources.disk_mb = 102400 (label disk=100gib)", "resources.memory_mb = 4096 (defaults)",
			"${attr.kernel.name} = windows (rule windows)", "${attr.cpu.arch} = amd64 (label x64)"}},
		{"a public repository", at(func(f *Facts) { f.Repo.Private = false }, "linux"), []string{"denied: public repositories get no self-hosted runner"}},
		{"a fork", at(func(f *Facts) { f.Repo.Fork = true }, "linux"), []string{"denied: a fork of a private repository gets no self-hosted runner"}},
		{"two systems at once", job("linux", "macos"), []string{"denied: a job runs on one of linux, macos and windows"}},
		{"no system", job("x64"), []string{`unroutable: no rule takes a job with the labels "self-hosted", "x64"`}},
		{"a hosted runner's label", Facts{Labels: []string{"ubuntu-latest"}}, []string{`ignored: out of scope: "self-hosted" in labels is false`}},
		{"a misspelt label", job("linus"), []string{`unroutable: unknown label "linus" (did you mean linux?): neither the vocabulary nor a rule knows it`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := s.Decide(tt.facts, false)
			got := outline(d)
			if d.Outcome == Routed {
				got = slices.Insert(got, 0, "rule "+d.Rule+", jobspec "+d.Jobspec)
			}
			same(t, tt.want, got, "decision")
		})
	}
}

// The label sets were collected from public workflows.
func TestTheExampleDecidesTheLabelSetsOfPublicWorkflows(t *testing.T) {
	text, err := os.ReadFile("../../shared/github/runs-on.json")
	if err != nil {
		t.Skipf("the collected label sets are not here: %v", err)
	}
	var sets []struct {
		Labels []string
		Tags   []string
		Source string
	}
	if err := json.Unmarshal(text, &sets); err != nil {
		t.Fatal(err)
	}
	s := example(t)
	outcomes := map[Outcome]int{}
	for _, set := range sets {
		for _, private := range []bool{true, false} {
			d := s.Decide(Facts{Labels: set.Labels, Repo: Repo{Private: private}}, true)
			outcomes[d.Outcome]++
			switch d.Outcome {
			case Routed, Ignored, Denied, Unroutable:
			default:
				t.Errorf("%s: outcome of %q is %q", set.Source, set.Labels, d.Outcome)
			}
			// What to act on: a label that is named, a rule to come nearer to, or
			// the words of the rule that denies.
			actionable := d.Outcome == Routed || d.Outcome == Ignored || d.Outcome == Denied && d.Rule != "" ||
				slices.ContainsFunc(d.Labels, func(l string) bool { return strings.Contains(d.Reason, words.Quote(l)) }) &&
					(strings.Contains(d.Reason, "unknown label") || d.Nearest != nil && len(d.Nearest.Missing) > 0)
			if d.Reason == "" || !actionable {
				t.Errorf("%s: %q is %s: %q, nearest %+v", set.Source, set.Labels, d.Outcome, d.Reason, d.Nearest)
			}
			if slices.Contains(set.Tags, "hosted") && d.Outcome != Ignored {
				t.Errorf("%s: %q is GitHub's own, but %s: %s", set.Source, set.Labels, d.Outcome, d.Reason)
			}
		}
	}
	t.Logf("%d label sets: %v", len(sets), outcomes)
}
