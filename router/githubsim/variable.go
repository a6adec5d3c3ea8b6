package githubsim

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A variable is an Actions variable of a repository or, without one, of an organization.
type variable struct {
	scope            scope
	name, value      string // the name is of upper case, as GitHub shows it
	visibility       string // of an organization's: all, private or selected
	created, updated time.Time
}

var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// SetVariable makes an Actions variable of a repository or, if repo is "", of an organization,
// which all of its repositories see, or sets it.
func (s *Server) SetVariable(owner, repo, name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc, now := scope{owner: owner, repo: repo}, s.cfg.Now()
	if v := s.variable(sc, name); v != nil {
		v.value, v.updated = value, now
		return
	}
	s.variables = append(s.variables, &variable{sc, strings.ToUpper(name), value, "all", now, now})
}

// RemoveVariable removes an Actions variable.
func (s *Server) RemoveVariable(owner, repo, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeVariable(scope{owner: owner, repo: repo}, name)
}

// Variable returns the value that ${{ vars.NAME }} has in a workflow of a repository; "": none. A
// variable of the repository comes before one of its organization.
func (s *Server) Variable(owner, repo, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sc := range []scope{{owner: owner, repo: repo}, {owner: owner}} {
		if v := s.variable(sc, name); v != nil {
			return v.value
		}
	}
	return ""
}

// variable returns a variable; nil: there is none. s.mu is held.
func (s *state) variable(sc scope, name string) *variable {
	for _, v := range s.variables {
		if v.scope.lower() == sc.lower() && strings.EqualFold(v.name, name) {
			return v
		}
	}
	return nil
}

func (s *state) removeVariable(sc scope, name string) {
	v := s.variable(sc, name)
	s.variables = slices.DeleteFunc(s.variables, func(one *variable) bool { return one == v })
}

func (s rest) variableRoutes(api *http.ServeMux) {
	for scope, permission := range map[string]string{"/repos/{owner}/{repo}": "actions_variables", "/orgs/{owner}": "organization_actions_variables"} {
		variables := scope + "/actions/variables"
		api.HandleFunc("GET "+variables, s.scoped(permission, s.listVariables))
		api.HandleFunc("POST "+variables, s.scoped(permission, s.createVariable))
		api.HandleFunc("GET "+variables+"/{name}", s.scoped(permission, s.getVariable))
		api.HandleFunc("PATCH "+variables+"/{name}", s.scoped(permission, s.updateVariable))
		api.HandleFunc("DELETE "+variables+"/{name}", s.scoped(permission, s.deleteVariable))
	}
}

func (s rest) listVariables(w http.ResponseWriter, r *http.Request, sc scope) {
	var found []object
	for _, v := range s.variables {
		if v.scope.lower() == sc.lower() {
			found = append(found, v.object())
		}
	}
	answer(w, http.StatusOK, object{"total_count": len(found), "variables": page(w, r, found)})
}

func (s rest) getVariable(w http.ResponseWriter, r *http.Request, sc scope) {
	v := s.variable(sc, r.PathValue("name"))
	if v == nil {
		notFound(w)
		return
	}
	answer(w, http.StatusOK, v.object())
}

// A variableRequest makes a variable, or changes what it has.
type variableRequest struct {
	Name, Value, Visibility *string
}

// read reads a request; false: it is wrong, and was answered.
func (v *variableRequest) read(w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body) // which scoped has read
	if json.Unmarshal(body, v) != nil {
		fault(w, http.StatusBadRequest, "Problems parsing JSON")
		return false
	}
	if v.Name != nil {
		name := strings.ToUpper(*v.Name)
		if !variableName.MatchString(name) || strings.HasPrefix(name, "GITHUB_") {
			invalid(w, "Variable name is invalid")
			return false
		}
		v.Name = &name
	}
	if v.Visibility != nil && !slices.Contains([]string{"all", "private", "selected"}, *v.Visibility) {
		invalid(w, "Validation Failed", "visibility is not included in the list")
		return false
	}
	return true
}

func (s rest) createVariable(w http.ResponseWriter, r *http.Request, sc scope) {
	var asked variableRequest
	if !asked.read(w, r) {
		return
	}
	switch {
	case asked.Name == nil || asked.Value == nil || sc.repo == "" && asked.Visibility == nil:
		invalid(w, "Invalid request.", "a required key is missing")
		return
	case s.variable(sc, *asked.Name) != nil:
		fault(w, http.StatusConflict, "Already exists - Variable already exists")
		return
	}
	v := &variable{scope: sc, name: *asked.Name, value: *asked.Value, created: s.cfg.Now(), updated: s.cfg.Now()}
	if sc.repo == "" {
		v.visibility = *asked.Visibility
	}
	s.variables = append(s.variables, v)
	answer(w, http.StatusCreated, object{})
}

func (s rest) updateVariable(w http.ResponseWriter, r *http.Request, sc scope) {
	v := s.variable(sc, r.PathValue("name"))
	if v == nil {
		notFound(w)
		return
	}
	var asked variableRequest
	if !asked.read(w, r) {
		return
	}
	if asked.Name != nil {
		if other := s.variable(sc, *asked.Name); other != nil && other != v {
			fault(w, http.StatusConflict, "Already exists - Variable already exists")
			return
		}
		v.name = *asked.Name
	}
	if asked.Value != nil {
		v.value = *asked.Value
	}
	if asked.Visibility != nil && sc.repo == "" {
		v.visibility = *asked.Visibility
	}
	v.updated = s.cfg.Now()
	w.WriteHeader(http.StatusNoContent)
}

func (s rest) deleteVariable(w http.ResponseWriter, r *http.Request, sc scope) {
	if s.variable(sc, r.PathValue("name")) == nil {
		notFound(w)
		return
	}
	s.removeVariable(sc, r.PathValue("name"))
	w.WriteHeader(http.StatusNoContent)
}

// object is the variable as the API shows it.
func (v *variable) object() object {
	o := object{"name": v.name, "value": v.value, "created_at": stamp(v.created), "updated_at": stamp(v.updated)}
	if v.scope.repo == "" {
		o["visibility"] = v.visibility
		if v.visibility == "selected" {
			o["selected_repositories_url"] = apiURL + "/orgs/" + v.scope.owner + "/actions/variables/" + v.name + "/repositories"
		}
	}
	return o
}
