package runners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/intake"
	"switchyard/rules"
)

const (
	maxForeign = 10_000 // remembered

	rosterKept      = 30 * time.Second // after GitHub's answer
	rosterErrorKept = 5 * time.Second  // likewise, if it is an error
)

// An adopter records runners that only Nomad has.
type adopter struct {
	r       *Runners
	orphans orphans
	rosters rosters
	tried   map[int64]bool // jobs whose orphans adoptAll has tried since it last tried all

	mu      sync.Mutex
	foreign map[nomadKey]bool // Nomad jobs that are not ours, though their IDs are those of runners
}

// note notes the runners that Nomad has and the database does not, as is the case after the
// database was deleted, so that no other is started for their jobs. It returns the jobs
// whose runners are to be adopted now; those that the first sync may still find are left
// until then, or until their job is dispatched. Runners that had ended and that Nomad runs
// all the same are live again; more is true when there are some.
func (a *adopter) note(ctx context.Context, live []router.LiveRunner, l *listing) (now []int64, more bool, err error) {
	known := make(map[string]bool, len(live))
	for i := range live {
		known[live[i].ID] = true
	}
	unknown := map[string][]router.NomadJob{} // several when the ID is also used in other namespaces or regions
	for _, j := range l.jobs {
		if j.Status != "dead" && !j.Stopped && !known[j.RunnerID] && !router.IsWarm(j.RunnerID) && !a.isForeign(j) {
			unknown[j.RunnerID] = append(unknown[j.RunnerID], j)
		}
	}
	ids := slices.Sorted(maps.Keys(unknown))
	var strangers map[string]bool
	if len(ids) > 0 {
		if strangers, err = a.r.Store.UnknownRunners(ctx, ids); err != nil {
			return nil, false, err
		}
	}
	var ended []router.NomadJob // the listing may be older than the end of some
	of := map[int64][]router.NomadJob{}
	var jobKnown, jobUnknown []int64
	for _, id := range ids {
		hasJob, stranger := strangers[id]
		if !stranger {
			ended = append(ended, unknown[id]...)
			continue
		}
		jobID, _, _ := router.ParseRunnerID(id)
		switch {
		case of[jobID] != nil:
		case hasJob:
			jobKnown = append(jobKnown, jobID)
		default:
			jobUnknown = append(jobUnknown, jobID)
		}
		of[jobID] = append(of[jobID], unknown[id]...)
	}
	a.orphans.set(of, l.regions)
	if l.regions[""] {
		a.r.First.Listed(l.jobs)
	}
	if len(ended) > 0 {
		revived, err := a.r.Store.ClearEnded(ctx, ended, a.r.Now().Add(-settling), a.r.Now())
		if err != nil {
			return nil, false, err
		}
		if more = revived > 0; more {
			a.r.Log.Warn("nomad runs runners again that had ended, as it does after it lost their nodes; they are stopped", "runners", revived)
		}
	}
	if len(jobUnknown) > 0 {
		mark, err := a.r.Store.Mark(ctx, intake.FirstSyncMark)
		if err != nil {
			return nil, false, err
		}
		if mark == "done" {
			jobKnown = append(jobKnown, jobUnknown...)
		}
	}
	return jobKnown, more, nil
}

// adoptAll adopts the orphans of jobs, a few at a time, so that they hold up nobody. Those
// that cannot be adopted are left to the next sweep. After one Sweep it stops, as the rest of
// a pass waits for it; then all is false, and the next call goes on with those that are left.
// It is called by one pass at a time. Its error is that of ctx.
func (a *adopter) adoptAll(ctx context.Context, jobs []int64) (all bool, err error) {
	var full sync.Map // the instances that take no more for now: it would be the same for others
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(passCallers)
	for _, jobID := range jobs {
		if a.tried[jobID] {
			continue
		}
		if time.Since(began) >= a.r.Sweep {
			return false, g.Wait()
		}
		a.tried[jobID] = true
		g.Go(func() error {
			if _, is := full.Load(router.InstanceOf(jobID)); is {
				return nil
			}
			began := time.Now()
			_ = a.orphans.each(ctx, jobID, func(n router.NomadJob) error {
				err := a.adoptOne(ctx, n, nil)
				if errors.As(err, new(*router.RetryAtError)) {
					full.Store(router.InstanceOf(jobID), true)
				}
				a.warn(ctx, n, err)
				return err
			})
			if !router.Pause(ctx, time.Since(began)) { // new jobs come first: the more there are, the longer this took
				return ctx.Err()
			}
			return nil
		})
	}
	clear(a.tried)
	return true, g.Wait()
}

// errNoJob is adoptOne's: whose runner it is shows when its job is known.
var errNoJob = errors.New("its job is not known")

func (a *adopter) warn(ctx context.Context, n router.NomadJob, err error) {
	if err != nil && !errors.Is(err, errNoJob) && ctx.Err() == nil {
		a.r.Log.Throttled(slog.LevelWarn, "", "cannot adopt a runner that was found on Nomad; the next sweep tries again", "nomad_job", n.ID, "err", err)
	}
}

func (a *adopter) isForeign(j router.NomadJob) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.foreign[nomadKey{j.ID, j.At}]
}

// orphans are the runners on Nomad that the database does not have yet, by job, and those
// that it has since. The zero value is empty. It is safe for concurrent use.
type orphans struct {
	mu      sync.Mutex
	jobs    map[int64][]router.NomadJob
	busy    map[int64]chan struct{}   // jobs whose runners are being adopted; closed afterwards
	adopted map[string]router.Started // by runner ID, for dispatch
}

// set replaces the runners in some regions.
func (o *orphans) set(jobs map[int64][]router.NomadJob, regions map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, list := range o.jobs {
		for _, n := range list {
			if !regions[n.At.Region] {
				jobs[id] = append(jobs[id], n)
			}
		}
	}
	o.jobs, o.adopted = jobs, map[string]router.Started{}
}

// each adopts the runners of a job, after whoever is doing so already. Those for which
// adopt fails are kept: until they are adopted, no other is started for their job. Its
// error is that of ctx.
func (o *orphans) each(ctx context.Context, jobID int64, adopt func(router.NomadJob) error) error {
	o.mu.Lock()
	for o.busy[jobID] != nil {
		busy := o.busy[jobID]
		o.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
		o.mu.Lock()
	}
	list := o.jobs[jobID]
	if len(list) == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.busy == nil {
		o.busy = map[int64]chan struct{}{}
	}
	busy := make(chan struct{})
	o.busy[jobID] = busy
	o.mu.Unlock()

	done := map[nomadKey]bool{}
	for _, n := range list {
		done[nomadKey{n.ID, n.At}] = adopt(n) == nil
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	var left []router.NomadJob // of a later listing, if there was one meanwhile
	for _, n := range o.jobs[jobID] {
		if !done[nomadKey{n.ID, n.At}] {
			left = append(left, n)
		}
	}
	if o.jobs[jobID] = left; left == nil {
		delete(o.jobs, jobID)
	}
	delete(o.busy, jobID)
	close(busy)
	return nil
}

func (o *orphans) add(runnerID string, s router.Started) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.adopted[runnerID] = s
}

func (o *orphans) takeAdopted(runnerID string) (s router.Started, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok = o.adopted[runnerID]
	delete(o.adopted, runnerID)
	return s, ok
}

// A GitHubError is Adopt's: GitHub did not say what is needed to adopt a runner. Dispatch
// branches on it.
type GitHubError struct{ Err error }

func (e *GitHubError) Error() string { return e.Err.Error() }
func (e *GitHubError) Unwrap() error { return e.Err }

// Adopt does what Runners.Adopt says.
func (a *adopter) Adopt(ctx context.Context, j router.Job) (router.Job, error) {
	later, failed := false, error(nil)
	err := a.orphans.each(ctx, j.ID, func(n router.NomadJob) error {
		err := a.adoptOne(ctx, n, &j)
		a.warn(ctx, n, err)
		if _, try, _ := router.ParseRunnerID(n.RunnerID); try > j.Try { // of one of this try Nomad says that it has it
			later, failed = true, cmp.Or(failed, err)
		}
		return err
	})
	if err = cmp.Or(err, failed); err != nil || !later {
		return j, err
	}
	now, err := a.r.Store.Job(ctx, j.ID)
	if err != nil {
		return j, err
	}
	return now, nil
}

// adoptOne adopts one runner, or records that it is foreign: by the address at which runners
// claim, because two routers may share a Nomad. j is its job; nil: it is read.
func (a *adopter) adoptOne(ctx context.Context, n router.NomadJob, j *router.Job) error {
	jobID, try, ok := router.ParseRunnerID(n.RunnerID)
	if j == nil {
		read, err := a.r.Store.Job(ctx, jobID)
		if err != nil && !errors.Is(err, router.ErrNotFound) {
			return err
		}
		if err == nil {
			j = &read
		}
	}
	// A job that is dispatched as it is has no more of ours than it declares.
	parent, _, dispatched := strings.Cut(n.ID, "/dispatch-")
	if dispatched && ok && n.JobID == 0 && j == nil {
		return errNoJob
	}
	nomadCtx, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	url, token, own, err := a.r.Nomad.ClaimOf(nomadCtx, n)
	unmarked := own && dispatched && url == "" && token == ""
	switch {
	case errors.Is(err, router.ErrNotFound):
		return nil
	case err != nil:
		return err
	case unmarked && ok:
		token = router.NewClaimToken() // nobody has it
	case !ok || url != a.r.PublicURL+router.ClaimPath || token == "":
		a.ignore(n, "another router started it, or this one at another address")
		return nil
	}
	if j == nil {
		if err := a.recordEndedJob(ctx, n, jobID); err != nil {
			return err
		}
		read, err := a.r.Store.Job(ctx, jobID)
		if err != nil {
			return err
		}
		j = &read
	}

	r := router.Runner{ID: n.RunnerID, JobID: jobID, Try: try, State: router.RunnerDispatched, Name: n.RunnerID, NomadJob: n.ID, NomadAt: n.At, Own: own}
	d := j.Decision
	if d == nil {
		decided, err := a.r.Decider.Decide(ctx, *j)
		if err != nil {
			return &GitHubError{fmt.Errorf("ask GitHub what started the run: %w", err)}
		}
		d = &decided
	}
	if unmarked && (d.Outcome != rules.Routed || d.Dispatch != parent) {
		a.ignore(n, "the rules dispatch no such job for it")
		return nil
	}
	switch home, err := a.inItsPlace(nomadCtx, n, d); {
	case err != nil:
		return err
	case !home:
		a.ignore(n, "the rules start no runner of its job in that namespace and region")
		return nil
	}
	if d.Outcome == rules.Routed {
		r.Fit = j.Fit(d)
	}
	if !own {
		at := router.TargetOf(j.Repo, d.Runner)
		if err := a.Recognize(ctx, &r, at); err != nil {
			return &GitHubError{err}
		}
		if d.Runner.Registration == "token" {
			r.Target = at // it may be about to register itself, by its name
		}
	}
	switch {
	case j.State != router.Running:
	case router.IsNameOf(j.RunnerName, r.ID):
		r.State, r.Name = router.RunnerBusy, j.RunnerName
	case own && j.Try <= try: // presumably: its runner may have any name
		r.State = router.RunnerBusy
	}
	storeCtx, cancelStore := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancelStore()
	ok, err = a.r.Store.Adopt(storeCtx, r, token.Hash(), a.r.Now())
	if err != nil {
		return fmt.Errorf("record runner %s: %w", r.ID, err)
	}
	if !ok {
		return nil
	}
	if d.Runner.Verify {
		if err := a.r.Store.Verifies(storeCtx, r.ID, token.Verification().Hash(), a.r.Now()); err != nil {
			return fmt.Errorf("record that runner %s verifies its job: %w", r.ID, err)
		}
	}
	a.r.Log.Info("adopted a runner that only Nomad had", "job_id", jobID, "nomad_job", n.ID, "state", string(r.State))
	a.orphans.add(r.ID, router.Started{NomadJob: n.ID, At: n.At, ClaimToken: token, Existed: true})
	if try != j.Try || j.State != router.Queued && j.State != router.Retrying { // else its job has it now
		a.r.Due.Give()
		a.r.Leftover.Of(jobID)
	}
	return nil
}

// ignore leaves a Nomad job alone from now on that has the ID of a runner.
func (a *adopter) ignore(n router.NomadJob, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.r.Log.Throttled(slog.LevelWarn, why, "nomad has a job with the ID of a runner that is not this router's; it is left alone", "nomad_job", n.ID, "namespace", n.At.Namespace, "region", n.At.Region, "reason", why)
	if len(a.foreign) >= maxForeign {
		clear(a.foreign)
	}
	a.foreign[nomadKey{n.ID, n.At}] = true
}

// inItsPlace reports whether a Nomad job is in a namespace and region where the runners of its
// GitHub job are started. Whoever may register jobs in such a namespace can read the tokens
// of runners anyway; whoever may do so only elsewhere must not get a token accepted.
func (a *adopter) inItsPlace(ctx context.Context, n router.NomadJob, d *router.Decision) (bool, error) {
	if d.Outcome != rules.Routed {
		return true, nil // it gets no configuration
	}
	placements := []router.Placement{d.Placement}
	for _, f := range d.Fallback {
		if f.Reason == "" {
			placements = append(placements, f.Placement)
		}
	}
	for _, p := range placements {
		home, err := a.r.Nomad.Home(ctx, p)
		if err != nil {
			return false, fmt.Errorf("find where the runners are of job %d: %w", n.JobID, err)
		}
		if home == n.At {
			return true, nil
		}
	}
	return false, nil
}

// Recognize does what Runners.Recognize says.
func (a *adopter) Recognize(ctx context.Context, r *router.Runner, at router.Target) error {
	known, err := a.rosters.get(ctx, at, func() ([]router.GitHubRunner, error) {
		ctx, cancel := context.WithTimeout(ctx, router.ListTimeout)
		defer cancel()
		list, err := a.r.GitHub.Runners(ctx, at)
		if errors.Is(err, router.ErrNotFound) {
			err = nil
		}
		return list, err
	})
	if err != nil {
		return fmt.Errorf("list the runners of %s on GitHub: %w", at.Owner, err)
	}
	if g, ok := known[r.ID]; ok {
		r.State, r.Name, r.GitHubID, r.Target = router.RunnerOnline, g.Name, g.ID, at
		if g.Busy {
			r.State = router.RunnerBusy
		}
	}
	return nil
}

// rosters remembers GitHub's lists of runners for some seconds, which is recent enough for
// runners that come from an earlier database. It uses the monotonic clock. It is safe for
// concurrent use; the zero value is ready.
type rosters struct {
	mu    sync.Mutex
	lists map[router.Target]*roster
}

type roster struct {
	asked   chan struct{}                  // closed when GitHub has answered, or who asked was stopped
	runners map[string]router.GitHubRunner // those of ours, by the runner's ID
	err     error
	until   time.Time // when it is forgotten; zero: there is no answer yet. rosters.mu guards it
}

// get returns GitHub's list for a target, by ask unless it is remembered or under way. When
// the ctx of the caller that asks ends, that is no answer: another one that waits asks again.
func (c *rosters) get(ctx context.Context, t router.Target, ask func() ([]router.GitHubRunner, error)) (map[string]router.GitHubRunner, error) {
	c.mu.Lock()
	maps.DeleteFunc(c.lists, func(_ router.Target, r *roster) bool { return !r.until.IsZero() && time.Until(r.until) <= 0 })
	if c.lists == nil {
		c.lists = map[router.Target]*roster{}
	}
	for r := c.lists[t]; r != nil; r = c.lists[t] {
		c.mu.Unlock()
		select {
		case <-r.asked:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		c.mu.Lock()
		if !r.until.IsZero() {
			c.mu.Unlock()
			return r.runners, r.err
		}
	}
	r := &roster{asked: make(chan struct{}), runners: map[string]router.GitHubRunner{}}
	c.lists[t] = r
	c.mu.Unlock()
	list, err := ask()
	for _, g := range slices.Backward(list) { // of several for one, the first
		if id := router.RunnerNamed(g.Name); id != "" {
			r.runners[id] = g
		}
	}
	kept := rosterKept
	if r.err = err; err != nil {
		kept = rosterErrorKept
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		delete(c.lists, t)
	} else {
		r.until = time.Now().Add(kept)
	}
	close(r.asked)
	return r.runners, r.err
}

// recordEndedJob records a job that is not in the database and has ended, so that its
// runner can be adopted. The first sync finds those that have not ended, with all that
// rules ask for.
func (a *adopter) recordEndedJob(ctx context.Context, n router.NomadJob, jobID int64) error {
	owner, name, ok := strings.Cut(n.Repo, "/")
	if !ok || n.JobID != router.GitHubID(jobID) {
		return fmt.Errorf("its meta names job %d of %q", n.JobID, n.Repo)
	}
	j := router.Job{
		ID: jobID, RunID: router.Instance{Number: router.InstanceOf(jobID)}.ID(n.RunID), Attempt: max(n.Attempt, 1),
		Repo: router.Repo{Host: router.HostOf(a.r.GitHub, jobID), Owner: owner, Name: name, FullName: n.Repo},
	}
	githubCtx, cancel := context.WithTimeout(ctx, router.GitHubTimeout)
	defer cancel()
	d, err := a.r.GitHub.Job(githubCtx, j.Repo, jobID)
	if errors.Is(err, router.ErrNotFound) {
		d, err = router.Delivery{Source: router.SourceGitHub, Action: "completed", Status: router.StatusGone, Job: j, ReceivedAt: a.r.Now()}, nil
	}
	if err != nil {
		return fmt.Errorf("ask GitHub about job %d: %w", jobID, err)
	}
	if d.Action == "queued" {
		return fmt.Errorf("GitHub still queues its job, which is not in the database: run switchyard jobs sync --repo %s", router.Addressed(j.Repo))
	}
	storeCtx, cancel2 := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel2()
	_, err = a.r.Intake.Record(storeCtx, d)
	return err
}
