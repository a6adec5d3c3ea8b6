// Package decide owns the rules in force, and which jobs are in hand. It decides a
// job, and asks GitHub what started the job's run where a rule wants to know.
// Dispatch has each due job decided; claims and runners found on Nomad are decided
// where the database does not have the decision; feedback and the console read the rules.
package decide

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
	"switchyard/rules"
)

// Runs is what is asked of GitHub.
type Runs interface {
	Run(ctx context.Context, repo router.Repo, runID int64) (router.Run, error)
}

// A Decider decides jobs by the rules in force. It is safe for concurrent use.
type Decider struct {
	github Runs
	now    func() time.Time
	runs   runs
	live   atomic.Pointer[liveRules]
	mu     sync.Mutex // held while live is changed
}

// New returns a Decider with rules in force.
func New(github Runs, now func() time.Time, set *rules.Set, v router.RulesVersion) *Decider {
	v.LoadedAt = now()
	de := &Decider{github: github, now: now}
	de.live.Store(&liveRules{set: set, status: router.RulesStatus{RulesVersion: v, Rules: len(set.Rules())}})
	return de
}

// liveRules is the rules in force with all that is said of them. It never
// changes; another one takes its place.
type liveRules struct {
	set              *rules.Set
	status           router.RulesStatus
	reloads, refused int // how many Reload and Refuse there were
}

// Reload puts rules in force: jobs are decided by them from now on. A job in
// hand keeps its decision. Safe for concurrent use, as are the methods below.
func (de *Decider) Reload(set *rules.Set, v router.RulesVersion) {
	de.change(func(live *liveRules) {
		v.LoadedAt = de.now()
		live.set, live.reloads = set, live.reloads+1
		live.status = router.RulesStatus{RulesVersion: v, Rules: len(set.Rules())}
	})
}

// Refuse reports that newer rules are not put in force; the old ones stay.
func (de *Decider) Refuse(r router.RefusedRules) {
	de.change(func(live *liveRules) {
		r.Since = de.now()
		if before := live.status.Error; before != nil {
			r.Since = before.Since
		}
		if r.Diagnostics == nil {
			r.Diagnostics = rules.Diagnostics{}
		}
		live.refused++
		live.status.Error = &r
	})
}

// Keep reports that the rules in force are the newest again.
func (de *Decider) Keep() {
	de.change(func(live *liveRules) { live.status.Error = nil })
}

// Status says which rules are in force. What it returns is not to be changed.
func (de *Decider) Status() router.RulesStatus { return de.live.Load().status }

// Rules returns the rules in force.
func (de *Decider) Rules() *rules.Set { return de.live.Load().set }

func (de *Decider) change(f func(*liveRules)) {
	de.mu.Lock()
	defer de.mu.Unlock()
	live := *de.live.Load()
	f(&live)
	de.live.Store(&live)
}

// Explain decides a job by the rules in force, with the trace, and changes
// nothing. What GitHub said of its run is taken from its own decision.
func (de *Decider) Explain(j router.Job) router.Decision {
	facts := j.Facts()
	if j.Decision != nil {
		facts.Run = j.Decision.Run
	}
	return de.live.Load().set.Decide(facts, true)
}

// Metrics shows the rules in force to Prometheus.
func (de *Decider) Metrics() prometheus.Collector { return rulesMetrics{de} }

// rulesMetrics shows the rules in force to Prometheus.
type rulesMetrics struct{ *Decider }

var (
	rulesInfo    = prometheus.NewDesc("switchyard_rules_info", "The rules in force, by the hash of their files. Always 1.", []string{"hash"}, nil)
	rulesLoaded  = prometheus.NewDesc("switchyard_rules_loaded_timestamp_seconds", "When the rules in force were loaded.", nil, nil)
	rulesReloads = prometheus.NewDesc("switchyard_rules_reloads_total", "Newer rules, by whether they came into force.", []string{"result"}, nil)
	rulesFailed  = prometheus.NewDesc("switchyard_rules_reload_failed", "1 while newer rules are refused, and 0 otherwise.", nil, nil)
	rulesLast    = prometheus.NewDesc("switchyard_rules_last_good", "1 while the last good rules of the database are in force, as the files were bad at the start, and 0 otherwise.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m rulesMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector. All values are of one moment.
func (m rulesMetrics) Collect(ch chan<- prometheus.Metric) {
	live := m.live.Load()
	failed, last := 0.0, 0.0
	if live.status.Error != nil {
		failed = 1
		if live.status.Origin == router.LastGood {
			last = 1
		}
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	ch <- prometheus.MustNewConstMetric(rulesInfo, gauge, 1, live.status.Hash)
	ch <- prometheus.MustNewConstMetric(rulesLoaded, gauge, float64(live.status.LoadedAt.UnixMilli())/1000)
	ch <- prometheus.MustNewConstMetric(rulesReloads, counter, float64(live.reloads), "ok")
	ch <- prometheus.MustNewConstMetric(rulesReloads, counter, float64(live.refused), "refused")
	ch <- prometheus.MustNewConstMetric(rulesFailed, gauge, failed)
	ch <- prometheus.MustNewConstMetric(rulesLast, gauge, last)
}
