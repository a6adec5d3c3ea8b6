package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/health"
	"switchyard/router/telemetry"
)

// A fake is a database that has what its fields say.
type fake struct {
	metrics   *telemetry.Metrics // of the Health that open made
	err       error
	jobs      []router.JobTrouble
	holders   []router.LimitHolder
	versions  []router.RuleVersion
	open      []router.OpenJobs
	received  func(at time.Time) int // in the hour that begins then
	since     time.Time              // of the first job
	disk      router.Disk
	overflows []router.OverflowStatus
	warm      []router.WarmTrouble
	paused    time.Duration // for which region evaluates nothing
	region    string
	takes     atomic.Int64 // time.Duration: to answer
}

func (f *fake) Counts(context.Context) (map[router.JobState]int, error) {
	time.Sleep(time.Duration(f.takes.Load()))
	return nil, nil
}

func (f *fake) Writable(context.Context) error { return f.err }
func (f *fake) Disk() (router.Disk, error)     { return f.disk, nil }

func (f *fake) Troubles(context.Context, router.Scope, time.Time, time.Time, int) ([]router.JobTrouble, error) {
	return f.jobs, f.err
}

func (f *fake) RunnerVersions(context.Context) ([]router.RuleVersion, error) {
	return f.versions, f.err
}

func (f *fake) LimitHolders(context.Context) ([]router.LimitHolder, error) { return f.holders, f.err }

func (f *fake) OpenJobs(context.Context, router.Scope) ([]router.OpenJobs, error) {
	return f.open, f.err
}

func (f *fake) Received(_ context.Context, from, until time.Time) (n int, oldest time.Time, err error) {
	for at := from.Truncate(time.Hour); at.Before(until) && f.received != nil; at = at.Add(time.Hour) {
		n += f.received(at)
	}
	return n, f.since, f.err
}

func repo(name string) router.Repo {
	owner, short, _ := strings.Cut(name, "/")
	return router.Repo{Owner: owner, Name: short, FullName: name}
}

// open returns the health of a server that starts now.
func open(f *fake) *health.Health {
	f.metrics = telemetry.NewMetrics()
	return health.New(health.Config{
		Store: f, Metrics: f.metrics, Now: time.Now,
		Rules: func() router.RulesStatus { return router.RulesStatus{} }, FirstSync: func() bool { return false },
		Silent: func() (time.Duration, string) { return 0, "" }, NotEvaluating: func() (time.Duration, string) { return f.paused, f.region },
		Lost:  func() (int, time.Time) { return 0, time.Time{} },
		Polls: func() []router.Polling { return nil }, Overflows: func() []router.OverflowStatus { return f.overflows },
		Warm:     func() []router.WarmTrouble { return f.warm },
		Replicas: func(time.Time) []router.Trouble { return nil },
	}, "started")
}

// causes returns what is wrong, in order.
func causes(s router.Status) string {
	list := []string{s.Status}
	for _, t := range s.Troubles {
		list = append(list, fmt.Sprintf("%s %s", t.Severity, t.Cause))
	}
	return strings.Join(list, ", ")
}

// virtual runs a test on virtual time. It begins on a Saturday at midnight.
func virtual(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func trouble(cause router.Cause, rule, name string, jobs int) router.JobTrouble {
	return router.JobTrouble{
		Cause: cause, Rule: rule, Repo: repo(name), Jobs: jobs, Since: time.Now().Add(-time.Minute), Newest: 7,
		Labels: []string{"self-hosted", name + "-label"}, Reason: "said of " + name,
	}
}

func TestAViewerSeesNothingOfOtherRepositories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{holders: []router.LimitHolder{{Key: "linux", Repo: repo("secret/one"), Jobs: 5, Places: 6}, {Key: "linux", Repo: repo("acme/web"), Jobs: 1, Waiting: 2, Places: 6}}}
		for _, cause := range []router.Cause{
			router.CauseNomad, router.CauseRefused, router.CauseGitHub, router.CauseDied, router.CauseOnline, router.CauseUnroutable, router.CauseNoNodeFits, router.CauseLimit,
		} {
			f.jobs = append(f.jobs, trouble(cause, "secret-rule", "secret/one", 40), trouble(cause, "linux", "acme/web", 2))
		}
		f.jobs = append(f.jobs, trouble(router.CauseOutOfService, "secret-rule", "secret/one", 40))
		h := open(f)
		f.metrics.Nomad.Called("register job", 403, 0) // is behind jobs that Nomad refuses
		all, err := json.Marshal(h.Status(nil))
		if err != nil || strings.Count(string(all), "secret/one") < 9 {
			t.Fatalf("who may see all sees %s (%v)", all, err)
		}
		s := h.Status(router.Scope{"acme/*"})
		seen, err := json.Marshal(s)
		if err != nil || strings.Contains(string(seen), "secret") || strings.Contains(string(seen), `"jobs":4`) || strings.Contains(string(seen), "null") {
			t.Errorf("who may see acme sees %s (%v)", seen, err)
		}
		if len(s.Troubles) != 8 {
			t.Errorf("the troubles are %s", causes(s))
		}
		for _, x := range s.Troubles {
			if x.Jobs != 2 || len(x.Groups) != 1 || !strings.Contains(x.Where, "acme/web") {
				t.Errorf("%s is %+v", x.Cause, x)
			}
			if x.Cause == router.CauseLimit && x.Said != "acme/web has 1 of 6 places and 2 more jobs waiting" {
				t.Errorf("the limit says %q", x.Said)
			}
		}
		if s := h.Status(router.Scope{}); causes(s) != "degraded, critical nomad_denies" || s.Troubles[0].Jobs != 0 {
			t.Errorf("who may see nothing sees %+v", s.Troubles)
		}
	})
}

func TestAStatusIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		for i := range 10_000 {
			j := trouble(router.CauseDied, fmt.Sprintf("rule-%d", i%100), fmt.Sprintf("acme/repo-%d", i), 1)
			f.jobs = append(f.jobs, j)
			f.holders = append(f.holders, router.LimitHolder{Key: "linux", Repo: j.Repo, Jobs: 1})
		}
		s := open(f).Status(nil)
		if len(s.Troubles) != 1 {
			t.Fatalf("the troubles are %s", causes(s))
		}
		x := s.Troubles[0]
		if x.Jobs != 10_000 || len(x.Groups) != router.TroubleGroups || len(x.Rules) != router.TroubleNames || len(x.Repositories) != router.TroubleNames {
			t.Errorf("%d jobs, %d groups, %d rules, %d repositories", x.Jobs, len(x.Groups), len(x.Rules), len(x.Repositories))
		}
		if text := x.What + x.Where; len(text) > 400 || !strings.Contains(text, "100 rules") || !strings.Contains(text, "10000 repositories") {
			t.Errorf("it says %q", text)
		}
		h := open(&fake{})
		for i := range 1000 {
			h.Changed(router.Changed{At: time.Now(), What: fmt.Sprint(i)})
		}
		if changes := h.Status(nil).Changes; len(changes) != 20 || changes[0].What != "999" {
			t.Errorf("it has %d changes: %+v", len(changes), changes)
		}
	})
}

func TestTheWorstComesFirstThenTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{disk: router.Disk{Path: "db", Free: 1, Total: 1 << 40}}
		for i, x := range []struct {
			cause router.Cause
			jobs  int
		}{
			{router.CauseUnroutable, 1}, {router.CauseNoNodeFits, 9}, {router.CauseDied, 10}, {router.CauseOutOfService, 9}, {router.CauseRefused, 1}, {router.CauseLimit, 500},
		} {
			j := trouble(x.cause, "linux", "acme/web", x.jobs)
			j.Since = time.Now().Add(time.Duration(i-10) * time.Minute)
			f.jobs = append(f.jobs, j)
		}
		const want = "degraded, critical nomad_refused, critical died, warning disk, warning out_of_service, warning no_node_fits, info limit, info unroutable"
		if diff := cmp.Diff(want, causes(open(f).Status(nil))); diff != "" {
			t.Errorf("the order is wrong:\n%s", diff)
		}
		f = &fake{jobs: f.jobs[:1]}
		if got := causes(open(f).Status(nil)); got != "ok, info unroutable" {
			t.Errorf("what no operator has to act on is %s", got)
		}
	})
}

func TestADiskIsNearlyFull(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, tt := range []struct {
		name        string
		free, total int64
		want        bool
	}{
		{"it is not known", 0, 0, false},
		{"much of a large one is free", 100 * gib, 1000 * gib, false},
		{"little of a large one is enough", 3 * gib, 1000 * gib, false},
		{"too little of a large one", gib, 1000 * gib, true},
		{"enough of a small one", gib, 4 * gib, false},
		{"too little of a small one", 200 * mib, gib, true},
		{"it is full", 0, gib, true},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			s := open(&fake{disk: router.Disk{Path: "/var/db", Free: tt.free, Total: tt.total}}).Status(nil)
			if got := causes(s); (got == "degraded, warning disk") != tt.want || !tt.want && got != "ok" {
				t.Errorf("the status is %s", got)
			}
			if tt.want && !strings.Contains(s.Troubles[0].What, "/var/db") {
				t.Errorf("it says %q", s.Troubles[0].What)
			}
		})
	}
}

func TestNothingStarts(t *testing.T) {
	for _, tt := range []struct {
		name string
		open router.OpenJobs
		want bool
	}{
		{"a job waits for its runner", router.OpenJobs{State: router.Retrying, Cause: router.CauseNomad}, true},
		{"a job is not decided", router.OpenJobs{State: router.Queued, Cause: router.CauseQueued}, true},
		{"a job runs", router.OpenJobs{State: router.Running, Cause: router.CauseRunning}, false},
		{"a job waits for an approval", router.OpenJobs{State: router.Held, Cause: router.CauseApproval}, false},
		{"the nodes are busy", router.OpenJobs{State: router.Dispatched, Cause: router.CauseNoNodeFree}, false},
		{"no node fits", router.OpenJobs{State: router.Dispatched, Cause: router.CauseNoNodeFits}, false},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			tt.open.Jobs, tt.open.Oldest = 3, time.Now()
			h := open(&fake{open: []router.OpenJobs{tt.open}})
			time.Sleep(10 * time.Minute)
			if got := causes(h.Status(nil)); got != "ok" {
				t.Errorf("after ten minutes: %s", got)
			}
			time.Sleep(2 * time.Second)
			if got := causes(h.Status(nil)); (got == "degraded, critical nothing_starts") != tt.want || !tt.want && got != "ok" {
				t.Errorf("after more: %s", got)
			}
		})
	}
}

// The business has 20 jobs an hour from 9 to 17 on working days.
func TestSilenceIsJudgedByTheDayOfTheWeek(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name     string
		last, at time.Duration // since Saturday at midnight
		known    time.Duration // how long there have been jobs
		want     bool
	}{
		{"the weekend is quiet", -7 * time.Hour, 12 * time.Hour, 30 * day, false},
		{"so is Sunday", -7 * time.Hour, day + 12*time.Hour, 30 * day, false},
		{"and Monday morning", -7 * time.Hour, 2*day + 8*time.Hour, 30 * day, false},
		{"a Monday after it is not", -7 * time.Hour, 2*day + 11*time.Hour, 30 * day, true},
		{"nor a Tuesday after that", -7 * time.Hour, 3*day + 11*time.Hour, 30 * day, true},
		{"a Wednesday is not", 4*day + 10*time.Hour, 4*day + 11*time.Hour, 30 * day, true},
		{"a Wednesday with a delivery is", 4*day + 11*time.Hour, 4*day + 11*time.Hour + 10*time.Second, 30 * day, false},
		{"a night is", 4*day + 17*time.Hour, 4*day + 23*time.Hour, 30 * day, false},
		{"there is nothing to compare with", 4*day + 10*time.Hour, 4*day + 11*time.Hour, 12 * time.Hour, false},
		{"there is a day to compare with", 4*day + 10*time.Hour, 4*day + 11*time.Hour, 2 * day, true},
	} {
		virtual(t, tt.name, func(t *testing.T) {
			saturday := time.Now().Add(7 * day)
			f := &fake{since: saturday.Add(tt.last - tt.known), received: func(at time.Time) int {
				if weekday := at.UTC().Weekday(); weekday == time.Saturday || weekday == time.Sunday || at.UTC().Hour() < 9 || at.UTC().Hour() >= 17 {
					return 0
				}
				return 20
			}}
			h := open(f)
			time.Sleep(time.Until(saturday.Add(tt.last)))
			f.metrics.Delivered(router.DeliveryStored)
			time.Sleep(time.Until(saturday.Add(tt.at)))
			s := h.Status(nil)
			if got := causes(s); (got == "degraded, critical no_delivery") != tt.want || !tt.want && got != "ok" {
				t.Fatalf("the status is %s", got)
			}
			if tt.want && !s.Troubles[0].Since.Equal(saturday.Add(tt.last)) {
				t.Errorf("since %v, want %v", s.Troubles[0].Since, saturday.Add(tt.last))
			}
		})
	}
}

// What a silence is compared with is counted again when it is longer by some.
func TestALongSilenceCountsRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := 0
		f := &fake{since: time.Now().AddDate(0, -1, 0), received: func(time.Time) int { counted++; return 20 }}
		h := open(f)
		f.metrics.Delivered(router.DeliveryStored)
		time.Sleep(10 * time.Hour)
		quiet := func() int {
			t.Helper()
			counted = 0
			for range 25 {
				time.Sleep(time.Minute)
				if got := causes(h.Status(nil)); got != "degraded, critical no_delivery" {
					t.Fatalf("the status is %s", got)
				}
			}
			return counted
		}
		if n := quiet(); n == 0 || n > 7*11 { // once, of seven days
			t.Errorf("%d hours were counted in 25 minutes, want each once", n)
		}
		if quiet(); counted == 0 {
			t.Error("they are not counted again")
		}
		f.metrics.Delivered(router.DeliveryStored)
		time.Sleep(time.Second)
		if got := causes(h.Status(nil)); got != "ok" {
			t.Errorf("after a delivery the status is %s", got)
		}
	})
}

func TestAFailingDatabaseKeepsWhatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{
			jobs:    []router.JobTrouble{trouble(router.CauseDied, "linux", "acme/web", 3), trouble(router.CauseLimit, "linux", "acme/web", 1)},
			holders: []router.LimitHolder{{Key: "linux", Repo: repo("acme/web"), Jobs: 1, Waiting: 1, Places: 1}},
			disk:    router.Disk{Path: "/var/db", Free: 1, Total: 1 << 30},
		}
		h := open(f)
		if got := causes(h.Status(nil)); got != "degraded, warning disk, warning died, info limit" {
			t.Fatalf("before: %s", got)
		}
		time.Sleep(time.Minute)
		f.err = errors.New("no space left on device")
		failed := time.Now()
		for range 3 {
			s := h.Status(nil)
			if got := causes(s); got != "not ready, critical store, warning disk, warning died, info limit" {
				t.Fatalf("while it fails: %s", got)
			}
			if first := s.Troubles[0]; !first.Since.Equal(failed) || !strings.Contains(first.Said, "no space left") || !strings.Contains(first.Said, "/var/db") {
				t.Errorf("it says %+v, and failed at %v", first, failed)
			}
			time.Sleep(time.Minute)
		}
		f.err, f.jobs, f.disk = nil, nil, router.Disk{}
		if got := causes(h.Status(nil)); got != "ok" {
			t.Errorf("after the mend: %s", got)
		}
	})
}

func TestASlowDatabaseHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		h := open(f)
		asks := func(want string, wait time.Duration) {
			t.Helper()
			began := time.Now()
			if got := causes(h.Status(nil)); got != want || time.Since(began) != wait {
				t.Errorf("%s after %v, want %s after %v", got, time.Since(began), want, wait)
			}
		}
		f.takes.Store(int64(5 * time.Second))
		asks("ok", 5*time.Second) // there is no older answer
		time.Sleep(time.Minute)
		f.takes.Store(0)
		f.jobs = []router.JobTrouble{trouble(router.CauseDied, "linux", "acme/web", 3)}
		asks("ok", 0) // the last answer was slow: nobody waits for the next
		synctest.Wait()
		asks("degraded, warning died", 0)
		time.Sleep(time.Minute)
		f.takes.Store(int64(5 * time.Second))
		f.jobs = nil
		asks("degraded, warning died", 50*time.Millisecond) // the last answer was quick
		time.Sleep(10 * time.Second)
		asks("ok", 0)
		h.Wait()
	})
}

func TestNoTroubleBeginsLaterThanNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := trouble(router.CauseDied, "linux", "acme/web", 3)
		j.Since = time.Now().Add(time.Hour) // the clock was set back since
		if s := open(&fake{jobs: []router.JobTrouble{j}}).Status(nil); !s.Troubles[0].Since.Equal(time.Now()) {
			t.Errorf("since %v, and it is %v", s.Troubles[0].Since, time.Now())
		}
	})
}

func TestACallThatIsNotNeededMayBeDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		h := open(f)
		f.metrics.Nomad.Called("list keys", 403, 0)
		f.metrics.GitHub.Called("GET orgs/{name}/actions/runners/deprecations/{id}", 502, 0)
		f.metrics.GitHub.At("ghe.example").Called("GET orgs/{name}/actions/runners/deprecations/{id}", 502, 0)
		if s := h.Status(nil); len(s.Troubles) != 0 {
			t.Errorf("the troubles are %s", causes(s))
		}
		f.metrics.Nomad.Called("list jobs", 403, 0)
		if s := h.Status(nil); len(s.Troubles) != 1 {
			t.Errorf("once a needed call is denied, the troubles are %s", causes(s))
		}
	})
}

// A database that did not answer in time is asked again soon, not after a multiple of that time.
func TestTheEndOfAnOutageShowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		h := open(f)
		f.takes.Store(int64(router.StoreTimeout))
		f.err = context.DeadlineExceeded
		if got := causes(h.Status(nil)); got != "not ready, critical store" {
			t.Fatalf("while it does not answer: %s", got)
		}
		f.takes.Store(0)
		f.err = nil
		time.Sleep(2 * time.Second)
		h.Status(nil) // asks
		synctest.Wait()
		if got := causes(h.Status(nil)); got != "ok" {
			t.Errorf("when it answers again: %s", got)
		}
		h.Wait()
	})
}

func TestWhatOverflowsIsNoAlarmUnlessGitHubRefuses(t *testing.T) {
	set := router.OverflowStatus{Overflow: router.Overflow{
		Variable: router.Variable{Owner: "acme", Name: "LINUX_RUNNER"}, Rule: "linux", To: `"ubuntu-latest"`, Back: `"linux"`, State: router.OverflowSet, Why: "a job has waited for 10m",
	}}
	left, failing, over := set, set, set
	left.State, left.Why = router.OverflowLeft, "somebody has set it to x"
	failing.Repo, failing.Failing, failing.Fix = "web", "GitHub answered 403", "give it the permission"
	over.State = router.OverflowOver
	missing := failing
	missing.State, missing.Failing = "", "there is no such variable"
	for _, tt := range []struct {
		name   string
		status []router.OverflowStatus
		within router.Scope
		want   string
		says   string // of the first trouble
	}{
		{"nothing", nil, nil, "ok", ""},
		{"one that is over", []router.OverflowStatus{over}, nil, "ok", ""},
		{"one that is set", []router.OverflowStatus{set}, nil, "ok, info overflow", `new jobs of rule linux run elsewhere: LINUX_RUNNER is "ubuntu-latest" organization acme: a job has waited for 10m`},
		{"of another owner", []router.OverflowStatus{set, failing}, router.Scope{"beta/*"}, "ok", ""},
		{"of another repository", []router.OverflowStatus{set, failing}, router.Scope{"acme/api"}, "ok, info overflow", "organization acme"},
		{"one that is somebody's", []router.OverflowStatus{left}, nil, "ok, info overflow_left", "is as somebody has set it"},
		{"one that cannot be set back", []router.OverflowStatus{failing}, nil, "degraded, warning overflow_fails", `it may be "ubuntu-latest" acme/web: GitHub answered 403`},
		{"one that is missing", []router.OverflowStatus{missing}, nil, "degraded, warning overflow_fails", "jobs of rule linux wait and cannot overflow"},
		{"several", []router.OverflowStatus{set, failing, set}, nil, "degraded, warning overflow_fails, info overflow", "GitHub answered 403"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := open(&fake{overflows: tt.status})
			s := h.Status(tt.within)
			h.Wait()
			if causes(s) != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, causes(s), tt.want)
			}
			if len(s.Troubles) > 0 && !strings.Contains(s.Troubles[0].What+" "+s.Troubles[0].Said, tt.says) {
				t.Errorf("%s: it says %+v, want %s", tt.name, s.Troubles[0], tt.says)
			}
		})
	}
}

func TestWarmRunnersThatFailAreNoAlarmIfTheNodesAreBusy(t *testing.T) {
	one := router.WarmTrouble{Rule: "linux", Since: time.Now(), Why: "its image is gone", Fix: "mend it"}
	full := router.WarmTrouble{Rule: "mac", Since: time.Now(), Why: "all are full", Fix: "wait", NoRoom: true}
	many := []router.WarmTrouble{one, one, full}
	for i := range 8 {
		many = append(many, router.WarmTrouble{Rule: fmt.Sprint("rule-", i), Why: "why", Fix: "mend it"})
	}
	for _, tt := range []struct {
		list            []router.WarmTrouble
		want, what, fix string
	}{
		{nil, "ok", "", ""},
		{[]router.WarmTrouble{full}, "ok, info warm_no_room", "no node is free for the warm runners of rule mac", "wait"},
		{[]router.WarmTrouble{full, one}, "degraded, warning warm_fails, info warm_no_room", "warm runners of rule linux keep failing", "mend it"},
		{many, "degraded, warning warm_fails, info warm_no_room", "warm runners of 9 rules keep failing", "mend it"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := open(&fake{warm: tt.list})
			s := h.Status(nil)
			h.Wait()
			if causes(s) != tt.want {
				t.Errorf("%s, want %s", causes(s), tt.want)
			}
			if len(s.Troubles) > 0 && (!strings.HasPrefix(s.Troubles[0].What, tt.what) || s.Troubles[0].Fix != tt.fix || len(s.Troubles[0].Rules) > router.TroubleNames) {
				t.Errorf("it says %+v", s.Troubles[0])
			}
		})
	}
}

func TestARegionThatEvaluatesNothingIsNamed(t *testing.T) {
	for region, want := range map[string]string{"": "Nomad accepts jobs but does not evaluate them", "tokyo": "Nomad's region tokyo accepts jobs but does not evaluate them"} {
		synctest.Test(t, func(t *testing.T) {
			h := open(&fake{paused: time.Minute, region: region})
			s := h.Status(nil)
			h.Wait()
			if len(s.Troubles) != 1 || s.Troubles[0].Cause != router.CauseNotEvaluated || s.Troubles[0].What != want {
				t.Errorf("of region %q it says %+v", region, s.Troubles)
			}
		})
	}
}
