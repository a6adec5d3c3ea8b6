package web

import (
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
	Report      *usage.Report // nil: it is being counted, or Problem
	Problem     string        // why it is not counted; "": nothing is wrong
	Rows        []usage.Row   // those that are shown
	More        int
	Slow        []usage.Row
	Measure     string // what the picture shows
	Most        string // the highest bar
	Bars        []usageBar
	API         string // where programs get it
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
	by := router.UsageBy(p.Text("by"))
	hours := p.Number("hours", usagePeriods[2].hours, 1, int64(usage.MaxPeriod/time.Hour))
	if by == "" {
		by = router.ByRepo
	}
	if err := p.End(); err != nil {
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
	r, err := s.usage.get(req.Context(), fmt.Sprintf("%p %s %d %s", set, by, hours, scopeKey(f.Within)), func(ctx context.Context) (*usage.Report, error) {
		r, err := usage.Count(ctx, s.api.Database, f, set.Prices())
		return &r, err
	})
	if err != nil {
		v.Problem = "the server's log says why"
		if p := problem.Of(err); p != nil {
			v.Problem = p.Detail
		}
		return v, nil
	}
	v.fill(r)
	return v, nil
}

// fill makes what is shown of a report.
func (v *usageView) fill(r *usage.Report) {
	if v.Report = r; r == nil {
		return
	}
	v.Rows = r.Rows[:min(len(r.Rows), usageRows)]
	v.More = len(r.Rows) - len(v.Rows)
	for _, name := range r.Slowest {
		for _, row := range r.Rows {
			if row.Name == name {
				v.Slow = append(v.Slow, row)
				break
			}
		}
	}
	v.draw(r)
}

// draw makes the picture: of the costs, of CPU hours if there are no prices, or of minutes if
// no sizes are known.
func (v *usageView) draw(r *usage.Report) {
	of := func(t usage.Time) (used, wasted usage.Amount) { return t.Cost, t.WastedCost }
	switch {
	case r.Total.Cost+r.Total.Wasted.Cost > 0:
		v.Measure = "cost in " + r.Currency
	case r.Total.CPUHours+r.Total.Wasted.CPUHours > 0:
		v.Measure = "CPU hours"
		of = func(t usage.Time) (used, wasted usage.Amount) { return t.CPUHours, t.WastedHours }
	default:
		v.Measure = "minutes run"
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
	v.Most = most.Cents()
	percent := func(a usage.Amount) float64 { return 100 * float64(a) / float64(most) }
	for i, t := range r.Times {
		used, wasted := of(t)
		v.Bars = append(v.Bars, usageBar{
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
func (v usageView) Ends() []usageBar { return []usageBar{v.Bars[0], v.Bars[len(v.Bars)-1]} }

// When writes when a part of the period begins.
func (v usageView) When(t time.Time) string {
	if len(v.Report.Times) > 1 && v.Report.Times[1].From.Sub(v.Report.Times[0].From) < 24*time.Hour {
		return t.UTC().Format("Jan 2 15:04")
	}
	return t.UTC().Format("Jan 2")
}
