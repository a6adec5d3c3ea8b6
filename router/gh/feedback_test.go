package gh_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
)

// noticed queues a job in acme/web and returns a notice of it.
func noticed(t *testing.T, s *githubsim.Server, kind router.NoticeKind) router.Notice {
	t.Helper()
	id := s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web"})
	j, _ := s.Job(id)
	return router.Notice{
		Kind: kind, Repo: acmeWeb, SHA: githubsim.SHA(j.RunID), JobID: id, Name: "switchyard / build", URL: "https://github.com/acme/web",
		State: router.NoticeWaits, Title: "Waits: for a node", Text: "It waits.",
	}
}

func checksApp(t *testing.T, permissions map[string]string) *appTest {
	a := newAppTest(t, githubsim.Config{App: &githubsim.App{ID: appID, Permissions: permissions}}, nil, "acme")
	return a
}

func TestACheckRunSaysWhatBecomesOfAJob(t *testing.T) {
	a := checksApp(t, map[string]string{"checks": "write"})
	n := noticed(t, a.Server, router.NoticeCheckRun)
	if id, err := a.client.FindNotice(t.Context(), n); id != 0 || err != nil {
		t.Errorf("FindNotice before = %d, %v", id, err)
	}
	id, err := a.client.Notice(t.Context(), n, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := n
	other.JobID++
	if _, err := a.client.Notice(t.Context(), other, 0); err != nil {
		t.Fatal(err)
	}
	if found, err := a.client.FindNotice(t.Context(), n); found != id || err != nil {
		t.Errorf("FindNotice = %d, %v, want %d", found, err, id)
	}
	want := githubsim.CheckRun{
		ID: id, Owner: "acme", Repo: "web", SHA: n.SHA, Name: n.Name, ExternalID: fmt.Sprint(n.JobID), DetailsURL: n.URL, Status: "queued",
	}
	want.Output.Title, want.Output.Summary = n.Title, n.Text
	for _, tt := range []struct {
		state              router.NoticeState
		status, conclusion string
	}{
		{router.NoticeWaits, "queued", ""},
		{router.NoticeRefused, "completed", "action_required"},
		{router.NoticeWaits, "queued", ""},
		{router.NoticeOver, "completed", "neutral"},
	} {
		n.State = tt.state
		if got, err := a.client.Notice(t.Context(), n, id); got != id || err != nil {
			t.Errorf("Notice = %d, %v, want %d", got, err, id)
		}
		want.Status, want.Conclusion = tt.status, tt.conclusion
		want.Changes++
		if diff := cmp.Diff(want, a.CheckRuns()[0]); diff != "" {
			t.Errorf("the check run of %s (-want +got):\n%s", tt.state, diff)
		}
	}
}

func TestACommitStatusSaysWhatBecomesOfAJob(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	n := noticed(t, s, router.NoticeCommitStatus)
	for state, want := range map[router.NoticeState]string{
		router.NoticeWaits: "pending", router.NoticeRefused: "failure", router.NoticeOver: "success",
	} {
		n.State = state
		if id, err := c.Notice(t.Context(), n, 0); id != 0 || err != nil {
			t.Fatalf("Notice = %d, %v", id, err)
		}
		all := s.CommitStatuses()
		got := all[len(all)-1]
		if diff := cmp.Diff(githubsim.CommitStatus{
			ID: got.ID, Owner: "acme", Repo: "web", SHA: n.SHA, State: want, Context: n.Name, Description: n.Title, TargetURL: n.URL,
		}, got); diff != "" {
			t.Errorf("the status of %s (-want +got):\n%s", state, diff)
		}
	}
	if id, err := c.FindNotice(t.Context(), n); id != 0 || err != nil {
		t.Errorf("FindNotice = %d, %v, want nothing", id, err)
	}
}

func TestNoticesThatCannotBe(t *testing.T) {
	t.Run("a token makes no check runs", func(t *testing.T) {
		c, s := simulated(t, githubsim.Config{Token: token})
		n := noticed(t, s, router.NoticeCheckRun)
		if _, err := c.Notice(t.Context(), n, 0); kind(err) != "fix" || !strings.Contains(err.Error(), "commit_status") {
			t.Errorf("Notice = %v, want fix with what to do", err)
		}
	})
	t.Run("an App without the permission", func(t *testing.T) {
		a := checksApp(t, map[string]string{"actions": "read"})
		for of, says := range map[router.NoticeKind]string{
			router.NoticeCheckRun: "Checks (write) on acme/web", router.NoticeCommitStatus: "Commit statuses (write) on acme/web",
		} {
			n := noticed(t, a.Server, of)
			if _, err := a.client.Notice(t.Context(), n, 0); kind(err) != "fix" || !strings.Contains(err.Error(), says) {
				t.Errorf("Notice = %v, want fix with %q", err, says)
			}
		}
	})
	t.Run("what is no commit, or unknown", func(t *testing.T) {
		a := checksApp(t, map[string]string{"checks": "write"})
		for _, sha := range []string{"", "../x", strings.Repeat("0", 40)} {
			n := noticed(t, a.Server, router.NoticeCheckRun)
			n.SHA = sha
			if _, err := a.client.Notice(t.Context(), n, 0); kind(err) != "give up" {
				t.Errorf("Notice on %q = %v, want give up", sha, err)
			}
		}
	})
	t.Run("an answer about another", func(t *testing.T) {
		a := checksApp(t, map[string]string{"checks": "write"})
		n := noticed(t, a.Server, router.NoticeCheckRun)
		a.instead = func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "check-runs") {
				return nil, errors.New("cut off")
			}
			return nil, nil
		}
		if _, err := a.client.Notice(t.Context(), n, 0); kind(err) != "retry" {
			t.Errorf("Notice = %v, want one that is worth a retry", err)
		}
	})
}

func TestARunIsCancelled(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	id := s.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web"})
	j, _ := s.Job(id)
	for range 2 {
		if err := c.CancelRun(t.Context(), acmeWeb, j.RunID); err != nil {
			t.Errorf("CancelRun = %v", err)
		}
	}
	if j, _ := s.Job(id); j.Conclusion != "cancelled" {
		t.Errorf("the job is %s", j.Status)
	}
	if err := c.CancelRun(t.Context(), acmeWeb, 999); kind(err) != "fix" {
		t.Errorf("CancelRun of another = %v, want fix", err)
	}
	a := checksApp(t, map[string]string{"actions": "read"})
	if err := a.client.CancelRun(t.Context(), acmeWeb, 1); kind(err) != "fix" || !strings.Contains(err.Error(), "Actions (write)") {
		t.Errorf("CancelRun without the permission = %v, want fix", err)
	}
}
