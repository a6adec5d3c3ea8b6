package githubsim

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNoticesAreKeptOnTheirCommit(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	key := newRSAKey(t)
	s := newSim(t, Config{Token: "t", Now: func() time.Time { return now }, App: &App{ID: 17, Key: &key.PublicKey, Permissions: map[string]string{"checks": "write"}}})
	j, _ := s.Job(s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"}))
	commit := SHA(j.RunID)
	token := s.tokenOf(signedJWT(t, key, "RS256", now, nil), s.Install("acme"))

	const checks = "/repos/acme/web/check-runs"
	body := fmt.Sprintf(`{"name": "n", "head_sha": %q, "external_id": "7", "output": {"title": "t", "summary": "s"}}`, commit)
	if status, _ := s.call("POST", checks, body); status != 403 {
		t.Errorf("a check run of a token = %d, want 403", status)
	}
	status, answer := s.callAs(token, "POST", checks, body)
	if status != 201 {
		t.Fatalf("create = %d %v", status, answer)
	}
	check := fmt.Sprint(checks, "/", int64(answer.(map[string]any)["id"].(float64)))
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", checks, `{"name": "n", "head_sha": "ce587453ced02b1526dfb4cb910479d431683101"}`, 422},
		{"POST", checks, `{`, 400},
		{"PATCH", check, `{"status": "completed", "conclusion": "neutral"}`, 200},
		{"PATCH", checks + "/999999", `{"status": "queued"}`, 404},
		{"GET", "/repos/acme/web/commits/" + commit + "/check-runs?check_name=n", "", 200},
		{"POST", "/repos/acme/web/statuses/" + commit, `{"state": "pending"}`, 403},
	} {
		if status, answer := s.callAs(token, tt.method, tt.path, tt.body); status != tt.status {
			t.Errorf("%s %s = %d %v, want %d", tt.method, tt.path, status, answer, tt.status)
		}
	}
	want := CheckRun{ID: s.CheckRuns()[0].ID, Owner: "acme", Repo: "web", SHA: commit, Name: "n", ExternalID: "7", Status: "completed", Conclusion: "neutral", Changes: 1}
	want.Output.Title, want.Output.Summary = "t", "s"
	if diff := cmp.Diff([]CheckRun{want}, s.CheckRuns()); diff != "" {
		t.Errorf("check runs (-want +got):\n%s", diff)
	}
	for body, want := range map[string]int{`{"state": "pending", "context": "c", "description": "d"}`: 201, `{"state": "neutral"}`: 422, `{`: 400} {
		if status, answer := s.call("POST", "/repos/acme/web/statuses/"+commit, body); status != want {
			t.Errorf("a status with %s = %d %v, want %d", body, status, answer, want)
		}
	}
	if got := s.CommitStatuses(); len(got) != 1 || got[0].Context != "c" || got[0].State != "pending" {
		t.Errorf("statuses = %+v", got)
	}
}

func TestARunIsCancelledWithAllItsJobs(t *testing.T) {
	s := newSim(t, Config{})
	first, _ := s.Job(s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"}))
	second := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", RunID: first.RunID})
	path := fmt.Sprintf("/repos/acme/web/actions/runs/%d/cancel", first.RunID)
	for _, want := range []int{202, 409} {
		if status, answer := s.call("POST", path, ""); status != want {
			t.Errorf("cancel = %d %v, want %d", status, answer, want)
		}
	}
	for _, id := range []int64{first.ID, second} {
		if j, _ := s.Job(id); j.Conclusion != "cancelled" {
			t.Errorf("job %d is %s", id, j.Status)
		}
	}
	if status, _ := s.call("POST", "/repos/acme/web/actions/runs/999/cancel", ""); status != 404 {
		t.Errorf("cancel another = %d, want 404", status)
	}
}
