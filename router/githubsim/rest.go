package githubsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody = 1 << 20 // bytes of a request
	docsURL = "https://docs.github.com/rest"

	// ConnectPath is Connect for a runner process elsewhere: POST with its just-in-time
	// configuration as the body. The answer comes when the job has ended: 200, else the
	// reason as text.
	ConnectPath = "/_sim/runners/connect"
)

// ServeHTTP answers GitHub's REST API, and ConnectPath.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func (s *Server) routes() http.Handler {
	api, rest := http.NewServeMux(), rest{s.floor}
	scopes := map[string]string{"/repos/{owner}/{repo}": "administration", "/orgs/{owner}": "organization_self_hosted_runners"}
	if s.cfg.Enterprise != "" {
		scopes["/enterprises/{enterprise}"] = "" // no installation has it
	}
	for scope, permission := range scopes {
		runners := scope + "/actions/runners"
		api.HandleFunc("POST "+runners+"/generate-jitconfig", s.scoped(permission, rest.generateJIT))
		api.HandleFunc("POST "+runners+"/registration-token", s.scoped(permission, rest.createRegistrationToken))
		if scope != "/repos/{owner}/{repo}" {
			api.HandleFunc("GET "+scope+"/actions/runner-groups", s.scoped(permission, rest.listRunnerGroups))
			api.HandleFunc("GET "+scope+"/actions/runner-groups/{id}", s.scoped(permission, rest.getRunnerGroup))
		}
		api.HandleFunc("GET "+runners, s.scoped(permission, rest.listRunners))
		api.HandleFunc("GET "+runners+"/deprecations/{version}", s.scoped(permission, rest.getVersionEnd))
		api.HandleFunc("GET "+runners+"/{id}", s.scoped(permission, rest.getRunner))
		api.HandleFunc("DELETE "+runners+"/{id}", s.scoped(permission, rest.deleteRunner))
		if s.cfg.App != nil && permission != "" {
			api.HandleFunc("GET "+scope+"/installation", s.scoped("", s.getInstallation))
		}
	}
	if s.cfg.App != nil {
		api.HandleFunc("GET /app", s.getApp)
		api.HandleFunc("GET /app/hook/config", s.getHookConfig)
		api.HandleFunc("POST /app/installations/{id}/access_tokens", s.createToken)
		api.HandleFunc("GET /app/installations", s.listInstallations)
		api.HandleFunc("GET /installation/repositories", s.listInstalled)
	}
	api.HandleFunc("GET /repos/{owner}/{repo}/actions/jobs/{id}", s.scoped("actions", rest.getJob))
	api.HandleFunc("POST /repos/{owner}/{repo}/actions/jobs/{id}/rerun", s.scoped("actions", rest.rerunJob))
	api.HandleFunc("GET /repos/{owner}/{repo}/actions/runs/{id}", s.scoped("actions", rest.getRun))
	api.HandleFunc("GET /repos/{owner}/{repo}/actions/runs", s.scoped("actions", rest.listRuns))
	api.HandleFunc("GET /repos/{owner}/{repo}/actions/runs/{id}/jobs", s.scoped("actions", rest.listRunJobs))
	rest.hookRoutes(api)
	rest.variableRoutes(api)
	s.noticeRoutes(api)
	api.HandleFunc("GET /rate_limit", s.rateLimit)
	api.HandleFunc("POST /app-manifests/{code}/conversions", s.convertManifest)
	api.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { notFound(w) })

	pattern := func(r *http.Request) string {
		_, p := api.Handler(r)
		return p
	}
	checked := s.authorized(s.faulty(s.limited(s.secondary(pattern, api))))
	all := http.NewServeMux()
	all.HandleFunc("POST "+ConnectPath, rest.connect)
	all.HandleFunc("POST /settings/apps/new", s.newApp)
	all.HandleFunc("POST /organizations/{owner}/settings/apps/new", s.newApp)
	all.Handle("/api/v3/", http.StripPrefix("/api/v3", checked))
	all.Handle("/", checked)
	return all
}

// authorized refuses requests without a login that the Server knows.
func (s *gate) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-GitHub-Media-Type", "github.v3; format=json")
		w.Header().Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
		c, status, message := s.caller(r)
		if status != 0 {
			fault(w, status, message)
			return
		}
		next.ServeHTTP(w, withCaller(r, c))
	})
}

// limited counts requests against the primary rate limit:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api (read 2026-11-24).
func (s *gate) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := s.count(callerOf(r), r.URL.Path != "/rate_limit")
		limit.show(w.Header())
		if limit.refused {
			fault(w, http.StatusForbidden, primaryWords)
			return
		}
		next.ServeHTTP(w, r)
	})
}

type limit struct {
	limit, used int
	reset       time.Time
	refused     bool
}

func (l limit) show(h http.Header) {
	h.Set("X-RateLimit-Limit", strconv.Itoa(l.limit))
	h.Set("X-RateLimit-Used", strconv.Itoa(l.used))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(l.limit-l.used))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(l.reset.Unix(), 10))
	h.Set("X-RateLimit-Resource", "core")
}

// count takes one request from what is left of the caller's hour, if spend is true.
func (s *gate) count(c caller, spend bool) limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.limits[c.account()]
	if now := s.cfg.Now(); l == nil || !now.Before(l.reset) {
		l = &limit{limit: s.cfg.RateLimit, reset: now.Add(time.Hour).Truncate(time.Second)}
		s.limits[c.account()] = l
	}
	l.refused = spend && l.used >= l.limit
	switch {
	case l.refused:
		s.traffic.Over++
	case spend:
		l.used++
	}
	return *l
}

func (s *gate) rateLimit(w http.ResponseWriter, r *http.Request) {
	l := s.count(callerOf(r), false)
	core := object{"limit": l.limit, "used": l.used, "remaining": l.limit - l.used, "reset": l.reset.Unix()}
	answer(w, http.StatusOK, object{"resources": object{"core": core, "search": core}, "rate": core})
}

// A scope is the repository, the organization or the enterprise of a request, in
// the spelling that GitHub knows it by.
type scope struct{ owner, repo, enterprise string }

func (sc scope) lower() scope {
	return scope{strings.ToLower(sc.owner), strings.ToLower(sc.repo), strings.ToLower(sc.enterprise)}
}

// path returns the path of the scope in the API, without a slash at the start.
func (sc scope) path() string {
	switch {
	case sc.enterprise != "":
		return "enterprises/" + sc.enterprise
	case sc.repo == "":
		return "orgs/" + sc.owner
	}
	return "repos/" + sc.owner + "/" + sc.repo
}

// has reports whether the runner is registered in exactly this scope.
func (sc scope) has(r *runner) bool { return r.scope.lower() == sc.lower() }

// named returns the runner of this name; nil: none. s.mu is held.
func (s *state) named(sc scope, name string) *runner {
	for _, r := range s.runners {
		if sc.has(r) && strings.EqualFold(r.name, name) {
			return r
		}
	}
	return nil
}

// scoped answers 404 for a repository or an organization that does not exist or that the
// installation does not cover, and 403 when the installation lacks the permission. The
// handler runs with s.mu held.
func (s *gate) scoped(permission string, handle func(http.ResponseWriter, *http.Request, scope)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)) // not under the lock
		if err != nil {
			fault(w, http.StatusBadRequest, "Problems reading the body")
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		s.mu.Lock()
		defer s.mu.Unlock()
		sc, ok := scope{r.PathValue("owner"), r.PathValue("repo"), r.PathValue("enterprise")}, false
		if sc.enterprise != "" {
			ok = strings.EqualFold(sc.enterprise, s.cfg.Enterprise)
		} else if sc.repo == "" {
			ok = s.orgs[strings.ToLower(sc.owner)]
		} else if repo, known := s.repos[repoKey(sc.owner, sc.repo)]; known {
			sc, ok = scope{owner: repo.Owner, repo: repo.Name}, true
		}
		in := callerOf(r).installed
		switch {
		case !ok || in != nil && !in.sees(sc):
			notFound(w)
		case in != nil && !allows(in.permissions, permission, r.Method):
			fault(w, http.StatusForbidden, "Resource not accessible by integration")
		default:
			handle(w, r, sc)
		}
	}
}

func (s rest) generateJIT(w http.ResponseWriter, r *http.Request, sc scope) {
	body, _ := io.ReadAll(r.Body) // which scoped has read
	req, faults, err := decodeJITRequest(body)
	switch {
	case err != nil:
		fault(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	case len(faults) > 0:
		invalid(w, "Validation Failed", faults...)
		return
	case s.groups[req.GroupID].Name == "":
		notFound(w)
		return
	}
	if s.named(sc, req.Name) != nil {
		fault(w, http.StatusConflict, fmt.Sprintf("Already exists - A runner with the name %s already exists.", req.Name))
		return
	}
	if !s.registration(sc) {
		w.Header().Set("Retry-After", "60")
		fault(w, http.StatusForbidden, secondaryWords)
		return
	}
	made, encoded := s.register(sc, req)
	answer(w, http.StatusCreated, object{"runner": runnerObject(made), "encoded_jit_config": encoded})
}

func (s rest) listRunners(w http.ResponseWriter, r *http.Request, sc scope) {
	name := r.URL.Query().Get("name")
	var found []object
	for _, one := range s.runners {
		if sc.has(one) && (name == "" || strings.EqualFold(one.name, name)) {
			found = append(found, runnerObject(one))
		}
	}
	slices.SortFunc(found, func(a, b object) int { return cmp.Compare(a["id"].(int64), b["id"].(int64)) })
	answer(w, http.StatusOK, object{"total_count": len(found), "runners": page(w, r, found)})
}

// runner returns the runner of a request; nil: there is none, and it has answered 404.
func (s rest) runner(w http.ResponseWriter, r *http.Request, sc scope) *runner {
	one := s.runners[pathID(r)]
	if one == nil || !sc.has(one) {
		notFound(w)
		return nil
	}
	return one
}

func (s rest) getRunner(w http.ResponseWriter, r *http.Request, sc scope) {
	if one := s.runner(w, r, sc); one != nil {
		answer(w, http.StatusOK, runnerObject(one))
	}
}

func (s rest) deleteRunner(w http.ResponseWriter, r *http.Request, sc scope) {
	one := s.runner(w, r, sc)
	switch {
	case one == nil:
	case one.job != nil:
		invalid(w, fmt.Sprintf("Bad request - Runner %q is still running a job", one.name))
	default:
		s.remove(one)
		w.WriteHeader(http.StatusNoContent)
	}
}

func runnerObject(r *runner) object {
	labels := make([]object, len(r.labels))
	for i, l := range r.labels {
		labels[i] = object{"id": number("label", l), "name": l, "type": "custom"}
	}
	status, system, version := "offline", "unknown", any(nil)
	if r.online {
		status = "online"
	}
	if r.used {
		system, version = "linux", r.version
	}
	return object{
		"id": r.id, "runner_group_id": r.groupID, "name": r.name, "os": system, "status": status,
		"busy": r.job != nil, "ephemeral": true, "version": version, "labels": labels,
	}
}

func (s rest) getJob(w http.ResponseWriter, r *http.Request, sc scope) {
	j := s.jobs[pathID(r)]
	if j == nil || repoKey(j.Owner, j.Repo) != repoKey(sc.owner, sc.repo) {
		notFound(w)
		return
	}
	answer(w, http.StatusOK, jobObject(j.Job))
}

func (s rest) rerunJob(w http.ResponseWriter, r *http.Request, sc scope) {
	j := s.jobs[pathID(r)]
	if j == nil || repoKey(j.Owner, j.Repo) != repoKey(sc.owner, sc.repo) {
		notFound(w)
		return
	}
	if why := s.notRerun(j); why != "" {
		fault(w, http.StatusForbidden, why)
		return
	}
	s.floor.rerun(j)
	answer(w, http.StatusCreated, object{})
}

// run returns the jobs of a request's run; nil: there are none, and it has answered 404.
func (s *floor) run(w http.ResponseWriter, r *http.Request, sc scope) []*job {
	jobs := s.runs[pathID(r)]
	if len(jobs) == 0 || repoKey(jobs[0].Owner, jobs[0].Repo) != repoKey(sc.owner, sc.repo) {
		notFound(w)
		return nil
	}
	return jobs
}

func (s rest) getRun(w http.ResponseWriter, r *http.Request, sc scope) {
	if jobs := s.run(w, r, sc); jobs != nil {
		s.reads[jobs[0].RunID]++
		answer(w, http.StatusOK, runObject(jobs))
	}
}

// RunReads returns how often a run was read through the REST API.
func (s *Server) RunReads(runID int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads[runID]
}

func (s rest) listRunJobs(w http.ResponseWriter, r *http.Request, sc scope) {
	jobs := s.run(w, r, sc)
	if jobs == nil {
		return
	}
	objects := make([]object, len(jobs))
	for i, j := range jobs {
		objects[i] = jobObject(j.Job)
	}
	answer(w, http.StatusOK, object{"total_count": len(jobs), "jobs": page(w, r, objects)})
}

func runObject(jobs []*job) object {
	j := jobs[0].Job
	repo := apiURL + "/repos/" + j.Owner + "/" + j.Repo
	workflow := number("workflow", j.Owner+"/"+j.Repo+"/"+j.Workflow)
	api := fmt.Sprintf("%s/actions/runs/%d", repo, j.RunID)
	status, conclusion, updated := runState(jobs)
	author := object{"name": j.Sender, "email": j.Sender + "@users.noreply.github.com"}
	head := j.JobSpec
	if j.Head != "" {
		head.Owner, head.User, head.Fork = j.Head, true, true
	}
	return object{
		"id": j.RunID, "node_id": nodeID("WorkflowRun", j.RunID), "name": j.Workflow, "display_title": j.Name,
		"check_suite_id": j.RunID, "check_suite_node_id": nodeID("CheckSuite", j.RunID),
		"head_branch": j.Branch, "head_sha": SHA(j.RunID), "path": workflowPath(j.Workflow),
		"run_number": 1, "run_attempt": j.Attempt, "referenced_workflows": []object{},
		"event": j.Event, "status": status, "conclusion": orNull(conclusion), "workflow_id": workflow,
		"url": api, "html_url": fmt.Sprintf("%s/%s/%s/actions/runs/%d", webURL, j.Owner, j.Repo, j.RunID),
		"pull_requests": pullRequests(j), "created_at": stamp(j.CreatedAt), "updated_at": stamp(updated), "run_started_at": stamp(j.CreatedAt),
		"actor": user(j.Actor, "User"), "triggering_actor": user(j.Sender, "User"),
		"jobs_url": api + "/jobs", "logs_url": api + "/logs", "artifacts_url": api + "/artifacts",
		"cancel_url": api + "/cancel", "rerun_url": api + "/rerun", "previous_attempt_url": previousAttempt(api, j.Attempt),
		"check_suite_url": fmt.Sprintf("%s/check-suites/%d", repo, j.RunID),
		"workflow_url":    fmt.Sprintf("%s/actions/workflows/%d", repo, workflow),
		"head_commit": object{
			"id": SHA(j.RunID), "tree_id": SHA(-j.RunID), "message": j.Name, "timestamp": stamp(j.CreatedAt),
			"author": author, "committer": author,
		},
		"repository": repository(j.JobSpec), "head_repository": repository(head),
	}
}

// pullRequests returns the open pull requests that GitHub lists for a run: none of forks.
func pullRequests(j Job) []object {
	if !strings.HasPrefix(j.Event, "pull_request") || j.Closed || j.Head != "" {
		return []object{}
	}
	api := apiURL + "/repos/" + j.Owner + "/" + j.Repo
	repo := object{"id": number("repo", j.Owner+"/"+j.Repo), "url": api, "name": j.Repo}
	return []object{{
		"id": j.RunID, "number": 1, "url": api + "/pulls/1",
		"head": object{"ref": j.Branch, "sha": SHA(j.RunID), "repo": repo}, "base": object{"ref": "main", "sha": SHA(-j.RunID), "repo": repo},
	}}
}

func previousAttempt(api string, attempt int) any {
	if attempt < 2 {
		return nil
	}
	return fmt.Sprintf("%s/attempts/%d", api, attempt-1)
}

// workflowPath returns the path of a workflow's file in its repository.
func workflowPath(name string) string {
	return ".github/workflows/" + strings.ToLower(strings.ReplaceAll(name, " ", "-")) + ".yml"
}

// runState returns the state of a run from its jobs.
func runState(jobs []*job) (status, conclusion string, updated time.Time) {
	status, conclusion = "completed", "success"
	for _, j := range jobs {
		for _, t := range []time.Time{j.CreatedAt, j.StartedAt, j.CompletedAt} {
			if t.After(updated) {
				updated = t
			}
		}
		switch {
		case j.Status == "in_progress":
			status = "in_progress"
		case j.Status != "completed" && status == "completed":
			status = j.Status
		case j.Conclusion != "success":
			conclusion = j.Conclusion
		}
	}
	if status != "completed" {
		conclusion = ""
	}
	return status, conclusion, updated
}

// connect answers ConnectPath. The configuration is its own credential.
func (s rest) connect(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "cannot read the configuration", http.StatusBadRequest)
		return
	}
	switch err := s.Connect(r.Context(), string(body)); {
	case err == nil:
		_, _ = io.WriteString(w, "the job ended\n")
	case errors.Is(err, ErrUnknownJIT):
		http.Error(w, err.Error(), http.StatusUnauthorized)
	case errors.Is(err, ErrUsedJIT):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, ErrRemoved):
		http.Error(w, err.Error(), http.StatusGone)
	case errors.Is(err, context.Canceled):
		// The runner process went away.
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// page returns the requested page of all, and links to the next one.
func page(w http.ResponseWriter, r *http.Request, all []object) []object {
	q := r.URL.Query()
	nth, err := strconv.Atoi(q.Get("page"))
	if err != nil || nth < 1 {
		nth = 1
	}
	nth = min(nth, len(all)+1) // a page beyond the last is empty, however far
	size := pageSize(r)
	from := min((nth-1)*size, len(all))
	to := min(from+size, len(all))
	if to < len(all) {
		q.Set("page", strconv.Itoa(nth+1))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, apiURL, r.URL.Path, q.Encode()))
	}
	return append([]object{}, all[from:to]...)
}

func pageSize(r *http.Request) int {
	size, err := strconv.Atoi(r.URL.Query().Get("per_page"))
	if err != nil || size < 1 {
		return 30
	}
	return min(size, 100)
}

// pathID returns the request's {id}, 0 when it is not a number.
func pathID(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(mustJSON(body))
}

// fault answers an error as GitHub does.
func fault(w http.ResponseWriter, status int, message string) {
	answer(w, status, object{"message": message, "documentation_url": docsURL, "status": strconv.Itoa(status)})
}

func notFound(w http.ResponseWriter) { fault(w, http.StatusNotFound, "Not Found") }

// invalid answers 422 with a list of faults.
func invalid(w http.ResponseWriter, message string, faults ...string) {
	body := object{"message": message, "documentation_url": docsURL, "status": "422"}
	if len(faults) > 0 {
		body["errors"] = faults
	}
	answer(w, http.StatusUnprocessableEntity, body)
}
