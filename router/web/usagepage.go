package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"switchyard/router"
	"switchyard/router/usage"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

const usageRows = 50 // that are shown

// usagePeriods are those that the page shows, in hours.
var usagePeriods = []struct {
	Name  string
	hours int64
}{{"the last day", 24}, {"the last 7 days", 7 * 24}, {"the last 30 days", 30 * 24}, {"the last 90 days", 90 * 24}}

type usageView struct {
	By, Periods []option
	Report      *usageReport // nil: it is being counted, or Problem
	Problem     string       // why it is not counted; "": nothing is wrong
	API         string       // where programs get it
}

// A usageReport is a report as far as the page shows it: a whole one has megabytes of rows, and
// counts are kept.
type usageReport struct {
	usage.Report
	More    int // rows
	Slow    []usage.Row
	Measure string // what the picture shows
	Most    string // the highest bar
	Bars    []usageBar
}

// A usageBar is a part of the picture, in percent.
type usageBar struct {
	usage.Time
	X                   int
	Used, Wasted        string // heights
	UsedFrom, WastedTop string
}

func (s *console) usagePage(req *http.Request) (any, error) {
	p := api.Parameters{Values: req.URL.Query()}
	by := cmp.Or(router.UsageBy(p.Text("by")), router.ByRepo)
	hours := p.Number("hours", usagePeriods[2].hours, 1, int64(usage.MaxPeriod/time.Hour))
	err := p.End()
	if err != nil {
		return nil, err
	}
	f := router.UsageFilter{By: by, Until: s.config.Now(), Within: auth.Who(req.Context()).Scope}
	f.From = f.Until.Add(-time.Duration(hours) * time.Hour)
	if err := usage.Check(f); err != nil {
		return nil, problem.New(http.StatusBadRequest, "%v", err)
	}
	v := usageView{API: api.Prefix + "/usage?" + url.Values{"by": {string(by)}, "since": {f.From.UTC().Format(time.RFC3339)}}.Encode()}
	for _, known := range router.UsageBys {
		v.By = append(v.By, option{string(known), map[router.UsageBy]string{
			router.ByRepo: "repository", router.ByNodeClass: "node class",
		}[known], known == by})
	}
	for _, known := range usagePeriods {
		v.Periods = append(v.Periods, option{fmt.Sprint(known.hours), known.Name, known.hours == hours})
	}
	if !slices.ContainsFunc(v.Periods, func(o option) bool { return o.Chosen }) {
		v.Periods = append(v.Periods, option{fmt.Sprint(hours), fmt.Sprintf("the last %d hours", hours), true})
	}
	set := s.config.App.Rules()
	key := [4]any{set, by, hours, scopeKey(f.Within)}
	v.Report, err = s.usage.get(req.Context(), key, func(ctx context.Context) (*usageReport, error) {
		r, err := usage.Count(ctx, s.api.Database, f, set.Prices())
		if err != nil {
			return nil, err
		}
		return shownOf(r), nil
	})
	if err != nil {
		v.Problem = "the server's log says why"
		if p := problem.Of(err); p != nil {
			v.Problem = p.Detail
		}
	}
	return v, nil
}

// shownOf returns what the page shows of a report.
func shownOf(r usage.Report) *usageReport {
	v := &usageReport{Report: r, More: max(0, len(r.Rows)-usageRows)}
	for _, name := range r.Slowest {
		i := slices.IndexFunc(r.Rows, func(row usage.Row) bool { return row.Name == name })
		v.Slow = append(v.Slow, r.Rows[i])
	}
	v.Rows = slices.Clone(r.Rows[:len(r.Rows)-v.More])
	v.draw()
	return v
}

// draw makes the picture: of the costs, of CPU hours if there are no prices, or of minutes if
// no sizes are known.
func (r *usageReport) draw() {
	of := func(t usage.Time) (used, wasted usage.Amount) { return t.Cost, t.WastedCost }
	switch {
	case r.Total.Cost+r.Total.Wasted.Cost > 0:
		r.Measure = "cost in " + r.Currency
	case r.Total.CPUHours+r.Total.Wasted.CPUHours > 0:
		r.Measure = "CPU hours"
		of = func(t usage.Time) (used, wasted usage.Amount) { return t.CPUHours, t.WastedHours }
	default:
		r.Measure = "minutes run"
		of = func(t usage.Time) (used, wasted usage.Amount) { return t.RunMinutes, 0 }
	}
	most := usage.Amount(0)
	for _, t := range r.Times {
		used, wasted := of(t)
		most = max(most, used+wasted)
	}
	if most == 0 {
		return
	}
	r.Most = most.Cents()
	percent := func(a usage.Amount) float64 { return 100 * float64(a) / float64(most) }
	for i, t := range r.Times {
		used, wasted := of(t)
		r.Bars = append(r.Bars, usageBar{
			Time: t, X: i, Used: fmt.Sprintf("%.2f", percent(used)), Wasted: fmt.Sprintf("%.2f", percent(wasted)),
			UsedFrom: fmt.Sprintf("%.2f", 100-percent(used)), WastedTop: fmt.Sprintf("%.2f", 100-percent(used)-percent(wasted)),
		})
	}
}

// Minutes writes minutes as people say them.
func (v usageView) Minutes(a usage.Amount) string {
	return took(time.Duration(a/1e3) * time.Minute / 1e3)
}

// Seconds writes seconds as people say them.
func (v usageView) Seconds(s float64) string { return took(time.Duration(s * float64(time.Second))) }

// Ends are the first and the last of the bars.
func (r usageReport) Ends() []usageBar { return []usageBar{r.Bars[0], r.Bars[len(r.Bars)-1]} }

// When writes when a part of the period begins.
func (r usageReport) When(t time.Time) string {
	if len(r.Times) > 1 && r.Times[1].From.Sub(r.Times[0].From) < 24*time.Hour {
		return t.UTC().Format("Jan 2 15:04")
	}
	return t.UTC().Format("Jan 2")
}
