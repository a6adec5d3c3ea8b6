package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"switchyard/router"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const (
	countAge     = time.Second // counts of the store are shown again for so long at least,
	countTimeout = 5 * time.Second
	countShare   = 10  // and for that many times as long as counting took, as anybody may ask
	maxCalls     = 100 // names of calls to one side; others are "other"
	maxClasses   = 100 // pairs of node pool and class that are named,
	maxDevices   = 20  // and names of devices
	otherDemand  = "other"
	statePlaced  = "placed" // of a runner that has a node
)

// Metrics are what Prometheus is shown. No label has a stranger's text as its value: they are
// names of rules, and fixed words. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	deliveries *prometheus.CounterVec // by outcome
	decisions  *prometheus.CounterVec // by rule, outcome
	retries    *prometheus.CounterVec // by cause
	thefts     prometheus.Counter
	overruled  *prometheus.CounterVec // by state
	overflows  *prometheus.CounterVec // by rule, change
	reruns     *prometheus.CounterVec // by loss, outcome
	warm       *prometheus.CounterVec // by rule, outcome
	warmHeld   *prometheus.CounterVec // by rule

	registered, placed, claimed, running *prometheus.HistogramVec // by rule

	commits, changes prometheus.Histogram

	Nomad, GitHub *Side
	Worked        *Worked
}

// NewMetrics returns metrics that are all 0.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "switchyard_" + name, Help: help}, labels)
	}
	since := func(name, until string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "switchyard_job_" + name + "_seconds", Help: "Time from the first delivery that tells of a job until " + until + ", by rule.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		}, []string{"rule"})
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),

		deliveries: counter("deliveries_total", "Requests to the webhook, by what became of them.", "outcome"),
		decisions:  counter("decisions_total", "Decisions that say something new of a job, by rule and outcome.", "rule", "outcome"),
		retries:    counter("retries_total", "Times that a job is tried again, by who kept it from its runner.", "cause"),
		overruled:  counter("refused_jobs_served_total", "Jobs that were denied, unroutable or ignored here, and that GitHub gave to one of our runners all the same.", "state"),
		overflows:  counter("overflow_changes_total", "Times that a variable by which jobs of a rule overflow was set, was set back, or was left to somebody who had changed it.", "rule", "change"),
		reruns:     counter("reruns_total", "Jobs that failed as they lost their runner: whether they were run again (done), or why not is in their reason (dropped).", "loss", "outcome"),
		warm:       counter("warm_jobs_total", "Jobs of rules that keep warm runners, by whether one was there for them: taken or missed.", "rule", "outcome"),
		warmHeld:   counter("warm_held_seconds_total", "Time for which warm runners had a node until a job took them or they ended, by rule.", "rule"),
		thefts:     prometheus.NewCounter(prometheus.CounterOpts{Name: "switchyard_thefts_total", Help: "Runners that GitHub gave to another job than the one they were meant for."}),

		registered: since("registration", "its first runner is registered on Nomad"),
		placed:     since("placement", "the runner that claims for it has a node"),
		claimed:    since("claim", "a runner claims for it"),
		running:    since("start", "GitHub says that a runner has begun with it"),

		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "switchyard_database_commit_seconds", Help: "Time that a transaction of changes took, with its commit.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		changes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "switchyard_database_commit_changes", Help: "Changes that shared a transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),

		Nomad: newSide("nomad"), GitHub: newSide("github"), Worked: &Worked{},
	}
	for _, outcome := range []string{router.DeliveryStored, router.DeliveryKnown, router.DeliveryNotStored, router.DeliveryPing, router.DeliveryIgnored, router.DeliveryUnsigned, router.DeliveryMalformed, router.DeliveryTooLarge, router.DeliveryBusy} {
		m.deliveries.WithLabelValues(outcome)
	}
	for _, refused := range []router.JobState{router.Denied, router.Unroutable, router.Ignored} {
		m.overruled.WithLabelValues(string(refused))
	}
	for _, loss := range []router.Loss{router.LossNode, router.LossPreempted, router.LossDrained} {
		m.reruns.WithLabelValues(string(loss), string(router.RerunDone))
		m.reruns.WithLabelValues(string(loss), string(router.RerunDropped))
	}
	for _, cause := range []router.Cause{router.CauseNomad, router.CauseGitHub, router.CauseGitHubLimit, router.CauseRunner, router.CauseVersion} {
		m.retries.WithLabelValues(string(cause))
	}
	m.registry.MustRegister(m.deliveries, m.decisions, m.retries, m.thefts, m.overruled, m.overflows, m.reruns, m.warm, m.warmHeld, m.registered, m.placed, m.claimed, m.running, m.commits, m.changes,
		m.Nomad.requests, m.Nomad.took, m.GitHub.requests, m.GitHub.took, buildInfo(),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Delivered counts a request to the webhook with its outcome, a constant router.Delivery….
func (m *Metrics) Delivered(outcome string) {
	m.deliveries.WithLabelValues(outcome).Inc()
	m.Worked.delivered(outcome)
}

// Committed records a transaction of the database: how many changes shared it, and how long it took.
func (m *Metrics) Committed(changes int, took time.Duration) {
	m.commits.Observe(took.Seconds())
	m.changes.Observe(float64(changes))
}

// Registry returns the registry of these metrics.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }

// Decided counts a decision, unless the job already has the same one.
func (m *Metrics) Decided(j router.Job, d *router.Decision) {
	if j.Decision == nil || j.Decision.Outcome != d.Outcome || j.Decision.Rule != d.Rule {
		m.decisions.WithLabelValues(d.Rule, string(d.Outcome)).Inc()
	}
}

// Retried counts a job that is retried, by the label of its cause.
func (m *Metrics) Retried(cause router.Cause) {
	m.retries.WithLabelValues(string(cause.Label())).Inc()
}

// Rerun counts a job that lost its runner, by whether it was run again.
func (m *Metrics) Rerun(loss router.Loss, outcome router.RerunState) {
	m.reruns.WithLabelValues(string(loss), string(outcome)).Inc()
}

// Registered, Placed, Claimed and Started record how long after its first delivery a job
// came so far.
func (m *Metrics) Registered(j router.Job, d *router.Decision, at time.Time) {
	lasted(m.registered, j, d, at)
	m.Worked.at(WorkedRegistration)
}
func (m *Metrics) Placed(j router.Job, d *router.Decision, at time.Time) { lasted(m.placed, j, d, at) }
func (m *Metrics) Claimed(j router.Job, d *router.Decision, at time.Time) {
	lasted(m.claimed, j, d, at)
	m.Worked.at(WorkedClaim)
}
func (m *Metrics) Started(j router.Job) {
	lasted(m.running, j, j.Decision, j.RunningAt)
	m.Worked.at(WorkedStart)
}

// Stolen counts a runner that GitHub gave to another job than the one it was started for.
func (m *Metrics) Stolen() { m.thefts.Inc() }

// Overflows shows a rule whose jobs may overflow, from 0 on.
func (m *Metrics) Overflows(rule string) {
	for _, change := range []string{"set", "back", "left"} {
		m.overflows.WithLabelValues(rule, change)
	}
}

// Overflowed counts a change of a variable by which jobs of a rule overflow: set, back or left.
func (m *Metrics) Overflowed(rule, change string) { m.overflows.WithLabelValues(rule, change).Inc() }

// Warm shows a rule that keeps warm runners, from 0 on.
func (m *Metrics) Warm(rule string) {
	m.warm.WithLabelValues(rule, "taken")
	m.warm.WithLabelValues(rule, "missed")
	m.warmHeld.WithLabelValues(rule)
}

// WarmJob counts a job of a rule that keeps warm runners, by whether it took one.
func (m *Metrics) WarmJob(rule string, took bool) {
	outcome := "missed"
	if took {
		outcome = "taken"
	}
	m.warm.WithLabelValues(rule, outcome).Inc()
}

// WarmHeld counts how long a warm runner had its node until ended, when a job took it or it
// was stopped. placed is zero if it had none.
func (m *Metrics) WarmHeld(rule string, placed, ended time.Time) {
	if !placed.IsZero() {
		m.warmHeld.WithLabelValues(rule).Add(max(ended.Sub(placed), 0).Seconds())
	}
}

// Overruled counts a job that was refused, in this state, and that one of our runners took all
// the same.
func (m *Metrics) Overruled(refused router.JobState) {
	m.overruled.WithLabelValues(string(refused)).Inc()
}

// lasted records the time from a job's first delivery until at.
func lasted(h *prometheus.HistogramVec, j router.Job, d *router.Decision, at time.Time) {
	rule := ""
	if d != nil {
		rule = d.Rule
	}
	h.WithLabelValues(rule).Observe(max(at.Sub(j.ReceivedAt), 0).Seconds())
}

// A Build says which Switchyard this is. Its JSON form is a contract.
type Build struct {
	Version string    `json:"version"`          // a tag such as v1.2.0, a pseudo-version, (devel), or unknown
	Commit  string    `json:"commit,omitempty"` // "": the program does not say
	Date    time.Time `json:"date,omitzero"`    // of the commit, so that every build of it is the same
	Go      string    `json:"go"`
}

// ThisBuild returns what Go recorded in the running program.
func ThisBuild() Build {
	b := Build{Version: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date, _ = time.Parse(time.RFC3339, s.Value) // zero: not known
		}
	}
	return b
}

func buildInfo() prometheus.Collector {
	b := ThisBuild()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "switchyard_build_info", Help: "What is running. Always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Commit, "goversion": b.Go},
	}, func() float64 { return 1 })
}

// A Counter counts what is in the store.
type Counter interface {
	OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error)
	LiveRunners(ctx context.Context) (map[router.RunnerState]int, error)
	RunnerVersions(ctx context.Context) ([]router.RuleVersion, error)

	// NodeDemand returns what the runners ask for that want a node or have one.
	NodeDemand(ctx context.Context) ([]router.NodeDemand, error)

	WarmRunners(ctx context.Context) ([]router.WarmRunner, error)
	Size() (main, wal int64, err error)

	// Pools returns the connections that read, by who asks.
	Pools() map[string]sql.DBStats
}

// databaseMetrics shows what the store counts.
type databaseMetrics struct {
	store Counter
	rules func() []string // returns the names of those in force

	mu    sync.Mutex // held while the store is asked, so that many scrapes ask once
	until time.Time  // until then shown is shown again
	shown []prometheus.Metric
}

// NewDatabaseMetrics returns a collector of what is counted in a store. As anybody may scrape,
// counts are shown again for a second, or ten times as long as counting took. rules returns the
// names of the rules in force.
func NewDatabaseMetrics(store Counter, rules func() []string) prometheus.Collector {
	return &databaseMetrics{store: store, rules: rules}
}

var demandLabels = []string{"region", "node_pool", "node_class", "state"}

var (
	jobsWaiting    = prometheus.NewDesc("switchyard_jobs_waiting", "Jobs that wait, by rule and by why. Each rule in force has no_node_free, be it 0.", []string{"rule", "reason"}, nil)
	jobsOldest     = prometheus.NewDesc("switchyard_jobs_waiting_oldest_timestamp_seconds", "When the oldest of them was received.", []string{"rule", "reason"}, nil)
	jobsRunning    = prometheus.NewDesc("switchyard_jobs_running", "Jobs that run, by rule.", []string{"rule"}, nil)
	runnersLive    = prometheus.NewDesc("switchyard_runners", "Runners that may be alive on Nomad, by state.", []string{"state"}, nil)
	demandRunners  = prometheus.NewDesc("switchyard_demand_runners", "Runners that want a node or have one, by the node pool and class that they ask for.", demandLabels, nil)
	demandCores    = prometheus.NewDesc("switchyard_demand_cores", "Reserved cores that they ask for.", demandLabels, nil)
	demandCPU      = prometheus.NewDesc("switchyard_demand_cpu_mhz", "Shared CPU that they ask for, in MHz.", demandLabels, nil)
	demandMemory   = prometheus.NewDesc("switchyard_demand_memory_bytes", "Memory that they ask for.", demandLabels, nil)
	demandDevices  = prometheus.NewDesc("switchyard_demand_devices", "Devices that they ask for, by name.", append([]string{"device"}, demandLabels...), nil)
	warmRunners    = prometheus.NewDesc("switchyard_warm_runners", "Warm runners that no job has taken, by rule and state: starting, or ready.", []string{"rule", "state"}, nil)
	versionDays    = prometheus.NewDesc("switchyard_runner_version_days_left", "Days for which GitHub supports a version that runners of a rule have; negative: it no longer does. Without a date there is none.", []string{"rule", "version"}, nil)
	databaseBytes  = prometheus.NewDesc("switchyard_database_bytes", "Size of the database's file (main) and of its write-ahead log (wal).", []string{"file"}, nil)
	databaseConns  = prometheus.NewDesc("switchyard_database_connections", "Connections to the database that read, by who asks and what they do.", []string{"pool", "state"}, nil)
	databaseWaits  = prometheus.NewDesc("switchyard_database_connection_waits_total", "Times that a question waited for one of them.", []string{"pool"}, nil)
	databaseWaited = prometheus.NewDesc("switchyard_database_connection_wait_seconds_total", "How long questions waited for one of them.", []string{"pool"}, nil)
)

// Describe implements prometheus.Collector.
func (b *databaseMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{jobsWaiting, jobsOldest, jobsRunning, demandRunners, demandCores, demandCPU, demandMemory, demandDevices, runnersLive, warmRunners, versionDays, databaseBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (b *databaseMetrics) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if began := time.Now(); !began.Before(b.until) {
		ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
		defer cancel()
		b.shown = b.count(ctx)
		if b.until = began.Add(max(countAge, countShare*time.Since(began))); ctx.Err() != nil { // it must show when it is over
			b.until = time.Now().Add(countAge)
		}
	}
	for _, m := range b.shown {
		ch <- m
	}
}

// count asks the store. What the store cannot say is missing from the scrape, and the
// scrape's own metrics say so.
func (b *databaseMetrics) count(ctx context.Context) (shown []prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		shown = append(shown, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	missing := func(d *prometheus.Desc, err error) {
		shown = append(shown, prometheus.NewInvalidMetric(d, fmt.Errorf("ask the store: %w", err)))
	}
	type key struct {
		rule   string
		reason router.Cause
	}
	waiting, oldest, running := map[key]int{}, map[key]time.Time{}, map[string]int{}
	for _, rule := range b.rules() {
		waiting[key{rule, router.CauseNoNodeFree}], running[rule] = 0, 0
	}
	open, err := b.store.OpenJobs(ctx, nil)
	for _, o := range open {
		k := key{o.Rule, o.Cause.Label()}
		if o.State == router.Running {
			running[o.Rule] += o.Jobs
			continue
		}
		waiting[k] += o.Jobs
		if first, ok := oldest[k]; !ok || o.Oldest.Before(first) {
			oldest[k] = o.Oldest
		}
	}
	if err != nil {
		missing(jobsWaiting, err)
	} else {
		for k, n := range waiting {
			gauge(jobsWaiting, float64(n), k.rule, string(k.reason))
		}
		for k, at := range oldest {
			gauge(jobsOldest, float64(at.UnixMilli())/1000, k.rule, string(k.reason))
		}
		for rule, n := range running {
			gauge(jobsRunning, float64(n), rule)
		}
	}
	if demand, err := b.store.NodeDemand(ctx); err != nil {
		missing(demandRunners, err)
	} else {
		showDemand(gauge, demand)
	}
	if counts, err := b.store.LiveRunners(ctx); err != nil {
		missing(runnersLive, err)
	} else {
		for _, state := range router.RunnerStates {
			gauge(runnersLive, float64(counts[state]), string(state))
		}
	}
	if warm, err := b.store.WarmRunners(ctx); err != nil {
		missing(warmRunners, err)
	} else {
		counts := map[string]map[router.WarmState]int{}
		for _, w := range warm {
			if counts[w.Rule] == nil {
				counts[w.Rule] = map[router.WarmState]int{}
			}
			counts[w.Rule][w.State]++
		}
		for rule, states := range counts {
			for _, state := range []router.WarmState{router.WarmStarting, router.WarmReady} {
				gauge(warmRunners, float64(states[state]), rule, string(state))
			}
		}
	}
	if versions, err := b.store.RunnerVersions(ctx); err != nil {
		missing(versionDays, err)
	} else {
		days := map[[2]string]float64{} // of several GitHubs, the fewest
		for _, v := range versions {
			of := [2]string{v.Rule, string(v.Version)}
			if left, ok := v.DaysLeft(time.Now()); ok {
				if least, other := days[of]; !other || left < least {
					days[of] = left
				}
			}
		}
		for of, left := range days {
			gauge(versionDays, left, of[0], of[1])
		}
	}
	if main, wal, err := b.store.Size(); err != nil {
		missing(databaseBytes, err)
	} else {
		gauge(databaseBytes, float64(main), "main")
		gauge(databaseBytes, float64(wal), "wal")
	}
	return shown
}

// showDemand shows what runners ask for. What the rules make of a stranger's text may be a class
// or the name of a device, so there are only so many; a region and a node pool are ones that Nomad has. Without
// any runner there is still a 0, by which a query tells that from a server which is down.
func showDemand(gauge func(d *prometheus.Desc, v float64, labels ...string), demand []router.NodeDemand) {
	type class struct{ region, pool, class string }
	type group struct {
		class
		state string
	}
	runners, devices := map[class]int64{}, map[string]int64{}
	for _, d := range demand {
		runners[class{d.Region, d.NodePool, d.NodeClass}] += int64(d.Runners)
		for name, n := range d.Devices {
			devices[name] += n
		}
	}
	byClass := func(a, b class) int {
		return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.pool, b.pool), cmp.Compare(a.class, b.class))
	}
	classes, names := most(runners, maxClasses, byClass), most(devices, maxDevices, cmp.Compare[string])
	sums := map[group]*router.NodeDemand{{state: statePlaced}: {}}
	for _, d := range demand {
		g := group{class{d.Region, d.NodePool, d.NodeClass}, string(d.Cause.Label())}
		if !classes[g.class] {
			g.class.class = otherDemand
		}
		if d.Cause == router.CauseStarting {
			g.state = statePlaced
		}
		if sums[g] == nil {
			sums[g] = &router.NodeDemand{}
		}
		sums[g].Add(d, 1)
	}
	for g, d := range sums {
		gauge(demandRunners, float64(d.Runners), g.region, g.pool, g.class.class, g.state)
		gauge(demandCores, float64(d.Cores), g.region, g.pool, g.class.class, g.state)
		gauge(demandCPU, float64(d.CPU), g.region, g.pool, g.class.class, g.state)
		gauge(demandMemory, float64(d.MemoryMB<<20), g.region, g.pool, g.class.class, g.state)
		named := map[string]int64{}
		for name, n := range d.Devices {
			if !names[name] {
				name = otherDemand
			}
			named[name] += n
		}
		for name, n := range named {
			gauge(demandDevices, float64(n), name, g.region, g.pool, g.class.class, g.state)
		}
	}
}

// most returns the keys of the greatest counts, n of them at most; of equal counts the first by order.
func most[K comparable](counts map[K]int64, n int, order func(a, b K) int) map[K]bool {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), order(a, b))
	})
	of := map[K]bool{}
	for _, k := range keys[:min(n, len(keys))] {
		of[k] = true
	}
	return of
}

// poolMetrics shows a process's connections to the database.
type poolMetrics struct{ store Counter }

// NewPoolMetrics returns a collector of a process's connections to the database.
func NewPoolMetrics(store Counter) prometheus.Collector { return poolMetrics{store} }

// Describe implements prometheus.Collector.
func (m poolMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m poolMetrics) Collect(ch chan<- prometheus.Metric) {
	for pool, p := range m.store.Pools() {
		ch <- prometheus.MustNewConstMetric(databaseConns, prometheus.GaugeValue, float64(p.InUse), pool, "in_use")
		ch <- prometheus.MustNewConstMetric(databaseConns, prometheus.GaugeValue, float64(p.Idle), pool, "idle")
		ch <- prometheus.MustNewConstMetric(databaseWaits, prometheus.CounterValue, float64(p.WaitCount), pool)
		ch <- prometheus.MustNewConstMetric(databaseWaited, prometheus.CounterValue, p.WaitDuration.Seconds(), pool)
	}
}

// githubMetrics shows Prometheus what is left of GitHub's limits.
type githubMetrics struct {
	github interface{ Budget() []router.Budget }
}

// NewGitHubMetrics returns a collector of what is left of GitHub's limits.
func NewGitHubMetrics(github interface{ Budget() []router.Budget }) prometheus.Collector {
	return githubMetrics{github}
}

// NewOverflowMetrics returns a collector of the rules whose jobs overflow. rules returns their names.
func NewOverflowMetrics(rules func() []string, status func() []router.OverflowStatus) prometheus.Collector {
	return overflowMetrics{rules, status}
}

type overflowMetrics struct {
	rules  func() []string
	status func() []router.OverflowStatus
}

// Describe implements prometheus.Collector.
func (m overflowMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- overflowing }

// Collect implements prometheus.Collector.
func (m overflowMetrics) Collect(ch chan<- prometheus.Metric) {
	status := m.status()
	if status == nil {
		return
	}
	for _, rule := range m.rules() {
		states := map[string]int{"on": 0, "left": 0, "failing": 0}
		for _, s := range status {
			switch {
			case s.Rule != rule:
			case s.Failing != "":
				states["failing"]++
			case s.State == router.OverflowLeft:
				states["left"]++
			case s.State.On():
				states["on"]++
			}
		}
		for state, n := range states {
			ch <- prometheus.MustNewConstMetric(overflowing, prometheus.GaugeValue, float64(n), rule, state)
		}
	}
}

var overflowing = prometheus.NewDesc("switchyard_overflow_variables",
	"Variables by which jobs of a rule overflow, while they do (on), while GitHub does not do what that takes (failing), and while they are left to somebody who has changed them (left).", []string{"rule", "state"}, nil)

// NewPollMetrics returns a collector of how deliveries are read from GitHub.
func NewPollMetrics(polls func() []router.Polling) prometheus.Collector { return pollMetrics{polls} }

type pollMetrics struct{ polls func() []router.Polling }

// Describe implements prometheus.Collector.
func (m pollMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pollInterval, pollListed, pollPending, pollNeeded, pollAllowed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m pollMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range m.polls() {
		listed := 0.0
		if !p.Listed.IsZero() {
			listed = float64(p.Listed.UnixMilli()) / 1000
		}
		for d, v := range map[*prometheus.Desc]float64{
			pollInterval: p.Interval.Seconds(), pollListed: listed, pollPending: float64(p.Pending),
			pollNeeded: float64(p.Needed), pollAllowed: float64(p.Allowed),
		} {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, p.Hook)
		}
	}
}

var (
	pollInterval = prometheus.NewDesc("switchyard_poll_interval_seconds", "Time between two lists of a webhook's deliveries, if they are read from GitHub.", []string{"webhook"}, nil)
	pollListed   = prometheus.NewDesc("switchyard_poll_listed_timestamp_seconds", "When GitHub last listed them; 0: not since the start.", []string{"webhook"}, nil)
	pollPending  = prometheus.NewDesc("switchyard_poll_pending", "Deliveries that are listed, and not read yet.", []string{"webhook"}, nil)
	pollNeeded   = prometheus.NewDesc("switchyard_poll_requests_needed", "Requests an hour that reading the deliveries takes.", []string{"webhook"}, nil)
	pollAllowed  = prometheus.NewDesc("switchyard_poll_requests_allowed", "Requests an hour that GitHub takes for it; 0: not known, or any number.", []string{"webhook"}, nil)
)

// Describe implements prometheus.Collector. The logins become known only later.
func (m githubMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{githubLimit, githubRemaining, githubInFlight, githubBlocked} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m githubMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for _, b := range m.github.Budget() {
		blocked := 0
		if !b.BlockedUntil.IsZero() {
			blocked = 1
		}
		gauge(githubInFlight, b.InFlight, b.Login)
		gauge(githubBlocked, blocked, b.Login)
		for _, l := range b.Limits {
			gauge(githubLimit, l.Limit, b.Login, l.Resource)
			gauge(githubRemaining, l.Remaining, b.Login, l.Resource)
		}
	}
}

var (
	githubLimit     = prometheus.NewDesc("switchyard_github_limit", "Requests an hour that GitHub takes, by login and resource.", []string{"login", "resource"}, nil)
	githubRemaining = prometheus.NewDesc("switchyard_github_remaining", "Those that are left of them.", []string{"login", "resource"}, nil)
	githubInFlight  = prometheus.NewDesc("switchyard_github_in_flight", "Requests to GitHub that are under way, by login.", []string{"login"}, nil)
	githubBlocked   = prometheus.NewDesc("switchyard_github_blocked", "1 while GitHub asked for no requests, and 0 otherwise, by login.", []string{"login"}, nil)
)
