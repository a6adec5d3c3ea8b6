package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/testnet"
	"switchyard/rules"
)

var outageJobs = flag.Int("outage.jobs", 25, "jobs that wait in TestAnOutageOfGitHubCostsNextToNothing; 300 take a minute")

const outageRules = `
version: 1
labels: { self-hosted: {}, linux: {} }
rules:
  - { name: linux, if: 'has("linux")', jobspec: docker-linux, resources: { cpu: 100, memory: 100MiB } }
`

// An outage is a router between a simulated GitHub and a simulated Nomad, on a
// network in memory, and a clock that is not real.
type outage struct {
	t     *testing.T
	net   testnet.Net
	hub   *githubsim.Server
	sim   *nomadsim.Server
	store *store.Store
}

// newOutage runs a router until the test ends. It is called within synctest.Test.
func newOutage(t *testing.T, dir string, key *rsa.PrivateKey) *outage {
	o := &outage{t: t}
	set, err := rules.Parse("outage.yaml", []byte(outageRules))
	if err != nil {
		t.Fatal(err)
	}
	specs, err := jobspecs.Load("")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if *chaosLog {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	const (
		routerAddr, githubAddr, nomadAddr = "127.0.0.1:8080", "127.0.0.1:8082", "127.0.0.1:4646"
		secret                            = "a secret of at least 16 bytes"
	)
	clients := []*http.Client{o.net.Client(), o.net.Client(), o.net.Client()}
	o.hub = githubsim.New(githubsim.Config{
		WebhookURL: "http://" + routerAddr + "/webhooks/github", Secret: secret, Client: clients[0],
		App: &githubsim.App{ID: 1, Key: &key.PublicKey}, Points: 900,
	})
	o.sim = nomadsim.New(nomadsim.Config{
		Nodes:  []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "one", Kernel: "linux", Arch: "amd64", Cores: 640, MemoryMB: 2560 << 10})},
		Client: clients[1],
		Run: func(ctx context.Context, task nomadsim.Task) int {
			return o.hub.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
		},
	})
	var servers sync.WaitGroup
	var https []*http.Server
	for addr, h := range map[string]http.Handler{githubAddr: o.hub, nomadAddr: o.sim} {
		l, err := o.net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: h}
		https = append(https, srv)
		servers.Go(func() { _ = srv.Serve(l) })
	}
	cluster, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: log, API: &api.Config{Address: "http://" + nomadAddr}, Dial: o.net.Dial})
	if err != nil {
		t.Fatal(err)
	}
	github, err := gh.New(gh.Config{
		App:     &gh.App{ID: 1, Key: func() (*rsa.PrivateKey, error) { return key, nil }},
		BaseURL: "http://" + githubAddr, HTTPClient: clients[2],
		Limits: gh.Limits{Points: 900, Concurrent: 100, Registrations: 1500}, // those of github.com
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.store, err = store.Open(t.Context(), filepath.Join(dir, "outage.db")); err != nil {
		t.Fatal(err)
	}
	app, err := newApp(appParts{store: o.store, nomad: cluster, github: github, rules: set, secrets: []router.Secret{secret}}, server.Config{
		Listen: routerAddr, AdminListen: "127.0.0.1:8081", NetListen: o.net.Listen, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- app.Run(running) }()
	t.Cleanup(func() {
		o.hub.Close()
		o.sim.Close()
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		for _, s := range https {
			_ = s.Close()
		}
		servers.Wait()
		for _, client := range clients {
			client.CloseIdleConnections()
		}
		if err := o.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// queue has GitHub queue n jobs of an owner, of ten repositories in turn.
func (o *outage) queue(owner string, n int) (ids []int64) {
	for i := range n {
		ids = append(ids, o.hub.Queue(o.t.Context(), githubsim.JobSpec{
			Owner: owner, Repo: fmt.Sprintf("repo-%d", i%10), Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 10 * time.Second,
		}))
	}
	return ids
}

// starts returns how many Nomad jobs there were for the jobs of an owner.
func (o *outage) starts(owner string) (n int) {
	client := o.net.Client()
	defer client.CloseIdleConnections()
	c, err := api.NewClient(&api.Config{Address: "http://127.0.0.1:4646", HttpClient: client})
	if err != nil {
		o.t.Fatal(err)
	}
	list, _, err := c.Jobs().ListOptions(&api.JobListOptions{Fields: &api.JobListFields{Meta: true}}, &api.QueryOptions{Prefix: "gha-"})
	if err != nil {
		o.t.Fatal(err)
	}
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
		if j, ok := o.hub.Job(id); ok && j.Conclusion == "success" {
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
	if err != nil {
		t.Fatal(err)
	}
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
		// GitHub answers well until the first of them claim, so more are started.
		{"it registers no runners", githubsim.Faults{ErrorRate: 1, Path: "generate-jitconfig"}, 60, 500, 90 * time.Second},
		{"it answers 503 for one owner", githubsim.Faults{ErrorRate: 1, Path: "/acme/"}, 60, 500, 90 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(t, dir, key)
				o.hub.Install("acme")
				o.hub.Install("beta")
				before := o.queue("acme", 3)
				time.Sleep(time.Minute)
				if n, _ := o.ended(before); n != len(before) {
					t.Fatalf("%d of the first %d jobs have ended", n, len(before))
				}
				began := time.Now()
				started, asked := o.starts("acme"), o.hub.Traffic().Requests

				o.hub.SetFaults(tt.faults)
				ids := o.queue("acme", *outageJobs)
				time.Sleep(5 * time.Minute)
				others := o.queue("beta", 5)
				time.Sleep(5 * time.Minute)
				if n, last := o.ended(others); tt.faults.Path == "/acme/" && (n != len(others) || last.Sub(began) > 5*time.Minute+10*time.Second) {
					t.Errorf("%d of %d jobs of another login were served meanwhile, the last after %s", n, len(others), last.Sub(began))
				}
				starts, asked := o.starts("acme")-started, o.hub.Traffic().Requests-asked
				if starts > tt.starts || asked > tt.requests {
					t.Errorf("the outage cost %d starts and %d requests, want %d and %d at most", starts, asked, tt.starts, tt.requests)
				}
				j, err := o.store.Job(t.Context(), ids[len(ids)-1])
				if err == nil && strings.HasPrefix(j.Reason, "ask GitHub") { // it has just been tried
					j, err = o.store.Job(t.Context(), ids[len(ids)-2])
				}
				if err != nil || j.State != router.Retrying || !strings.Contains(j.Reason, "no runner is started for it now: GitHub has failed for ") {
					t.Errorf("a job is %s: %s (%v); want it to say that GitHub fails", j.State, j.Reason, err)
				}
				if events, err := o.store.Timeline(t.Context(), j.ID); err != nil || len(events) > 60 {
					t.Errorf("its time line has %d lines (%v):%s", len(events), err, timeline(t, o.store, j.ID))
				}

				o.hub.SetFaults(githubsim.Faults{})
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
				if over := o.hub.Traffic().Over; over > 0 {
					t.Errorf("%d requests were over GitHub's limits", over)
				}
				time.Sleep(3 * time.Minute)
				for _, r := range o.hub.Runners() {
					t.Errorf("GitHub has runner %s still", r.Name)
				}
				t.Logf("%d starts and %d requests in 10 minutes; the first of %d jobs ran %s after it, the last %s, with %d starts in all",
					starts, asked, len(ids), first, last.Sub(over), o.starts("acme")-started)
			})
		})
	}
}
