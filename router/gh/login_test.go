package gh_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
)

func TestGitHubTellsWhatItKnowsOfTheApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{WebhookURL: "https://ci.example.com/webhooks/github"}, func(c *gh.Config) {
			c.Now = func() time.Time { return time.Now().Add(7 * time.Second) }
		}, "acme")
		a.Suspend("acme", true)
		a.SetApp(func(s *githubsim.AppSettings) { s.Permissions["checks"], s.Events = "write", []string{} })
		a.Install("beta")
		got, err := a.client.Login(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]string{"administration": "write", "organization_self_hosted_runners": "write", "actions": "read", "metadata": "read"}
		now := map[string]string{"checks": "write"}
		for name, level := range before {
			now[name] = level
		}
		for i := range got.App.Installations {
			if in := &got.App.Installations[i]; !strings.HasPrefix(in.Page, "https://github.com/") {
				t.Errorf("the page of the installation is %q", in.Page)
			} else {
				in.Page = ""
			}
		}
		want := gh.Login{Name: "the GitHub App 17", Ahead: 7 * time.Second, App: &gh.AppState{
			Page: "https://github.com/apps/switchyard", Permissions: now, HookURL: "https://ci.example.com/webhooks/github", HookType: "json", Events: []string{},
			Installations: []gh.Installation{
				{Owner: "acme", Organization: true, Permissions: before, Events: []string{"workflow_job"}, Suspended: true},
				{Owner: "beta", Organization: true, Permissions: now, Events: []string{}},
			},
		}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("Login (-want +got):\n%s", d)
		}
	})
}

func TestGitHubTellsATokenTheTime(t *testing.T) {
	sim := githubsim.New(githubsim.Config{})
	t.Cleanup(sim.Close)
	c := client(t, githubtest.Contract(t, sim), func(c *gh.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	got, err := c.Login(t.Context())
	if err != nil || got.App != nil || got.Name != "the GitHub token" || got.Ahead.Round(time.Minute) != -time.Hour {
		t.Errorf("Login = %+v, %v", got, err)
	}
}

func TestARefusalOfTheLoginSaysWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"the App is gone": {404, `{"message": "Integration not found"}`, "check the App's ID"},
		"a wrong key":     {401, `{"message": "A JSON web token could not be decoded"}`, "lists the private key"},
		"it is down":      {502, "<html>Unicorn!</html>", "502"},
		"no JSON":         {200, "<html>", "ask GitHub about"},
		"another App":     {200, `{"id": 18}`, "about another App"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAppTest(t, githubsim.Config{}, nil)
				a.instead = func(r *http.Request) (*http.Response, error) { return made(r, tt.status, nil, tt.body), nil }
				if got, err := a.client.Login(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Login = %+v, %v, want %q", got, err, tt.want)
				}
			})
		})
	}
}
