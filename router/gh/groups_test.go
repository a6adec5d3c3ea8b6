package gh_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/rules"
)

const groupList = "GET /orgs/acme/actions/runner-groups"

func inGroup(group rules.RunnerGroup, name string) router.ConfigRequest {
	r := request("organization", name, "x")
	r.Runner.Group = group
	return r
}

// groupOf returns the group of a registered runner by the list of GitHub's runners, which
// the simulated job shows.
func groupOf(t *testing.T, a *appTest, cfg router.RunnerConfig, group string) string {
	t.Helper()
	id := a.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}, Group: group})
	if err := a.Connect(t.Context(), string(cfg.JIT)); err != nil {
		t.Fatalf("Connect: %v", err)
	}
	j, _ := a.Job(id)
	return fmt.Sprint(j.RunnerGroupID, " ", j.RunnerGroupName)
}

func TestAGroupIsFoundByItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := map[int64]string{1: "Default"}
		for id := range int64(150) { // on two pages
			groups[id+2] = fmt.Sprint("group-", id)
		}
		groups[400] = "GPU-Runners"
		a := newAppTest(t, githubsim.Config{Groups: groups}, nil, "acme")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := a.client.Admit(t.Context(), router.Admission{Target: acme, Group: "gpu-runners"}); err != nil {
					t.Errorf("Admit: %v", err)
				}
				if _, err := a.client.RunnerConfig(t.Context(), inGroup("gpu-runners", fmt.Sprint("r", i))); err != nil {
					t.Errorf("RunnerConfig: %v", err)
				}
			})
		}
		wg.Wait()
		if n := a.count(groupList); n != 2 {
			t.Errorf("GitHub was asked %d times for its groups, want once for each page", n)
		}
		cfg, err := a.client.RunnerConfig(t.Context(), inGroup("gpu-runners", "last"))
		if err != nil {
			t.Fatalf("RunnerConfig: %v", err)
		}
		if got := groupOf(t, a, cfg, "gpu-runners"); got != "400 GPU-Runners" {
			t.Errorf("the runner is in group %s", got)
		}
		reg, err := a.client.RegistrationToken(t.Context(), inGroup("gpu-runners", "token"))
		if err != nil || reg.Group != "GPU-Runners" {
			t.Errorf("RegistrationToken is for group %q, %v; want GitHub's spelling", reg.Group, err)
		}
	})
}

// A group that was made anew has its old name, and another ID.
func TestAGroupThatIsGoneIsLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{Groups: map[int64]string{1: "Default", 7: "gpu"}}, nil, "acme")
		if _, err := a.client.RunnerConfig(t.Context(), inGroup("gpu", "one")); err != nil {
			t.Fatalf("RunnerConfig: %v", err)
		}
		a.RemoveGroup(7)
		a.SetGroup(9, githubsim.Group{Name: "gpu"})
		cfg, err := a.client.RunnerConfig(t.Context(), inGroup("gpu", "two"))
		if err != nil {
			t.Fatalf("RunnerConfig after the group was made anew: %v", err)
		}
		if got := groupOf(t, a, cfg, "gpu"); got != "9 gpu" {
			t.Errorf("the runner is in group %s", got)
		}
		if n := a.count(groupList); n != 2 {
			t.Errorf("GitHub was asked %d times for its groups, want twice", n)
		}

		a.RemoveGroup(9)
		_, err = a.client.RunnerConfig(t.Context(), inGroup("gpu", "three"))
		if kind(err) != "fix" && kind(err) != "retry at" || !strings.Contains(fmt.Sprint(err), `organization acme has no runner group "gpu"`) {
			t.Errorf("RunnerConfig without the group = %s: %v", kind(err), err)
		}

		// Another group that gets the name is found within the hour.
		a.SetGroup(9, githubsim.Group{Name: "gpu"})
		time.Sleep(2 * time.Minute)
		if _, err = a.client.RunnerConfig(t.Context(), inGroup("gpu", "four")); err != nil {
			t.Fatalf("RunnerConfig: %v", err)
		}
		a.SetGroup(9, githubsim.Group{Name: "old-gpu"})
		a.SetGroup(11, githubsim.Group{Name: "gpu"})
		time.Sleep(time.Hour)
		if cfg, err = a.client.RunnerConfig(t.Context(), inGroup("gpu", "five")); err != nil {
			t.Fatalf("RunnerConfig: %v", err)
		}
		if got := groupOf(t, a, cfg, "gpu"); got != "11 gpu" {
			t.Errorf("an hour after the groups were renamed the runner is in group %s", got)
		}
	})
}

// Nothing is started for a group that GitHub lacks, and the near names are told.
func TestAMissingGroupHoldsItsRunnersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{Groups: map[int64]string{1: "Default", 2: "a", 3: "b", 4: "c", 5: "d", 6: "arm", 7: "gpu-runners"}}, nil, "acme")
		for range 3 {
			err := a.client.Admit(t.Context(), router.Admission{Target: acme, Group: "gpu-runers"})
			later, ok := errors.AsType[*router.RetryAtError](err)
			fix, fixes := errors.AsType[*router.FixError](err)
			if !ok || !later.Failing || !fixes || !later.At.After(time.Now()) {
				t.Fatalf("Admit = %v, want to be held back until somebody acts", err)
			}
			const want = `organization acme has no runner group "gpu-runers"; it has gpu-runners, `
			if !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), " and 2 more: ") || fix.Fix == "" {
				t.Errorf("Admit = %v, want %s…", err, want)
			}
		}
		if n := a.count(groupList); n != 1 {
			t.Errorf("GitHub was asked %d times, want once a minute", n)
		}
		if err := a.client.Admit(t.Context(), router.Admission{Target: acme, Group: "gpu-runers", Own: true}); err != nil {
			t.Errorf("Admit of a runner that brings its own registration = %v", err)
		}
		a.SetGroup(8, githubsim.Group{Name: "gpu-runers"})
		time.Sleep(time.Minute)
		if err := a.client.Admit(t.Context(), router.Admission{Target: acme, Group: "gpu-runers"}); err != nil {
			t.Errorf("Admit with the group = %v", err)
		}
	})
}

// What GitHub says about a group and a repository, in an organization and in an enterprise.
func TestGroupAccessIsWhatGitHubSays(t *testing.T) {
	s := githubsim.New(githubsim.Config{Token: token, Enterprise: "big-corp"})
	t.Cleanup(s.Close)
	c := client(t, githubtest.Contract(t, s), nil)
	s.AddRepo(githubsim.Repo{Owner: "acme", Name: "web", Private: true})
	s.SetGroup(7, githubsim.Group{Name: "iron", Selected: []string{"acme/web"}, NoPublic: true})
	s.SetGroup(8, githubsim.Group{Name: "bound", Workflows: []string{"acme/web/.github/workflows/ci.yml@main"}})
	enterprise := router.Target{Enterprise: "big-corp"}
	for _, tt := range []struct {
		at         router.Target
		group      rules.RunnerGroup
		owner      string
		repo       string
		public     bool
		want       router.GroupAccess
		wantReason string
	}{
		{acme, "Iron", "acme", "web", false, router.GroupAccess{Group: "iron"}, ""},
		{acme, "7", "acme", "web", false, router.GroupAccess{Group: "iron"}, ""},
		{acme, "iron", "acme", "api", false, router.GroupAccess{Group: "iron"}, "runner group iron of organization acme does not allow acme/api: allow it"},
		{acme, "iron", "acme", "web", true, router.GroupAccess{Group: "iron"}, "does not allow public repositories, and so not acme/web"},
		{acme, "bound", "acme", "api", false, router.GroupAccess{Group: "bound", Workflows: []string{"acme/web/.github/workflows/ci.yml@main"}}, ""},
		{acme, "9", "acme", "api", false, router.GroupAccess{}, "organization acme has no runner group 9; it has "},
		{acme, "ironn", "acme", "api", false, router.GroupAccess{}, `has no runner group "ironn"; it has iron, bound, Default: name one`},
		{enterprise, "iron", "acme", "api", false, router.GroupAccess{Group: "iron"}, ""},
		{enterprise, "iron", "beta", "api", false, router.GroupAccess{Group: "iron"}, "runner group iron of enterprise big-corp does not allow organization beta"},
		{enterprise, "steel", "acme", "api", false, router.GroupAccess{}, `enterprise big-corp has no runner group "steel"`},
	} {
		got, err := c.GroupAccess(t.Context(), tt.at, tt.group, router.Repo{Owner: tt.owner, Name: tt.repo, Private: !tt.public})
		if (got.Refusal == "") != (tt.wantReason == "") || !strings.Contains(got.Refusal, tt.wantReason) {
			t.Errorf("%s and %s/%s: the refusal is %q, want %q", tt.group, tt.owner, tt.repo, got.Refusal, tt.wantReason)
		}
		got.Refusal = ""
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s and %s/%s: %v (-want +got):\n%s", tt.group, tt.owner, tt.repo, err, diff)
		}
	}
	for _, at := range []router.Target{{Owner: "acme", Repo: "web"}, {Owner: "a b"}, {Enterprise: ".."}} {
		if _, err := c.GroupAccess(t.Context(), at, "iron", router.Repo{Owner: "acme", Name: "web"}); kind(err) != "give up" {
			t.Errorf("GroupAccess in %+v = %v, want give up", at, err)
		}
	}
}

// A group that is known stays so while GitHub does not answer.
func TestAKnownGroupOutlastsAFailureOfGitHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{Groups: map[int64]string{7: "gpu"}}, nil, "acme")
		if _, err := a.client.RunnerConfig(t.Context(), inGroup("gpu", "one")); err != nil {
			t.Fatalf("RunnerConfig: %v", err)
		}
		time.Sleep(2 * time.Hour)
		for i, status := range []int{403, 404, 409, 422, 500, 502} { // a 429 stops the whole login
			a.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "runner-groups"})
			if _, err := a.client.RunnerConfig(t.Context(), inGroup("gpu", fmt.Sprint("two", i))); err != nil {
				t.Errorf("while GitHub answers %d: %v", status, err)
			}
			time.Sleep(2 * time.Minute)
		}
	})
}
