package main

import (
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
)

var outageJobs = flag.Int("outage.jobs", 25, "jobs that wait in TestAnOutageOfGitHubCostsNextToNothing; 300 take a minute")

const outageRules = `
version: 1
labels: { self-hosted: {}, linux: {} }
rules:
  - { name: linux, if: 'has("linux")', jobspec: docker-linux, resources: { cpu: 100, memory: 100MiB } }
`

// An outage is a router between a simulated GitHub and a simulated Nomad, with GitHub's limits.
type outage struct{ *routertest.World }

// newOutage runs a router until the test ends. It is called within synctest.Test.
func newOutage(t *testing.T, key *rsa.PrivateKey) *outage {
	o := &outage{limited(t, outageRules, key, routertest.Config{
		Cluster: nomadsim.Config{Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "one", Kernel: "linux", Arch: "amd64", Cores: 640, MemoryMB: 2560 << 10})}},
	})}
	o.Start()
	return o
}

// limited returns a world whose GitHub has the limits of github.com and an App.
func limited(t *testing.T, rules string, key *rsa.PrivateKey, c routertest.Config) *routertest.World {
	c.Rules = rules
	if c.New == nil {
		c.New = wired(appParts{})
	}
	c.Hub.App, c.Hub.Points = &githubsim.App{ID: 1, Key: &key.PublicKey}, 900
	c.Client.App = &gh.App{ID: 1, Key: func() (*rsa.PrivateKey, error) { return key, nil }}
	c.Client.Limits = gh.Limits{Points: 900, Concurrent: 100, Registrations: 1500}
	if !*chaosLog {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return routertest.New(t, c)
}

// queue has GitHub queue n jobs of an owner, of ten repositories in turn.
func (o *outage) queue(owner string, n int) (ids []int64) {
	for i := range n {
		ids = append(ids, o.GitHub.Queue(o.T.Context(), githubsim.JobSpec{
			Owner: owner, Repo: fmt.Sprintf("repo-%d", i%10), Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 10 * time.Second,
		}))
	}
	return ids
}

// starts returns how many Nomad jobs there were for the jobs of an owner.
func (o *outage) starts(owner string) (n int) {
	list, _, err := o.API.Jobs().ListOptions(&api.JobListOptions{Fields: &api.JobListFields{Meta: true}}, &api.QueryOptions{Prefix: "gha-"})
	must(o.T, err)
	for _, j := range list {
		if strings.HasPrefix(j.Meta["GH_REPOSITORY"], owner+"/") {
			n++
		}
	}
	return n
}

// ended returns how many of the jobs have ended well, and when the last of them began.
func (o *outage) ended(ids []int64) (n int, last time.Time) {
	for _, id := range ids {
		if j, ok := o.GitHub.Job(id); ok && j.Conclusion == "success" {
			n++
			if j.StartedAt.After(last) {
				last = j.StartedAt
			}
		}
	}
	return n, last
}

// Ten minutes in which GitHub fails for many jobs that wait cost some runners and
// some requests; then all are served, one after the other. The jobs say why they
// wait, and what GitHub registered without telling is removed.
func TestAnOutageOfGitHubCostsNextToNothing(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	t.Parallel()
	for _, tt := range []struct {
		name     string
		faults   githubsim.Faults
		starts   int           // in the outage, at most
		requests int           // made of GitHub in the outage, at most
		back     time.Duration // until the first job runs after it, at most
	}{
		{"it answers 500", githubsim.Faults{ErrorRate: 1}, 30, 200, 15 * time.Second},
		{"it answers 401", githubsim.Faults{ErrorRate: 1, Status: 401}, 30, 200, 15 * time.Second},
		// GitHub answers well until the first of them claim, and all may be started by then.
		{"it registers no runners", githubsim.Faults{ErrorRate: 1, Path: "generate-jitconfig"}, *outageJobs + 30, 3**outageJobs + 200, 90 * time.Second},
		{"it answers 503 for one owner", githubsim.Faults{ErrorRate: 1, Path: "/acme/"}, *outageJobs + 30, 3**outageJobs + 200, 90 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(t, key)
				o.GitHub.Install("acme")
				o.GitHub.Install("beta")
				before := o.queue("acme", 3)
				time.Sleep(time.Minute)
				if n, _ := o.ended(before); n != len(before) {
					t.Fatalf("%d of the first %d jobs have ended", n, len(before))
				}
				began := time.Now()
				started, asked := o.starts("acme"), o.GitHub.Traffic().Requests

				o.GitHub.SetFaults(tt.faults)
				ids := o.queue("acme", *outageJobs)
				time.Sleep(5 * time.Minute)
				others := o.queue("beta", 5)
				time.Sleep(5 * time.Minute)
				if n, last := o.ended(others); tt.faults.Path == "/acme/" && (n != len(others) || last.Sub(began) > 5*time.Minute+10*time.Second) {
					t.Errorf("%d of %d jobs of another login were served meanwhile, the last after %s", n, len(others), last.Sub(began))
				}
				starts, asked := o.starts("acme")-started, o.GitHub.Traffic().Requests-asked
				if starts > tt.starts || asked > tt.requests {
					t.Errorf("the outage cost %d starts and %d requests, want %d and %d at most", starts, asked, tt.starts, tt.requests)
				}
				j, err := o.Store.Job(t.Context(), ids[len(ids)-1])
				if err == nil && strings.HasPrefix(j.Reason, "ask GitHub") { // it has just been tried
					j, err = o.Store.Job(t.Context(), ids[len(ids)-2])
				}
				if err != nil || j.State != router.Retrying || !strings.Contains(j.Reason, "(GitHub has failed for ") {
					t.Errorf("a job is %s: %s (%v); want it to say that GitHub fails", j.State, j.Reason, err)
				}
				if events, err := o.Store.Timeline(t.Context(), j.ID); err != nil || len(events) > 60 {
					t.Errorf("its timeline has %d lines (%v):%s", len(events), err, timeline(t, o.Store, j.ID))
				}

				o.GitHub.SetFaults(githubsim.Faults{})
				over := time.Now()
				first := time.Duration(0)
				for range 600 {
					time.Sleep(time.Second)
					if n, _ := o.ended(ids); n > 0 && first == 0 {
						first = time.Since(over) - 10*time.Second // its own
					} else if n == len(ids) {
						break
					}
				}
				n, last := o.ended(ids)
				if n != len(ids) || first > tt.back || last.Sub(over) > 3*time.Minute {
					t.Errorf("%d of %d jobs were served, the first after %s, the last after %s", n, len(ids), first, last.Sub(over))
				}
				if over := o.GitHub.Traffic().Over; over > 0 {
					t.Errorf("%d requests were over GitHub's limits", over)
				}
				time.Sleep(3 * time.Minute)
				for _, r := range o.GitHub.Runners() {
					t.Errorf("GitHub has runner %s still", r.Name)
				}
				t.Logf("%d starts and %d requests in 10 minutes; the first of %d jobs ran %s after it, the last %s, with %d starts in all",
					starts, asked, len(ids), first, last.Sub(over), o.starts("acme")-started)
			})
		})
	}
}
