package gh_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
)

func TestHowLongAVersionIsSupportedIsWhatGitHubSays(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token, Enterprise: "big-corp"})
	at := time.Date(2026, 12, 16, 17, 40, 26, 0, time.UTC)
	s.SetVersion("2.328.0", githubsim.VersionEnd{Jobs: at, Registration: at.AddDate(0, 0, -9)})
	s.SetVersion("2.335.1", githubsim.VersionEnd{Jobs: at})
	repo := router.Target{Owner: "acme", Repo: "web"}
	for _, tt := range []struct {
		at      router.Target
		version router.RunnerVersion
		want    router.VersionEnd
		first   time.Time
		kind    string
	}{
		{acme, "2.328.0", router.VersionEnd{Jobs: at, Registration: at.AddDate(0, 0, -9)}, at.AddDate(0, 0, -9), "none"},
		{repo, "2.335.1", router.VersionEnd{Jobs: at}, at, "none"},
		{repo, "2.336.0", router.VersionEnd{}, time.Time{}, "none"},
		{acme, "9.9.9", router.VersionEnd{}, time.Time{}, "not found"},
		{router.Target{Enterprise: "big-corp"}, "2.335.1", router.VersionEnd{}, time.Time{}, "not found"},
		{acme, "", router.VersionEnd{}, time.Time{}, "give up"},
		{acme, "../../hooks", router.VersionEnd{}, time.Time{}, "give up"},
		{router.Target{Owner: "a b"}, "2.336.0", router.VersionEnd{}, time.Time{}, "give up"},
	} {
		got, err := c.VersionEnd(t.Context(), tt.at, tt.version)
		if got != tt.want || kindOf(err) != tt.kind || !got.First().Equal(tt.first) {
			t.Errorf("%+v, version %s: %+v, first %v, %s: %v; want %+v, first %v, %s", tt.at, tt.version, got, got.First(), kindOf(err), err, tt.want, tt.first, tt.kind)
		}
	}
	for _, status := range []int{403, 409, 422, 429, 500, 502} {
		c, s := simulated(t, githubsim.Config{Token: token})
		s.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: "/deprecations/"})
		if _, err := c.VersionEnd(t.Context(), acme, "2.336.0"); err == nil || errors.Is(err, router.ErrNotFound) {
			t.Errorf("while GitHub answers %d: %v", status, err)
		}
	}
}

func TestARunnersVersionIsKnownOnceItHasConnected(t *testing.T) {
	c, s := simulated(t, githubsim.Config{Token: token})
	s.RunnersAre("2.328.0")
	cfg, err := c.RunnerConfig(t.Context(), request("organization", "r1", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Runner(t.Context(), acme, "r1"); err != nil || r.Version != "" {
		t.Errorf("before it connects it is %+v (%v)", r, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Connect(ctx, string(cfg.JIT)) }()
	for !s.Runners()[0].Online {
		time.Sleep(time.Millisecond)
	}
	if r, err := c.Runner(t.Context(), acme, "r1"); err != nil || r.Version != "2.328.0" || !r.Online {
		t.Errorf("once it has connected it is %+v (%v)", r, err)
	}
	stop()
	<-ended
}

func TestOnlyVersionsAreTakenForOne(t *testing.T) {
	for text, want := range map[string]router.RunnerVersion{
		"2.336.0": "2.336.0", "v2.336.0": "2.336.0", "2.336.0.1": "2.336.0.1",
		"": "", "2": "", "latest": "", "2.336.0 ": "", "2.336.0\n": "", "2.336.0/x": "", "2..0": "", fmt.Sprintf("2.%0100d", 1): "",
	} {
		if got := router.ParseRunnerVersion(text); got != want {
			t.Errorf("%q is taken for %q, want %q", text, got, want)
		}
	}
}
