package githubsim

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
)

const mostRuns = 1000 // that GitHub lists under a filter

// listRuns lists a repository's runs, newest first.
func (s rest) listRuns(w http.ResponseWriter, r *http.Request, sc scope) {
	want := r.URL.Query().Get("status")
	var ids []int64
	for id, jobs := range s.runs {
		if repoKey(jobs[0].Owner, jobs[0].Repo) != repoKey(sc.owner, sc.repo) {
			continue
		}
		if status, conclusion, _ := runState(jobs); want == "" || want == status || want == conclusion {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	total := len(ids)
	if want != "" {
		ids = ids[:min(total, mostRuns)]
	}
	runs := make([]object, len(ids))
	for i, id := range ids {
		runs[i] = runObject(s.runs[id])
	}
	answer(w, http.StatusOK, object{"total_count": total, "workflow_runs": page(w, r, runs)})
}

func (s *apps) listInstallations(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var objects []object
	for _, in := range slices.SortedFunc(maps.Values(s.installedFor), func(a, b *installed) int { return cmp.Compare(a.id, b.id) }) {
		objects = append(objects, s.installationObject(in))
	}
	answer(w, http.StatusOK, page(w, r, objects))
}

// listInstalled lists the repositories of an installation, which is the caller.
func (s *apps) listInstalled(w http.ResponseWriter, r *http.Request) {
	in := callerOf(r).installed
	if in == nil {
		fault(w, http.StatusForbidden, "You must authenticate with an installation access token in order to list repositories for an installation.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []object
	for _, key := range slices.Sorted(maps.Keys(s.repos)) {
		if repo := s.repos[key]; in.sees(scope{owner: repo.Owner, repo: repo.Name}) {
			all = append(all, repository(JobSpec{Owner: repo.Owner, Repo: repo.Name, Private: repo.Private, User: repo.User}))
		}
	}
	answer(w, http.StatusOK, object{"total_count": len(all), "repositories": page(w, r, all)})
}
