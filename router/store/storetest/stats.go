package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

var statsTests = []test{
	{"what runners ask for is counted, of those that want a node or have one", func(t *testing.T, f *fixture) {
		gpu := decision()
		gpu.NodePool, gpu.Resources = "ci", rules.Resources{Cores: 4, MemoryMB: 1024}
		gpu.Constraints = []router.Constraint{{Attribute: "${node.class}", Operator: "!=", Value: "spot"}, {Attribute: "${node.class}", Operator: "=", Value: "gpu"}}
		gpu.Devices = []rules.Device{{Name: "nvidia/gpu", Count: 2}}
		plain := decision()
		plain.NodePool, plain.Resources = "ci", rules.Resources{CPU: 500, MemoryMB: 256}
		plain.Fallback = []rules.Fallback{{Placement: gpu.Placement}}
		begin := func(id int64, d *router.Decision) router.Runner {
			f.receive(queued(id))
			r := f.newRunner(id)
			r.Fit = f.job(id).Fit(d)
			f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
			r.NomadJob, r.NomadAt = r.ID, tokyo
			f.must(f.Dispatched(f.ctx(), r, Token(r.ID), d, T0))
			return r
		}
		asks := func(when string, want ...router.NodeDemand) {
			t.Helper()
			got, err := f.NodeDemand(f.ctx())
			f.must(err)
			slices.SortFunc(got, func(a, b router.NodeDemand) int {
				return cmp.Or(cmp.Compare(a.NodeClass, b.NodeClass), cmp.Compare(a.Cause, b.Cause))
			})
			t.Log(when)
			wantDiff(t, got, want)
		}
		of := func(class string, cause router.Cause, n int64) router.NodeDemand {
			d := router.NodeDemand{Region: tokyo.Region, NodePool: "ci", NodeClass: class, Cause: cause, Runners: int(n), CPU: 500 * n, MemoryMB: 256 * n}
			if class != "" {
				d.CPU, d.Cores, d.MemoryMB, d.Devices = 0, 4*n, 1024*n, map[string]int64{"nvidia/gpu": 2 * n}
			}
			return d
		}
		asks("at first")
		f.receive(queued(9))
		f.prepare(9) // Nomad has not taken it
		asks("of a runner that Nomad has not")
		one, two, three := begin(1, plain), begin(2, gpu), begin(3, gpu)
		asks("of three runners", of("", router.CausePlacing, 1), of("gpu", router.CausePlacing, 2))
		f.must(f.RecordUnplaced(f.ctx(), []string{two.ID}, router.Unplaced{Text: "too big", Never: true}, T0))
		f.saw(T0, event(one, router.NomadPlaced, T0, "node-1", ""), event(three, router.NomadPlaced, T0, "node-2", ""))
		asks("when two have a node", of("", router.CauseStarting, 1), of("gpu", router.CauseNoNodeFits, 1), of("gpu", router.CauseStarting, 1))
		f.claim(one)
		f.must(f.Configured(f.ctx(), one.ID, "one", 9, target, T0))
		f.receive(inProgress(1, "one"))
		asks("when one has a job", of("", router.CauseStarting, 1), of("gpu", router.CauseNoNodeFits, 1), of("gpu", router.CauseStarting, 1))
		f.receive(inProgress(3, "foreign")) // its own runner still has a node
		asks("when another's runner took a job", of("", router.CauseStarting, 1), of("gpu", router.CauseNoNodeFits, 1), of("gpu", router.CauseStarting, 1))
		f.must(f.Ended(f.ctx(), []string{one.ID, three.ID}, T0))
		asks("when both ended", of("gpu", router.CauseNoNodeFits, 1))
		f.lost(two.ID, T0, "its node died", T0)
		f.must(f.Ended(f.ctx(), []string{two.ID}, T0))
		asks("when none is left")

		four := begin(4, plain)
		asks("of a runner for its own placement", of("", router.CausePlacing, 1))
		f.must(errOf(f.FallBack(f.ctx(), four.ID, 1, "no node in time", T0)))
		f.must(f.Ended(f.ctx(), []string{four.ID}, T0))
		f.must(errOf(f.Requeue(f.ctx(), four.ID, "is requeued", T0)))
		begin(4, plain)
		asks("of one for its fallback", of("gpu", router.CausePlacing, 1))
	}},
	{"what waits longest, what started and what is open are told within a scope", func(t *testing.T, f *fixture) {
		at := func(id int64) time.Time { return T0.Add(-time.Duration(id) * time.Minute) } // the newest came first
		for id := int64(1); id <= 5; id++ {
			d := queued(id)
			d.ReceivedAt = at(id)
			if id > 3 {
				d.Job.Repo.Owner, d.Job.Repo.FullName = "Beta", "Beta/web"
			}
			f.receive(d)
		}
		f.dispatch(2)
		for _, id := range []int64{3, 5} {
			r := f.dispatch(id)
			runs := NewDelivery(id, "in_progress", "in_progress")
			runs.Job.RunnerName, runs.ReceivedAt = r.Name, at(id).Add(time.Duration(id)*time.Second)
			if id > 3 {
				runs.Job.Repo.Owner, runs.Job.Repo.FullName = "Beta", "Beta/web"
			}
			f.receive(runs)
		}
		f.must(f.Settle(f.ctx(), 1, router.Denied, "", "no", nil, at(1)))
		told := func(within router.Scope, limit int, since time.Time) string {
			t.Helper()
			oldest, err := f.Oldest(f.ctx(), within, limit)
			f.must(err)
			starts, err := f.Starts(f.ctx(), within, since)
			f.must(err)
			open, err := f.OpenJobs(f.ctx(), within)
			f.must(err)
			var b strings.Builder
			for _, j := range oldest {
				fmt.Fprint(&b, j.ID, " ")
			}
			for _, s := range starts {
				fmt.Fprint(&b, "· ", s.Rule, " ", s.Waited, " at ", s.At.Sub(T0), " ")
			}
			n := 0
			for _, o := range open {
				n += o.Jobs
			}
			fmt.Fprint(&b, "· ", n, " open")
			return b.String()
		}
		repos := func(within router.Scope, limit int) (told []string) {
			t.Helper()
			list, err := f.OpenRepos(f.ctx(), within, limit)
			f.must(err)
			for _, r := range list {
				told = append(told, fmt.Sprint(r.Repo.FullName, " ", r.Waiting, r.Placing, r.Starting, r.Running, " ", r.Oldest.Sub(T0)))
			}
			return told
		}
		for _, tt := range []struct {
			within router.Scope
			limit  int
			want   []string
		}{
			{nil, 9, []string{"Beta/web 1 0 0 1 -4m0s", "acme/web 0 1 0 1 -2m0s"}},
			{nil, 1, []string{"Beta/web 1 0 0 1 -4m0s"}},
			{router.Scope{"ACME/*"}, 9, []string{"acme/web 0 1 0 1 -2m0s"}},
			{router.Scope{}, 9, nil},
		} {
			wantDiff(t, repos(tt.within, tt.limit), tt.want)
		}
		rule := f.job(3).Decision.Rule
		five, three := "· "+rule+" 5s at -4m55s ", "· "+rule+" 3s at -2m57s "
		for _, tt := range []struct {
			within router.Scope
			limit  int
			since  time.Time
			want   string
		}{
			{nil, 9, T0.Add(-time.Hour), "4 2 " + five + three + "· 4 open"},
			{nil, 1, T0.Add(-4 * time.Minute), "4 " + three + "· 4 open"},
			{router.Scope{"beta/*"}, 9, T0.Add(-time.Hour), "4 " + five + "· 2 open"},
			{router.Scope{}, 9, T0.Add(-time.Hour), "· 0 open"},
		} {
			if got := told(tt.within, tt.limit, tt.since); got != tt.want {
				t.Errorf("within %v, %d, since %v: %s, want %s", tt.within, tt.limit, tt.since, got, tt.want)
			}
		}
	}},
}
