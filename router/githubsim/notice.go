package githubsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A CheckRun is a snapshot of a check run.
type CheckRun struct {
	ID               int64
	Owner, Repo, SHA string
	Name             string `json:"name"`
	ExternalID       string `json:"external_id"`
	DetailsURL       string `json:"details_url"`
	Status           string `json:"status"`     // queued, in_progress or completed
	Conclusion       string `json:"conclusion"` // "" until completed
	Output           struct {
		Title   string `json:"title"`
		Summary string `json:"summary"`
	} `json:"output"`
	Changes int // how often it was changed
}

// A CommitStatus is a snapshot of a commit status.
type CommitStatus struct {
	ID               int64
	Owner, Repo, SHA string
	State            string `json:"state"`
	Context          string `json:"context"`
	Description      string `json:"description"`
	TargetURL        string `json:"target_url"`
}

// CheckRuns returns snapshots of all check runs, oldest first.
func (s *notices) CheckRuns() []CheckRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]CheckRun, len(s.checks))
	for i, c := range s.checks {
		all[i] = *c
	}
	return all
}

// CommitStatuses returns snapshots of all commit statuses, oldest first.
func (s *notices) CommitStatuses() []CommitStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.statuses)
}

func (s *notices) noticeRoutes(api *http.ServeMux) {
	const repo = "/repos/{owner}/{repo}"
	api.HandleFunc("POST "+repo+"/check-runs", s.scoped("checks", s.createCheckRun))
	api.HandleFunc("PATCH "+repo+"/check-runs/{id}", s.scoped("checks", s.updateCheckRun))
	api.HandleFunc("GET "+repo+"/commits/{ref}/check-runs", s.scoped("checks", s.listCheckRuns))
	api.HandleFunc("POST "+repo+"/statuses/{sha}", s.scoped("statuses", s.createStatus))
	api.HandleFunc("POST "+repo+"/actions/runs/{id}/cancel", s.scoped("actions", s.cancelRun))
}

// commit reports whether a repository has a run for the commit. s.mu is held,
// as in what follows.
func (s *state) commit(sc scope, commit string) bool {
	for id, jobs := range s.runs {
		if SHA(id) == commit && repoKey(jobs[0].Owner, jobs[0].Repo) == repoKey(sc.owner, sc.repo) {
			return true
		}
	}
	return false
}

func (s *notices) createCheckRun(w http.ResponseWriter, r *http.Request, sc scope) {
	var body struct {
		CheckRun
		SHA string `json:"head_sha"`
	}
	switch err := json.NewDecoder(r.Body).Decode(&body); {
	case callerOf(r).installed == nil:
		fault(w, http.StatusForbidden, "You must authenticate via a GitHub App.")
		return
	case err != nil:
		fault(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	case body.Name == "":
		invalid(w, "Invalid request.", `"name" wasn't supplied.`)
		return
	case !s.commit(sc, body.SHA):
		invalid(w, "No commit found for SHA: "+body.SHA)
		return
	}
	c := body.CheckRun
	c.ID, c.Owner, c.Repo, c.SHA = s.newID(), sc.owner, sc.repo, body.SHA
	c.Status = cmp.Or(c.Status, "queued")
	s.checks = append(s.checks, &c)
	answer(w, http.StatusCreated, s.checkRunObject(&c))
}

func (s *notices) updateCheckRun(w http.ResponseWriter, r *http.Request, sc scope) {
	for _, c := range s.checks {
		if c.ID != pathID(r) || c.Owner != sc.owner || c.Repo != sc.repo {
			continue
		}
		if callerOf(r).installed == nil {
			fault(w, http.StatusForbidden, "You must authenticate via a GitHub App.")
			return
		}
		changed := *c
		changed.Conclusion = ""
		if err := json.NewDecoder(r.Body).Decode(&changed); err != nil {
			fault(w, http.StatusBadRequest, "Problems parsing JSON")
			return
		}
		changed.Changes++
		*c = changed
		answer(w, http.StatusOK, s.checkRunObject(c))
		return
	}
	notFound(w)
}

func (s *notices) listCheckRuns(w http.ResponseWriter, r *http.Request, sc scope) {
	name := r.URL.Query().Get("check_name")
	found := []object{}
	for _, c := range slices.Backward(s.checks) {
		if c.Owner == sc.owner && c.Repo == sc.repo && c.SHA == r.PathValue("ref") && (name == "" || c.Name == name) {
			found = append(found, s.checkRunObject(c))
		}
	}
	answer(w, http.StatusOK, object{"total_count": len(found), "check_runs": page(w, r, found)})
}

func (s *notices) checkRunObject(c *CheckRun) object {
	api := fmt.Sprintf("%s/repos/%s/%s/check-runs/%d", apiURL, c.Owner, c.Repo, c.ID)
	now := stamp(s.cfg.Now())
	var completed any
	if c.Status == "completed" {
		completed = now
	}
	return object{
		"id": c.ID, "node_id": nodeID("CheckRun", c.ID), "head_sha": c.SHA, "external_id": c.ExternalID, "name": c.Name,
		"url": api, "html_url": fmt.Sprintf("%s/%s/%s/runs/%d", webURL, c.Owner, c.Repo, c.ID), "details_url": orNull(c.DetailsURL),
		"status": c.Status, "conclusion": orNull(c.Conclusion), "started_at": now, "completed_at": completed,
		"output": object{
			"title": orNull(c.Output.Title), "summary": orNull(c.Output.Summary), "text": nil,
			"annotations_count": 0, "annotations_url": api + "/annotations",
		},
		"check_suite": object{"id": c.ID}, "pull_requests": []object{},
		"app": s.appObject(),
	}
}

func (s *notices) createStatus(w http.ResponseWriter, r *http.Request, sc scope) {
	var c CommitStatus
	switch err := json.NewDecoder(r.Body).Decode(&c); {
	case err != nil:
		fault(w, http.StatusBadRequest, "Problems parsing JSON")
		return
	case !slices.Contains([]string{"error", "failure", "pending", "success"}, c.State):
		invalid(w, "Validation Failed", "State is not included in the list")
		return
	case len([]rune(c.Description)) > 140:
		invalid(w, "Validation Failed", "description is too long (maximum is 140 characters)")
		return
	case !s.commit(sc, r.PathValue("sha")):
		invalid(w, "No commit found for SHA: "+r.PathValue("sha"))
		return
	}
	c.ID, c.Owner, c.Repo, c.SHA = s.newID(), sc.owner, sc.repo, strings.ToLower(r.PathValue("sha"))
	s.statuses = append(s.statuses, c)
	now := stamp(s.cfg.Now())
	answer(w, http.StatusCreated, object{
		"url": fmt.Sprintf("%s/repos/%s/%s/statuses/%s", apiURL, c.Owner, c.Repo, c.SHA), "avatar_url": nil, "id": c.ID,
		"node_id": nodeID("StatusContext", c.ID), "state": c.State, "description": orNull(c.Description), "target_url": orNull(c.TargetURL),
		"context": c.Context, "created_at": now, "updated_at": now, "creator": user("switchyard", "User"),
	})
}

func (s *notices) cancelRun(w http.ResponseWriter, r *http.Request, sc scope) {
	jobs := s.run(w, r, sc)
	if jobs == nil {
		return
	}
	if status, _, _ := runState(jobs); status == "completed" {
		fault(w, http.StatusConflict, "Cannot cancel a workflow run that is completed.")
		return
	}
	for _, j := range jobs {
		if j.Status != "completed" {
			s.cancel(j)
		}
	}
	answer(w, http.StatusAccepted, object{})
}
