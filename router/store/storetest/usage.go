package storetest

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"switchyard/router"
	"switchyard/router/usage"
	"switchyard/rules"
)

var usageTests = []test{
	{"what jobs used is what a plain computation of all jobs says", func(t *testing.T, f *fixture) {
		set, err := rules.Parse("prices.yaml", []byte(usagePrices))
		f.must(err)
		w := &usageWorld{f: f, prices: set.Prices()}
		rapid.Check(t, w.check) // each adds some more jobs
	}},
	{"a job that is cancelled, whose runner is taken, or that runs again is counted as documented", usageStory},
	{"names that strangers make up take no more than so many rows", func(t *testing.T, f *fixture) {
		d := completed(1, "", "cancelled")
		d.Job.Workflow = strings.Repeat("=", 256)
		f.receive(d)
		r := f.usage(router.UsageFilter{By: router.ByWorkflow, From: T0, Until: T0.Add(time.Hour)}, rules.Prices{})
		if len(r.Rows) != 1 || r.Rows[0].Name != "acme/web: "+d.Job.Workflow || r.Rows[0].NotRun != 1 {
			t.Errorf("%+v", r.Rows)
		}
	}},
	{"counting ends when nobody waits for it", func(t *testing.T, f *fixture) {
		for id := range int64(3) {
			f.receive(completed(id+1, "", "cancelled"))
		}
		stop, n := fmt.Errorf("enough"), 0
		err := f.Usage(f.ctx(), router.UsageFilter{By: router.ByRepo, From: T0, Until: T0.Add(time.Hour)}, func(*router.Used) error { n++; return stop })
		if wantErr(t, err, stop); n != 1 {
			t.Errorf("it went on for %d jobs", n)
		}
	}},
}

const usagePrices = `
version: 1
prices:
  currency: EUR
  cpu_hour: 0.040001
  gib_hour: 0.005
  device_hour: 1.25
  node_classes: { large: { cpu_hour: 0.07 } }
  node_pools: { gpu: { cpu_hour: 0.09, device_hour: 2 } }
rules: [{ name: r, jobspec: docker-linux }]
`

func (f *fixture) usage(filter router.UsageFilter, prices rules.Prices) usage.Report {
	f.t.Helper()
	f.must(usage.Check(filter))
	r, err := usage.Count(f.ctx(), f, filter, prices)
	f.must(err)
	return r
}

// A usageWorld has jobs, and runners without one.
type usageWorld struct {
	f      *fixture
	prices rules.Prices
	last   int64 // ID of a job
}

// A life is what becomes of a job.
type life struct {
	id       int64
	delivery router.Delivery
	decision *router.Decision
}

func (w *usageWorld) check(rt *rapid.T) {
	f := &fixture{Store: w.f.Store, t: rt}
	pick := func(what string, most int) int { return rapid.IntRange(0, most).Draw(rt, what) }
	at := func(what string) time.Duration {
		return time.Duration(rapid.Int64Range(0, 50*3_600_000).Draw(rt, what)) * time.Millisecond
	}
	for range 1 + pick("jobs", 5) {
		w.last++
		l := life{id: w.last, delivery: queued(w.last), decision: decision()}
		l.delivery.ReceivedAt = T0.Add(at("received"))
		job := &l.delivery.Job
		job.RunID, job.Attempt = l.id, 1+pick("attempt", 1)
		job.Repo.Owner, job.Repo.Name = []string{"acme", "Beta"}[pick("owner", 1)], []string{"web", "app"}[pick("repo", 1)]
		job.Repo.Host = []string{"", "ghe.example"}[pick("host", 1)]
		job.Workflow = []string{"CI", "=1+1"}[pick("workflow", 1)]
		l.decision.Rule = []string{"linux", "gpu"}[pick("rule", 1)]
		l.decision.Labels = [][]string{{"linux"}, {"linux", "gpu"}, {}}[pick("labels", 2)]
		job.Labels = l.decision.Labels
		l.decision.Resources = []rules.Resources{{CPU: 1500, MemoryMB: 3000}, {Cores: 3, MemoryMB: 4096}, {MemoryMB: 512}, {}}[pick("sizes", 3)]
		if n := pick("devices", 2); n > 0 {
			l.decision.Devices = []rules.Device{{Name: "nvidia/gpu", Count: n}}
		}
		l.decision.NodePool = []string{"", "gpu"}[pick("pool", 1)]
		if pick("class", 1) == 1 {
			l.decision.Constraints = []router.Constraint{{Attribute: "${node.class}", Operator: "=", Value: "large"}}
		}
		w.live(f, l, pick, at)
	}
	from := T0.Add(at("from"))
	filter := router.UsageFilter{
		By: router.UsageBys[pick("by", len(router.UsageBys)-1)], From: from, Until: from.Add(time.Millisecond + at("length")),
		Within: []router.Scope{nil, {"acme/*"}, {"ACME/web", "ghe.example/beta/app"}, {}}[pick("scope", 3)],
	}
	w.compare(f, filter)
}

// live takes a job to its end.
func (w *usageWorld) live(f *fixture, l life, pick func(string, int) int, at func(string) time.Duration) {
	now := l.delivery.ReceivedAt
	say := func(action, runner, conclusion string) {
		d := l.delivery
		d.ID, d.Action, d.Status, d.ReceivedAt = fmt.Sprint(l.id, " ", action), action, action, now
		d.Job.RunnerName, d.Job.Conclusion = runner, conclusion
		f.receive(d)
	}
	start := func(placed bool) router.Runner {
		j := f.job(l.id)
		r := router.Runner{ID: j.RunnerID(), JobID: l.id, Try: j.Try, State: router.RunnerDispatched, Name: j.RunnerID(), Fit: j.Fit(l.decision)}
		f.must(f.Prepare(f.ctx(), r, Token(r.ID), now))
		r.NomadJob, r.NomadAt = r.ID, tokyo
		f.must(f.Dispatched(f.ctx(), r, Token(r.ID), l.decision, now))
		if placed {
			e := event(r, router.NomadPlaced, now, "n", "")
			e.At = r.NomadAt
			f.must(errOf(f.RecordNomadEvents(f.ctx(), []router.NomadEvent{e}, now)))
		}
		return r
	}
	f.receive(l.delivery)
	now = now.Add(at("begun"))
	name := ""
	switch pick("life", 7) {
	case 0: // cancelled before anything was started
	case 1: // never decided, and runs elsewhere
		name = "mac-1"
	case 2: // somebody else's runner has it, ours is stopped
		r := start(true)
		name = "mac-1"
		now = now.Add(at("idle"))
		f.must(errOf(f.Stopped(f.ctx(), r, "idle", now)))
		f.must(f.Ended(f.ctx(), []string{r.ID}, now))
	case 3: // two runners had a node and no job, one of which has not ended; one had no node
		for range 3 {
			r := start(pick("placed", 2) > 0)
			now = now.Add(at("lost"))
			f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: r.ID}, now, router.CauseRunner, "lost", now)))
			if pick("ended", 2) > 0 {
				f.must(f.Ended(f.ctx(), []string{r.ID}, now))
			}
		}
		fallthrough
	default:
		if f.job(l.id).State != router.Completed {
			name = start(true).Name
		}
	}
	now = now.Add(at("queued"))
	if name != "" && pick("heard", 5) > 0 {
		say("in_progress", name, "")
		now = now.Add(at("ran"))
	}
	if pick("ends", 9) > 0 {
		say("completed", name, []string{"success", "cancelled"}[pick("conclusion", 1)])
	}
}

// A plainRow is a row, computed one job after the other.
type plainRow struct {
	jobs, notRun, unsized, wasted int
	queued, ran                   int64 // milliseconds
	sums                          [8]big.Rat
	waits                         []time.Duration
}

// compare compares a report with what the jobs and runners say one by one.
func (w *usageWorld) compare(f *fixture, filter router.UsageFilter) {
	f.t.Helper()
	total, rows := &plainRow{}, map[string]*plainRow{}
	within := func(t time.Time) bool { return !t.Before(filter.From) && t.Before(filter.Until) }
	for id := int64(1); id <= w.last; id++ {
		j := f.job(id)
		if !filter.Within.Has(j.Repo) {
			continue
		}
		of := append(plainNames(filter.By, j), "the total")
		row := func(name string) *plainRow {
			if name == "the total" {
				return total
			}
			if rows[name] == nil {
				rows[name] = &plainRow{}
			}
			return rows[name]
		}
		if j.State == router.Completed && within(j.CompletedAt) {
			for _, name := range of {
				r := row(name)
				r.jobs++
				end := j.CompletedAt
				if j.RunningAt.IsZero() {
					r.notRun++
				} else {
					end = j.RunningAt
					r.waits = append(r.waits, end.Sub(j.ReceivedAt))
					r.ran += j.CompletedAt.Sub(end).Milliseconds()
				}
				r.queued += end.Sub(j.ReceivedAt).Milliseconds()
				if strings.HasPrefix(j.RunnerName, "gha-") {
					r.reserve(j, j.CompletedAt.Sub(end), w.prices, 0)
				}
			}
		}
		runners, err := f.Runners(f.ctx(), id)
		f.must(err)
		for _, runner := range runners {
			if (runner.State == router.RunnerLost || runner.State == router.RunnerStopped) && !runner.PlacedAt.IsZero() && !runner.EndedAt.IsZero() && within(runner.EndedAt) {
				for _, name := range of {
					r := row(name)
					r.wasted++
					r.reserve(j, runner.EndedAt.Sub(runner.PlacedAt), w.prices, 4)
				}
			}
		}
	}
	report := f.usage(filter, w.prices)
	total.compare(f, fmt.Sprintf("the total by %s within %q", filter.By, filter.Within), report.Total)
	for _, got := range report.Rows {
		if rows[got.Name] == nil {
			f.t.Fatalf("there is a row %q by %s: %+v", got.Name, filter.By, got)
		}
		rows[got.Name].compare(f, fmt.Sprintf("%q by %s", got.Name, filter.By), got)
	}
	if len(report.Rows) != len(rows) {
		f.t.Fatalf("%d rows by %s, want %d", len(report.Rows), filter.By, len(rows))
	}
	var over usage.Row
	for _, t := range report.Times {
		over.Jobs, over.QueuedMinutes, over.CPUHours, over.Wasted.CPUHours = over.Jobs+t.Jobs, over.QueuedMinutes+t.QueuedMinutes, over.CPUHours+t.CPUHours, over.Wasted.CPUHours+t.WastedHours
	}
	parts := usage.Amount(len(report.Times)) // each is rounded
	far := func(a, b usage.Amount) bool { return max(a-b, b-a) > parts }
	if over.Jobs != report.Total.Jobs || far(over.QueuedMinutes, report.Total.QueuedMinutes) || far(over.CPUHours, report.Total.CPUHours) || far(over.Wasted.CPUHours, report.Total.Wasted.CPUHours) {
		f.t.Fatalf("over time %+v, in total %+v", over, report.Total)
	}
}

// plainNames returns what a job counts for.
func plainNames(by router.UsageBy, j router.Job) []string {
	host := ""
	if j.Repo.Host != "" {
		host = j.Repo.Host + "/"
	}
	switch by {
	case router.ByRepo:
		return []string{host + j.Repo.FullName}
	case router.ByOwner:
		return []string{host + j.Repo.Owner}
	case router.ByWorkflow:
		return []string{host + j.Repo.FullName + ": " + j.Workflow}
	case router.ByRule:
		if j.Decision != nil {
			return []string{j.Decision.Rule}
		}
	case router.ByLabel:
		if len(j.Labels) > 0 {
			return slices.Clone(j.Labels)
		}
	case router.ByNodeClass:
		if j.Decision != nil && j.Decision.Constraints[0].Attribute == "${node.class}" {
			return []string{"large"}
		}
	}
	return []string{""}
}

// reserve adds what a runner of the job reserved; at is the place of the first sum.
func (r *plainRow) reserve(j router.Job, held time.Duration, prices rules.Prices, at int) {
	d := j.Decision
	if d == nil {
		r.unsized++
		return
	}
	class := ""
	if d.Constraints[0].Attribute == "${node.class}" {
		class = "large"
	}
	price := prices.At(class, d.NodePool)
	cpu, devices := int64(d.Resources.CPU+1000*d.Resources.Cores), int64(0)
	for _, device := range d.Devices {
		devices += int64(device.Count)
	}
	if cpu == 0 || d.Resources.MemoryMB == 0 {
		r.unsized++
	}
	hours := big.NewRat(held.Milliseconds(), 3_600_000)
	for i, one := range []struct {
		size  *big.Rat
		price uint64
	}{{big.NewRat(cpu, 1000), price.CPU}, {big.NewRat(int64(d.Resources.MemoryMB), 1024), price.Memory}, {big.NewRat(devices, 1), price.Device}} {
		used := new(big.Rat).Mul(hours, one.size)
		r.sums[at+i].Add(&r.sums[at+i], used)
		r.sums[at+3].Add(&r.sums[at+3], used.Mul(used, big.NewRat(int64(one.price), 1e6)))
	}
}

func (r *plainRow) compare(f *fixture, what string, got usage.Row) {
	f.t.Helper()
	// FloatString rounds half away from zero, once.
	said := func(x *big.Rat) string {
		text := x.FloatString(6)
		return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	minutes := func(ms int64) string { return said(big.NewRat(ms, 60_000)) }
	want := fmt.Sprint(r.jobs, r.notRun, r.unsized, r.wasted, " ", minutes(r.queued), " ", minutes(r.ran))
	for i := range r.sums {
		want += " " + said(&r.sums[i])
	}
	is := fmt.Sprint(got.Jobs, got.NotRun, got.Unsized, got.Wasted.Runners, " ", got.QueuedMinutes, " ", got.RunMinutes,
		" ", got.CPUHours, " ", got.GiBHours, " ", got.DeviceHours, " ", got.Cost,
		" ", got.Wasted.CPUHours, " ", got.Wasted.GiBHours, " ", got.Wasted.DeviceHours, " ", got.Wasted.Cost)
	if is != want {
		f.t.Fatalf("%s:\n%s, want\n%s", what, is, want)
	}
	slices.Sort(r.waits)
	for percent, seconds := range map[int]float64{50: got.QueueP50, 95: got.QueueP95} {
		exact := 0.0
		if n := len(r.waits); n > 0 {
			exact = r.waits[(n-1)*percent/100].Seconds()
		}
		if seconds < exact || seconds > exact*(1+1/32.) {
			f.t.Fatalf("%s: %d %% waited %v s, exactly %v s", what, percent, seconds, exact)
		}
	}
}

// usageStory is the treatment of jobs that router/usage/README.md documents.
func usageStory(t *testing.T, f *fixture) {
	say := func(id int64, at time.Duration, action, runner, conclusion string) {
		d := NewDelivery(id, action, action)
		d.ReceivedAt, d.Job.RunnerName, d.Job.Conclusion = after(at), runner, conclusion
		f.receive(d)
	}
	start := func(id int64, at time.Duration, memoryMB int) router.Runner {
		d := decision()
		d.Resources = rules.Resources{Cores: 1, MemoryMB: memoryMB}
		r := f.newRunner(id)
		r.Fit = f.job(id).Fit(d)
		f.must(f.Prepare(f.ctx(), r, Token(r.ID), after(at)))
		r.NomadJob, r.NomadAt = r.ID, tokyo
		f.must(f.Dispatched(f.ctx(), r, Token(r.ID), d, after(at)))
		f.saw(after(at), event(r, router.NomadPlaced, after(at), "n", ""))
		return r
	}
	report := func() (r usage.Row) {
		t.Helper()
		return f.usage(router.UsageFilter{By: router.ByRepo, From: T0, Until: after(24 * time.Hour)}, rules.Prices{}).Total
	}
	want := func(what, want string) {
		t.Helper()
		r := report()
		if got := fmt.Sprint(r.Jobs, " jobs, ", r.NotRun, " not run, ", r.QueuedMinutes, " + ", r.RunMinutes, " min, ", r.CPUHours, " CPU, ", r.GiBHours, " GiB, wasted ", r.Wasted.Runners, " ", r.Wasted.CPUHours, " CPU"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	say(1, 0, "queued", "", "")
	say(1, 2*time.Minute, "completed", "", "cancelled")
	want("cancelled before it ran", "1 jobs, 1 not run, 2 + 0 min, 0 CPU, 0 GiB, wasted 0 0 CPU")

	say(2, 0, "queued", "", "")
	r := start(2, 0, 2048)
	say(2, 3*time.Minute, "in_progress", r.Name, "")
	want("while it runs", "1 jobs, 1 not run, 2 + 0 min, 0 CPU, 0 GiB, wasted 0 0 CPU")
	say(2, 9*time.Minute, "completed", r.Name, "cancelled")
	want("cancelled while it ran", "2 jobs, 1 not run, 5 + 6 min, 0.1 CPU, 0.2 GiB, wasted 0 0 CPU")

	say(3, 0, "queued", "", "")
	say(4, 0, "queued", "", "")
	taken := start(3, 0, 2048)
	left := start(4, time.Minute, 4096)
	say(4, 2*time.Minute, "in_progress", taken.Name, "")
	say(4, 8*time.Minute, "completed", taken.Name, "success")
	f.must(errOf(f.Stopped(f.ctx(), left, "its job ended", after(8*time.Minute))))
	want("before Nomad says that it ended", "3 jobs, 1 not run, 7 + 12 min, 0.2 CPU, 0.6 GiB, wasted 0 0 CPU")
	f.must(f.Ended(f.ctx(), []string{left.ID}, after(13*time.Minute)))
	want("on the runner of another, with what it asks for itself", "3 jobs, 1 not run, 7 + 12 min, 0.2 CPU, 0.6 GiB, wasted 1 0.2 CPU")
	again := start(3, 3*time.Minute, 2048)
	say(3, 4*time.Minute, "in_progress", again.Name, "")
	say(3, 10*time.Minute, "completed", again.Name, "failure")
	want("the one whose runner was taken", "4 jobs, 1 not run, 11 + 18 min, 0.3 CPU, 0.8 GiB, wasted 1 0.2 CPU")

	say(5, time.Hour, "queued", "", "") // job 3 once more: to GitHub, another job
	r = start(5, time.Hour, 2048)
	say(5, time.Hour+time.Minute, "in_progress", r.Name, "")
	say(5, time.Hour+7*time.Minute, "completed", r.Name, "success")
	want("re-run", "5 jobs, 1 not run, 12 + 24 min, 0.4 CPU, 1 GiB, wasted 1 0.2 CPU")
}
