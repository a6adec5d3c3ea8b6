package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/rules"
)

var versionTests = []test{
	{"a rule whose runners are too old starts no third one", func(t *testing.T, f *fixture) {
		start := func(id int64, rule, version string) error {
			r := f.newRunner(id)
			r.Rule, r.Rules = rule, version
			return f.Prepare(f.ctx(), r, Token(r.ID), T0)
		}
		outdated := func(id int64, rule, version, why string) {
			t.Helper()
			f.must(start(id, rule, version))
			r := f.begin(id)
			f.must(errOf(f.Lost(f.ctx(), router.Runner{ID: r.ID}, T0, router.CauseVersion, why, T0.Add(time.Duration(r.Try)*time.Minute))))
			if j := f.wantState(id, router.Retrying); j.Cause != router.CauseVersion {
				t.Errorf("job %d is retried by %q", id, j.Cause)
			}
		}
		f.queue(1, 2, 3)
		outdated(1, "linux", "a", "one")
		outdated(1, "linux", "a", "two")
		for _, id := range []int64{1, 2} {
			old, ok := errors.AsType[*router.OutdatedError](start(id, "linux", "a"))
			if !ok || old.Said != "two" {
				t.Fatalf("after two runners in vain, job %d gets another: %v", id, old)
			}
		}
		f.must(start(3, "gpu", "a")) // another rule

		limited := decision()
		limited.Limit = &rules.Limit{Key: "k", Running: 1, Per: "rule"}
		if !f.admit(1, limited) || f.admit(2, limited) {
			t.Fatal("the limit does not hold job 2")
		}
		f.must(f.HoldOutdated(f.ctx(), 1, "too old", limited, T0))
		f.wantState(2, router.Queued) // it has the place now
		f.must(f.HoldOutdated(f.ctx(), 2, "too old", limited, T0))
		held := func(id int64) {
			t.Helper()
			if j := f.wantState(id, router.Held); j.Cause != router.CauseVersion || j.Reason != "too old" || j.Decision == nil {
				t.Errorf("job %d is held by %q: %s", id, j.Cause, j.Reason)
			}
		}
		held(1)
		held(2)
		if f.receive(NewDelivery(2, "queued", "queued")) {
			t.Error("GitHub's queued changes it")
		}
		d := NewDelivery(2, "queued", "queued") // GitHub, asked
		d.ID, d.Source, d.ReceivedAt = "", router.SourceGitHub, T0.Add(time.Hour)
		f.receive(d)
		held(2)
		list, err := f.Troubles(f.ctx(), nil, T0, T0, 10)
		f.must(err)
		if len(list) != 1 || list[0].Cause != router.CauseVersion || list[0].Jobs != 2 || list[0].Rule != "linux" || list[0].Reason != "too old" {
			t.Errorf("the troubles are %+v", list)
		}
		if n, err := f.Reconsider(f.ctx(), "a", T0); n != 0 || err != nil {
			t.Errorf("the same rules let %d jobs go (%v)", n, err)
		}
		held(1)
		if n, err := f.Reconsider(f.ctx(), "b", T0); n != 2 || err != nil {
			t.Errorf("other rules let %d jobs go (%v), want both", n, err)
		}
		f.must(start(1, "linux", "b"))

		f.wantState(2, router.Queued)
		outdated(2, "linux", "b", "three")
		outdated(2, "linux", "b", "four")
		f.must(f.HoldOutdated(f.ctx(), 2, "too old", decision(), T0))
		if n, err := f.Resume(f.ctx(), "gpu", "go", T0); n != 0 || err != nil {
			t.Errorf("another rule lets %d jobs go (%v)", n, err)
		}
		held(2)
		if n, err := f.Resume(f.ctx(), "linux", "ann lets it go", T0); n != 1 || err != nil {
			t.Errorf("an operator lets %d jobs go (%v), want one", n, err)
		}
		if j := f.wantState(2, router.Queued); j.Reason != "ann lets it go" {
			t.Errorf("it is queued as %q", j.Reason)
		}
		f.must(start(2, "linux", "b"))

		f.must(f.HoldOutdated(f.ctx(), 1, "too old", nil, T0))
		f.must(errOf(f.Cancel(f.ctx(), 1, "no more", T0)))
		f.wantState(1, router.Denied)
	}},
	{"how a runner's task ended is known until the runner is given up", func(t *testing.T, f *fixture) {
		r, _ := f.onlineNew(1)
		end := event(r, router.NomadEnded, T0, "node-1", "failed: Exit Code: 7")
		end.End, end.Code = router.EndFailed, 7
		if seen := f.saw(T0, end); len(seen) != 1 || seen[0].ExitCode != 7 {
			t.Errorf("seen is %+v", seen)
		}
		live, err := f.Live(f.ctx())
		f.must(err)
		if len(live) != 1 || live[0].ExitCode != 7 {
			t.Errorf("live are %+v", live)
		}
	}},
	{"versions are asked for where they are not known", func(t *testing.T, f *fixture) {
		r, name := f.onlineNew(1)
		other, _ := f.onlineNew(2)
		f.receive(inProgress(1, name))
		list, err := f.Unversioned(f.ctx(), "", nil, 9)
		f.must(err)
		if len(list) != 2 || list[0].ID != r.ID || list[0].Name != name || list[0].Rule != "linux" || list[0].Target != target || list[1].ID != other.ID {
			t.Errorf("without a version are %+v", list)
		}
		for _, n := range []struct {
			except []string
			want   int
		}{{[]string{"linux"}, 0}, {[]string{"gpu", "x"}, 2}} {
			if list, err := f.Unversioned(f.ctx(), "", n.except, 9); err != nil || len(list) != n.want {
				t.Errorf("without %s there are %d (%v), want %d", strings.Join(n.except, ", "), len(list), err, n.want)
			}
		}
		f.queue(3)
		third := f.newRunner(3)
		third.Rule, third.Rules = "linux", "a"
		f.must(f.Prepare(f.ctx(), third, Token(third.ID), T0))
		f.begin(3)
		for rules, want := range map[string]int{"a": 3, "b": 2} {
			if list, err := f.Unversioned(f.ctx(), rules, nil, 9); err != nil || len(list) != want || want == 3 && !slices.ContainsFunc(list, func(r router.Runner) bool { return r.ID == third.ID && r.Rules == "a" }) {
				t.Errorf("of the rules %s they are %+v (%v), want %d", rules, list, err, want)
			}
		}
		f.must(f.SetRunnerVersion(f.ctx(), r.ID, "2.336.0"))
		if list, err := f.Unversioned(f.ctx(), "b", nil, 9); err != nil || len(list) != 1 || list[0].ID != other.ID {
			t.Errorf("then they are %+v (%v)", list, err)
		}
		if got := f.wantRunner(1, r.ID, router.RunnerBusy); got.Version != "2.336.0" {
			t.Errorf("its version is %q", got.Version)
		}

		if list, err := f.RunnerVersions(f.ctx()); err != nil || len(list) != 0 {
			t.Errorf("at first the rules' versions are %+v (%v)", list, err)
		}
		want := []router.RuleVersion{{
			Rule: "linux", Rules: "a", Version: "2.336.0", Target: target, Seen: T0, End: router.VersionEnd{Jobs: T0.Add(time.Hour)}, Asked: T0.Add(time.Minute),
		}, {Rule: "mac", Version: "2.1.0", Target: router.Target{Host: "ghe.example.com", Owner: "acme"}, Seen: T0}}
		f.must(f.SetRunnerVersions(f.ctx(), want))
		got, err := f.RunnerVersions(f.ctx())
		f.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the rules' versions (-want +got):\n%s", diff)
		}
	}},
}

// begin takes the prepared runner of a job online.
func (f *fixture) begin(jobID int64) router.Runner {
	f.t.Helper()
	r := f.runner(jobID)
	r.NomadJob, r.NomadAt = r.ID, tokyo
	f.must(f.Dispatched(f.ctx(), r, Token(r.ID), decision(), T0))
	f.claim(r)
	f.must(f.Configured(f.ctx(), r.ID, r.ID+"-abc", jobID, target, T0))
	f.must(f.Online(f.ctx(), r.ID, T0))
	return r
}
