package health

import (
	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	namedRepositories = 3         // of one cause and rule; with more, none is named
	several           = "several" // the label's value then
)

var (
	troubleDesc = prometheus.NewDesc("switchyard_trouble", "What is wrong, as in switchyard status: how many jobs it hits, and 1 if it is not about single jobs.", []string{"cause", "rule", "repository"}, nil)
	sinceDesc   = prometheus.NewDesc("switchyard_trouble_since_timestamp_seconds", "When it began, by cause.", []string{"cause"}, nil)
	workedDesc  = prometheus.NewDesc("switchyard_worked_timestamp_seconds", "When something last worked: a delivery, a registration, a claim, a start. 0: not since the start of the process.", []string{"what"}, nil)
	diskDesc    = prometheus.NewDesc("switchyard_database_disk_bytes", "What is free on the disk of the database, and all of it.", []string{"space"}, nil)
)

// Describe implements prometheus.Collector.
func (h *Health) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{troubleDesc, sinceDesc, workedDesc, diskDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Repositories, whose names GitHub bounds, are named
// where they are few.
func (h *Health) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := h.Status(nil)
	type key struct {
		cause            router.Cause
		rule, repository string
	}
	counts := map[key]int{}
	for _, t := range s.Troubles {
		repos := map[string]int{} // by rule
		for _, g := range t.Groups {
			repos[g.Rule]++
		}
		left := t.Jobs
		for _, g := range t.Groups {
			left -= g.Jobs
			k := key{t.Cause, g.Rule, g.Repository}
			if repos[g.Rule] > namedRepositories {
				k.repository = several
			}
			counts[k] += g.Jobs
		}
		switch {
		case t.Cause == router.CauseWarmFails || t.Cause == router.CauseWarmNoRoom:
			for _, rule := range t.Rules {
				counts[key{cause: t.Cause, rule: rule}] = 1
			}
		case len(t.Groups) == 0:
			counts[key{cause: t.Cause}] = max(t.Jobs, 1)
		case left > 0: // there are more groups
			counts[key{t.Cause, "", several}] += left
		}
		gauge(sinceDesc, float64(t.Since.UnixMilli())/1000, string(t.Cause))
	}
	for k, jobs := range counts { // router.TroubleGroups of each cause at most
		gauge(troubleDesc, float64(jobs), string(k.cause), k.rule, k.repository)
	}
	for _, what := range []string{telemetry.WorkedDelivery, telemetry.WorkedRegistration, telemetry.WorkedClaim, telemetry.WorkedStart} {
		at := 0.0
		if last := h.config.Metrics.Worked.Last(what); !last.IsZero() {
			at = float64(last.UnixMilli()) / 1000
		}
		gauge(workedDesc, at, what)
	}
	h.mu.Lock()
	d := h.found.diskInfo
	h.mu.Unlock()
	if d.Total > 0 {
		gauge(diskDesc, float64(d.Free), "free")
		gauge(diskDesc, float64(d.Total), "all")
	}
}
