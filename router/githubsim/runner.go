package githubsim

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The errors of Connect when there is no job for the runner.
var (
	ErrUnknownJIT = errors.New("the just-in-time configuration is unknown")
	ErrUsedJIT    = errors.New("the just-in-time configuration was used already")
	ErrRemoved    = errors.New("the runner registration was deleted")
)

// A runner is one registered runner, guarded by state.mu.
type runner struct {
	id       int64
	name     string
	scope    scope
	groupID  int64
	labels   []string // as they were given
	covers   []string // the same in lower case
	version  string   // of the process; "": none has connected
	used     bool     // a process connected with its configuration
	online   bool
	job      *job          // nil until it has one; never another
	assigned chan struct{} // closed with job set
	removed  chan struct{} // closed when it is deleted
}

// A Runner is a snapshot of a registered runner.
type Runner struct {
	ID     int64
	Name   string
	Online bool
	JobID  int64 // of the job that it has; 0: none
}

// Runners returns a snapshot of every registered runner, by ID.
func (s *Server) Runners() []Runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Runner
	for _, id := range slices.Sorted(maps.Keys(s.runners)) {
		r := s.runners[id]
		shown := Runner{ID: r.id, Name: r.name, Online: r.online}
		if r.job != nil {
			shown.JobID = r.job.ID
		}
		all = append(all, shown)
	}
	return all
}

// RunTask does what a runner's task does with the configuration that its claim returned,
// which is empty when its job no longer needs it, and returns the exit code.
func (s *Server) RunTask(ctx context.Context, encodedJIT string) int {
	if strings.TrimSpace(encodedJIT) == "" {
		return 0
	}
	return ExitCode(s.Connect(ctx, encodedJIT))
}

// ExitCode returns the exit code of a runner for which Connect returned err.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrVersion):
		return 7
	}
	return 1
}

// Connect behaves like a runner process with a just-in-time configuration: it comes
// online, waits for a job, runs it and returns nil when the job has ended and the runner
// is gone. It fails with ErrUnknownJIT, ErrUsedJIT or ErrVersion, with ErrRemoved when the runner is
// deleted while it waits, with ErrClosed, and with the cause of ctx, which ends the
// process like a signal, or the loss of its node: its job fails, and a runner without a job goes offline.
func (s *floor) Connect(ctx context.Context, encodedJIT string) error {
	return s.ConnectAs(ctx, encodedJIT, "")
}

// ConnectAs is Connect for a runner of this version; "": that of RunnersAre.
func (s *floor) ConnectAs(ctx context.Context, encodedJIT, version string) error {
	r, err := s.online(strings.TrimSpace(encodedJIT), version)
	if err != nil {
		return err
	}
	defer s.wg.Done()

	var end error
	select {
	case <-r.assigned:
	case <-r.removed:
		end = ErrRemoved
	case <-ctx.Done():
		end = context.Cause(ctx)
	case <-s.closing:
		end = ErrClosed
	}

	s.mu.Lock()
	j := r.job // it may have come at the last moment
	if j == nil {
		s.offline(r)
		s.mu.Unlock()
		return end
	}
	s.mu.Unlock()

	conclusion, end := s.work(ctx, j)
	if conclusion == "" {
		return end
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete(j, conclusion)
	s.remove(r)
	return end
}

// online makes the runner with this configuration available for jobs. Unless it fails,
// the caller must call s.wg.Done.
func (s *floor) online(encodedJIT, version string) (*runner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.byJIT[encodedJIT]
	version = cmp.Or(version, s.version)
	switch {
	case !ok:
		return nil, ErrUnknownJIT
	case r.used:
		return nil, ErrUsedJIT
	case s.runners[r.id] == nil:
		return nil, ErrRemoved
	case s.outdated(version) && s.versions[version].Refused:
		r.used, r.version = true, version
		return nil, ErrVersion
	case !s.begin():
		return nil, ErrClosed
	}
	r.used, r.online, r.version = true, true, version
	s.idle = append(s.idle, r)
	for i, j := range s.queued {
		if s.fits(r, j) {
			s.queued = slices.Delete(s.queued, i, i+1)
			s.assign(j, r)
			break
		}
	}
	return r, nil
}

// offline records that the runner's process is gone. s.mu is held.
func (s *floor) offline(r *runner) {
	r.online = false
	s.idle = slices.DeleteFunc(s.idle, func(i *runner) bool { return i == r })
}

// remove deletes the runner's registration. s.mu is held.
func (s *floor) remove(r *runner) {
	s.offline(r)
	delete(s.runners, r.id)
	close(r.removed)
}

// offer gives a queued job to one of the idle runners that fit, at random as GitHub does,
// or lets it wait for the next one. s.mu is held.
func (s *floor) offer(j *job) {
	if j.Hosted {
		s.host(j)
		return
	}
	var fitting []*runner
	for _, r := range s.idle {
		if s.fits(r, j) {
			fitting = append(fitting, r)
		}
	}
	if len(fitting) == 0 {
		s.queued = append(s.queued, j)
		return
	}
	s.assign(j, fitting[s.rand.IntN(len(fitting))])
}

// assign gives a job to an idle runner. s.mu is held.
func (s *floor) assign(j *job, r *runner) {
	s.idle = slices.DeleteFunc(s.idle, func(i *runner) bool { return i == r })
	r.job = j
	s.start(j, r.id, r.name, r.groupID, s.groups[r.groupID].Name)
	close(r.assigned)
}

// fits reports whether GitHub may give the job to the runner now: it is in the
// runner's repository, organization or enterprise, its version is supported, the runner is in the group
// that the job asks for, its group lets the job in, and it has all the job's labels. It may have more:
// https://docs.github.com/en/actions/reference/runners/self-hosted-runners (read 2026-11-24).
func (s *floor) fits(r *runner, j *job) bool {
	if s.outdated(r.version) || !s.handedOut(j) {
		return false
	}
	if j.Group != "" && (r.scope.repo != "" || !strings.EqualFold(s.groups[r.groupID].Name, j.Group)) {
		return false
	}
	if r.scope.repo == "" && !s.groups[r.groupID].takes(j) {
		return false
	}
	if r.scope.enterprise == "" && (!strings.EqualFold(r.scope.owner, j.Owner) || r.scope.repo != "" && !strings.EqualFold(r.scope.repo, j.Repo)) {
		return false
	}
	return !slices.ContainsFunc(j.labels, func(l string) bool { return !slices.Contains(r.covers, l) })
}

// register makes a runner and its configuration. s.mu is held.
func (s *floor) register(sc scope, req jitRequest) (*runner, string) {
	r := &runner{
		id: s.newID(), name: req.Name, scope: sc, groupID: req.GroupID,
		labels: req.Labels, covers: lower(req.Labels),
		assigned: make(chan struct{}), removed: make(chan struct{}),
	}
	encoded := s.encodeJIT(r, req.WorkFolder)
	s.runners[r.id] = r
	s.byJIT[encoded] = r
	return r, encoded
}

// encodeJIT makes a configuration of the shape of GitHub's own: base64 of a
// JSON object from file names to base64 of the files that the runner writes
// into its directory. Only this Server can read it. s.mu is held.
func (s *floor) encodeJIT(r *runner, workFolder string) string {
	url := webURL + "/" + r.scope.owner
	if r.scope.repo != "" {
		url += "/" + r.scope.repo
	}
	if r.scope.enterprise != "" {
		url = webURL + "/enterprises/" + r.scope.enterprise
	}
	secret := s.secret(256) // the size of an RSA key's modulus
	file := func(v object) string { return base64.StdEncoding.EncodeToString(mustJSON(v)) }
	return file(object{
		".runner": file(object{
			"AgentId": fmt.Sprint(r.id), "AgentName": r.name, "Ephemeral": "True", "DisableUpdate": "False",
			"PoolId": fmt.Sprint(r.groupID), "PoolName": s.groups[r.groupID].Name,
			"GitHubUrl": url, "ServerUrl": "https://pipelines.actions.githubusercontent.com/", "WorkFolder": workFolder,
		}),
		".credentials": file(object{
			"Scheme": "OAuth",
			"Data":   object{"ClientId": s.guid(), "AuthorizationUrl": "https://vstoken.actions.githubusercontent.com/", "RequireFipsCryptography": "True"},
		}),
		".credentials_rsaparams": file(object{"exponent": "AQAB", "modulus": base64.StdEncoding.EncodeToString(secret)}),
	})
}

// A jitRequest is the body of generate-jitconfig.
type jitRequest struct {
	Name       string
	GroupID    int64
	Labels     []string
	WorkFolder string
}

// decodeJITRequest reads a body and returns the faults that GitHub would find, in its
// words as far as they are known.
func decodeJITRequest(body []byte) (r jitRequest, faults []string, err error) {
	var raw struct {
		Name       *string   `json:"name"`
		GroupID    *int64    `json:"runner_group_id"`
		Labels     *[]string `json:"labels"`
		WorkFolder *string   `json:"work_folder"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return r, []string{fmt.Sprintf("For '%s', a %s is of the wrong type.", wrongType.Field, wrongType.Value)}, nil
		}
		return r, nil, err
	}
	r.WorkFolder = "_work"
	if raw.WorkFolder != nil {
		r.WorkFolder = *raw.WorkFolder
	}
	if raw.Name == nil {
		faults = append(faults, `"name" wasn't supplied.`)
	} else if r.Name = *raw.Name; strings.TrimSpace(r.Name) == "" {
		faults = append(faults, "Name can't be blank.")
	}
	if raw.GroupID == nil {
		faults = append(faults, `"runner_group_id" wasn't supplied.`)
	} else {
		r.GroupID = *raw.GroupID
	}
	if raw.Labels == nil {
		faults = append(faults, `"labels" wasn't supplied.`)
		return r, faults, nil
	}
	r.Labels = *raw.Labels
	if n := len(r.Labels); n < 1 || n > 100 {
		faults = append(faults, fmt.Sprintf("Labels must have between 1 and 100 items, not %d.", n))
	}
	if slices.ContainsFunc(r.Labels, func(l string) bool { return strings.TrimSpace(l) == "" }) {
		faults = append(faults, "Labels can't be blank.")
	}
	return r, faults, nil
}
