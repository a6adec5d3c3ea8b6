package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

const (
	maxAdopt      = 1000 // runners looked at in one pass
	rosterKept    = 30 * time.Second
	rosterTimeout = time.Minute // for a list of many pages
)

// adopt makes known the runners that Nomad has and the books do not, as they do
// not after the database was deleted: those of this router, by the address that
// they claim at. Others are let be: two routers may share a Nomad. Runners that
// had ended, and that Nomad has all the same, are live again. more is set when
// some must be looked at again soon.
func (w *worker) adopt(ctx context.Context, live []router.LiveRunner, jobs []router.NomadJob) (more bool, err error) {
	orphans := map[int64]router.NomadJob{}
	defer func() { w.earlier.found(orphans) }()
	known := make(map[string]bool, len(live))
	for i := range live {
		known[live[i].ID] = true
	}
	unknown := map[string][]router.NomadJob{} // more than one when others, elsewhere, take the ID of ours
	var ids []string
	for _, j := range jobs {
		if j.Status != "dead" && !j.Stopped && !known[j.RunnerID] && !w.isForeign(j) && len(ids) < maxAdopt {
			unknown[j.RunnerID] = append(unknown[j.RunnerID], j)
			ids = append(ids, j.RunnerID)
		}
	}
	if len(ids) == 0 {
		return false, nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	strangers, err := w.Store.Strangers(ctx, ids)
	if err != nil {
		return false, err
	}
	if len(strangers) < len(ids) { // a listing may be older than what ended since
		revived, err := w.Store.Revive(ctx, slices.Concat(slices.Collect(maps.Values(unknown))...), w.Now().Add(-settling), w.Now())
		if err != nil {
			return false, err
		}
		if more = revived > 0; more {
			w.Logger.Warn("Nomad has runners that had ended, as it replaces those of lost nodes; they are stopped", "runners", revived)
		}
	}
	full := map[int64]bool{} // instances that take no more for now
	for _, id := range strangers {
		jobID, _, _ := ofRunner(id)
		in := router.InstanceOf(jobID)
		for _, j := range unknown[id] {
			if full[in] {
				continue // it would be the same for this one
			}
			switch done, err := w.adoptOne(ctx, j); {
			case ctx.Err() != nil:
				return false, ctx.Err()
			case err != nil:
				w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot take up a runner that is found on Nomad; the next sweep tries again", "nomad_job", j.ID, "err", err)
				later := (*router.RetryAtError)(nil)
				full[in] = errors.As(err, &later)
			case !done:
				more = true
				if jobID, _, ok := ofRunner(id); ok {
					orphans[jobID] = j // the newest of them comes last
				}
			}
		}
	}
	return more, nil
}

func (w *worker) isForeign(j router.NomadJob) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.foreign[nomadKey{j.ID, j.At.Namespace}]
}

const (
	earlierWait = 5 * time.Second // for what an earlier database knew
	earlierPoll = 50 * time.Millisecond
	maxEarlier  = 100 // claims that wait
)

// earlier is what is left of an earlier database, while the first look is
// taken. The zero value is one that nothing is left of.
type earlier struct {
	mu      sync.Mutex
	looking bool
	passed  chan struct{} // closed after the first pass, if looking; else nil
	done    bool          // the look is over, and the next pass is the last to wait for
	orphans map[int64]router.NomadJob
	claims  int // that wait
}

// begin is for when a look is due. At the start jobs wait for the first pass.
func (e *earlier) begin(start bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looking, e.done = true, false
	if start {
		e.passed = make(chan struct{})
	}
}

// end is for when the first look is over.
func (e *earlier) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = true
}

// underWay reports whether the first look goes on.
func (e *earlier) underWay() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.looking && !e.done
}

// pass is for after each pass.
func (e *earlier) pass() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.passed != nil {
		select {
		case <-e.passed:
		default:
			close(e.passed)
		}
	}
	if e.done {
		e.looking = false
	}
}

// wait returns after the first pass, or when it is late: Nomad may be away.
func (e *earlier) wait(ctx context.Context) {
	if e.passed == nil {
		return
	}
	select {
	case <-e.passed:
	case <-ctx.Done():
	case <-time.After(earlierWait):
	}
}

// found are the runners whose jobs are not known yet, by job.
func (e *earlier) found(orphans map[int64]router.NomadJob) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.orphans = orphans
}

// take is the runner of a job that has become known.
func (e *earlier) take(jobID int64) (n router.NomadJob, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok = e.orphans[jobID]
	delete(e.orphans, jobID)
	return n, ok
}

// claim reports whether a token that is not known may be so soon, and counts
// who waits for that by n.
func (e *earlier) claim(n int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n > 0 && (!e.looking || e.claims >= maxEarlier) {
		return false
	}
	e.claims += n
	return e.looking
}

// takeUp adopts the runner that Nomad has for a job, before it is given another.
func (w *worker) takeUp(ctx context.Context, j router.Job) (router.Job, error) {
	n, ok := w.earlier.take(j.ID)
	if !ok {
		return j, nil
	}
	if _, err := w.adoptOne(ctx, n); err != nil {
		w.logThrottled(w.Logger, slog.LevelWarn, "", "cannot take up a runner that is found on Nomad; the next sweep tries again", "nomad_job", n.ID, "err", err)
		return j, nil // if it is of this try, Nomad says so
	}
	return w.Store.Job(ctx, j.ID)
}

// awaitToken returns when a claim token is known, or will not be so soon.
func (w *worker) awaitToken(ctx context.Context, tokenHash [32]byte) {
	if !w.earlier.claim(1) {
		return
	}
	defer w.earlier.claim(-1)
	ctx, cancel := context.WithTimeout(ctx, earlierWait)
	defer cancel()
	for w.earlier.claim(0) {
		if _, err := w.Store.Claimant(ctx, tokenHash); !errors.Is(err, router.ErrNotFound) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(earlierPoll):
		}
	}
}

// adoptOne is done when nothing is left to be done about the runner.
func (w *worker) adoptOne(ctx context.Context, n router.NomadJob) (done bool, err error) {
	jobID, try, ok := ofRunner(n.RunnerID)
	// A job that is dispatched as it is has no more of ours than it declares:
	// whose it is shows when its job is known.
	parent, _, dispatched := strings.Cut(n.ID, "/dispatch-")
	if dispatched && ok && n.JobID == 0 {
		if _, err := w.Store.Job(ctx, jobID); errors.Is(err, router.ErrNotFound) {
			mark, err := w.Store.Mark(ctx, firstLookMark)
			return mark == "done", err
		}
	}
	nomadCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	url, token, own, err := w.Nomad.ClaimOf(nomadCtx, n)
	unmarked := own && dispatched && url == "" && token == ""
	switch {
	case errors.Is(err, router.ErrNotFound):
		return true, nil
	case err != nil:
		return false, err
	case unmarked && ok:
		token = w.token(n.RunnerID) // nobody has it
	case !ok || url != w.PublicURL+ClaimPath || token == "":
		w.letBe(n, "another router started it, or this one at another address")
		return true, nil
	}
	j, err := w.Store.Job(ctx, jobID)
	if errors.Is(err, router.ErrNotFound) {
		if done, err = w.recall(ctx, n, jobID); err == nil && done {
			j, err = w.Store.Job(ctx, jobID)
		} else {
			return false, err
		}
	}
	if err != nil {
		return false, err
	}

	r := router.Runner{ID: n.RunnerID, JobID: jobID, Try: try, State: router.RunnerDispatched, Name: n.RunnerID, NomadJob: n.ID, NomadAt: n.At, Own: own}
	d := j.Decision
	if d == nil {
		decided, err := w.decide(ctx, j)
		if err != nil {
			return false, fmt.Errorf("ask GitHub what started the run: %w", err)
		}
		d = &decided
	}
	if unmarked && (d.Outcome != rules.Routed || d.Dispatch != parent) {
		w.letBe(n, "the rules dispatch no such job for it")
		return true, nil
	}
	switch home, err := w.atHome(nomadCtx, n, d); {
	case err != nil:
		return false, err
	case !home:
		w.letBe(n, "the rules start no runner of its job in that namespace")
		return true, nil
	}
	if !own {
		at := router.TargetOf(j.Repo, d.Runner)
		if err := w.recognize(ctx, &r, at); err != nil {
			return false, err
		}
		if d.Runner.Registration == "token" {
			r.Target = at // it may be about to register itself, by its name
		}
	}
	switch {
	case j.State != router.Running:
	case named(r.ID, j.RunnerName):
		r.State, r.Name = router.RunnerBusy, j.RunnerName
	case own && j.Try <= try: // presumably, as its name may be any
		r.State = router.RunnerBusy
	}
	storeCtx, cancelStore := context.WithTimeout(ctx, storeTimeout)
	defer cancelStore()
	ok, err = w.Store.Adopt(storeCtx, r, hash(token), w.Now())
	if err != nil {
		return false, fmt.Errorf("record runner %s: %w", r.ID, err)
	}
	if ok {
		w.Logger.Info("a runner is found on Nomad that the database did not know", "job_id", jobID, "nomad_job", n.ID, "state", string(r.State))
		w.nudge()
		w.look(jobID)
	}
	return true, nil
}

// letBe has a Nomad job looked at no more, whose ID is that of a runner.
func (w *worker) letBe(n router.NomadJob, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Logger.Warn("Nomad has a runner that is not known here; it is let be", "nomad_job", n.ID, "namespace", n.At.Namespace, "reason", why)
	if len(w.foreign) >= maxTokens {
		clear(w.foreign)
	}
	w.foreign[nomadKey{n.ID, n.At.Namespace}] = true
}

// atHome reports whether a Nomad job is in a namespace where the runners of its
// job are started. Whoever may register jobs there can read their tokens, too;
// but one who may do so elsewhere must not have a token of his own taken up.
func (w *worker) atHome(ctx context.Context, n router.NomadJob, d *router.Decision) (bool, error) {
	if d.Outcome != rules.Routed {
		return true, nil // it will be given nothing
	}
	placements := []router.Placement{d.Placement}
	for _, f := range d.Fallback {
		if f.Reason == "" {
			placements = append(placements, f.Placement)
		}
	}
	for _, p := range placements {
		home, err := w.Nomad.Home(ctx, p)
		if err != nil {
			return false, fmt.Errorf("tell where the runners of job %d are started: %w", n.JobID, err)
		}
		if home.Namespace == n.At.Namespace {
			return true, nil
		}
	}
	return false, nil
}

// named reports whether a runner's name on GitHub is one that its claim gave it.
func named(runnerID, name string) bool {
	return name == runnerID || strings.HasPrefix(name, runnerID+"-")
}

// recognize has GitHub say whether it knows a runner that the books do not: it
// is online or busy then, else it has not claimed yet.
func (w *worker) recognize(ctx context.Context, r *router.Runner, at router.Target) error {
	list, err := w.rosters.get(at, w.Now(), func() ([]router.GitHubRunner, error) {
		ctx, cancel := context.WithTimeout(ctx, rosterTimeout)
		defer cancel()
		list, err := w.GitHub.Runners(ctx, at)
		if errors.Is(err, router.ErrNotFound) {
			err = nil
		}
		return list, err
	})
	if err != nil {
		return fmt.Errorf("list the runners of %s on GitHub: %w", at.Owner, err)
	}
	if i := slices.IndexFunc(list, func(g router.GitHubRunner) bool { return named(r.ID, g.Name) }); i >= 0 {
		r.State, r.Name, r.GitHubID, r.Target = router.RunnerOnline, list[i].Name, list[i].ID, at
		if list[i].Busy {
			r.State = router.RunnerBusy
		}
	}
	return nil
}

// rosters are GitHub's lists of runners, for those that come from an earlier
// database: they are on a list that is some seconds old as well. It is safe for
// concurrent use; the zero value is ready.
type rosters struct {
	mu    sync.Mutex // held while GitHub is asked, so that it is asked once
	lists map[router.Target]roster
}

type roster struct {
	list []router.GitHubRunner
	at   time.Time
}

func (c *rosters) get(t router.Target, now time.Time, ask func() ([]router.GitHubRunner, error)) ([]router.GitHubRunner, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.lists[t]; ok && now.Sub(r.at) < rosterKept {
		return r.list, nil
	}
	list, err := ask()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(c.lists, func(_ router.Target, r roster) bool { return now.Sub(r.at) >= rosterKept })
	if c.lists == nil {
		c.lists = map[router.Target]roster{}
	}
	c.lists[t] = roster{list, now}
	return list, nil
}

// recall makes a job known that has ended, so that its runner can be. One that
// has not is found by the first look at GitHub, with all that rules ask for.
func (w *worker) recall(ctx context.Context, n router.NomadJob, jobID int64) (done bool, err error) {
	mark, err := w.Store.Mark(ctx, firstLookMark)
	if err != nil || mark != "done" {
		return false, err
	}
	owner, name, ok := strings.Cut(n.Repo, "/")
	if !ok || n.JobID != router.GitHubID(jobID) {
		return false, fmt.Errorf("its meta names job %d of %q", n.JobID, n.Repo)
	}
	j := router.Job{
		ID: jobID, RunID: router.Instance{Number: router.InstanceOf(jobID)}.ID(n.RunID), Attempt: max(n.Attempt, 1),
		Repo: router.Repo{Host: w.hostOf(jobID), Owner: owner, Name: name, FullName: n.Repo},
	}
	githubCtx, cancel := context.WithTimeout(ctx, githubTimeout)
	defer cancel()
	d, err := w.GitHub.Job(githubCtx, j.Repo, jobID)
	if errors.Is(err, router.ErrNotFound) {
		d, err = router.Delivery{Source: router.SourceGitHub, Action: "completed", Status: router.StatusGone, Job: j, ReceivedAt: w.Now()}, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask GitHub about job %d: %w", jobID, err)
	}
	if d.Action == "queued" {
		return false, fmt.Errorf("its job waits on GitHub: switchyard jobs sync --repo %s makes it known", router.Addressed(j.Repo))
	}
	storeCtx, cancel2 := context.WithTimeout(ctx, storeTimeout)
	defer cancel2()
	_, err = w.record(storeCtx, d)
	return err == nil, err
}

// ofRunner takes a runner's ID apart: gha-<job id>-<try>.
func ofRunner(id string) (jobID int64, try int, ok bool) {
	n, err := fmt.Sscanf(id, "gha-%d-%d", &jobID, &try)
	ok = err == nil && n == 2 && jobID > 0 && try > 0 && id == router.Job{ID: jobID, Try: try}.RunnerID()
	return jobID, try, ok
}
