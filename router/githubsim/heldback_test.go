package githubsim

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// status returns what somebody who asks about a job is told, and what was delivered of it.
func (s *Server) status(t *testing.T, id int64) (says string, told []string) {
	t.Helper()
	schema := hookSchema(t)
	for _, d := range s.Deliveries() {
		if d.JobID == id {
			body := Payload(s.deliveries[d.ID-1].job, d.Action)
			checkPayload(t, schema, body)
			told = append(told, d.Action+" "+decode(t, body)["workflow_job"].(map[string]any)["status"].(string))
		}
	}
	return decode(t, ask(t, s, "GET", fmt.Sprintf("/repos/acme/web/actions/jobs/%d", id), "").Body.Bytes())["status"].(string), told
}

func TestAHeldJobIsAnnouncedAsGitHubLikes(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec JobSpec
		says string
		told string
	}{
		{"an approval", JobSpec{Waiting: true}, "waiting", "[queued waiting waiting waiting]"},
		{"an approval that nobody is told of", JobSpec{Waiting: true, Unsaid: true}, "waiting", "[queued queued]"},
		{"an approval that is told later", JobSpec{Waiting: true, Unsaid: true, SaidLater: true}, "waiting", "[queued queued waiting waiting]"},
		{"a concurrency group", JobSpec{Concurrency: "production"}, "pending", "[queued queued]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, Config{})
			tt.spec.Owner, tt.spec.Repo = "acme", "web"
			first := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Concurrency: "production"})
			id := s.Queue(t.Context(), tt.spec)
			if says, told := s.status(t, id); says != tt.says || fmt.Sprint(told) != tt.told {
				t.Errorf("it is %s, and was announced as %v; want %s and %s", says, told, tt.says, tt.told)
			}
			if tt.spec.Waiting {
				return
			}
			if err := s.Cancel(first); err != nil {
				t.Fatal(err)
			}
			if says, told := s.status(t, id); says != "queued" || told[len(told)-1] != "queued queued" {
				t.Errorf("after the other ended it is %s, and was announced as %v", says, told)
			}
		})
	}
}

func TestAMatrixIsHandedOutAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		defer s.Close()
		spec := JobSpec{Owner: "acme", Repo: "web", Labels: []string{}, MaxParallel: 2, Duration: time.Minute}
		for i := range 5 {
			spec.Name = fmt.Sprintf("test (%d)", i)
			j, _ := s.Job(s.Queue(t.Context(), spec))
			spec.RunID = j.RunID
			if j.Status != "queued" {
				t.Errorf("job %d is %s", i, j.Status)
			}
		}
		for i := range 5 {
			encoded := register(t, s, fmt.Sprint(i))
			go func() { _ = s.Connect(context.Background(), encoded) }()
		}
		for minute, want := range []int{2, 2, 1, 0} { // run at the same time
			synctest.Wait()
			running := 0
			for _, j := range s.Jobs() {
				if j.Status == "in_progress" {
					running++
				}
			}
			if running != want {
				t.Errorf("in minute %d, %d jobs run; want %d", minute, running, want)
			}
			time.Sleep(time.Minute)
		}
	})
}
