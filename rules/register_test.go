package rules

import (
	"fmt"
	"strings"
	"testing"
)

// No runner is started that GitHub would not register, or give no such job.
func TestARunnerThatCannotBeRegisteredIsUnroutable(t *testing.T) {
	const groupOnly = `version: 1
scope: len(labels) == 0 or has("self-hosted")
labels:
  self-hosted: {}
  linux: {}
  tok: { runner: { registration: token } }
  grp: { runner: { group: 7 } }
  repo: { runner: { scope: repository } }
  "a b": {}
  "*": {}
defaults: { runner: { scope: SCOPE } }
rules:
  - { name: any, if: len(labels) == 0 or has("linux"), jobspec: docker-linux, resources: { cpu: 100, memory: 64MiB } }
`
	var many, long []string
	for i := range 101 {
		many = append(many, fmt.Sprint("l", i))
		long = append(long, strings.Repeat("x", 200)+fmt.Sprint(i))
	}
	doubled := append(append([]string{}, many[:98]...), "self-hosted", "linux", "linux")
	for _, tt := range []struct {
		scope  string
		labels []string
		want   string // part of the reason; "": it is routed
	}{
		{"organization", nil, ""},
		{"organization", []string{}, ""},
		{"enterprise, enterprise: acme", nil, ""},
		{"repository", nil, "a job without labels asks for a runner group alone, and runners of a repository are in none: give its rule runner: { scope: organization, group: NAME }"},
		{"organization", []string{"self-hosted", "linux", "grp"}, ""},
		{"repository", []string{"self-hosted", "linux", "grp"}, "runner group 7 (label grp) is one of an organization, and runners of a repository (runner.scope: defaults) are in none: add scope: organization"},
		{"organization", []string{"self-hosted", "linux", "grp", "repo"}, "runner group 7 (label grp)"},
		{"organization", []string{"self-hosted", "linux", "a b"}, ""},
		{"organization", []string{"self-hosted", "linux", "a b", "tok"}, ""},
		{"organization", []string{"self-hosted", "linux", "a,b"}, ""},
		{"organization", []string{"self-hosted", "linux", "a,b", "tok"}, `label "a,b" cannot be given to a runner that registers itself`},
		{"organization", []string{"self-hosted", "Linux ", "tok"}, `label "Linux "`},
		{"organization", []string{"self-hosted", "linux", "${meta.x}", "tok"}, `label "${meta.x}"`},
		{"organization", []string{"self-hosted", "linux", " "}, "the job has an empty label"},
		{"organization", append([]string{"self-hosted", "linux"}, many[:98]...), ""},
		{"organization", append([]string{"self-hosted", "linux"}, many[:99]...), "the job has more than 100 labels"},
		{"organization", doubled, "the job has more than 100 labels"},
		{"organization", append([]string{"self-hosted", "linux", "tok"}, many[:97]...), ""},
		{"organization", append([]string{"self-hosted", "linux"}, long[:50]...), ""},
		{"organization", append([]string{"self-hosted", "linux", "tok"}, long[:50]...), "bytes together, and a runner that registers itself (registration: token) can be given 8192"},
	} {
		s := parse(t, strings.Replace(groupOnly, "SCOPE", tt.scope, 1))
		f := job()
		f.Labels = tt.labels
		d := s.Decide(f, false)
		if routed := d.Outcome == Routed; routed != (tt.want == "") || !strings.Contains(d.Reason, tt.want) {
			t.Errorf("%s, %d labels %.80q: %s, %q; want %q", tt.scope, len(tt.labels), tt.labels, d.Outcome, d.Reason, tt.want)
		}
		if d.Outcome == Unroutable && d.Jobspec != "" {
			t.Errorf("%q: an unroutable job has a placement", tt.labels)
		}
	}
}

// What brings its own registration is none of this, and a fallback is checked like the rest.
func TestOnlyWhatIsRegisteredHereIsChecked(t *testing.T) {
	s := parse(t, `version: 1
scope: 'true'
rules:
  - { name: classic, if: repo.name == "classic", dispatch: github_runner }
  - { name: falls, jobspec: docker-linux, runner: { scope: organization, group: 3 }, fallback: [{ after: 1m, runner: { scope: repository } }, { after: 2m, runner: { group: 4 } }] }
`)
	f := job()
	f.Labels, f.Repo.Name = nil, "classic"
	if d := s.Decide(f, false); d.Outcome != Routed {
		t.Errorf("a dispatched job is %s: %s", d.Outcome, d.Reason)
	}
	f.Repo.Name, f.Labels = "web", nil
	d := s.Decide(f, false)
	if d.Outcome != Routed || len(d.Fallback) != 2 || !strings.Contains(d.Fallback[0].Reason, "runner group 3") || d.Fallback[1].Reason != "" || d.Fallback[1].Placement.Runner.Group != "4" {
		t.Errorf("got %s %+v", d.Outcome, d.Fallback)
	}
}
