package githubsim

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// A Group is a runner group, which all owners and the enterprise share.
type Group struct {
	Name      string
	Selected  []string // owner/name of the repositories that may use it; nil: all
	NoPublic  bool     // public repositories may not
	Workflows []string // paths of the workflows that may, with their refs; nil: all
}

// SetGroup makes a runner group, or replaces one. Queued jobs that it lets in now are given
// to its runners.
func (s *Server) SetGroup(id int64, g Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[id] = g
	waiting := s.queued
	s.queued = nil
	for _, j := range waiting {
		s.offer(j)
	}
}

// RemoveGroup removes a runner group; its runners move to the group Default, as on GitHub.
func (s *Server) RemoveGroup(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, id)
	for _, r := range s.runners {
		if r.groupID == id {
			r.groupID = 1
		}
	}
}

// sees reports whether a repository may use the group.
func (g Group) sees(owner, repo string, private bool) bool {
	full := owner + "/" + repo
	return (private || !g.NoPublic) && (g.Selected == nil || slices.ContainsFunc(g.Selected, func(one string) bool { return strings.EqualFold(one, full) }))
}

// takes reports whether a job may use the group.
func (g Group) takes(j *job) bool {
	path := fmt.Sprintf("%s/%s/%s@refs/heads/%s", j.Owner, j.Repo, workflowPath(j.Workflow), j.Branch)
	return g.sees(j.Owner, j.Repo, j.Private) && (g.Workflows == nil || slices.ContainsFunc(g.Workflows, func(one string) bool { return strings.EqualFold(one, path) }))
}

// object is the group as the API of a scope shows it.
func (g Group) object(sc scope, id int64) object {
	at := fmt.Sprintf("%s/%s/actions/runner-groups/%d", apiURL, sc.path(), id)
	o := object{
		"id": id, "name": g.Name, "visibility": "all", "default": id == 1, "inherited": false, "allows_public_repositories": !g.NoPublic,
		"runners_url": at + "/runners", "restricted_to_workflows": g.Workflows != nil,
		"selected_workflows": append([]string{}, g.Workflows...), "workflow_restrictions_read_only": false,
	}
	if g.Selected != nil {
		o["visibility"], o["selected_repositories_url"] = "selected", at+"/repositories"
	}
	return o
}

func (s rest) getRunnerGroup(w http.ResponseWriter, r *http.Request, sc scope) {
	id := pathID(r)
	g, ok := s.groups[id]
	if !ok {
		notFound(w)
		return
	}
	answer(w, http.StatusOK, g.object(sc, id))
}

// listRunnerGroups answers with all groups, or with those that a repository, or an
// organization of the enterprise, may use.
func (s rest) listRunnerGroups(w http.ResponseWriter, r *http.Request, sc scope) {
	q := r.URL.Query()
	repo, owner := q.Get("visible_to_repository"), q.Get("visible_to_organization")
	var found []object
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[id]
		switch {
		case repo != "" && sc.enterprise == "" && !g.sees(sc.owner, repo, true):
		case owner != "" && sc.enterprise != "" && g.Selected != nil && !slices.ContainsFunc(g.Selected, func(one string) bool {
			return strings.HasPrefix(strings.ToLower(one), strings.ToLower(owner)+"/")
		}):
		default:
			found = append(found, g.object(sc, id))
		}
	}
	answer(w, http.StatusOK, object{"total_count": len(found), "runner_groups": page(w, r, found)})
}
