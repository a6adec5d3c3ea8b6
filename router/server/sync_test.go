package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/server"
)

// index is what a GitHub lists. The zero index has nothing.
type index struct {
	mu     sync.Mutex
	repos  []router.Repo
	jobs   map[int64][]router.Delivery  // by run
	runs   map[string][]router.Delivery // by lower-case owner/name: the jobs of its unfinished runs
	hidden map[string]bool              // by owner/name
	asked  int                          // for the jobs of a run
	looks  []string                     // repositories that were synced
	refuse func(n int) error            // the nth sync
}

func (x *index) Sees(_ context.Context, repo router.Repo) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.hidden[repo.FullName], nil
}

func (x *index) Unfinished(_ context.Context, repo router.Repo, _ int, each func(router.Delivery) error) (did router.Unfinished, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.looks = append(x.looks, repo.FullName)
	did.Calls = 5
	if x.refuse != nil {
		if err := x.refuse(len(x.looks)); err != nil {
			return did, err
		}
	}
	for _, d := range x.runs[strings.ToLower(repo.FullName)] {
		did.Jobs++
		if err := each(d); err != nil {
			return did, err
		}
	}
	return did, nil
}

func (x *index) RunJobs(_ context.Context, _ router.Repo, runID int64, each func(router.Delivery) error) error {
	x.mu.Lock()
	x.asked++
	jobs := slices.Clone(x.jobs[runID])
	x.mu.Unlock()
	for _, d := range jobs {
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) Repositories(_ context.Context, each func(router.Repo) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.repos {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) looked() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.looks)
}

// says is what GitHub answers about a job.
func says(id int64, action string, labels ...string) router.Delivery {
	d := delivery(id, action, labels...)
	d.ID, d.Source = "", router.SourceGitHub
	return d
}

func TestJobsThatNobodyServesAreAskedAbout(t *testing.T) {
	bubble(t, testJobsThatNobodyServesAreAskedAbout)
}
func testJobsThatNobodyServesAreAskedAbout(t *testing.T) {
	h := &hub{}
	h.hidden = map[string]bool{"acme/hidden": true}
	var mu sync.Mutex
	answers := map[int64]router.Delivery{
		1: says(1, "queued", "self-hosted", "linux"),
		2: says(2, "in_progress", "self-hosted", "linux"),
		3: says(3, "completed", "self-hosted", "linux"),
	}
	d := answers[2]
	d.Job.RunnerName = "somebody's"
	answers[2] = d
	h.job = func(id int64) (router.Delivery, error) {
		mu.Lock()
		defer mu.Unlock()
		if d, ok := answers[id]; ok {
			return d, nil
		}
		return router.Delivery{}, fmt.Errorf("%w: 404", router.ErrNotFound)
	}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) { c.Recheck = 40 * time.Millisecond })
	for id := int64(1); id <= 5; id++ {
		d := delivery(id, "queued", "self-hosted", "linux")
		if id == 5 {
			d.Job.Repo.Name, d.Job.Repo.FullName = "hidden", "acme/hidden"
		}
		r.deliver(d)
	}
	if j := r.await(2, in(router.Running)); j.RunnerName != "somebody's" {
		t.Errorf("job 2 runs on %q", j.RunnerName)
	}
	r.await(3, in(router.Completed))
	if j := r.await(4, in(router.Completed)); j.Reason != "GitHub no longer knows it" || j.Conclusion != "" {
		t.Errorf("job 4 ended with %q, %q", j.Conclusion, j.Reason)
	}
	for _, id := range []int64{1, 5} {
		j := r.await(id, func(j router.Job) bool { return !j.AskedAt.IsZero() })
		if j.State != router.Dispatched {
			t.Errorf("job %d is %s (%s), want dispatched as before", id, j.State, j.Reason)
		}
	}
	events, err := r.store.Timeline(t.Context(), 4)
	if err != nil || !slices.ContainsFunc(events, func(e router.Event) bool { return e.Source == router.SourceGitHub && e.JobID == 4 }) {
		t.Errorf("the timeline is %+v, err %v, want what GitHub said in it", events, err)
	}
}

func TestAJobOfARepositoryThatIsGoneIsGivenUpAfterADay(t *testing.T) {
	bubble(t, testAJobOfARepositoryThatIsGoneIsGivenUpAfterADay)
}
func testAJobOfARepositoryThatIsGoneIsGivenUpAfterADay(t *testing.T) {
	st := openStore(t)
	d := delivery(1, "queued", "self-hosted", "linux")
	d.ReceivedAt = time.Now().Add(-25 * time.Hour)
	must(t, errOf(st.Receive(t.Context(), d)))
	h := &hub{}
	h.hidden = map[string]bool{"acme/web": true}
	h.job = func(int64) (router.Delivery, error) { return router.Delivery{}, router.ErrNotFound }
	r := start(t, st, &cluster{}, h)
	r.await(1, in(router.Completed))
}

// What a re-check or a full sync finds is treated as a delivery is.
func TestARunnerIsStoppedWhenGitHubSaysThatItsJobEnded(t *testing.T) {
	for name, find := range map[string]func(*testing.T, *running){
		"re-check": func(*testing.T, *running) {},
		"full sync": func(t *testing.T, r *running) {
			must(t, errOf(r.App.Sync(t.Context(), "", "acme/web")))
		},
	} {
		virtual(t, name, func(t *testing.T) {
			var over atomic.Bool
			h := &hub{job: func(id int64) (router.Delivery, error) {
				if over.Load() {
					return says(id, "completed"), nil
				}
				return says(id, "queued", "self-hosted", "linux"), nil
			}}
			r := start(t, openStore(t), &cluster{}, h, slow, func(c *server.Config) {
				if c.Recheck = time.Hour; name == "re-check" {
					c.Recheck = 40 * time.Millisecond
				}
			})
			r.dispatch(1)
			over.Store(true)
			find(t, r)
			eventually(t, "its Nomad job is stopped", func() bool { return r.nomad.ended("gha-1-1") })
		})
	}
}

func TestAFullLookFindsWhatIsNotKnown(t *testing.T) {
	bubble(t, testAFullLookFindsWhatIsNotKnown)
}
func testAFullLookFindsWhatIsNotKnown(t *testing.T) {
	h := &hub{}
	h.index.runs = map[string][]router.Delivery{"acme/web": {
		says(1, "queued", "self-hosted", "linux"), says(2, "queued", "self-hosted", "linux"), says(3, "completed", "self-hosted", "linux"),
	}}
	h.job = func(id int64) (router.Delivery, error) { return says(id, "completed"), nil }
	r := start(t, openStore(t), &cluster{}, h)
	r.deliver(delivery(1, "queued", "self-hosted", "linux"))
	r.deliver(delivery(3, "queued", "self-hosted", "linux"))
	r.deliver(delivery(4, "queued", "self-hosted", "linux")) // in no run that has not ended
	other := delivery(5, "queued", "self-hosted", "linux")
	other.Job.Repo.Name = "api"
	r.deliver(other)
	report, err := r.App.Sync(t.Context(), "", "Acme/web")
	must(t, err)
	want := router.SyncReport{Repo: "Acme/web", Unfinished: router.Unfinished{Jobs: 4, Calls: 6}, Changed: 3}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("Sync (-want +got):\n%s", diff)
	}
	r.await(1, in(router.Dispatched))
	r.await(2, in(router.Dispatched))
	r.await(3, in(router.Completed))
	r.await(4, in(router.Completed))
	r.await(5, in(router.Dispatched))
	for _, repo := range []string{"", "acme", "acme/", "/web", "acme/web/x"} {
		if _, err := r.App.Sync(t.Context(), "", repo); !errors.As(err, new(*router.GiveUpError)) {
			t.Errorf("Sync(%q) = %v, want give up", repo, err)
		}
	}
}

func TestAnEmptyDatabaseIsFilledFromGitHub(t *testing.T) {
	bubble(t, testAnEmptyDatabaseIsFilledFromGitHub)
}
func testAnEmptyDatabaseIsFilledFromGitHub(t *testing.T) {
	st := openStore(t)
	h := &hub{}
	h.repos = []router.Repo{{Owner: "acme", Name: "web"}, {Owner: "Acme", Name: "Api"}, {Owner: "beta", Name: "web"}}
	h.index.runs = map[string][]router.Delivery{"acme/web": {says(1, "queued", "self-hosted", "linux")}}
	blocked := make(chan struct{})
	h.index.refuse = func(n int) error {
		switch n {
		case 2:
			return &router.RetryAtError{At: time.Now(), Err: errors.New("the limit is reached")}
		case 4:
			close(blocked)
			return &router.RetryAtError{At: time.Now().Add(time.Hour), Err: errors.New("the limit is reached")}
		}
		return nil
	}
	nomad := &cluster{jobs: map[string]router.StartRequest{"gha-9-1": {Job: router.Job{ID: 9, Repo: router.Repo{FullName: "acme/api"}}}}}
	r := start(t, st, nomad, h)
	r.await(1, in(router.Dispatched))
	<-blocked
	r.Stop() // half way: the next process begins again
	h.index.mu.Lock()
	h.index.refuse = nil
	h.index.mu.Unlock()
	r = start(t, st, nomad, h)
	eventually(t, "the end of the sync", func() bool {
		mark, err := st.Mark(t.Context(), "first look")
		return err == nil && mark == "done"
	})
	r.Stop()
	// By then Nomad has two runners, in any order.
	got, want := h.looked(), []string{"acme/api", "acme/web", "acme/web", "beta/web", "acme/api", "acme/web", "beta/web"}
	slices.Sort(got[min(4, len(got)):])
	if !slices.Equal(got, want) {
		t.Errorf("synced %v, want %v", got, want)
	}
	r = start(t, st, nomad, h)
	r.Stop()
	if n := len(h.looked()); n != 7 {
		t.Errorf("a third process looks again, %d times in all", n)
	}
}

// A repository that cannot be read does not hold up the others, and is read later.
func TestAFailedRepositoryIsSyncedAgain(t *testing.T) {
	bubble(t, testAFailedRepositoryIsSyncedAgain)
}
func testAFailedRepositoryIsSyncedAgain(t *testing.T) {
	h := &hub{}
	h.repos = []router.Repo{{Owner: "acme", Name: "web"}}
	h.index.runs = map[string][]router.Delivery{"acme/web": {says(1, "queued", "self-hosted", "linux")}}
	h.index.refuse = func(n int) error {
		if n <= 3 {
			return errors.New("GitHub answered 502")
		}
		return nil
	}
	r := start(t, openStore(t), &cluster{}, h)
	readyz(t, r.App, "the end of the first sync", func(_ int, r server.Readiness) bool { return is(t, r, "first_look").Status == "ok" })
	if n := len(h.looked()); n != 1 {
		t.Errorf("synced %d times before the first sync ended", n)
	}
	time.Sleep(8 * time.Minute)
	r.await(1, in(router.Dispatched))
	if n := len(h.looked()); n != 4 {
		t.Errorf("synced %d times, want 4", n)
	}
}

func TestADatabaseWithJobsIsNotFilledAgain(t *testing.T) {
	bubble(t, testADatabaseWithJobsIsNotFilledAgain)
}
func testADatabaseWithJobsIsNotFilledAgain(t *testing.T) {
	st := openStore(t)
	must(t, errOf(st.Receive(t.Context(), delivery(1, "queued", "ubuntu-latest"))))
	h := &hub{}
	h.repos = []router.Repo{{Owner: "acme", Name: "web"}}
	r := start(t, st, &cluster{}, h)
	r.await(1, in(router.Ignored))
	r.Stop()
	if got := h.looked(); len(got) != 0 {
		t.Errorf("synced %v, want nothing", got)
	}
}
