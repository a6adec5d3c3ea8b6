// Package decide owns the rules in force and the set of jobs in hand. It decides a job, and
// asks GitHub what started the job's run where a rule needs that. Dispatch has each due job
// decided; claims and adopted runners have it decide where the database lacks the decision;
// feedback and the console read the rules.
package decide

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/rules"
)

// Runs is the part of GitHub that decisions use.
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

// New returns a Decider with these rules in force.
func New(github Runs, now func() time.Time, set *rules.Set, v router.RulesVersion) *Decider {
	v.LoadedAt, v.Changes = now(), append([]string{}, v.Changes...)
	d := &Decider{github: github, now: now}
	d.live.Store(&liveRules{set: set, status: router.RulesStatus{RulesVersion: v, Rules: len(set.Rules())}})
	return d
}

// liveRules is the rules in force and their status. It is never changed, but replaced.
type liveRules struct {
	set              *rules.Set
	status           router.RulesStatus
	reloads, refused int // calls of Reload and Refuse
}

// Reload puts rules in force: jobs are decided by them from now on. A job in hand keeps its
// decision.
func (d *Decider) Reload(set *rules.Set, v router.RulesVersion) {
	d.change(func(live *liveRules) {
		v.LoadedAt, v.Changes = d.now(), append([]string{}, v.Changes...)
		live.set, live.reloads = set, live.reloads+1
		live.status = router.RulesStatus{RulesVersion: v, Rules: len(set.Rules())}
	})
}

// Refuse records that newer rules were refused; those in force stay.
func (d *Decider) Refuse(r router.RefusedRules) {
	d.change(func(live *liveRules) {
		r.Since = d.now()
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

// Keep records that the rules in force are the newest again.
func (d *Decider) Keep() {
	d.change(func(live *liveRules) { live.status.Error = nil })
}

// Status returns which rules are in force. The result must not be changed.
func (d *Decider) Status() router.RulesStatus { return d.live.Load().status }

// Version returns what identifies the rules and jobspecs in force, with the built-in ones.
func (d *Decider) Version() string {
	return d.Status().Hash + " " + jobspecs.RunnerVersion
}

// Rules returns the rules in force.
func (d *Decider) Rules() *rules.Set { return d.live.Load().set }

func (d *Decider) change(f func(*liveRules)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	live := *d.live.Load()
	f(&live)
	d.live.Store(&live)
}

// Explain decides a job by the rules in force, with the trace, and changes nothing. It takes
// what GitHub said about the job's run from the job's decision.
func (d *Decider) Explain(j router.Job) router.Decision {
	facts := j.Facts()
	if j.Decision != nil {
		facts.Run = j.Decision.Run
	}
	return d.live.Load().set.Decide(facts, true)
}

// Metrics returns a collector of the rules in force.
func (d *Decider) Metrics() prometheus.Collector { return rulesMetrics{d} }

// rulesMetrics shows Prometheus the rules in force.
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

// Collect implements prometheus.Collector. All values belong to one moment.
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
