package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
)

// fleetFresh is for how long the page does not call its nodes old.
const fleetFresh = time.Minute

// What the page of the fleet shows at most, so that it stays small.
const (
	maxColumns   = 20     // groups of nodes
	maxMatrix    = 90_000 // bytes of the matrix
	maxNodes     = 60
	maxDevices   = 3  // models of a node
	maxVersions  = 60 // of the runners of rules
	maxWarm      = 60
	maxLeftOut   = 10  // rules that are named as not shown
	maxName      = 48  // characters
	maxWhyLength = 120 // characters
)

type fleetView struct {
	router.Fleet
	None  bool // the server knows no Nomad
	Query string

	Ready, Running int // nodes in service; allocations on all
	CPU, Memory    usedView

	Rows       []groupView // all groups, or the largest
	MoreGroups int
	Matrix     []ruleView
	MoreRules  int
	LeftOut    []string // rules for which no job was found
	Found      []nodeView
	MoreNodes  int

	Kept     []api.WarmCount     // warm runners of each rule
	Warm     []router.WarmRunner // that no job has taken, those of one rule together
	MoreWarm int

	Versions     []runnerVersionView // of the runners
	MoreVersions int
}

// A runnerVersionView is a version that runners of a rule have.
type runnerVersionView struct {
	router.RuleVersion
	Ends string // how long GitHub supports it
	Bad  bool   // it no longer does, or soon will not
}

// versionsOf makes what is shown of the runners' versions.
func versionsOf(list []router.RuleVersion, now time.Time) (views []runnerVersionView) {
	for _, one := range list {
		v := runnerVersionView{RuleVersion: one, Ends: "GitHub does not say"}
		days, dated := one.DaysLeft(now)
		end := one.End.First().UTC().Format(time.DateOnly)
		switch {
		case !dated && one.Asked.IsZero():
			v.Ends = "not asked yet"
		case !dated && !one.Silent:
			v.Ends = "no date yet"
		case !dated:
		case days < 0:
			v.Ends, v.Bad = "ended on "+end, true
		default:
			v.Ends, v.Bad = fmt.Sprintf("until %s, %s", end, router.Count(int(days), "day")), days < router.EndsSoon.Hours()/24
		}
		views = append(views, v)
	}
	return views
}

// A usedView is how much of something is used.
type usedView struct {
	Percent int
	Of      string // the total; "": there is none
}

type groupView struct {
	router.NodeGroup
	CPU, Memory usedView
}

type ruleView struct {
	router.RuleFleet
	Shown []cellView // of the groups that are shown
}

type cellView struct {
	ID    string // so that it keeps the focus when the page is refreshed
	Class string // now, idle, away or never: the best that there is
	Text  string // what stands in the cell
	Words string // the same with the rule and the group
	Why   []string
}

type nodeView struct {
	router.Node
	CPU, Memory usedView
	Models      []router.NodeDevice // the first few
}

func (s *console) fleetPage(req *http.Request) (any, error) {
	p := api.Parameters{Values: req.URL.Query()}
	v := fleetView{Query: p.Text("q")}
	if err := p.End(); err != nil {
		return nil, err
	}
	if s.config.Cluster == nil {
		v.None = true
		return v, nil
	}
	var err error
	if v.Fleet, err = s.api.Fleet(req.Context()); err != nil {
		return nil, err
	}
	if v.Kept, v.Warm, err = s.api.Warm(req.Context()); err != nil {
		return nil, err
	}
	slices.SortStableFunc(v.Warm, func(a, b router.WarmRunner) int { return strings.Compare(a.Rule, b.Rule) })
	v.Kept = v.Kept[:min(len(v.Kept), maxWarm)]
	v.MoreWarm = max(0, len(v.Warm)-maxWarm)
	v.Warm = v.Warm[:len(v.Warm)-v.MoreWarm]
	versions, err := s.api.Database.RunnerVersions(req.Context())
	if err != nil {
		return nil, err
	}
	v.MoreVersions = max(0, len(versions)-maxVersions)
	v.Versions = versionsOf(versions[:len(versions)-v.MoreVersions], s.config.Now())
	_, list, _ := s.api.RulesInfo()
	if v.Reading != nil && len(v.Rules) == 0 {
		list = nil // they are still to be compared with the nodes
	} else if v.At != nil && s.config.Now().Sub(*v.At) < fleetFresh {
		v.Reading = nil // not worth a word
	}
	for _, r := range list {
		told := slices.ContainsFunc(v.Rules, func(f router.RuleFleet) bool { return f.Rule == r.Name })
		if r.Deny == "" && !told && len(v.LeftOut) < maxLeftOut {
			v.LeftOut = append(v.LeftOut, r.Name)
		}
	}
	v.fill(strings.Fields(strings.ToLower(v.Query)))
	return v, nil
}

// fill makes what is shown of the fleet. terms, in lower case, are what rules
// and nodes are searched for.
func (v *fleetView) fill(terms []string) {
	var total, used router.NodeSize
	columns := make([]int, len(v.Groups))
	for i, g := range v.Groups {
		columns[i] = i
		v.Ready += g.Ready
		total.CPU, used.CPU = total.CPU+g.Total.CPU, used.CPU+g.Used.CPU
		total.MemoryMB, used.MemoryMB = total.MemoryMB+g.Total.MemoryMB, used.MemoryMB+g.Used.MemoryMB
	}
	v.CPU, v.Memory = cpuUsed(used, total), memoryUsed(used, total)
	if len(columns) > maxColumns {
		v.MoreGroups = len(columns) - maxColumns
		slices.SortStableFunc(columns, func(a, b int) int { return v.Groups[b].Nodes - v.Groups[a].Nodes })
		columns = columns[:maxColumns]
		slices.Sort(columns)
	}
	for _, i := range columns {
		g := v.Groups[i] // a copy
		g.OS, g.Arch, g.Class, g.Pool = router.Shorten(g.OS, maxName), router.Shorten(g.Arch, maxName), router.Shorten(g.Class, maxName), router.Shorten(g.Pool, maxName)
		v.Rows = append(v.Rows, groupView{g, cpuUsed(g.Used, g.Total), memoryUsed(g.Used, g.Total)})
	}
	left := maxMatrix
	for _, r := range v.Rules {
		if !found(terms, append([]string{r.Rule}, r.RunsOn...)...) {
			continue
		}
		if left <= 0 {
			v.MoreRules++
			continue
		}
		row := ruleView{RuleFleet: r}
		for n, i := range columns {
			if i < len(r.Cells) {
				c := cellOf(r.Cells[i])
				c.ID = fmt.Sprintf("fit-%d-%d", len(v.Matrix), n)
				c.Words = r.Rule + " on " + v.Rows[n].name() + ": " + c.Words
				row.Shown = append(row.Shown, c)
				left -= c.size()
			}
		}
		left -= len(strings.Join(r.RunsOn, "")) + 300
		v.Matrix = append(v.Matrix, row)
	}
	for _, n := range v.Nodes {
		v.Running += n.Running
		devices := make([]string, len(n.Devices))
		for i, d := range n.Devices {
			devices[i] = d.Name
		}
		if !found(terms, n.Name, n.Region, n.Pool, n.Datacenter, n.Class, n.OS+"/"+n.Arch, n.State, strings.Join(n.Drivers, "\n"), strings.Join(devices, "\n")) {
			continue
		}
		if len(v.Found) == maxNodes {
			v.MoreNodes++
			continue
		}
		n.Name, n.OS, n.Arch, n.Class, n.Pool = router.Shorten(n.Name, 2*maxName), router.Shorten(n.OS, maxName), router.Shorten(n.Arch, maxName), router.Shorten(n.Class, maxName), router.Shorten(n.Pool, maxName)
		v.Found = append(v.Found, nodeView{n, cpuUsed(n.Used, n.Total), memoryUsed(n.Used, n.Total), n.Devices[:min(len(n.Devices), maxDevices)]})
	}
	v.MoreNodes += v.More
}

// Total counts all nodes.
func (v fleetView) Total() (n int) {
	for _, g := range v.Groups {
		n += g.Nodes
	}
	return n
}

// Nobody reports whether no node could ever serve the rule.
func (r ruleView) Nobody() bool { return r.Problem == "" && r.Now+r.Idle+r.Away == 0 }

// name returns the group's name for people.
func (g groupView) name() string {
	name := g.OS + "/" + g.Arch
	if g.Class != "" {
		name += " " + g.Class
	}
	if g.Region != "" {
		name += " in region " + g.Region
	}
	if g.Pool != "default" {
		name += " in pool " + g.Pool
	}
	return name
}

func cellOf(c router.FleetCell) cellView {
	var v cellView
	var said, words []string
	for _, part := range []struct {
		n                  int
		class, text, words string
	}{
		{c.Now, "now", "now", plural(c.Now, "fits", "fit") + " now"},
		{c.Idle, "idle", "when idle", plural(c.Idle, "fits", "fit") + " when idle"},
		{c.Away, "away", "if in service", "would fit in service"},
		{c.Never, "never", "never", "never " + plural(c.Never, "fits", "fit")},
	} {
		if part.n == 0 {
			continue
		}
		v.Class = cmp.Or(v.Class, part.class)
		said = append(said, fmt.Sprintf("%d %s", part.n, part.text))
		words = append(words, fmt.Sprintf("%d %s", part.n, part.words))
	}
	v.Class = cmp.Or(v.Class, "never")
	v.Text, v.Words = strings.Join(said, ", "), strings.Join(words, ", ")
	for _, w := range c.Why {
		v.Why = append(v.Why, fmt.Sprintf("%d: %s", w.Nodes, router.Shorten(w.Text, maxWhyLength)))
	}
	return v
}

// size estimates how many bytes of a page the cell takes.
func (c cellView) size() int { return len(c.Text) + len(c.Words) + len(strings.Join(c.Why, "")) + 130 }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func cpuUsed(used, total router.NodeSize) usedView {
	v := usedOf(used.CPU, total.CPU)
	if total.CPU > 0 {
		v.Of = fmt.Sprintf("%.4g GHz", float64(total.CPU)/1000)
	}
	return v
}

func memoryUsed(used, total router.NodeSize) usedView {
	v := usedOf(used.MemoryMB, total.MemoryMB)
	switch gib := float64(total.MemoryMB) / 1024; {
	case gib >= 1024:
		v.Of = fmt.Sprintf("%.4g TiB", gib/1024)
	case gib > 0:
		v.Of = fmt.Sprintf("%.4g GiB", gib)
	}
	return v
}

func usedOf(used, total int) usedView {
	if total <= 0 {
		return usedView{}
	}
	return usedView{Percent: min(100, max(0, int((int64(used)*100+int64(total)/2)/int64(total))))}
}
