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
