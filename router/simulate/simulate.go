// Package simulate owns what would have been: it replays recorded jobs through rules and a
// simulated fleet, and tells how long they would have waited. README.md says what its policy
// is, and what it leaves out. It makes no requests.
package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/rules"
)

const (
	// MaxJobs bounds the jobs of one simulation.
	MaxJobs = 2_000_000

	// MaxScale bounds Config.Scale.
	MaxScale = 100
)

// A Config says what is simulated.
type Config struct {
	Rules *rules.Set  // required
	Nodes []*api.Node // of the fleet, as Nomad shows them; what others take of one counts as reserved by it

	// Render returns the Nomad job of a runner; required. An error says why its sizes are not
	// known: the jobs that ask for it are left out.
	Render func(context.Context, router.StartRequest) (*api.Job, error)

	Scale float64 // how many times as many jobs there are; 0: 1

	// Advise: other fleets are simulated, too, to find nodes that would help, or could go. So
	// many at once; 0: none.
	Advise int

	// Progress, if not nil, is called now and then, from one goroutine.
	Progress func(Progress)
}

// Progress is how far a simulation is.
type Progress struct {
	Doing string // what is being done
	Done  int    // jobs
	Of    int    // 0: not known
}

// A Report says what would have been. Its JSON form is a contract, and so is that of its
// parts. Times are in seconds.
type Report struct {
	From    time.Time `json:"from"`  // when the first job came
	Until   time.Time `json:"until"` // when the last one would have ended
	Scale   float64   `json:"scale"`
	Nodes   int       `json:"nodes"`
	Jobs    int       `json:"jobs"`     // that were simulated
	LeftOut []LeftOut `json:"left_out"` // of the history, by why
	Total   Row       `json:"total"`
	Rules   []Row     `json:"rules"`  // in the order of the file
	Groups  []Group   `json:"groups"` // of nodes
	Advice  []Advice  `json:"advice"` // empty: there is none, or it was not asked for
}

// LeftOut counts jobs that were not simulated.
type LeftOut struct {
	Why  string `json:"why"`
	Jobs int    `json:"jobs"`
}

// A Row is the jobs of a rule.
type Row struct {
	Rule     string `json:"rule"` // "": of all rules
	Jobs     int    `json:"jobs"` // with a node
	Recorded Waits  `json:"recorded"`
	Queue    Waits  `json:"queue"` // until a runner takes them: the sum of the three below
	Limit    Waits  `json:"limit"` // for a place under a limit
	Node     Waits  `json:"node"`  // for a node
	Start    Waits  `json:"start"` // of the runner on its node, as recorded

	FellBack int      `json:"fell_back"` // of the jobs, to a fallback
	Never    int      `json:"never"`     // more jobs that no node of the fleet could serve
	Why      []string `json:"why"`       // what those nodes lack, most nodes first
}

// Waits is how long jobs waited, in seconds. Of so many percent none waited longer.
type Waits struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// A Group is nodes of one platform, class and pool.
type Group struct {
	OS    string `json:"os"`
	Arch  string `json:"arch"`
	Class string `json:"class"`
	Pool  string `json:"pool"`

	Nodes  int `json:"nodes"`
	Used   int `json:"used"`    // of them, that had a job at any time
	AtOnce int `json:"at_once"` // that had one at the same time, at most
	Jobs   int `json:"jobs"`    // that ran there

	// Of what the nodes have for runners, over the whole time, from 0 to 1.
	CPU     float64 `json:"cpu"`
	Memory  float64 `json:"memory"`
	Devices float64 `json:"devices"` // 0 without devices
}

// ErrNoJobs is the error of a history without a job that could be simulated.
var ErrNoJobs = errors.New("the history has no job that could be simulated")

// Run simulates recorded jobs. It keeps all of them in memory. The same Config and jobs give
// the same Report.
func Run(ctx context.Context, c Config, jobs iter.Seq2[router.PastJob, error]) (Report, error) {
	if c.Scale == 0 {
		c.Scale = 1
	}
	if !(0 < c.Scale && c.Scale <= MaxScale) { // NaN, too
		return Report{}, fmt.Errorf("scale %g: want more than 0, and at most %d", c.Scale, MaxScale)
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	p, err := newPlan(ctx, c, jobs)
	if err != nil {
		return Report{}, err
	}
	if len(p.jobs) == 0 {
		return Report{}, fmt.Errorf("%w: %s", ErrNoJobs, p.leftOutText())
	}
	f := newFleet(c.Nodes, p.demands)
	o, err := simulate(ctx, p, f, f.counts(), func(done int) {
		c.Progress(Progress{Doing: "simulating", Done: done, Of: len(p.jobs)})
	})
	if err != nil {
		return Report{}, err
	}
	byRule := make([][]int, len(p.rules))
	for i := range p.jobs {
		byRule[p.jobs[i].rule] = append(byRule[p.jobs[i].rule], i)
	}
	r := p.report(c, f, o, byRule)
	if c.Advise > 0 {
		r.Advice, err = p.advise(ctx, c, f, o, byRule)
	}
	return r, err
}

// report makes the report of an outcome.
func (p *plan) report(c Config, f *fleet, o *outcome, byRule [][]int) Report {
	at := func(ms int64) time.Time { return p.first.Add(time.Duration(ms) * time.Millisecond).UTC() }
	r := Report{From: at(0), Until: at(o.end), Scale: c.Scale, Nodes: len(c.Nodes), LeftOut: p.leftOut(), Rules: []Row{}, Groups: f.report(o), Advice: []Advice{}}
	var served []int
	for i := range p.jobs {
		if o.placed[i] >= 0 {
			served = append(served, i)
		}
	}
	r.Total = p.row("", served, o)
	for i, rule := range p.rules {
		row := p.row(rule, byRule[i], o)
		if row.Never > 0 {
			row.Why = p.lacks(c.Nodes, byRule[i], o)
		}
		r.Total.Never += row.Never
		r.Rules = append(r.Rules, row)
	}
	r.Jobs = r.Total.Jobs
	order := map[string]int{}
	for i, rule := range c.Rules.Rules() {
		order[rule] = i
	}
	slices.SortStableFunc(r.Rules, func(a, b Row) int { return cmp.Compare(order[a.Rule], order[b.Rule]) })
	return r
}

// row makes the row of some jobs.
func (p *plan) row(rule string, jobs []int, o *outcome) Row {
	w := Row{Rule: rule, Why: []string{}}
	var recorded, queue, limit, node, start []int64
	for _, i := range jobs {
		j := &p.jobs[i]
		if o.placed[i] < 0 {
			w.Never++
			continue
		}
		w.Jobs++
		if o.fell[i] > 0 {
			w.FellBack++
		}
		recorded = append(recorded, j.recorded)
		queue = append(queue, o.placed[i]+j.start-j.at)
		limit = append(limit, o.admitted[i]-j.at)
		node = append(node, o.placed[i]-o.admitted[i])
		start = append(start, j.start)
	}
	w.Recorded, w.Queue, w.Limit, w.Node, w.Start = waits(recorded), waits(queue), waits(limit), waits(node), waits(start)
	return w
}

// waits summarizes milliseconds, which it sorts.
func waits(ms []int64) (w Waits) {
	if len(ms) == 0 {
		return w
	}
	slices.Sort(ms)
	sum := int64(0)
	for _, t := range ms {
		sum += t
	}
	of := func(percent int) float64 { return float64(ms[(len(ms)-1)*percent/100]) / 1000 } // as on the page Now
	return Waits{Mean: float64(sum/int64(len(ms))) / 1000, P50: of(50), P95: of(95), P99: of(99), Max: of(100)}
}
