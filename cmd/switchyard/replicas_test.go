package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/testnet"
)

// A balancer stands before replicas, as users have one: it sends each request to the next
// replica in turn, and to another when that does not take the connection.
type balancer struct {
	*httptest.Server
	next     atomic.Int64
	underWay sync.RWMutex // read-locked by each request from its start until its answer begins

	mu    sync.Mutex
	hosts []string
}

func newBalancer(t testing.TB) *balancer {
	b := &balancer{}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	b.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme = "http" },
		ErrorLog:  log.New(io.Discard, "", 0), // of replicas that were killed
		Transport: roundTripper(func(req *http.Request) (*http.Response, error) { return b.send(transport, req) }),
	})
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(b.Close)
	return b
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (b *balancer) send(next http.RoundTripper, req *http.Request) (resp *http.Response, err error) {
	b.underWay.RLock()
	defer b.underWay.RUnlock()
	b.mu.Lock()
	hosts := slices.Clone(b.hosts)
	b.mu.Unlock()
	var body []byte
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	err = errors.New("no replica is there")
	first := int(b.next.Add(1))
	for i := range hosts {
		again := req.Clone(req.Context())
		again.URL.Host, again.Body = hosts[(first+i)%len(hosts)], io.NopCloser(bytes.NewReader(body))
		if resp, err = next.RoundTrip(again); err == nil {
			return resp, nil
		}
		if dial, ok := errors.AsType[*net.OpError](err); !ok || dial.Op != "dial" {
			return nil, err // it may have taken the request
		}
	}
	return nil, err
}

// drain waits until all requests that have begun have an answer; those that come meanwhile wait.
func (b *balancer) drain() {
	b.underWay.Lock()
	defer b.underWay.Unlock()
}

// set sets the replicas that get requests.
func (b *balancer) set(replicas ...*process) {
	var hosts []string
	for _, p := range replicas {
		hosts = append(hosts, p.listen)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts = hosts
}

// replicas are processes that serve from one database, and what is around them.
type replicas struct {
	t     testing.TB
	front *balancer
	all   []*process
	sim   *nomadsim.Server
	nomad *registrations
	jobs  atomic.Int64
}

// newReplicas starts n of them, with more arguments; without nodes the runners wait, so that none
// is tried again.
func newReplicas(t testing.TB, n int, database string, more ...string) *replicas {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the tests send signals that Windows does not have")
	}
	r := &replicas{t: t, front: newBalancer(t), sim: nomadsim.New(nomadsim.Config{})}
	t.Cleanup(r.sim.Close)
	r.nomad = &registrations{Handler: r.sim}
	cluster := httptest.NewServer(r.nomad)
	t.Cleanup(cluster.Close)
	github := waitsOnGitHub(t)
	for range n {
		p := newProcess(t, cluster.URL, github)
		p.args = append(append(p.args, "--db", database, "--public-url", r.front.URL), more...)
		r.all = append(r.all, p)
		p.start()
	}
	r.front.set(r.all...)
	return r
}

// leader waits until one of the replicas says that it leads, and returns it.
func (r *replicas) leader() *process {
	r.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, p := range r.all {
			if p.cmd != nil && p.leads() {
				return p
			}
		}
	}
	for _, p := range r.all {
		r.t.Logf("the log of %s:\n%s", p.admin, p.log.String())
	}
	r.t.Fatal("no replica leads")
	return nil
}

// leads reports whether a process says that it leads.
func (p *process) leads() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // it may be frozen
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.admin+"/readyz", nil)
	must(p.t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var ready server.Readiness
	body, _ := io.ReadAll(resp.Body)
	_ = json.Unmarshal(body, &ready)
	return slices.ContainsFunc(ready.Replicas, func(one router.StatusReplica) bool { return one.Self && one.Leads })
}

// says waits until a process says on its console that the leader leads.
func (r *replicas) says(p, leader *process) {
	r.t.Helper()
	host, err := os.Hostname()
	must(r.t, err)
	want := fmt.Sprintf("%s/%d; %s/%d leads", host, p.cmd.Process.Pid, host, leader.cmd.Process.Pid)
	if p == leader {
		want = fmt.Sprintf("%s/%d, which leads", host, p.cmd.Process.Pid)
	}
	var said bytes.Buffer
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(p.admin)
		must(r.t, err)
		said.Reset()
		_, err = said.ReadFrom(resp.Body)
		must(r.t, err)
		resp.Body.Close()
		if strings.Contains(said.String(), want) {
			return
		}
	}
	r.t.Fatalf("the console does not say %q: %s", want, said.String())
}

// queue delivers a job by the balancer, and returns its ID.
func (r *replicas) queue() int64 {
	r.t.Helper()
	id, status := r.deliver()
	if status != http.StatusAccepted {
		r.t.Fatalf("delivery %d was answered %d", id, status)
	}
	return id
}

// deliver delivers a job by the balancer, and returns its ID and the status of the answer.
func (r *replicas) deliver() (id int64, status int) {
	id = r.jobs.Add(1)
	return id, r.send(id)
}

// send delivers a job, perhaps once more, and returns the status of the answer.
func (r *replicas) send(id int64) int {
	return send(r.t.Context(), http.DefaultClient, r.front.URL+"/webhooks/github", fmt.Sprintf("guid-%d", id), payload(id, "self-hosted", "linux", "x64"))
}

// registered waits until Nomad has a job's runner.
func (r *replicas) registered(id int64) {
	r.t.Helper()
	name := fmt.Sprintf("gha-%d-1", id)
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		rec := httptest.NewRecorder()
		r.sim.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/job/"+name, nil))
		if rec.Code == http.StatusOK {
			return
		}
	}
	for _, p := range r.all {
		r.t.Logf("the log of %s:\n%s", p.admin, p.log.String())
	}
	for _, p := range r.all {
		if resp, err := http.Get(fmt.Sprintf("%s/api/v1/jobs/%d", p.admin, id)); err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			r.t.Logf("%s says of the job: %s", p.admin, body)
		}
	}
	r.t.Fatalf("Nomad has no job %s", name)
}

// once fails unless each job that was queued has been registered once. It stops the replicas.
func (r *replicas) once() {
	r.t.Helper()
	for _, p := range r.all {
		p.stop() // what they have in hand is finished
	}
	if got, want := r.nomad.taken.Load(), r.jobs.Load(); got != want {
		r.t.Errorf("Nomad took %d registrations for %d jobs", got, want)
	}
}

func (r *replicas) without(gone *process) []*process {
	return slices.DeleteFunc(slices.Clone(r.all), func(p *process) bool { return p == gone })
}

func TestAnotherReplicaLeadsWhenTheLeaderIsKilled(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, postgrestest.URL(t))
	for range 3 {
		r.registered(r.queue())
		leader := r.leader()
		for _, p := range r.all {
			r.says(p, leader)
		}
		r.front.set(r.without(leader)...)
		leader.kill()
		began := time.Now()
		r.registered(r.queue())
		t.Logf("the next registration came %s after the leader was killed", time.Since(began).Round(time.Millisecond))
		leader.start()
		r.front.set(r.all...)
	}
	r.once()
}

func TestALeaderThatIsStoppedHandsOver(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, postgrestest.URL(t))
	for range 3 {
		r.registered(r.queue())
		leader := r.leader()
		r.front.set(r.without(leader)...)
		began := time.Now()
		must(t, leader.cmd.Process.Signal(os.Interrupt))
		r.registered(r.queue())
		t.Logf("the next registration came %s after the leader was told to stop", time.Since(began).Round(time.Millisecond))
		must(t, <-leader.ended)
		leader.cmd = nil
		leader.start()
		r.front.set(r.all...)
	}
	r.once()
}

// As a rolling update does: each replica is taken out of the balancer, stopped when it has
// answered what it got from there, and started again, while deliveries come.
func TestARollingUpdateRefusesNoDelivery(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 3, postgrestest.URL(t))
	updated := make(chan struct{})
	var sending sync.WaitGroup
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 8 { // senders, who wait for their answers: a slow machine gets fewer deliveries
		sending.Go(func() {
			for {
				select {
				case <-updated:
					return
				case <-tick.C:
				}
				if id, status := r.deliver(); status != http.StatusAccepted {
					t.Errorf("delivery %d was answered %d", id, status)
				}
			}
		})
	}
	for _, p := range r.all {
		r.front.set(r.without(p)...)
		r.front.drain()
		p.stop()
		p.start()
		r.front.set(r.all...)
	}
	close(updated)
	sending.Wait()
	last := r.jobs.Load()
	for id := int64(1); id <= last; id++ {
		r.registered(id)
	}
	t.Logf("%d deliveries were answered 202", last)
	r.once()
}

func TestALeaderThatWasFrozenDoesNoHarm(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2, postgrestest.URL(t))
	r.registered(r.queue())
	leader := r.leader()
	r.front.set(r.without(leader)...)
	must(t, leader.cmd.Process.Signal(syscall.SIGSTOP))
	r.registered(r.queue()) // the other leads
	must(t, leader.cmd.Process.Signal(syscall.SIGCONT))
	r.front.set(leader)
	for range 20 {
		id, status := r.deliver()
		for status == http.StatusServiceUnavailable { // until it knows that its term has ended
			status = r.send(id)
		}
		if status != http.StatusAccepted {
			t.Fatalf("delivery %d was answered %d", id, status)
		}
		r.registered(id)
	}
	for deadline := time.Now().Add(5 * time.Minute); leader.leads(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the one that was frozen goes on saying that it leads")
		}
	}
	r.once()
}

var (
	replicaJobs = flag.Int("replicas.jobs", 30, "jobs of TestChaosOfReplicas; 5000 take minutes")
	replicaSeed = flag.Uint64("replicas.seed", 0, "its seed; 0: a new one")
	replicaRate = flag.Int("replicas.rate", 5, "jobs a second")
)

// Whichever replica is killed, and however often the database or the way to it fails, each job
// is served once or cancelled, and nothing is left over.
func TestChaosOfReplicas(t *testing.T) {
	t.Parallel()
	seed := cmp.Or(*replicaSeed, rand.Uint64())
	t.Logf("%d jobs, seed %d: go test ./cmd/switchyard -run TestChaosOfReplicas -replicas.seed %[2]d -replicas.jobs %[1]d", *replicaJobs, seed)
	database := postgrestest.NewCluster(t)
	front := newBalancer(t)
	w := routertest.New(t, routertest.Config{
		Rules: chaosRules, Network: &testnet.Net{Loopback: true}, Hub: githubsim.Config{RandSeed: seed, RateLimit: 5000 + 20**replicaJobs}, Cluster: nomadsim.Config{Nodes: chaosFleet()},
	})
	w.Addr = strings.TrimPrefix(front.URL, "http://")
	rulesFile := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, os.WriteFile(rulesFile, []byte(chaosRules), 0o600))
	secretFile := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secretFile, []byte(routertest.Secret), 0o600))
	r := &replicas{t: t, front: front}
	var proxies []*postgrestest.Proxy
	for range 3 {
		proxy := postgrestest.NewProxy(t, database.URL)
		p := newProcess(t, w.NomadURL, w.GitHubURL)
		p.program, p.again = hurried, true
		p.args = append(p.args, "--db", proxy.URL, "--public-url", front.URL, "--rules", rulesFile, "--webhook-secret-file", secretFile)
		r.all, proxies = append(r.all, p), append(proxies, proxy)
		p.start()
	}
	front.set(r.all...)

	ctx, stop := context.WithCancel(t.Context())
	var trouble sync.WaitGroup
	random := rand.New(rand.NewPCG(seed, 1))
	var kills, leaders, cuts atomic.Int64
	trouble.Go(func() {
		for router.Pause(ctx, 2*time.Second+time.Duration(random.Int64N(int64(2*time.Second)))) {
			p := r.all[random.IntN(len(r.all))]
			if random.Float64() < 0.6 {
				p = r.leader()
			}
			if kills.Add(1); p.leads() {
				leaders.Add(1)
			}
			p.kill()
			time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
			p.start()
		}
	})
	trouble.Go(func() {
		random := rand.New(rand.NewPCG(seed, 2))
		for router.Pause(ctx, time.Duration(random.Int64N(int64(4*time.Second)))) {
			cuts.Add(1)
			switch proxy := proxies[random.IntN(len(proxies))]; random.IntN(2) {
			case 0:
				proxy.Cut()
			default:
				proxy.CutNextCommit()
			}
		}
	})
	arrivals := time.Duration(*replicaJobs) * time.Second / time.Duration(*replicaRate)
	for i := range 2 {
		trouble.Go(func() {
			if router.Pause(ctx, arrivals*time.Duration(i+1)/3) {
				database.Restart(t)
			}
		})
	}
	sets, jobs := labelSets(), rand.New(rand.NewPCG(seed, 3))
	var queuing sync.WaitGroup
	for i := range *replicaJobs {
		spec := githubsim.JobSpec{
			Owner: "acme", Repo: fmt.Sprintf("repo-%d", jobs.IntN(20)), Private: true, Labels: sets[jobs.IntN(len(sets))],
			Duration: time.Duration(jobs.Int64N(int64(2 * time.Second))),
		}
		cancels := jobs.Float64() < 0.05
		queuing.Go(func() {
			time.Sleep(time.Duration(i) * arrivals / time.Duration(*replicaJobs))
			id := w.GitHub.Queue(t.Context(), spec)
			if cancels {
				time.Sleep(time.Second)
				_ = w.GitHub.Cancel(id) // it may have ended
			}
		})
	}
	queuing.Wait()
	stop()
	trouble.Wait()
	t.Logf("%d kills, of which %d of the leader; %d cuts of a connection to the database, which was started again twice", kills.Load(), leaders.Load(), cuts.Load())

	st, err := store.OpenReadOnly(t.Context(), database.URL)
	must(t, err)
	defer st.Close()
	c := &chaos{World: w, seed: seed}
	var open []string
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if open = c.unfinished(t, t.Context(), w.GitHub, st); len(open) == 0 {
			break
		}
	}
	for _, o := range open[:min(len(open), 20)] {
		t.Error(o)
	}
	c.verdict(t, w.GitHub, st)
}

var baseOfDraft = regexp.MustCompile(`name="base" value="([0-9a-f]{64})"`)

// apply applies a draft at a replica's console.
func (p *process) apply(rules string) (status int, page string) {
	p.t.Helper()
	base := baseOfDraft.FindSubmatch(p.get("/rules"))
	if base == nil {
		p.t.Fatalf("the console shows no draft")
	}
	form := url.Values{"base": {string(base[1])}, "name": {"rules.yaml"}, "source": {rules}, "days": {"7"}, "do": {"apply"}, "note": {"why not"}}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.admin+"/rules", strings.NewReader(form.Encode()))
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+editorToken)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(p.t, err)
	return resp.StatusCode, string(body)
}

const editorToken = "token-of-an-editor"

// What an editor applies at one replica decides at all of them, whatever their files say.
func TestReplicasDecideByWhatAnEditorApplied(t *testing.T) {
	t.Parallel()
	access := filepath.Join(t.TempDir(), "access.yaml")
	must(t, os.WriteFile(access, fmt.Appendf(nil, "tokens:\n  - { name: ada, sha256: %x, role: editor }\n", sha256.Sum256([]byte(editorToken))), 0o600))
	r := newReplicas(t, 2, postgrestest.URL(t), "--access", access, "--allow-edit")
	leader := r.leader()
	other := r.without(leader)[0]
	applied := func(rules int) func(s router.RulesStatus) bool {
		return func(s router.RulesStatus) bool { return s.Origin == "applied" && s.Who == "ada" && s.Rules == rules }
	}
	began := time.Now()
	if status, page := other.apply(twoRules); status != http.StatusSeeOther {
		t.Fatalf("applying was answered %d:\n%s", status, page)
	}
	other.awaitRules(applied(2))
	leader.awaitRules(applied(2))
	t.Logf("it was in force at the other replica %s after it was sent", time.Since(began).Round(time.Millisecond))
	if a, b := leader.rulesStatus(), other.rulesStatus(); a.Hash != b.Hash {
		t.Errorf("the replicas have different rules in force: %+v and %+v", a, b)
	}

	const denied = "version: 1\nlabels: { self-hosted: {}, linux: {}, x64: {} }\nrules:\n  - { name: none, deny: not today }\n"
	if status, page := leader.apply(denied); status != http.StatusSeeOther {
		t.Fatalf("applying was answered %d:\n%s", status, page)
	}
	other.awaitRules(applied(1))
	job := r.queue()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var shown struct{ Job struct{ State string } }
		text := other.get(fmt.Sprintf("/api/v1/jobs/%d", job))
		must(t, json.Unmarshal(text, &shown))
		if shown.Job.State == "denied" {
			break
		}
		if shown.Job.State != "queued" || time.Now().After(deadline) {
			t.Fatalf("the job is not denied: %s", text)
		}
	}

	tokenFile := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(tokenFile, []byte(editorToken), 0o600))
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // they see each other once a second
		code, out := other.askStatus("--token-file", tokenFile)
		if code == exitYes && strings.Count(out, "\nreplica ") == 2 && strings.Count(out, ", which leads") == 1 {
			break
		}
		if code == exitUnknown || time.Now().After(deadline) {
			t.Fatalf("rules status = %d:\n%s", code, out)
		}
	}

	other.kill()
	other.start() // with the files that it had at first
	other.awaitRules(applied(1))
}
