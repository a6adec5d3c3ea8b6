package web_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
)

// nodes are a cluster with a fleet of its own.
type nodes struct {
	cluster
	fleet router.Fleet
}

func (n *nodes) Fleet(context.Context, []router.Example) router.Fleet { return n.fleet }

func TestTheFleetHasItsPage(t *testing.T) {
	at := t0
	size := router.NodeSize{CPU: 40_000, MemoryMB: 65_536}
	n := &nodes{fleet: router.Fleet{
		At: &at,
		Nodes: []router.Node{
			{Name: "one", Pool: "default", OS: "linux", Arch: "amd64", State: "ready", Total: size, Used: router.NodeSize{CPU: 10_000, MemoryMB: 65_536}, Running: 3,
				Devices: []router.NodeDevice{{Name: "nvidia/gpu/L4", Total: 2, Used: 1}}},
			{Name: "two<b>", Pool: "ci", Class: "spot\x1b[31m", OS: "darwin", Arch: "arm64", State: "draining", Total: size, Group: 1},
		},
		Groups: []router.NodeGroup{
			{OS: "linux", Arch: "amd64", Pool: "default", Nodes: 1, Ready: 1, Total: size, Used: router.NodeSize{CPU: 10_000, MemoryMB: 65_536}},
			{OS: "darwin", Arch: "arm64", Class: "spot\x1b[31m", Pool: "ci", Nodes: 1},
		},
		Rules: []router.RuleFleet{
			{Rule: "linux", RunsOn: []string{"self-hosted", "linux"}, NodeCounts: router.NodeCounts{Idle: 1, Never: 1}, Cells: []router.FleetCell{
				{NodeCounts: router.NodeCounts{Idle: 1}, Why: []router.FleetReason{{Text: "has 0 MiB of memory left <u>", Nodes: 1}}},
				{NodeCounts: router.NodeCounts{Never: 1}, Why: []router.FleetReason{{Text: "has not ${attr.kernel.name} = linux (rule linux)", Nodes: 1}}},
			}},
			{Rule: "mars", RunsOn: []string{"mars"}, NodeCounts: router.NodeCounts{Never: 2}, Cells: []router.FleetCell{{NodeCounts: router.NodeCounts{Never: 1}}, {NodeCounts: router.NodeCounts{Never: 1}}}},
			{Rule: "odd", RunsOn: []string{"odd"}, Problem: "there is no jobspec"},
		},
	}}
	s := serve(t, func(c *web.Config) { c.Cluster = n; c.App = ruled{&app{}, parse(t, catalogue)} })
	page := s.get("/fleet", http.StatusOK)
	wants(t, page,
		"<dd>1 <small>of 2 nodes", "25 % of 40 GHz", "100 % of 64 GiB", `class="bar full"`, "nvidia/gpu/L4, 1 of 2 used", "is-held\">draining", "two&lt;b&gt;", `spot\x1b[31m`,
		`href="/playground?labels=self-hosted%2c%20linux"`, "1 when idle", "linux on linux/amd64: 1 fits when idle", "1: has 0 MiB of memory left &lt;u&gt;", "linux on darwin/arm64 spot",
		`no node</strong>`, "unknown: there is no jobspec", "beta is not shown",
	)
	if strings.Contains(page, "<u>") || strings.Contains(page, "two<b>") || strings.Contains(page, "\x1b") {
		t.Errorf("a stranger's text is no text: %s", page)
	}
	if page := s.get("/fleet?q=L4", http.StatusOK); !strings.Contains(page, ">one<") || strings.Contains(page, "two&lt;") || !strings.Contains(page, "No rule matches “L4”") {
		t.Errorf("a search for a device: %s", page)
	}
	if page := s.get("/fleet?q=MARS", http.StatusOK); !strings.Contains(page, `no node</strong>`) || strings.Contains(page, "1 fits when idle") || !strings.Contains(page, "No node matches") {
		t.Errorf("a search for a rule: %s", page)
	}
	s.get("/fleet?x=1", http.StatusBadRequest)

	n.fleet.Problem = &router.FleetProblem{Since: t0, Reason: "connection refused <i>"}
	if page := s.get("/fleet", http.StatusOK); !strings.Contains(page, "connection refused &lt;i&gt;") || !strings.Contains(page, "The data below is older.") || !strings.Contains(page, ">one<") {
		t.Errorf("with Nomad away: %s", page)
	}
	n.fleet = router.Fleet{Problem: n.fleet.Problem}
	if page := s.get("/fleet", http.StatusOK); !strings.Contains(page, "connection refused") || strings.Contains(page, "older") {
		t.Errorf("with Nomad away from the beginning: %s", page)
	}
	n.fleet = router.Fleet{At: &at}
	if page := s.get("/fleet", http.StatusOK); !strings.Contains(page, "Nomad has no nodes") {
		t.Errorf("without nodes: %s", page)
	}
	none := serve(t)
	if page := none.get("/fleet", http.StatusOK); !strings.Contains(page, "has no Nomad cluster") {
		t.Errorf("without Nomad: %s", page)
	}
}

// Thousands of nodes in many groups, with long names, and many rules stay on a small page.
func TestALargeFleetStaysOnASmallPage(t *testing.T) {
	at, long := t0, strings.Repeat("n", 10_000)
	f := router.Fleet{At: &at, More: 7}
	for i := range 80 {
		f.Groups = append(f.Groups, router.NodeGroup{OS: "linux", Arch: "amd64", Class: fmt.Sprint(i, long), Pool: long, Nodes: 50, Ready: 50})
	}
	for i := range 4000 {
		f.Nodes = append(f.Nodes, router.Node{Name: fmt.Sprint(i, long), Class: long, Pool: long, State: "ready", OS: "linux", Arch: "amd64", Group: i % 80})
	}
	for i := range 500 {
		r := router.RuleFleet{Rule: fmt.Sprint("rule-", i), RunsOn: []string{"linux", long[:250]}, NodeCounts: router.NodeCounts{Never: 4000}}
		for range f.Groups {
			why := router.FleetReason{Text: long, Nodes: 10}
			r.Cells = append(r.Cells, router.FleetCell{NodeCounts: router.NodeCounts{Never: 50}, Why: []router.FleetReason{why, why, why}})
		}
		f.Rules = append(f.Rules, r)
	}
	s := serve(t, func(c *web.Config) { c.Cluster = &nodes{fleet: f} })
	page := s.get("/fleet", http.StatusOK)
	if len(page) > 200_000 || !strings.Contains(page, "3947 more nodes") || !strings.Contains(page, "more rules: search") || !strings.Contains(page, "and 60 smaller groups") {
		t.Errorf("the page has %d bytes, want fewer than 200,000, and what is left out", len(page))
	}
}

// While nodes are read, the page says how far that is, and is loaded again with and without
// scripts; of an answer that is nearly new it says nothing.
func TestTheFleetPageSaysHowFarItIs(t *testing.T) {
	n := &nodes{fleet: router.Fleet{Reading: &router.FleetReading{Read: 2300, Nodes: 6100}}}
	s := serve(t, func(c *web.Config) { c.Cluster = n; c.App = ruled{&app{}, parse(t, catalogue)} })
	const reloads = `<noscript><meta http-equiv="refresh" content="2"></noscript>`
	wants(t, s.get("/fleet", http.StatusOK), reloads, `data-soon>Nomad's nodes are being read: 2300 of 6100 so far.</p>`)
	n.fleet.Reading.Nodes = 0
	wants(t, s.get("/fleet", http.StatusOK), reloads, `data-soon>Nomad's nodes are being read.</p>`)
	at := time.Now().Add(-2 * time.Minute)
	n.fleet.At = &at
	wants(t, s.get("/fleet", http.StatusOK), reloads, `are being read. The data below is older.</p>`)
	at = time.Now().Add(-time.Second)
	page := s.get("/fleet", http.StatusOK) // the rules have just changed
	wants(t, page, reloads, `are being read.`)
	if strings.Contains(page, "no simple label set") {
		t.Errorf("rules that are still to be compared are called unreachable: %s", page)
	}
	n.fleet.Rules = []router.RuleFleet{{Rule: "linux"}}
	if page := s.get("/fleet", http.StatusOK); strings.Contains(page, "being read") || strings.Contains(page, reloads) {
		t.Errorf("an answer of a second ago is called old: %s", page)
	}
}

// A versioned is a database that knows the versions of the runners.
type versioned struct {
	api.Database
	list []router.RuleVersion
}

func (v versioned) RunnerVersions(context.Context) ([]router.RuleVersion, error) { return v.list, nil }

func TestTheFleetShowsTheVersionsOfTheRunners(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	end := func(in time.Duration) router.VersionEnd { return router.VersionEnd{Jobs: now.Add(in + time.Hour)} }
	list := []router.RuleVersion{
		{Rule: "linux", Version: "2.336.0", Seen: now, Asked: now},
		{Rule: "gpu", Version: "2.335.1", Seen: now, Asked: now, End: end(40 * day)},
		{Rule: "mac", Version: "2.334.0", Seen: now, Asked: now, End: end(3 * day)},
		{Rule: "win", Version: "2.320.0", Seen: now, Asked: now, End: end(-day)},
		{Rule: "ghes", Version: "2.319.0", Seen: now, Asked: now, Silent: true},
		{Rule: "new", Version: "2.336.0", Seen: now},
	}
	s := serve(t, func(c *web.Config) {
		c.Cluster, c.App, c.Database = &nodes{fleet: router.Fleet{At: &now}}, ruled{&app{}, parse(t, catalogue)}, versioned{c.Database, list}
	})
	wants(t, s.get("/fleet", http.StatusOK),
		"Versions of the runners", ">linux</td>", "2.336.0", ">no date yet<", "until "+now.Add(40*day+time.Hour).UTC().Format(time.DateOnly)+", 40 days<",
		`<strong class="is-failure">until `+now.Add(3*day+time.Hour).UTC().Format(time.DateOnly)+", 3 days</strong>",
		`<strong class="is-failure">ended on `, ">GitHub does not say<", ">not asked yet<",
	)
	if page := serve(t, func(c *web.Config) { c.Cluster = &nodes{fleet: router.Fleet{At: &now}} }).get("/fleet", http.StatusOK); strings.Contains(page, "Versions of the runners") {
		t.Error("no versions are known, and the fleet has a table of them")
	}
}
