package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
)

const testSecret = "the webhook's secret"

// A process is the real program in a process of its own, with simulators
// beside it.
type process struct {
	t       testing.TB
	program string // "": switchyard
	args    []string
	env     []string
	cmd     *exec.Cmd
	ended   chan error // receives how it ended
	again   bool       // it is started again when it ends at its start, as Nomad does
	log     logged
	listen  string // the address for the webhook and claims
	url     string // of the webhook
	admin   string
}

// A logged text is written by a program, and read by a test meanwhile.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newProcess prepares serve against the Nomad at nomadURL; every start of it
// has the same ports and database.
func newProcess(t testing.TB, nomadURL, githubURL string) *process {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	listen, admin := freePort(t), freePort(t)
	p := &process{
		t: t, listen: listen, url: "http://" + listen + "/webhooks/github", admin: "http://" + admin,
		args: []string{
			"serve", "--rules", file("rules.yaml", string(demoRules)), "--db", filepath.Join(dir, "switchyard.db"),
			"--listen", listen, "--admin-listen", admin, "--public-url", "http://" + listen,
			"--webhook-secret-file", file("secret", testSecret+"\n"),
			"--github-token-file", file("token", "ghp_test\n"), "--github-url", githubURL,
		},
		env: append(os.Environ(), "NOMAD_ADDR="+nomadURL, "NOMAD_TOKEN=", "NOMAD_NAMESPACE="),
	}
	t.Cleanup(p.kill)
	return p
}

// freePort returns an address that nobody listens at. Its port is below those
// that a system gives to whoever wants any, so that it stays free.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(18_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start runs the program and waits until it is ready.
func (p *process) start() {
	p.t.Helper()
	program, err := exec.LookPath(cmp.Or(p.program, "switchyard")) // testscript puts the test's own program there
	must(p.t, err)
	run := func() {
		cmd := exec.Command(program, p.args...)
		cmd.Env, cmd.Stderr = p.env, &p.log
		must(p.t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		p.cmd, p.ended = cmd, ended
	}
	run()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-p.ended:
			if p.ended <- err; !p.again {
				deadline = time.Time{}
				continue
			}
			run()
		default:
		}
		if resp, err := http.Get(p.admin + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	p.kill()
	p.t.Fatalf("the program did not become ready; its log:\n%s", p.log.String())
}

// kill ends the program as kill -9 does.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.cmd = nil
	}
}

// stop ends the program as an operator does, and wants exit code 0.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(os.Interrupt)
	if err := <-p.ended; err != nil {
		p.t.Errorf("the stopped program: %v; its log:\n%s", err, p.log.String())
	}
	p.cmd = nil
}

// payload is a queued delivery of one of many jobs.
func payload(id int64, labels ...string) []byte {
	return githubsim.Payload(githubsim.Job{ID: id, JobSpec: githubsim.JobSpec{
		Owner: "acme", Repo: "web", Private: true, RunID: id, Labels: labels,
	}}, "queued")
}

// waitsOnGitHub returns the URL of a GitHub on which every job waits for its runner, however long
// a test takes.
func waitsOnGitHub(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, id, _ := strings.Cut(r.URL.Path, "/actions/jobs/")
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			http.Error(w, `{"message": "Not Found"}`, http.StatusNotFound)
			return
		}
		var p struct {
			Job json.RawMessage `json:"workflow_job"`
		}
		_ = json.Unmarshal(payload(n, "self-hosted", "linux", "x64"), &p)
		_, _ = w.Write(p.Job)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// send delivers a body with a delivery ID and returns the status of the
// answer, 0 when there was none.
func send(ctx context.Context, client *http.Client, url, guid string, body []byte) int {
	req, err := githubsim.NewDelivery(ctx, url, testSecret, guid, "workflow_job", body)
	if err != nil {
		panic(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}

// registrations counts the Nomad jobs that a Nomad handler was asked to
// register, and those it took.
type registrations struct {
	http.Handler
	asked, taken atomic.Int64
}

func (r *registrations) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/v1/jobs" || req.Method == http.MethodGet {
		r.Handler.ServeHTTP(w, req)
		return
	}
	r.asked.Add(1)
	rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	r.Handler.ServeHTTP(rec, req)
	if rec.status == http.StatusOK {
		r.taken.Add(1)
	}
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// kill -9 in the middle of a burst of 1,000 deliveries: what was answered 202
// is not lost, what was not is delivered again, and each job gets one Nomad job.
func TestKillInABurstLosesNothingAndDoublesNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	t.Parallel()
	const jobs, kills = 1000, 3
	sim := nomadsim.New(nomadsim.Config{}) // no nodes: the Nomad jobs wait, so that none is tried again
	t.Cleanup(sim.Close)
	count := &registrations{Handler: sim}
	cluster := httptest.NewServer(count)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, waitsOnGitHub(t))
	p.start()

	var mu sync.Mutex
	acknowledged := map[int64]bool{}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	// burst delivers what has no 202 yet, and has kill called after a while.
	burst := func(after int, kill func()) {
		todo := make(chan int64)
		var answered atomic.Int64
		once := sync.OnceFunc(kill)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for id := range todo {
					if status := send(t.Context(), client, p.url, fmt.Sprintf("guid-%d", id), payload(id, "self-hosted", "linux", "x64")); status == http.StatusAccepted {
						mu.Lock()
						acknowledged[id] = true
						mu.Unlock()
						if int(answered.Add(1)) >= after {
							once()
						}
					} else if status != 0 {
						t.Errorf("delivery %d was answered %d", id, status)
					}
				}
			})
		}
		for id := int64(1); id <= jobs; id++ {
			mu.Lock()
			done := acknowledged[id]
			mu.Unlock()
			if !done {
				todo <- id
			}
		}
		close(todo)
		wg.Wait()
	}
	for range kills {
		burst(jobs/(kills+1), p.kill)
		p.start()
	}
	burst(jobs+1, func() {})
	if len(acknowledged) != jobs {
		t.Fatalf("%d of %d deliveries were answered 202", len(acknowledged), jobs)
	}

	list := func() []string {
		resp, err := http.Get(cluster.URL + "/v1/jobs")
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		return idsIn(body)
	}
	deadline := time.Now().Add(5 * time.Minute)
	for len(list()) < jobs && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	p.stop() // so that nothing more comes
	ids := map[string]bool{}
	for _, id := range list() {
		ids[id] = true
	}
	for id := 1; id <= jobs; id++ {
		name := fmt.Sprintf("gha-%d-1", id)
		if !ids[name] {
			t.Errorf("job %d has no Nomad job", id)
		}
		delete(ids, name)
	}
	for id := range ids {
		t.Errorf("Nomad job %s is one too many", id)
	}
	if got := count.taken.Load(); got != jobs {
		t.Errorf("Nomad took %d registrations, want %d", got, jobs)
	}
	t.Logf("%d registrations were asked for %d jobs over %d kills", count.asked.Load(), jobs, kills)
}

// While Nomad is away, what was delivered is kept, over a stop and a start too.
func TestAnOutageOfNomadLosesNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the stop is a signal that Windows does not have")
	}
	eachNomad(t, func(t *testing.T, addr string) {
		const jobs = 20
		first := time.Now().UnixMilli() * 100 // a real agent may live through many runs
		nomad, err := api.NewClient(&api.Config{Address: addr})
		must(t, err)
		t.Cleanup(func() {
			for id := first; id < first+jobs; id++ {
				_, _, _ = nomad.Jobs().Deregister(fmt.Sprintf("gha-%d-1", id), true, nil)
			}
		})
		upstream, err := url.Parse(addr)
		must(t, err)
		proxyAddr := freePort(t) // nothing answers there yet
		p := newProcess(t, "http://"+proxyAddr, waitsOnGitHub(t))
		p.start()
		for id := first; id < first+jobs; id++ {
			if status := send(t.Context(), http.DefaultClient, p.url, fmt.Sprint(id), payload(id, "self-hosted", "linux", "gpu")); status != http.StatusAccepted {
				t.Fatalf("delivery %d was answered %d, want 202", id, status)
			}
		}
		p.stop()
		p.start()
		l, err := net.Listen("tcp", proxyAddr)
		must(t, err)
		srv := &http.Server{Handler: httputil.NewSingleHostReverseProxy(upstream)}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		registered := func(id int64) bool {
			_, _, err := nomad.Jobs().Info(fmt.Sprintf("gha-%d-1", id), nil)
			return err == nil
		}
		for id, deadline := first, time.Now().Add(5*time.Minute); id < first+jobs; {
			switch {
			case registered(id):
				id++
			case time.Now().After(deadline):
				t.Fatalf("Nomad has no job gha-%d-1; the log:\n%s", id, p.log.String())
			default:
				time.Sleep(20 * time.Millisecond)
			}
		}
		p.stop()
	})
}

// residentMB reads a process's resident set; Linux only.
func residentMB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return float64(kb) / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}
