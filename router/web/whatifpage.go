package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"switchyard/router/simulate"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	whatIfRows   = 50 // rules, and groups of nodes, that are shown
	whatIfRetry  = 5 * time.Second
	whatIfDays   = 7
	whatIfFactor = 100 // of a scale in percent
)

// A Simulator replays recorded jobs.
type Simulator interface {
	// Simulate replays the jobs since then, the newest first and at most so many, through rules
	// and the nodes of the cluster as they are now. It says which nodes would help, or could go.
	Simulate(ctx context.Context, set *rules.Set, since time.Time, most int, scale float64) (simulate.Report, error)
}

// MaxWhatIf bounds the jobs that the page replays.
const MaxWhatIf = 200_000

// whatIfPeriods and whatIfScales are what the page offers, in days and in percent. Nothing else
// can be asked for: so few simulations are ever kept, or made anew.
var (
	whatIfPeriods = []struct {
		days int64
		name string
	}{{1, "the last day"}, {7, "the last 7 days"}, {30, "the last 30 days"}}
	whatIfScales = []struct {
		percent int64
		name    string
	}{{50, "half as many"}, {100, "as many"}, {150, "1.5 times as many"}, {200, "twice as many"}, {300, "3 times as many"}}
)

type whatIfView struct {
	None, Scoped    bool // no Nomad is known; the principal may not see all jobs
	Periods, Scales []option
	Report          *whatIfReport // nil: it is being made, or Problem
	Problem         string        // why there is none; "": nothing is wrong
}

// A whatIfReport is a report as far as the page shows it.
type whatIfReport struct {
	simulate.Report
	MoreRules, MoreGroups int
	Capped                bool // there are more jobs
}

// newWhatIfReport returns what the page shows of a report.
func newWhatIfReport(r simulate.Report) *whatIfReport {
	v := &whatIfReport{Report: r, MoreRules: max(0, len(r.Rules)-whatIfRows), MoreGroups: max(0, len(r.Groups)-whatIfRows)}
	left := 0
	for _, l := range r.LeftOut {
		left += l.Jobs
	}
	v.Capped = float64(r.Jobs+r.Total.Never)/r.Scale+float64(left) >= MaxWhatIf
	slices.SortStableFunc(v.Rules, func(a, b simulate.Row) int { return b.Jobs + b.Never - a.Jobs - a.Never })
	v.Rules = slices.Clone(v.Rules[:len(v.Rules)-v.MoreRules])
	v.Groups = slices.Clone(v.Groups[:len(v.Groups)-v.MoreGroups])
	v.LeftOut = v.LeftOut[:min(len(v.LeftOut), whatIfRows)]
	return v
}

func (s *console) whatIfPage(req *http.Request) (any, error) {
	p := api.Parameters{Values: req.URL.Query()}
	days := p.Number("days", whatIfDays, 1, whatIfPeriods[len(whatIfPeriods)-1].days)
	percent := p.Number("percent", whatIfFactor, 1, whatIfScales[len(whatIfScales)-1].percent)
	if err := p.End(); err != nil {
		return nil, err
	}
	v := whatIfView{None: s.config.Simulator == nil, Scoped: auth.Who(req.Context()).Scope != nil}
	known := 0
	for _, o := range whatIfPeriods {
		v.Periods = append(v.Periods, option{fmt.Sprint(o.days), o.name, o.days == days})
		if o.days == days {
			known++
		}
	}
	for _, o := range whatIfScales {
		v.Scales = append(v.Scales, option{fmt.Sprint(o.percent), o.name, o.percent == percent})
		if o.percent == percent {
			known++
		}
	}
	if known != 2 {
		return nil, problem.New(http.StatusBadRequest, "days %d, percent %d: want what the page offers; switchyard simulate takes any", days, percent)
	}
	if v.None || v.Scoped {
		return v, nil
	}
	set := s.config.App.Rules()
	var err error
	v.Report, err = s.whatIf.get(req.Context(), [3]any{set, days, percent}, func(ctx context.Context) (*whatIfReport, error) {
		if !s.simulating.TryLock() {
			return nil, problem.Later(http.StatusServiceUnavailable, whatIfRetry, "something else is being simulated; try again in a moment")
		}
		defer s.simulating.Unlock()
		since := s.config.Now().AddDate(0, 0, -int(days))
		r, err := s.config.Simulator.Simulate(ctx, set, since, MaxWhatIf, float64(percent)/whatIfFactor)
		if err != nil {
			return nil, err
		}
		return newWhatIfReport(r), nil
	})
	if err != nil {
		v.Problem = "the server's log says why"
		if p := problem.Of(err); p != nil {
			v.Problem = p.Detail
		}
	}
	return v, nil
}

// Seconds writes seconds as people say them.
func (v whatIfView) Seconds(s float64) string {
	if s == 0 {
		return "0 s"
	}
	return took(time.Duration(s * float64(time.Second)))
}

// Percent writes a share.
func (v whatIfView) Percent(share float64) string { return fmt.Sprintf("%.0f", 100*share) }

// Less is how many nodes could go.
func (v whatIfView) Less(a simulate.Advice) int { return -a.More }
