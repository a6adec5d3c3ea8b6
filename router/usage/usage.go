// Package usage owns what jobs used in a period, and what that cost: for each of a kind, such as
// the repositories, and over time. It counts what the database has of jobs that ended.
package usage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const (
	// MaxPeriod bounds a period.
	MaxPeriod = 731 * 24 * time.Hour

	maxRows    = 10_000 // what comes later is counted together, as strangers name workflows and labels
	maxSlowest = 5      // rows with the slowest queues
	leastSlow  = 5      // jobs of one of them that a runner took, at least
)

// A Database has what was used.
type Database interface {
	// Usage calls each for all that a filter selects: jobs in the order in which they ended, then
	// runners. What each is given is valid until it returns. It ends with an error of each.
	Usage(ctx context.Context, f router.UsageFilter, each func(*router.Used) error) error

	// FirstEnded returns when the first job ended that the database has; zero: it has none.
	FirstEnded(ctx context.Context) (time.Time, error)
}

// A Report is what jobs used that ended in a period. Its JSON form is a contract, and so is
// that of its parts.
type Report struct {
	By       router.UsageBy `json:"by"`
	From     time.Time      `json:"from"`
	Until    time.Time      `json:"until"`
	Begins   *time.Time     `json:"begins"`   // when the first job ended that the database has; nil: it has none
	Currency string         `json:"currency"` // "": there are no prices, and no costs

	Total   Row      `json:"total"`
	Rows    []Row    `json:"rows"`    // the most expensive first, then those that reserved most
	Others  *Row     `json:"others"`  // all that are too many for Rows; nil: none
	Slowest []string `json:"slowest"` // names of the rows whose jobs waited longest, by queue_p95_seconds
	Times   []Time   `json:"times"`   // the parts of the period, oldest first
}

// A Row is what is counted under one name. A job counts when it has ended.
type Row struct {
	Name          string `json:"name"` // "": it has none, such as the node class of a job that names none
	Jobs          int    `json:"jobs"`
	NotRun        int    `json:"not_run"`        // of them those that ended without a runner that we heard of
	Unsized       int    `json:"unsized"`        // of them and the unused runners those whose CPU or memory is the jobspec's own, and so is not counted
	QueuedMinutes Amount `json:"queued_minutes"` // until a runner took them, or they ended without one
	RunMinutes    Amount `json:"run_minutes"`

	Reserved        // while a runner of ours had the jobs
	Wasted   Wasted `json:"wasted"`

	QueueP50 float64 `json:"queue_p50_seconds"` // of jobs that a runner took; up to 3 % more than exactly
	QueueP95 float64 `json:"queue_p95_seconds"`

	Before *Before `json:"before"` // in the period of the same length before this one; nil: the database does not go back so far
}

// Reserved is what runners reserved on their nodes.
type Reserved struct {
	CPUHours    Amount `json:"cpu_hours"` // of a reserved core, or of 1000 MHz
	GiBHours    Amount `json:"gib_hours"`
	DeviceHours Amount `json:"device_hours"`
	Cost        Amount `json:"cost"`
}

// Wasted is what runners reserved that had a node, and never a job.
type Wasted struct {
	Runners int `json:"runners"`
	Reserved
}

// Before is a row in the period before.
type Before struct {
	Jobs          int    `json:"jobs"`
	QueuedMinutes Amount `json:"queued_minutes"`
	RunMinutes    Amount `json:"run_minutes"`
	Cost          Amount `json:"cost"` // with that of what was wasted
}

// A Time is a part of the period. What a job used counts when it ended.
type Time struct {
	From          time.Time `json:"from"`
	Jobs          int       `json:"jobs"`
	QueuedMinutes Amount    `json:"queued_minutes"`
	RunMinutes    Amount    `json:"run_minutes"`
	CPUHours      Amount    `json:"cpu_hours"`
	GiBHours      Amount    `json:"gib_hours"`
	DeviceHours   Amount    `json:"device_hours"`
	Cost          Amount    `json:"cost"`
	WastedHours   Amount    `json:"wasted_cpu_hours"`
	WastedCost    Amount    `json:"wasted_cost"`
}

// Shown returns the name of a row for people.
func (r Report) Shown(w Row) string {
	switch {
	case w.Name != "":
		return w.Name
	case r.By == router.ByNodeClass:
		return "unknown"
	}
	return "none"
}

// Trend says how much more was spent than in the period before, or how much longer jobs ran
// if there are no prices: "+12%"; "": not known.
func (r Report) Trend(w Row) string {
	if w.Before == nil {
		return ""
	}
	now, before := w.RunMinutes, w.Before.RunMinutes
	if r.Currency != "" {
		now, before = w.Cost+w.Wasted.Cost, w.Before.Cost
	}
	switch {
	case now == before:
		return "same"
	case before == 0:
		return "new"
	}
	return fmt.Sprintf("%+.0f%%", 100*(float64(now)/float64(before)-1))
}

// Check returns an error for a filter that Count refuses.
func Check(f router.UsageFilter) error {
	switch {
	case !slices.Contains(router.UsageBys, f.By):
		return fmt.Errorf("by %q: want one of %s", f.By, join(router.UsageBys))
	case !f.From.Before(f.Until):
		return fmt.Errorf("the period begins at %s and ends at %s: want a beginning before the end", f.From.UTC().Format(time.RFC3339), f.Until.UTC().Format(time.RFC3339))
	case f.Until.Sub(f.From) > MaxPeriod:
		return fmt.Errorf("the period is longer than %d days", MaxPeriod/(24*time.Hour))
	}
	return nil
}

func join(all []router.UsageBy) string {
	texts := make([]string, len(all))
	for i, by := range all {
		texts[i] = string(by)
	}
	return strings.Join(texts, ", ")
}

// Count counts what a filter, which Check accepts, selects. What it keeps in memory does not
// grow with the number of jobs.
func Count(ctx context.Context, d Database, f router.UsageFilter, prices rules.Prices) (Report, error) {
	first, err := d.FirstEnded(ctx)
	if err != nil {
		return Report{}, err
	}
	c := newCounter(f, prices)
	if err := d.Usage(ctx, f, c.add); err != nil {
		return Report{}, err
	}
	r := c.report()
	if first.IsZero() {
		return r, nil
	}
	r.Begins = &first
	before := f
	before.From, before.Until = f.From.Add(f.From.Sub(f.Until)), f.From
	if first.After(before.From) {
		return r, nil
	}
	b := newCounter(before, prices)
	b.known = c.rows
	if err := d.Usage(ctx, before, b.add); err != nil {
		return Report{}, err
	}
	r.Total.Before = b.total.before()
	for i := range r.Rows {
		if r.Rows[i].Before = new(Before); b.rows[r.Rows[i].Name] != nil {
			r.Rows[i].Before = b.rows[r.Rows[i].Name].before()
		}
	}
	return r, nil
}

// A counter counts a period.
type counter struct {
	filter router.UsageFilter
	prices rules.Prices
	known  map[string]*row // the rows of the period after this one, of which alone something is told; nil: this is the one

	total  *row
	rows   map[string]*row
	others *row // nil: none
	step   time.Duration
	first  time.Time // when the first part begins
	times  []spent

	last    string // name of the row that was counted last
	lastRow *row
	asked   *router.Asked // of which price is
	price   rules.Price
}

// A row is what is counted under a name, and how long its jobs waited.
type row struct {
	spent
	queue queue
}

func newCounter(f router.UsageFilter, prices rules.Prices) *counter {
	c := &counter{filter: f, prices: prices, total: &row{}, rows: map[string]*row{}, step: 7 * 24 * time.Hour}
	switch length := f.Until.Sub(f.From); {
	case length <= 72*time.Hour:
		c.step = time.Hour
	case length <= 92*24*time.Hour:
		c.step = 24 * time.Hour
	}
	c.first = f.From.UTC().Truncate(c.step)
	c.times = make([]spent, (f.Until.Sub(c.first)+c.step-1)/c.step)
	return c
}

// add counts a job or a runner.
func (c *counter) add(u *router.Used) error {
	if a := u.Asked; u.Reserved && a != c.asked {
		c.asked, c.price = a, c.prices.At(a.NodeClass, a.NodePool)
	}
	c.total.add(u, c.price)
	if i := int(u.EndedAt.Sub(c.first) / c.step); i >= 0 && i < len(c.times) {
		c.times[i].add(u, c.price)
	}
	switch {
	case c.filter.By == router.ByLabel && u.Asked != nil && len(u.Asked.Labels) > 0:
		for _, label := range u.Asked.Labels {
			c.row(label).add(u, c.price)
		}
	case c.filter.By == router.ByNodeClass && u.Asked != nil:
		c.row(u.Asked.NodeClass).add(u, c.price)
	default:
		c.row(u.Group).add(u, c.price)
	}
	return nil
}

// row returns the row of a name.
func (c *counter) row(name string) *row {
	if c.lastRow != nil && name == c.last {
		return c.lastRow
	}
	r := c.rows[name]
	switch {
	case r != nil:
	case c.known != nil && c.known[name] == nil, len(c.rows) >= maxRows:
		if c.others == nil {
			c.others = &row{}
		}
		r = c.others
	default:
		r = &row{}
		c.rows[strings.Clone(name)] = r
	}
	c.last, c.lastRow = name, r
	return r
}

func (r *row) add(u *router.Used, p rules.Price) {
	r.spent.add(u, p)
	if u.Started && !u.Unused {
		r.queue.add(u.Queued)
	}
}

func (r *row) report(name string) Row {
	w := Row{
		Name: name, Jobs: r.jobs, NotRun: r.notRun, Unsized: r.unsized, QueuedMinutes: minutes(r.queued), RunMinutes: minutes(r.ran),
		Reserved: r.reserved.report(), Wasted: Wasted{r.runners, r.wasted.report()},
	}
	w.QueueP50, w.QueueP95 = r.queue.quantile(50).Seconds(), r.queue.quantile(95).Seconds()
	return w
}

func (r *row) before() *Before {
	return &Before{r.jobs, minutes(r.queued), minutes(r.ran), costOf(&r.reserved, &r.wasted)}
}

func (c *counter) report() Report {
	r := Report{
		By: c.filter.By, From: c.filter.From.UTC(), Until: c.filter.Until.UTC(), Currency: c.prices.Currency,
		Total: c.total.report(""), Rows: []Row{}, Slowest: []string{}, Times: []Time{},
	}
	var slow []Row
	for _, name := range slices.Sorted(maps.Keys(c.rows)) {
		row := c.rows[name].report(name)
		r.Rows = append(r.Rows, row)
		if c.rows[name].queue.jobs >= leastSlow {
			slow = append(slow, row)
		}
	}
	slices.SortStableFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Cost+b.Wasted.Cost, a.Cost+a.Wasted.Cost), cmp.Compare(b.CPUHours+b.Wasted.CPUHours, a.CPUHours+a.Wasted.CPUHours),
			cmp.Compare(b.RunMinutes, a.RunMinutes), cmp.Compare(b.Jobs, a.Jobs))
	})
	if c.others != nil {
		others := c.others.report("")
		r.Others = &others
	}
	slices.SortStableFunc(slow, func(a, b Row) int { return cmp.Compare(b.QueueP95, a.QueueP95) })
	for _, s := range slow[:min(len(slow), maxSlowest)] {
		r.Slowest = append(r.Slowest, s.Name)
	}
	for i := range c.times {
		t := &c.times[i]
		used, wasted := t.reserved.report(), t.wasted.report()
		r.Times = append(r.Times, Time{
			c.first.Add(time.Duration(i) * c.step), t.jobs, minutes(t.queued), minutes(t.ran),
			used.CPUHours, used.GiBHours, used.DeviceHours, used.Cost, wasted.CPUHours, wasted.Cost,
		})
	}
	return r
}
