package githubsim

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A JobSpec is a job to queue. Owner and Repo are required.
type JobSpec struct {
	Owner, Repo string
	Private     bool // the repository is private
	Fork        bool // the repository is a fork
	User        bool // the owner is a user, not an organization

	RunID    int64  // the workflow run it belongs to, one of another job in the same repository; 0: a run of its own
	Name     string // ""  "build"
	Workflow string // ""  "CI"
	Branch   string // ""  "main"
	Sender   string // ""  "octocat"
	Event    string // what started the run; ""  "push"
	Actor    string // who started the run first; "": Sender
	Closed   bool   // no pull request is open for its run of pull_request
	Head     string // owner of the fork that the run's commit comes from; "": no fork
	Labels   []string
	Group    string // runner group that it asks for; "": any. GitHub does not report it

	Duration   time.Duration // how long a runner takes for it
	Conclusion string        // unless it is cancelled; "": success
	Hosted     bool          // it runs on one of GitHub's own runners
	HostedIn   time.Duration // until that starts; 0: at once
	Waiting    bool          // it waits for an approval, see Approve
	Unsaid     bool          // with Waiting: it is announced as queued, and only who asks is told that it waits
	SaidLater  bool          // with Unsaid: a waiting delivery follows

	MaxParallel int    // so many jobs of its run whose names are equal up to " (" run at a time, though all are called queued; 0: any
	Concurrency string // group of the repository of which one job is queued or runs at a time; the others are announced as queued, and pending when asked; "": none
}

func (s JobSpec) withDefaults() JobSpec {
	for p, v := range map[*string]string{
		&s.Name: "build", &s.Workflow: "CI", &s.Branch: "main", &s.Sender: "octocat", &s.Event: "push",
	} {
		*p = cmp.Or(*p, v)
	}
	s.Actor = cmp.Or(s.Actor, s.Sender)
	return s
}

// A Job is a snapshot of a job. The Conclusion in it is the one it has, ""
// until it is completed.
type Job struct {
	JobSpec
	ID      int64
	Attempt int    // of its run, from 1
	Status  string // waiting, pending, queued, in_progress or completed

	RunnerID        int64 // of the runner that has or had it; 0: none
	RunnerName      string
	RunnerGroupID   int64
	RunnerGroupName string

	CreatedAt   time.Time
	StartedAt   time.Time // zero until a runner takes it
	CompletedAt time.Time // zero until then
}

// A job is the Server's own view of a job, guarded by state.mu.
type job struct {
	Job
	ending  string      // the conclusion it will have
	labels  []string    // lower case
	ended   chan string // takes one conclusion, with which it ends before its time
	outbox  []*delivery // still to be sent, in this order
	sending bool        // a goroutine empties outbox
}

// Queue makes a job, in a new repository and a new run unless they exist, and
// sends its queued delivery. It returns the job's ID, which is never 0, or 0
// when ctx has ended or the Server is closed.
func (s *Server) Queue(ctx context.Context, spec JobSpec) (jobID int64) {
	if ctx.Err() != nil {
		return 0
	}
	spec = spec.withDefaults()
	spec.Labels = slices.Clone(spec.Labels)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	s.addRepo(Repo{Owner: spec.Owner, Name: spec.Repo, Private: spec.Private, User: spec.User})
	if spec.RunID == 0 {
		spec.RunID = s.newID()
	}
	attempt := 1
	for _, sibling := range s.runs[spec.RunID] {
		attempt = sibling.Attempt
	}
	j := s.newJob(spec, attempt)
	s.runs[j.RunID] = append(s.runs[j.RunID], j)
	if j.Waiting {
		// GitHub sends both for a job behind an environment's protection, mostly:
		// https://github.com/runs-on/runs-on/issues/539 (read 2026-11-28).
		if !j.Unsaid {
			j.Status = "waiting"
		}
		s.send(j, "queued")
		j.Status = "waiting"
		if !j.Unsaid || j.SaidLater {
			s.send(j, "waiting")
		}
		return j.ID
	}
	s.send(j, "queued")
	if j.Concurrency != "" && s.inGroup(j, "queued", "in_progress") != nil {
		j.Status = "pending" // which no delivery has, by its schema
		return j.ID
	}
	s.offer(j)
	return j.ID
}

// inGroup returns the oldest other job of the job's concurrency group that has one of these
// states; nil: there is none. s.mu is held.
func (s *floor) inGroup(j *job, statuses ...string) *job {
	for _, id := range slices.Sorted(maps.Keys(s.jobs)) {
		o := s.jobs[id]
		if o != j && o.Concurrency == j.Concurrency && repoKey(o.Owner, o.Repo) == repoKey(j.Owner, j.Repo) && slices.Contains(statuses, o.Status) {
			return o
		}
	}
	return nil
}

// handedOut reports whether the job's max-parallel lets it start. s.mu is held.
func (s *floor) handedOut(j *job) bool {
	if j.MaxParallel == 0 {
		return true
	}
	base, _, _ := strings.Cut(j.Name, " (")
	running := 0
	for _, o := range s.runs[j.RunID] {
		if of, _, _ := strings.Cut(o.Name, " ("); of == base && o.Status == "in_progress" {
			running++
		}
	}
	return running < j.MaxParallel
}

// goOn lets those start that waited for a job which has ended. s.mu is held.
func (s *floor) goOn(ended *job) {
	if ended.Concurrency != "" {
		if next := s.inGroup(ended, "pending"); next != nil && s.inGroup(ended, "queued", "in_progress") == nil {
			next.Status = "queued"
			s.send(next, "queued")
			s.offer(next)
		}
	}
	if ended.MaxParallel == 0 {
		return
	}
	for _, j := range slices.Clone(s.queued) {
		if j.RunID == ended.RunID && slices.ContainsFunc(s.idle, func(r *runner) bool { return s.fits(r, j) }) {
			s.queued = slices.DeleteFunc(s.queued, func(q *job) bool { return q == j })
			s.offer(j)
		}
	}
}

// newJob makes a job, which is in no run yet. s.mu is held.
func (s *floor) newJob(spec JobSpec, attempt int) *job {
	j := &job{
		Job:    Job{JobSpec: spec, ID: s.newID(), Attempt: attempt, Status: "queued", CreatedAt: s.cfg.Now()},
		ending: cmp.Or(spec.Conclusion, "success"),
		labels: lower(spec.Labels),
		ended:  make(chan string, 1),
	}
	j.Conclusion = ""
	s.jobs[j.ID] = j
	return j
}

// rerun runs a job again, in a new attempt of its run, whose other jobs are copied. Each has
// a new ID. s.mu is held.
func (s *floor) rerun(j *job) {
	jobs := s.runs[j.RunID]
	attempt := j.Attempt + 1
	var next []*job
	for _, was := range jobs {
		spec := was.JobSpec
		spec.Conclusion, spec.Waiting = was.ending, false
		is := s.newJob(spec, attempt)
		next = append(next, is)
		if was == j {
			s.send(is, "queued")
			s.offer(is)
			continue
		}
		id := is.ID
		is.Job = was.Job
		is.ID, is.Attempt = id, attempt
	}
	s.runs[j.RunID] = next
}

// RerunJob runs a job again, as somebody does in GitHub's pages.
func (s *Server) RerunJob(jobID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.job(jobID)
	if err != nil {
		return err
	}
	if why := s.notRerun(j); why != "" {
		return fmt.Errorf("job %d: %s", jobID, why)
	}
	s.rerun(j)
	return nil
}

// notRerun returns why GitHub refuses to run a job again, in its words; "": it does not.
// s.mu is held.
func (s *floor) notRerun(j *job) string {
	jobs := s.runs[j.RunID]
	if status, _, _ := runState(jobs); status != "completed" {
		return "The workflow run containing this job is already running"
	}
	if !slices.Contains(jobs, j) || s.closed {
		return "This workflow run cannot be retried"
	}
	return ""
}

// DeleteRun deletes a run, as somebody does in GitHub's pages: GitHub no longer knows it, nor
// its jobs.
func (s *Server) DeleteRun(runID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, j := range s.jobs {
		if j.RunID == runID {
			delete(s.jobs, id)
		}
	}
	delete(s.runs, runID)
}

// Protect makes a queued job wait for approval, see Approve: GitHub may send waiting
// after a job was queued
// (https://github.com/runs-on/runs-on/issues/539, read 2026-11-28).
func (s *Server) Protect(jobID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.job(jobID)
	if err != nil {
		return err
	}
	if j.Status != "queued" {
		return fmt.Errorf("job %d is %s, not queued", jobID, j.Status)
	}
	s.queued = slices.DeleteFunc(s.queued, func(q *job) bool { return q == j })
	j.Waiting, j.Status = true, "waiting"
	s.send(j, "waiting")
	return nil
}

// Approve lets a waiting job be queued.
func (s *Server) Approve(jobID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.job(jobID)
	if err != nil {
		return err
	}
	if j.Status != "waiting" {
		return fmt.Errorf("job %d is %s, not waiting", jobID, j.Status)
	}
	j.Status = "queued"
	s.send(j, "queued")
	s.offer(j)
	return nil
}

// Cancel ends a job with the conclusion cancelled: at once, and without a
// runner, when none has it; else as soon as its runner notices.
func (s *Server) Cancel(jobID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.job(jobID)
	if err != nil {
		return err
	}
	if j.Status == "completed" {
		return fmt.Errorf("job %d is completed", jobID)
	}
	s.cancel(j)
	return nil
}

// cancel cancels a job that is not completed. s.mu is held.
func (s *floor) cancel(j *job) {
	switch j.Status {
	case "in_progress":
		j.end("cancelled")
	default:
		s.queued = slices.DeleteFunc(s.queued, func(q *job) bool { return q == j })
		s.complete(j, "cancelled")
	}
}

// Finish ends a job that runs, with this conclusion, before its duration has passed.
func (s *Server) Finish(jobID int64, conclusion string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j, err := s.job(jobID)
	if err != nil {
		return err
	}
	if j.Status != "in_progress" {
		return fmt.Errorf("job %d is %s", jobID, j.Status)
	}
	j.end(conclusion)
	return nil
}

// end ends a job that runs, unless something else has.
func (j *job) end(conclusion string) {
	select {
	case j.ended <- conclusion:
	default:
	}
}

// Job returns a snapshot of a job; false when there is none with this ID.
func (s *Server) Job(jobID int64) (Job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[jobID]; j != nil {
		return j.Job, true
	}
	return Job{}, false
}

// Jobs returns a snapshot of every job, oldest first.
func (s *Server) Jobs() []Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var jobs []Job
	for _, id := range slices.Sorted(maps.Keys(s.jobs)) {
		jobs = append(jobs, s.jobs[id].Job)
	}
	return jobs
}

// job returns a job by its ID. s.mu is held.
func (s *state) job(id int64) (*job, error) {
	j, ok := s.jobs[id]
	if !ok {
		return nil, fmt.Errorf("there is no job %d", id)
	}
	return j, nil
}

// start gives the job to a runner. s.mu is held.
func (s *floor) start(j *job, runnerID int64, name string, groupID int64, group string) {
	j.Status, j.StartedAt = "in_progress", s.cfg.Now()
	j.RunnerID, j.RunnerName, j.RunnerGroupID, j.RunnerGroupName = runnerID, name, groupID, group
	s.send(j, "in_progress")
}

// complete ends the job. s.mu is held.
func (s *floor) complete(j *job, conclusion string) {
	j.Status, j.Conclusion, j.CompletedAt = "completed", conclusion, s.cfg.Now()
	s.send(j, "completed")
	s.goOn(j)
}

// work runs for the job's duration and returns its conclusion. An error says that the
// runner's process was ended: by ctx, or by Close (ErrClosed, and no conclusion).
func (s *floor) work(ctx context.Context, j *job) (conclusion string, err error) {
	timer := time.NewTimer(j.Duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return j.ending, nil
	case conclusion = <-j.ended:
		return conclusion, nil
	case <-ctx.Done(): // the runner says so at a signal; GitHub itself after minutes when it hears no more
		return "failure", context.Cause(ctx)
	case <-s.closing:
		return "", ErrClosed
	}
}

// host runs the job on one of GitHub's own runners. s.mu is held.
func (s *floor) host(j *job) {
	if !s.begin() {
		return
	}
	start := func() {
		id := s.newID()
		s.start(j, id, fmt.Sprintf("GitHub Actions %d", id), 0, "GitHub Actions")
	}
	if j.HostedIn == 0 {
		start()
	}
	go func() {
		defer s.wg.Done()
		if j.HostedIn > 0 {
			select {
			case <-time.After(j.HostedIn):
			case <-s.closing:
				return
			}
			s.mu.Lock()
			waits := j.Status == "queued" // it may have been cancelled
			if waits {
				start()
			}
			s.mu.Unlock()
			if !waits {
				return
			}
		}
		if conclusion, err := s.work(context.Background(), j); err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.complete(j, conclusion)
		}
	}()
}

func lower(labels []string) []string {
	l := make([]string, len(labels))
	for i := range labels {
		l[i] = strings.ToLower(labels[i])
	}
	return l
}
