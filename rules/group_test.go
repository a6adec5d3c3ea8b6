package rules

import (
	"encoding/json"
	"strings"
	"testing"
)

// A group is named as people know it, or by the ID that is in the address of its page.
func TestARunnerGroupIsAnIDOrAName(t *testing.T) {
	for _, tt := range []struct {
		group, want, fault string
		json               string
	}{
		{group: "3", want: "3", json: "3"},
		{group: `"007"`, want: "7", json: "7"},
		{group: "gpu-runners", want: "gpu-runners", json: `"gpu-runners"`},
		{group: `"Große Eisen, 2. Reihe"`, want: "Große Eisen, 2. Reihe", json: `"Große Eisen, 2. Reihe"`},
		{group: `'gpu-${{ repo.name }}'`, want: "gpu-web", json: `"gpu-web"`},
		{group: `'${{ 3 + 4 }}'`, want: "7", json: "7"},
		{group: "0", fault: "runner group: 0 is not between 1 and 2147483647"},
		{group: "-3", fault: "runner group"},
		{group: "1.5", fault: "runner group"},
		{group: `"gpu "`, fault: `runner group: "gpu " is not a valid name of a runner group`},
		{group: `"gpu\n"`, fault: "is not a valid name of a runner group"},
		{group: strings.Repeat("x", 129), fault: "is not a valid name of a runner group"},
	} {
		src := "version: 1\nrules: [{ name: r, jobspec: j, runner: { scope: organization, group: " + tt.group + " } }]\n"
		set, err := Parse("rules.yaml", []byte(src))
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("group %s: the fault is %v, want %q", tt.group, err, tt.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("group %s: %v", tt.group, err)
			continue
		}
		d := set.Decide(job(), false)
		if d.Outcome != Routed || string(d.Runner.Group) != tt.want {
			t.Errorf("group %s: %s in group %q, want %q", tt.group, d.Outcome, d.Runner.Group, tt.want)
		}
		text, err := json.Marshal(d.Runner.Group)
		var back RunnerGroup
		if err != nil || string(text) != tt.json || json.Unmarshal(text, &back) != nil || back != d.Runner.Group {
			t.Errorf("group %s is %s in JSON (%v), and %q when read; want %s", tt.group, text, err, back, tt.json)
		}
	}
	if text, err := json.Marshal(RunnerGroup("")); err != nil || string(text) != "0" {
		t.Errorf("no group is %s in JSON (%v), want 0", text, err)
	}
}

// A label, a rule and the defaults name groups in either way, and one replaces the other.
func TestAGroupByNameReplacesOneByID(t *testing.T) {
	set := parse(t, `version: 1
labels: { self-hosted: {}, gpu: { runner: { group: gpu-runners } }, iron: { runner: { group: 9 } } }
defaults: { runner: { scope: organization, group: 3 } }
rules: [{ name: r, jobspec: j }]
`)
	for labels, want := range map[string]RunnerGroup{"": "3", "gpu": "gpu-runners", "iron": "9"} {
		if d := set.Decide(job(strings.Fields("self-hosted "+labels)...), false); d.Runner.Group != want {
			t.Errorf("with the label %q it is group %q (%s), want %q", labels, d.Runner.Group, d.Reason, want)
		}
	}
	if d := set.Decide(job("self-hosted", "gpu", "iron"), false); d.Outcome != Unroutable || !strings.Contains(d.Reason, `sets runner.group to "gpu-runners" and label iron to "9"`) {
		t.Errorf("two groups at once: %s, %s", d.Outcome, d.Reason)
	}
}
