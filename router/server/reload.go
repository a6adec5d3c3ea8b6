package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
	"switchyard/rules"
)

// liveRules is the rules in force with all that is said of them. It never
// changes; another one takes its place.
type liveRules struct {
	set              *rules.Set
	status           router.RulesStatus
	reloads, refused int // how many Reload and RefuseRules there were
}

// Reload puts rules in force: jobs are decided by them from now on. A job in
// hand keeps its decision. Safe for concurrent use, as are the methods below.
func (a *App) Reload(set *rules.Set, v router.RulesVersion) {
	a.change(func(live *liveRules) {
		v.LoadedAt = a.Now()
		live.set, live.reloads = set, live.reloads+1
		live.status = router.RulesStatus{RulesVersion: v, Rules: len(set.Rules())}
	})
	for _, hint := range []chan struct{}{a.relimit, a.anew} {
		select {
		case hint <- struct{}{}:
		default:
		}
	}
}

// RefuseRules reports that newer rules are not put in force; the old ones stay.
func (a *App) RefuseRules(r router.RefusedRules) {
	a.change(func(live *liveRules) {
		r.Since = a.Now()
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

// KeepRules reports that the rules in force are the newest again.
func (a *App) KeepRules() {
	a.change(func(live *liveRules) { live.status.Error = nil })
}

// RulesStatus says which rules are in force. What it returns is not to be changed.
func (a *App) RulesStatus() router.RulesStatus { return a.live.Load().status }

// Rules returns the rules in force.
func (a *App) Rules() *rules.Set { return a.live.Load().set }

// hold notes the decision of a job in hand, held returns it; nil: it is not in
// hand, as when the process that decided it ended.
func (w *worker) hold(jobID int64, d *router.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inHand[jobID] = d
}

func (w *worker) held(jobID int64) *router.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inHand[jobID]
}

func (w *worker) change(f func(*liveRules)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	live := *w.live.Load()
	f(&live)
	w.live.Store(&live)
}

// rulesMetrics shows the rules in force to Prometheus.
type rulesMetrics struct{ *App }

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
