package storetest

import (
	"errors"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

var overflowTests = []test{
	{"a variable is as it was recorded last, until that is removed", func(t *testing.T, f *fixture) {
		org := router.Overflow{
			Variable: router.Variable{Host: "github.com", Owner: "acme", Name: "RUNNER"}, Rule: "linux", To: `"u"`, Back: `["l"]`,
			State: router.OverflowSetting, Why: "a job has waited for 10m", Since: T0, At: T0, Calm: 5 * time.Minute,
		}
		repo := org
		repo.Repo, repo.Since = "web", T0.Add(-time.Second)
		f.must(f.RecordOverflow(f.ctx(), org, router.Audit{}))
		f.must(f.RecordOverflow(f.ctx(), repo, router.Audit{}))
		org.State, org.At, org.Calm, org.Why = router.OverflowSet, T0.Add(time.Minute), time.Hour, "another"
		f.must(f.RecordOverflow(f.ctx(), org, router.Audit{At: T0, Who: "Switchyard", Did: "overflow", What: org.String(), Result: "set"}))
		list, err := f.Overflows(f.ctx())
		f.must(err)
		wantDiff(t, list, []router.Overflow{repo, org})

		repo.State = ""
		f.must(f.RecordOverflow(f.ctx(), repo, router.Audit{}))
		list, err = f.Overflows(f.ctx())
		f.must(err)
		wantDiff(t, list, []router.Overflow{org})
		trail, err := f.Audits(f.ctx(), 0, 9)
		f.must(err)
		if len(trail) != 1 || trail[0].What != "variable RUNNER of organization acme" {
			t.Errorf("the audit trail is %+v", trail)
		}

		past := T0.Add(-time.Hour) // the clock is set back
		f.must(errOf(f.Rewind(f.ctx(), past)))
		list, err = f.Overflows(f.ctx())
		f.must(err)
		if !list[0].Since.Equal(past) || !list[0].At.Equal(past) {
			t.Errorf("after the clock was set back it is %+v", list[0])
		}
	}},
	{"a job waits since GitHub queued it last, and for what its troubles say", func(t *testing.T, f *fixture) {
		want := func(after string, want ...router.RuleWait) {
			t.Helper()
			for i := range want {
				want[i].Rule = "linux"
				want[i].Repo.Owner, want[i].Repo.Name, want[i].Repo.FullName = "acme", "web", "acme/web"
			}
			got, err := f.Waits(f.ctx())
			if err != nil {
				t.Fatalf("after %s: %v", after, err)
			}
			wantDiff(t, got, want)
		}
		at := func(minutes int) time.Time { return T0.Add(time.Duration(minutes) * time.Minute) }
		want("nothing")
		f.receive(NewDelivery(1, "waiting", "waiting"))
		later := queued(1)
		later.ReceivedAt = at(30)
		f.receive(later)
		want("it was queued, by no rule yet")
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseGitHub, "no", decision(), at(31)))
		want("GitHub had kept it back for half an hour", router.RuleWait{Oldest: at(30)})
		f.must(f.Retry(f.ctx(), 1, T0, router.CauseSilent, "no", nil, at(32)))
		want("Nomad became silent", router.RuleWait{Oldest: at(30), Nomad: at(32)})
		r := f.dispatch(1)
		want("Nomad took its runner", router.RuleWait{Oldest: at(30)})
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "too big", Never: true}, at(33)))
		want("no node fits it", router.RuleWait{NoNode: at(33)})
		f.must(f.RecordUnplaced(f.ctx(), []string{r.ID}, router.Unplaced{Text: "full"}, at(34)))
		want("one fits it", router.RuleWait{Oldest: at(30), Served: 1})
		f.saw(at(35), event(r, router.NomadPlaced, at(35), "node-1", ""))
		want("it has a node", router.RuleWait{Oldest: at(30), Served: 1})
		f.receive(inProgress(1, r.Name))
		want("it runs", router.RuleWait{Served: 1})
		f.receive(completed(1, r.Name, "success"))
		want("it has ended")

		limited := decision()
		limited.Limit = &rules.Limit{Key: "linux", Running: 0, Per: "rule"}
		f.receive(queued(2))
		f.must(errOf(f.Admit(f.ctx(), 2, limited, T0)))
		f.wantState(2, router.Held)
		want("a job that waits for a place", router.RuleWait{Oldest: T0})
		f.receive(queued(4))
		f.must(f.HoldOutdated(f.ctx(), 4, "too old", decision(), T0))
		f.receive(completed(2, "", "cancelled"))
		want("a job whose rule's runners are too old", router.RuleWait{Oldest: T0})
		f.receive(completed(4, "", "cancelled"))
		f.receive(queued(3))
		r = f.dispatch(3)
		f.claim(r)
		f.must(f.Configured(f.ctx(), r.ID, "one", 9, target, T0))
		f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: r.ID}, T0.Add(time.Minute), router.CauseNoJob, "idle", T0)))
		want("a job that GitHub gave no runner that it had")
	}},
	{"a leader whose term is over records no variable", func(t *testing.T, f *fixture) {
		err := f.RecordOverflow(router.WithTerm(f.ctx(), 99), router.Overflow{Variable: router.Variable{Owner: "acme", Name: "R"}, State: router.OverflowSet}, router.Audit{})
		if !errors.Is(err, router.ErrNotLeader) {
			t.Errorf("RecordOverflow = %v", err)
		}
	}},
}
