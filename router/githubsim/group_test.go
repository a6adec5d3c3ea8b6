package githubsim

import (
	"context"
	"runtime"
	"slices"
	"testing"
)

// A runner of a group waits for jobs that the group lets in.
func TestAGroupLetsInWhatItsSettingsSay(t *testing.T) {
	for _, tt := range []struct {
		name  string
		group Group
		job   JobSpec
		in    bool
	}{
		{"all", Group{}, JobSpec{Private: true}, true},
		{"a public repository", Group{NoPublic: true}, JobSpec{}, false},
		{"a private repository", Group{NoPublic: true}, JobSpec{Private: true}, true},
		{"a selected repository", Group{Selected: []string{"Acme/Web"}}, JobSpec{Private: true}, true},
		{"another repository", Group{Selected: []string{"acme/api"}}, JobSpec{Private: true}, false},
		{"no repository", Group{Selected: []string{}}, JobSpec{Private: true}, false},
		{"a workflow", Group{Workflows: []string{"acme/web/.github/workflows/ci.yml@refs/heads/main"}}, JobSpec{Workflow: "CI", Branch: "main", Private: true}, true},
		{"another workflow", Group{Workflows: []string{"acme/web/.github/workflows/deploy.yml@refs/heads/main"}}, JobSpec{Workflow: "CI", Branch: "main", Private: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, Config{Groups: map[int64]string{1: "Default", 7: "gpu"}})
			tt.group.Name = "gpu"
			s.SetGroup(7, tt.group)
			tt.job.Owner, tt.job.Repo, tt.job.Group = "acme", "web", "gpu"
			id := s.Queue(t.Context(), tt.job)
			_, answer := s.call("POST", "/orgs/acme/actions/runners/generate-jitconfig", `{"name": "r", "runner_group_id": 7, "labels": ["x"]}`)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			done := make(chan error)
			go func() { done <- s.Connect(ctx, answer.(map[string]any)["encoded_jit_config"].(string)) }()
			if !tt.in {
				for !slices.ContainsFunc(s.Runners(), func(r Runner) bool { return r.Online }) {
					runtime.Gosched()
				}
				if j, _ := s.Job(id); j.Status != "queued" {
					t.Errorf("the job is %s, want it queued", j.Status)
				}
				s.SetGroup(7, Group{Name: "gpu"})
			}
			if err := <-done; err != nil {
				t.Errorf("Connect = %v", err)
			}
			if j, _ := s.Job(id); j.Status != "completed" {
				t.Errorf("the job is %s, want it completed", j.Status)
			}
		})
	}
}

func TestGroupsAreListedForARepository(t *testing.T) {
	s := newSim(t, Config{Enterprise: "big"})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	s.SetGroup(7, Group{Name: "gpu", Selected: []string{"acme/web"}})
	s.SetGroup(8, Group{Name: "arm", Selected: []string{"beta/api"}, NoPublic: true, Workflows: []string{"acme/web/.github/workflows/ci.yml@main"}})
	for path, want := range map[string][]string{
		"/orgs/acme/actions/runner-groups":                                      {"Default", "gpu", "arm"},
		"/orgs/acme/actions/runner-groups?visible_to_repository=Web":            {"Default", "gpu"},
		"/orgs/acme/actions/runner-groups?visible_to_repository=api":            {"Default"},
		"/orgs/acme/actions/runner-groups?per_page=2&page=2":                    {"arm"},
		"/enterprises/big/actions/runner-groups?visible_to_organization=beta":   {"Default", "arm"},
		"/enterprises/big/actions/runner-groups?visible_to_organization=nobody": {"Default"},
	} {
		status, answer := s.call("GET", path, "")
		if got := names(t, answer.(map[string]any)["runner_groups"], "name"); status != 200 || !slices.Equal(got, want) {
			t.Errorf("%s = %d %v, want %v", path, status, got, want)
		}
	}
	s.RemoveGroup(7)
	if status, _ := s.call("GET", "/orgs/acme/actions/runner-groups/7", ""); status != 404 {
		t.Errorf("a removed group = %d, want 404", status)
	}
}
