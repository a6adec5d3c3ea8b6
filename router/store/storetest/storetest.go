// Package storetest owns the conformance suite of the database: what every
// store must do, whatever its database. It is for tests only.
package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/router/web"
	"switchyard/router/web/api"
)

// A Store is all that the router and the console use of the database.
type Store interface {
	server.Store
	api.Database
	web.AuditTrail
}

// Run checks a store. open returns an empty one, closed when its test ends.
func Run(t *testing.T, open func(t testing.TB) Store) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"deliveries", deliveryTests},
		{"dispatch", dispatchTests},
		{"limits", limitTests},
		{"the order under a limit", orderTests},
		{"siblings", siblingTests},
		{"claims", claimTests},
		{"verified jobs and kept runners", verifyTests},
		{"runners", runnerTests},
		{"causes", causeTests},
		{"versions of runners", versionTests},
		{"warm runners", warmTests},
		{"lists", listTests},
		{"timelines", timelineTests},
		{"lost deliveries", lostTests},
		{"feedback", feedbackTests},
		{"variables by which jobs overflow", overflowTests},
		{"reruns", rerunTests},
		{"life on Nomad", lifeTests},
		{"runners of their own registration", ownTests},
		{"failures", failureTests},
		{"queries", queryTests},
		{"statistics", statsTests},
		{"usage", usageTests},
		{"operators", operatorTests},
		{"pruning", pruneTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			for _, tt := range group.tests {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					tt.run(t, &fixture{Store: open(t), t: t})
				})
			}
		})
	}
	for name, property := range map[string]func(*testing.T, func(testing.TB) Store){
		"places under a limit go to whom they are promised":                         order,
		"any order of a job's deliveries ends in the same state":                    anyOrder,
		"jobs that take each other's runners are all served, and no runner is left": thefts,
		"any order of two jobs' deliveries leaves neither without a runner":         anyShuffle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			property(t, open)
		})
	}
}

type test struct {
	name string
	run  func(*testing.T, *fixture)
}

// T0 is when the suite's stories begin. Stores keep milliseconds.
var T0 = time.Date(2026, 3, 1, 12, 0, 0, int(345*time.Millisecond), time.UTC)

// NewDelivery returns a delivery as GitHub would send it for a job, with an ID
// of its own.
func NewDelivery(jobID int64, action, status string) router.Delivery {
	d := router.Delivery{
		ID:     fmt.Sprintf("%d-%s-%s", jobID, action, status),
		Action: action, Status: status, ReceivedAt: T0,
		Job: router.Job{
			ID: jobID, RunID: 7, Attempt: 2,
			Name: "build (linux, 1.26)", Workflow: "CI", Branch: "main", Sender: "octocat",
			Labels: []string{"self-hosted", "Linux", "cpu=8"},
			URL:    "https://github.com/acme/web/actions/runs/7/job/1",
		},
	}
	d.Job.Repo.Owner, d.Job.Repo.Name, d.Job.Repo.FullName = "acme", "web", "acme/web"
	d.Job.Repo.Private, d.Job.Repo.Visibility = true, "internal"
	return d
}

func queued(id int64) router.Delivery { return NewDelivery(id, "queued", "queued") }

func inProgress(id int64, runner string) router.Delivery {
	d := NewDelivery(id, "in_progress", "in_progress")
	d.Job.RunnerName = runner
	return d
}

func completed(id int64, runner, conclusion string) router.Delivery {
	d := NewDelivery(id, "completed", "completed")
	d.Job.RunnerName, d.Job.Conclusion = runner, conclusion
	return d
}

// Token returns the hash of a claim token made of its arguments.
func Token(parts ...any) [32]byte { return sha256.Sum256(fmt.Append(nil, parts...)) }

func decision() *router.Decision {
	d := &router.Decision{Outcome: "routed", Rule: "linux", Reason: "rule linux holds", Labels: []string{"linux"}}
	d.Jobspec = "docker-linux"
	d.Constraints = []router.Constraint{{Attribute: "${attr.cpu.arch}", Operator: "=", Value: "amd64", From: "label x64"}}
	d.Resources.MemoryMB = 4096
	d.Task.Config = map[string]any{"image": "a\"b", "privileged": false, "n": 1.5}
	d.From = map[string]string{"resources.memory_mb": "defaults"}
	return d
}

// A fixture is a store with the steps of the stories, each of which must work.
type fixture struct {
	Store
	t tb
}

// A tb is what a fixture uses of *testing.T and of *rapid.T.
type tb interface {
	Context() context.Context
	Fatal(...any)
	Fatalf(string, ...any)
	Helper()
}

func (f *fixture) ctx() context.Context { return f.t.Context() }

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// receive stores a delivery and reports whether it changed anything.
func (f *fixture) receive(d router.Delivery) bool {
	f.t.Helper()
	changed, err := f.Receive(f.ctx(), d)
	f.must(err)
	return changed
}

// queue stores that jobs are queued.
func (f *fixture) queue(ids ...int64) {
	f.t.Helper()
	for _, id := range ids {
		f.receive(queued(id))
	}
}

// sawHook notes a hook, swept until then, and reports whether it is known.
func (f *fixture) sawHook(h router.Hook, at time.Time) bool {
	f.t.Helper()
	known, err := f.RecordHook(f.ctx(), h, at, at)
	f.must(err)
	return known
}

// ids returns the IDs of jobs that were read without an error.
func (f *fixture) ids(jobs []router.Job, err error) (ids []int64) {
	f.t.Helper()
	f.must(err)
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

func (f *fixture) job(id int64) router.Job {
	f.t.Helper()
	j, err := f.Job(f.ctx(), id)
	f.must(err)
	return j
}

func (f *fixture) wantState(id int64, want router.JobState) router.Job {
	f.t.Helper()
	j := f.job(id)
	if j.State != want {
		f.t.Fatalf("job %d is %s (%s), want %s", id, j.State, j.Reason, want)
	}
	if j.Reason == "" {
		f.t.Fatalf("job %d is %s without a reason", id, j.State)
	}
	return j
}

// runner returns the runner of a job's current try.
func (f *fixture) runner(jobID int64) router.Runner {
	f.t.Helper()
	j := f.job(jobID)
	runners, err := f.Runners(f.ctx(), jobID)
	f.must(err)
	for _, r := range runners {
		if r.Try == j.Try {
			return r
		}
	}
	f.t.Fatalf("job %d has no runner for try %d, only %+v", jobID, j.Try, runners)
	return router.Runner{}
}

// wantRunner checks the state of the runner with this ID, which is meant for the job.
func (f *fixture) wantRunner(jobID int64, id string, want router.RunnerState) router.Runner {
	f.t.Helper()
	runners, err := f.Runners(f.ctx(), jobID)
	f.must(err)
	for _, r := range runners {
		if r.ID == id {
			if r.State != want {
				f.t.Fatalf("runner %s is %s, want %s", id, r.State, want)
			}
			return r
		}
	}
	f.t.Fatalf("job %d has no runner %s, only %+v", jobID, id, runners)
	return router.Runner{}
}

// newRunner returns the runner that dispatch would ask for now.
func (f *fixture) newRunner(jobID int64) router.Runner {
	f.t.Helper()
	j := f.job(jobID)
	return router.Runner{ID: j.RunnerID(), JobID: jobID, Try: j.Try, State: router.RunnerDispatched, Name: j.RunnerID(), NomadAt: router.NomadAt{Region: tokyo.Region}, Fit: j.Fit(decision())}
}

func (f *fixture) prepare(jobID int64) router.Runner {
	f.t.Helper()
	r := f.newRunner(jobID)
	f.must(f.Prepare(f.ctx(), r, Token(r.ID), T0))
	return r
}

// dispatch takes a job from queued to dispatched.
func (f *fixture) dispatch(jobID int64) router.Runner {
	f.t.Helper()
	return f.dispatchBy(jobID, decision())
}

func (f *fixture) dispatchBy(jobID int64, d *router.Decision) router.Runner {
	f.t.Helper()
	r := f.prepare(jobID)
	r.NomadJob, r.NomadAt = r.ID, tokyo
	f.must(f.Dispatched(f.ctx(), r, Token(r.ID), d, T0))
	return r
}

// dispatchNew is dispatch of a job that was not known.
func (f *fixture) dispatchNew(jobID int64) router.Runner {
	f.t.Helper()
	f.queue(jobID)
	return f.dispatch(jobID)
}

func (f *fixture) claim(r router.Runner) router.Claimed {
	f.t.Helper()
	c, err := f.Claim(f.ctx(), Token(r.ID), T0)
	f.must(err)
	return c
}

func (f *fixture) lost(runnerID string, at time.Time, reason string, now time.Time) (lost bool) {
	f.t.Helper()
	lost, err := f.Lost(f.ctx(), router.Runner{ID: runnerID}, at, router.CauseRunner, reason, now)
	f.must(err)
	return lost
}

var target = router.Target{Owner: "acme", Repo: "web"}

// online takes a job from queued to a configured runner, and returns the runner's name.
func (f *fixture) online(jobID int64) (r router.Runner, name string) {
	f.t.Helper()
	r = f.dispatch(jobID)
	if c := f.claim(r); !c.Needed {
		f.t.Fatalf("the claim of %s says that job %d needs no runner", r.ID, c.Job.ID)
	}
	name = r.ID + "-abc"
	f.must(f.Configured(f.ctx(), r.ID, name, 99, target, T0))
	f.must(f.Online(f.ctx(), r.ID, T0))
	return r, name
}

// onlineNew is online of a job that was not known.
func (f *fixture) onlineNew(jobID int64) (r router.Runner, name string) {
	f.t.Helper()
	f.queue(jobID)
	return f.online(jobID)
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// told are the fields that say what the timeline does, which has tests of its own.
var told = cmp.Options{
	cmpopts.IgnoreFields(router.Job{}, "DispatchedAt", "RunningAt", "CompletedAt"),
	cmpopts.IgnoreFields(router.Runner{}, "Reason", "StateAt", "CreatedAt"),
}

func wantDiff(t testing.TB, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, told); diff != "" {
		t.Errorf("got (+), want (-):\n%s", diff)
	}
}

// atOnce runs do n times at the same time.
func atOnce(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// errOf returns the error of a call whose other result does not matter.
func errOf[T any](_ T, err error) error { return err }
