package githubsim

import (
	"context"
	"errors"
	"testing"
	"time"
)

// GitHub gives no jobs to runners of a version that it no longer supports, or refuses them.
func TestARunnerThatIsTooOldGetsNoJob(t *testing.T) {
	for _, refused := range []bool{false, true} {
		now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		s := newSim(t, Config{Now: func() time.Time { return now }})
		s.SetVersion("2.300.0", VersionEnd{Jobs: now.Add(time.Hour), Refused: refused})
		s.RunnersAre("2.300.0")
		connect := func(ctx context.Context, name string) error {
			_, answer := s.call("POST", "/orgs/acme/actions/runners/generate-jitconfig", `{"name": "`+name+`", "runner_group_id": 1, "labels": ["x"]}`)
			return s.Connect(ctx, answer.(map[string]any)["encoded_jit_config"].(string))
		}
		job := func() int64 { return s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}}) }
		job()
		if err := connect(t.Context(), "a"); err != nil {
			t.Errorf("before its end: %v", err)
		}
		s.mu.Lock()
		now = now.Add(2 * time.Hour)
		s.mu.Unlock()
		id := job()
		killed, kill := context.WithCancel(t.Context())
		kill()
		err := connect(killed, "b") // a process that is killed while it waits
		if errors.Is(err, ErrVersion) != refused || errors.Is(err, context.Canceled) == refused {
			t.Errorf("after its end (refused: %t): %v", refused, err)
		}
		if code := ExitCode(err); refused && code != 7 || !refused && code != 1 {
			t.Errorf("it exits with %d", code)
		}
		s.RunnersAre("2.336.0")
		if err := connect(t.Context(), "c"); err != nil {
			t.Errorf("the newest: %v", err)
		}
		if j, _ := s.Job(id); j.RunnerName != "c" {
			t.Errorf("the job ran on %q", j.RunnerName)
		}
	}
}

func TestOnlyReleasedVersionsHaveAnEnd(t *testing.T) {
	s := newSim(t, Config{Enterprise: "big"})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	s.SetVersion("2.300.0", VersionEnd{Jobs: at})
	s.SetVersion("2.329.0", VersionEnd{Jobs: at, Registration: at})
	for path, want := range map[string]int{
		"/orgs/acme/actions/runners/deprecations/2.300.0": 200, "/repos/acme/web/actions/runners/deprecations/2.329.0": 200,
		"/orgs/acme/actions/runners/deprecations/2.336.0": 200, "/orgs/acme/actions/runners/deprecations/9.9.9": 404,
		"/enterprises/big/actions/runners/deprecations/2.300.0": 404,
	} {
		if status, answer := s.call("GET", path, ""); status != want {
			t.Errorf("%s is answered %d: %v", path, status, answer)
		}
	}
}
