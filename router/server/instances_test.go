package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/webhook"
)

// Two GitHubs that count alike, with repositories of the same names, are served
// by one router and one Nomad, each by its own runners: also when something is
// cancelled, and after the database was deleted.
func TestTwoGitHubsAreKeptApart(t *testing.T) { bubble(t, testTwoGitHubsAreKeptApart) }
func testTwoGitHubsAreKeptApart(t *testing.T) {
	const secret = "another GitHub's secret"
	w := newWorld(t, plainRule)
	other := githubsim.New(githubsim.Config{
		Hook: githubsim.OrganizationHook, WebhookURL: "http://" + w.Addr + "/webhooks/github", Secret: secret, FirstID: 1000, RandSeed: 7, Client: network.Client(),
	})
	t.Cleanup(other.Close)
	client, err := gh.New(gh.Config{Token: gh.StaticToken("ghs_y"), BaseURL: network.Serve(t, other), HTTPClient: network.Client()})
	must(t, err)
	hubs := gh.NewInstances(w.Hub)
	must(t, hubs.Add(1, client))
	second := router.Instance{Number: 1, Host: client.Host()}
	w.Run = func(ctx context.Context, task nomadsim.Task) int {
		var id int64
		if _, err := fmt.Sscanf(task.JobID, "gha-%d-", &id); err != nil {
			t.Errorf("Nomad job %s: %v", task.JobID, err)
		}
		on := w.GitHub
		if router.InstanceOf(id) == second.Number {
			on = other
		}
		if jit := strings.TrimSpace(task.Artifacts["secrets/runner.jit"]); jit != "" && on.Connect(ctx, jit) != nil {
			return 1
		}
		return 0
	}
	both := func(c *server.Config) {
		c.GitHub, c.Sweep = hubs, 50*time.Millisecond
		c.Webhook = func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
			return webhook.Handler(webhook.Config{
				Secrets: []router.Secret{"0123456789abcdef"}, Host: w.Hub.Host(), Logger: c.Logger,
				More: []webhook.Instance{{Instance: second, Secrets: []router.Secret{secret}}},
			}, receive)
		}
	}
	// queue has a job of one ID on both.
	queue := func(duration time.Duration) (first, second_ int64) {
		t.Helper()
		spec := githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: duration}
		first = w.GitHub.Queue(t.Context(), spec)
		if id := other.Queue(t.Context(), spec); id != first {
			t.Fatalf("the second GitHub gave a job ID %d, the first %d: the test wants them to be the same", id, first)
		}
		return first, second.ID(first)
	}
	w.Start(both)
	ran, ranToo := queue(0)
	w.Await(ran, in(router.Completed))
	w.Await(ranToo, in(router.Completed))
	for id, on := range map[int64]*githubsim.Server{ran: w.GitHub, ranToo: other} {
		j, err := w.Store.Job(t.Context(), id)
		must(t, err)
		if said, _ := on.Job(router.GitHubID(id)); !strings.HasPrefix(j.RunnerName, j.RunnerID()) || said.RunnerName != j.RunnerName || said.Conclusion != "success" {
			t.Errorf("job %d ran on %q, and GitHub has it on %q: %s", id, j.RunnerName, said.RunnerName, said.Conclusion)
		}
	}

	if hooks, err := w.Store.Hooks(t.Context()); err != nil || len(hooks) != 2 {
		t.Errorf("the webhooks are %+v, err %v, want one of each GitHub", hooks, err)
	}

	// One after the other, so that both give the same IDs.
	long, longToo := queue(time.Hour)
	w.Await(long, in(router.Running))
	w.Await(longToo, in(router.Running))
	cancelled, goesOn := queue(time.Hour)
	w.Await(cancelled, in(router.Running))
	w.Await(goesOn, in(router.Running))
	must(t, w.GitHub.Cancel(cancelled))
	w.Await(cancelled, in(router.Completed))
	w.Await(goesOn, in(router.Running))

	w.Stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(w.Database + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	w.Deliveries(false)
	waits, waitsToo := queue(0)
	must(t, w.GitHub.Flush(t.Context()))
	must(t, other.Flush(t.Context()))
	w.Deliveries(true)
	w.Start(both)
	w.Await(waits, in(router.Completed))
	w.Await(waitsToo, in(router.Completed))
	for _, id := range []int64{long, longToo, goesOn} {
		w.Await(id, in(router.Running))
		eventually(t, "its runner is taken up", func() bool {
			r, err := w.Store.Runner(t.Context(), router.Job{ID: id, Try: 1}.RunnerID())
			return err == nil && r.State == router.RunnerBusy
		})
	}
	must(t, other.Cancel(router.GitHubID(longToo)))
	w.Await(longToo, in(router.Completed))
	w.Await(long, in(router.Running))
	if started := w.Started(); len(started) != 8 {
		t.Errorf("%v were started, want one runner for each of 8 jobs", started)
	}
	for _, id := range []int64{long, goesOn} {
		on := w.GitHub
		if router.InstanceOf(id) == 1 {
			on = other
		}
		must(t, on.Cancel(router.GitHubID(id)))
		w.Await(id, in(router.Completed))
	}
}

// A job of a GitHub that is not configured any more starts nothing, stops no
// other, and can be cancelled.
func TestAGitHubThatIsNotConfiguredAnyMore(t *testing.T) {
	bubble(t, testAGitHubThatIsNotConfiguredAnyMore)
}
func testAGitHubThatIsNotConfiguredAnyMore(t *testing.T) {
	nomad, h := &cluster{}, &hub{}
	gone := router.Instance{Number: 5, Host: "gone.example"}
	h.ready = func(at router.Target) error {
		if at.Host != gone.Host {
			return nil
		}
		return &router.FixError{Fix: "configure it", Err: errors.New("the GitHub gone.example is not configured any more")}
	}
	r := start(t, openStore(t), nomad, h)
	d := delivery(gone.ID(1), "queued", "self-hosted", "linux")
	d.Job.Repo.Host = gone.Host
	r.deliver(d)
	r.dispatch(1)
	j := r.await(gone.ID(1), in(router.Retrying))
	if !strings.Contains(j.Reason, "the GitHub gone.example is not configured any more") || nomad.count() != 1 {
		t.Errorf("the job waits, as %q, and %d runners were started; want the missing GitHub as the reason, and one", j.Reason, nomad.count())
	}
	must(t, r.App.CancelJob(t.Context(), j.ID, false))
	r.await(j.ID, in(router.Denied))
}
