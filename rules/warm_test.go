package rules

import (
	"strings"
	"testing"
	"time"
)

func TestASchedule(t *testing.T) {
	at := func(text string) time.Time {
		moment, err := time.Parse("2006-01-02 15:04 MST", text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	for _, tt := range []struct{ when, in, out string }{ // times in UTC, each list separated by commas; 2026-11-30 is a Monday
		{"Mon-Fri 07:00-19:00 Asia/Tokyo", "2026-11-29 22:00,2026-11-30 09:59,2026-12-04 09:59", "2026-11-29 21:59,2026-11-30 10:00,2026-12-04 22:00"},
		{"mon-fri", "2026-11-30 00:00,2026-12-04 23:59", "2026-11-29 23:59,2026-12-05 00:00"},
		{"Fri-Mon 22:00-06:00 UTC", "2026-11-30 22:00,2026-12-01 05:59,2026-12-04 22:00", "2026-11-30 21:59,2026-12-01 06:00,2026-12-04 05:00"},
		{"07:00-24:00", "2026-11-30 07:00,2026-11-30 23:59", "2026-11-30 06:59,2026-12-01 00:00"},
		{"Sat,Sun Europe/Berlin", "2026-11-27 23:00,2026-11-29 22:59", "2026-11-27 22:59,2026-11-29 23:00"},
		{"02:00-03:00 Europe/Berlin", "2026-03-28 01:30,2026-10-25 00:30,2026-10-25 01:30", "2026-03-29 01:00,2026-03-29 00:59"}, // there is no such hour on one day, and two on another
	} {
		s, err := asSchedule(tt.when)
		if err != nil {
			t.Errorf("asSchedule(%q): %v", tt.when, err)
			continue
		}
		for _, text := range strings.Split(tt.in, ",") {
			if !s.holds(at(text + " UTC")) {
				t.Errorf("%q does not hold at %s", tt.when, text)
			}
		}
		for _, text := range strings.Split(tt.out, ",") {
			if s.holds(at(text + " UTC")) {
				t.Errorf("%q holds at %s", tt.when, text)
			}
		}
	}
	if (&schedule{}).holds(time.Now()) == false {
		t.Error("no schedule is not always")
	}
}

const warmRules = `version: 1
labels: { self-hosted: {}, linux: {}, "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ param.cpu }}' } } }
rules:
  - name: other
    if: has("cpu=8")
    jobspec: docker-linux
  - name: linux
    if: has("linux") and repo.owner == "acme"
    jobspec: docker-linux
    warm:
      - { idle: 2, max: 5, when: Mon-Fri }
      - { idle: 1, labels: [self-hosted, linux, cpu=4] }
      - { idle: 1, labels: [self-hosted, linux, cpu=8] }
`

func TestWarmPlan(t *testing.T) {
	set, err := Parse("rules.yaml", []byte(warmRules))
	if err != nil {
		t.Fatal(err)
	}
	monday := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	list := set.WarmPlan().At(monday)
	if len(list) != 3 || list[0].Idle != 2 || list[0].Max != 5 || list[0].Why != "" || list[1].Placement.Resources.Cores != 4 || list[1].Max != 0 {
		t.Errorf("on Monday: %+v", list)
	}
	if !strings.Contains(list[2].Why, `rule linux does not take a job with the labels "self-hosted", "linux" and "cpu=8"`) && !strings.Contains(list[2].Why, "rule linux does not take") {
		t.Errorf("of a job of another rule: %q", list[2].Why)
	}
	if list = set.WarmPlan().At(monday.AddDate(0, 0, -1)); list[0].Idle != 0 || list[1].Idle != 1 {
		t.Errorf("on Sunday: %+v", list)
	}
	if !set.HasWarm("linux") || set.HasWarm("other") || set.HasWarm("none") {
		t.Error("HasWarm is wrong")
	}
}

// What is said of a job and the warm runners of its rule.
func TestAJobIsToldWhetherItMayTakeAWarmRunner(t *testing.T) {
	const head = `version: 1
labels: { self-hosted: {}, linux: {}, x64: { constraints: ['${attr.cpu.arch} = amd64'] }, large: { resources: { memory: 16GiB } }, sure: { runner: { verify: true } }, debug: { debug: { keep: 1h } } }
rules:
  - name: plain
    if: has("x64", "large")
    jobspec: docker-linux
  - name: linux
    jobspec: docker-linux
    resources: { memory: 4GiB }
    warm: `
	monday := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		warm, labels, want string
	}{
		{"{ idle: 2 }", "self-hosted,linux", "rule linux keeps 2 warm at this time, and this job may take one that is there"},
		{"[{ idle: 2 }, { idle: 3, when: Mon }]", "self-hosted,linux", "rule linux keeps 3 warm at this time, and this job may take one that is there"},
		{"{ idle: 2, when: Sat }", "self-hosted,linux", "rule linux keeps warm runners that this job could take, but none at this time"},
		{"{ idle: 2 }", "self-hosted,linux,large", "rule linux keeps warm runners, and this job takes none, as it differs from them: memory 16384 MiB"},
		{"{ idle: 2, labels: [self-hosted, x64] }", "self-hosted,linux", "rule linux keeps warm runners, and this job takes none, as it differs from them: without constraint ${attr.cpu.arch} = amd64"},
		{"[{ idle: 2 }, { idle: 1, labels: [self-hosted, linux, x64] }]", "self-hosted,linux,x64", "rule linux keeps 1 warm at this time, and this job may take one that is there"},
		{"{ idle: 2 }", "self-hosted,linux,sure", "rule linux keeps warm runners, and this job takes none: its runner has verify, and asks about one job from its start"},
		{"{ idle: 2 }", "self-hosted,linux,debug", "rule linux keeps warm runners, and this job takes none: its runner has debug.keep, and so stays for one job"},
		{"{ idle: 2, labels: [self-hosted, x64, large] }", "self-hosted,linux", "rule linux is to keep warm runners, and there are none: rule linux does not take a job with the labels"},
		{"{ idle: 2, labels: [self-hosted, sure] }", "self-hosted,linux", "rule linux is to keep warm runners, and there are none: its runner has verify"},
		{"{ idle: 2 }", "self-hosted,x64,large", ""},
		{"{ idle: 2 }", "self-hosted,mars", ""},
	} {
		set, err := Parse("rules.yaml", []byte(head+tt.warm))
		if err != nil {
			t.Fatal(err)
		}
		d := set.Decide(Facts{Labels: strings.Split(tt.labels, ","), Repo: Repo{Owner: "acme", Name: "web", Private: true}}, false)
		if got := set.WarmPlan().Says(&d, monday); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("warm: %s, labels %s: %q, want %q", tt.warm, tt.labels, got, tt.want)
		}
	}
}
