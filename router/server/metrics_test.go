package server_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/router/telemetry"
	"switchyard/router/webhook"
	"switchyard/rules"
)

// scrape returns what Prometheus is shown.
func scrape(t *testing.T, app *server.App) string {
	t.Helper()
	resp, err := httpClient.Get("http://" + app.AdminAddr() + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics = %d, %v: %s", resp.StatusCode, err, body)
	}
	return string(body)
}

// shows scrapes until the metrics have all these lines.
func shows(t *testing.T, app *server.App, lines ...string) string {
	t.Helper()
	pause, deadline := 20*time.Millisecond, time.Now().Add(time.Minute)
	for ; ; pause = min(2*pause, time.Second) {
		text, lack := scrape(t, app), ""
		for _, line := range lines {
			if !strings.Contains("\n"+text, "\n"+line) {
				lack = line
			}
		}
		if lack == "" {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("the metrics lack %s:\n%s", lack, text)
		}
		time.Sleep(pause)
	}
}

// series are the names and labels of what is shown, without values.
func series(text string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "} "); ok && !strings.HasPrefix(line, "#") {
			all[name] = true
		} else if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			all[name] = true
		}
	}
	return all
}

func TestTheMetricsTellOfAJobsLife(t *testing.T) { synctest.Test(t, testTheMetricsTellOfAJobsLife) }
func testTheMetricsTellOfAJobsLife(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start()
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	text := shows(t, w.App,
		`switchyard_deliveries_total{outcome="stored"} 3`,
		`switchyard_decisions_total{outcome="routed",rule="linux"} 1`,
		`switchyard_job_registration_seconds_count{rule="linux"} 1`,
		`switchyard_job_placement_seconds_count{rule="linux"} 1`,
		`switchyard_job_claim_seconds_count{rule="linux"} 1`,
		`switchyard_job_start_seconds_count{rule="linux"} 1`,
		`switchyard_nomad_requests_total{call="register job",code="200"} 1`,
		`switchyard_nomad_request_duration_seconds_count{call="register job"} 1`,
		`switchyard_github_requests_total{call="POST repos/{owner}/{repo}/actions/runners/generate-jitconfig",code="201"} 1`,
		`switchyard_thefts_total 0`,
		`switchyard_jobs_waiting{reason="no_node_free",rule="linux"} 0`,
		`switchyard_runners{state="busy"} 0`,
		`switchyard_database_bytes{file="main"} `,
		`switchyard_build_info{`,
		`go_goroutines `, `process_open_fds `,
	)
	checkMetrics(t, text)
}

// checkMetrics has promtool check metrics, where it is installed.
func checkMetrics(t *testing.T, text string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not here: the metrics' form is not checked")
		return
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestAJobWithoutANodeWaitsByThatReason(t *testing.T) {
	bubble(t, testAJobWithoutANodeWaitsByThatReason)
}
func testAJobWithoutANodeWaitsByThatReason(t *testing.T) {
	w := newWorld(t, `
rules:
  - name: nowhere
    jobspec: docker-linux
    constraints: ['${meta.zone} = nowhere']
`)
	w.Start()
	w.Queue("self-hosted", "linux")
	shows(t, w.App, `switchyard_jobs_waiting{reason="no_node_fits",rule="nowhere"} 1`,
		`switchyard_jobs_waiting_oldest_timestamp_seconds{reason="no_node_fits",rule="nowhere"} `,
		`switchyard_runners{state="dispatched"} 1`)
}

func TestWaitingJobsAreCountedByReason(t *testing.T) {
	bubble(t, testWaitingJobsAreCountedByReason)
}
func testWaitingJobsAreCountedByReason(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte(`
version: 1
labels: { self-hosted: {}, full: {}, down: {}, mute: {} }
rules:
  - { name: full, if: has("full"), jobspec: docker-linux, limit: { running: 1 } }
  - { name: down, if: has("down"), jobspec: docker-linux }
  - { name: mute, if: has("mute") and run.fork, jobspec: docker-linux }
`))
	must(t, err)
	h := &hub{
		ready: func(to router.Target) error {
			if to.Repo == "limited" {
				at := time.Now().Add(time.Hour)
				return &router.RetryAtError{At: at, Err: errors.New("a limit is reached")}
			}
			return nil
		},
		run: func(int, int64) (rules.Run, error) { return rules.Run{}, errors.New("no") },
	}
	r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) {
		c.Rules, c.Nomad = set, refusing{c.Nomad}
	})
	r.deliver(delivery(1, "queued", "self-hosted", "full"))
	r.await(1, in(router.Dispatched))
	r.deliver(delivery(2, "queued", "self-hosted", "full"))
	r.deliver(delivery(3, "queued", "self-hosted", "down"))
	r.deliver(delivery(4, "queued", "self-hosted", "mute"))
	limited := delivery(5, "queued", "self-hosted", "down")
	limited.Job.Repo.Name, limited.Job.Repo.FullName = "limited", "acme/limited"
	r.deliver(limited)
	approval := delivery(6, "queued", "self-hosted", "down")
	approval.Action, approval.Status = "waiting", "waiting"
	r.deliver(approval)
	shows(t, r.App,
		`switchyard_jobs_waiting{reason="placing",rule="full"} 1`,
		`switchyard_jobs_waiting{reason="limit",rule="full"} 1`,
		`switchyard_jobs_waiting{reason="nomad",rule="down"} 1`,
		`switchyard_jobs_waiting{reason="github",rule=""} 1`,
		`switchyard_jobs_waiting{reason="github_limit",rule="down"} 1`,
		`switchyard_jobs_waiting{reason="approval",rule=""} 1`,
		`switchyard_retries_total{cause="nomad"} `,
		`switchyard_retries_total{cause="github_limit"} 1`,
	)
}

// refusing is a Nomad that takes nothing of the rule down, and says of no runner whether it has a node.
type refusing struct{ router.Nomad }

func (n refusing) Start(ctx context.Context, r router.StartRequest) (router.Started, error) {
	if r.Rule == "down" {
		return router.Started{}, errors.New("connection refused")
	}
	return n.Nomad.Start(ctx, r)
}

func (n refusing) Jobs(context.Context, string) ([]router.NomadJob, uint64, error) {
	return nil, 0, errors.New("connection refused")
}

func TestATheftIsCounted(t *testing.T) { bubble(t, testATheftIsCounted) }
func testATheftIsCounted(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	req := r.dispatch(1)
	if status, body := r.Claim(req.ClaimToken); status != http.StatusOK {
		t.Fatalf("claim = %d %s", status, body)
	}
	d := delivery(2, "in_progress", "self-hosted")
	d.Job.RunnerName = r.hub.asked()[0].Name
	foreign := d
	foreign.ID, foreign.Job.ID, foreign.RunnerID = "foreign", 4, 4711
	r.deliver(foreign)
	shows(t, r.App, "switchyard_thefts_total 0\n")
	r.deliver(d)
	d.ID = "again"
	r.deliver(d)
	shows(t, r.App, "switchyard_thefts_total 1\n", `switchyard_deliveries_total{outcome="known"} 1`)

	own := delivery(3, "in_progress", "self-hosted")
	own.Job.RunnerName = "gha-forged"
	r.deliver(own)
	shows(t, r.App, "switchyard_thefts_total 1\n")
}

// Whatever strangers put into deliveries adds nothing to what is shown.
func TestStrangersAddNoSeries(t *testing.T) { bubble(t, testStrangersAddNoSeries) }
func testStrangersAddNoSeries(t *testing.T) {
	const secret = "0123456789abcdef"
	count := telemetry.NewMetrics()
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) {
		c.Metrics = count
		c.Webhook = func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
			return webhook.Handler(webhook.Config{Secrets: []router.Secret{secret}, Logger: slog.New(slog.DiscardHandler), Counted: count.Delivered}, receive)
		}
	})
	send := func(n int, event, text string, labels []string, sign bool) {
		t.Helper()
		body, err := json.Marshal(map[string]any{
			"action": "queued",
			"workflow_job": map[string]any{
				"id": n, "run_id": n, "run_attempt": 1, "status": "queued", "name": text, "workflow_name": text,
				"head_branch": text, "head_sha": strings.Repeat("a", 40), "labels": labels, "html_url": "https://github.com/",
			},
			"repository": map[string]any{
				"name": fmt.Sprintf("r%d", n), "full_name": fmt.Sprintf("o%d/r%d", n, n), "private": true, "visibility": "private", "fork": n%8 == 0,
				"owner": map[string]any{"login": fmt.Sprintf("o%d", n)},
			},
			"sender": map[string]any{"login": text},
		})
		must(t, err)
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		sum := hex.EncodeToString(mac.Sum(nil))
		if !sign {
			sum = strings.Repeat("0", 64)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.App.Addr()+"/webhooks/github", bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-GitHub-Event", event)
		req.Header.Set("X-GitHub-Delivery", fmt.Sprintf("%s-%d", event, n))
		req.Header.Set("X-Hub-Signature-256", "sha256="+sum)
		resp, err := httpClient.Do(req)
		must(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if want := map[bool]int{true: http.StatusAccepted, false: http.StatusUnauthorized}[sign]; event == "workflow_job" && resp.StatusCode != want {
			t.Fatalf("delivery %d is answered with %d, want %d", n, resp.StatusCode, want)
		}
	}
	settled := func() string {
		t.Helper()
		return shows(t, r.App, `switchyard_jobs_waiting{reason="no_node_free",rule="linux"} 0`)
	}
	kinds := func(from, to int) {
		for n := from; n <= to; n++ {
			evil := fmt.Sprintf("x%d\"\n} 1 #\x1b[31m\u202e<script>", n)
			send(n*4, "workflow_job", evil, []string{"self-hosted", "linux"}, true)
			send(n*4+1, "workflow_job", evil, []string{"self-hosted", evil}, true)
			send(n*4+2, fmt.Sprintf("event-%d", n), evil, nil, true)
			send(n*4+3, "workflow_job", evil, []string{"self-hosted", "linux"}, false)
		}
	}
	kinds(1, 3)
	r.await(12, in(router.Dispatched))
	r.await(13, in(router.Unroutable))
	r.await(8, in(router.Denied))
	before := series(settled())
	kinds(4, 100)
	r.await(400, func(j router.Job) bool { return j.State == router.Dispatched || j.State == router.Denied })
	r.await(401, in(router.Unroutable))
	after := series(settled())
	for name := range after {
		// What one moment has and another has not: why jobs wait.
		if strings.HasPrefix(name, "switchyard_jobs_waiting") || strings.HasPrefix(name, "promhttp_") {
			if !regexp.MustCompile(`rule="(linux|no-forks|)"`).MatchString(name) && strings.HasPrefix(name, "switchyard_") {
				t.Errorf("%s has a rule that there is not", name)
			}
			continue
		}
		if !before[name] {
			t.Errorf("a stranger made the series %s", name)
		}
	}
}

// A side that is asked for ever other things, by a fault of ours, makes few series.
func TestCallsAreBounded(t *testing.T) { bubble(t, testCallsAreBounded) }
func testCallsAreBounded(t *testing.T) {
	count := telemetry.NewMetrics()
	for n := range 1000 {
		count.GitHub.Called(fmt.Sprintf("GET things/%d", n), http.StatusOK, time.Millisecond)
	}
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Metrics = count })
	text := shows(t, r.App, `switchyard_github_requests_total{call="other",code="200"} 900`)
	if n := strings.Count(text, "\nswitchyard_github_requests_total{"); n != 101 {
		t.Errorf("there are %d series of calls, want 100 and the others", n)
	}
}

// counting is a store that counts how often it is asked for the jobs that wait or run.
type counting struct {
	Store
	asked atomic.Int64
	came  chan struct{} // gets one when it is asked; of size 1
	gate  chan struct{}
}

func (c *counting) OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error) {
	c.asked.Add(1)
	select {
	case c.came <- struct{}{}:
	default:
	}
	<-c.gate
	return c.Store.OpenJobs(ctx, within)
}

// Once for each of what is counted and what is wrong.
func TestManyScrapesAskTheStoreOnce(t *testing.T) { bubble(t, testManyScrapesAskTheStoreOnce) }
func testManyScrapesAskTheStoreOnce(t *testing.T) {
	c := &counting{Store: openStore(t), came: make(chan struct{}, 1), gate: make(chan struct{})}
	r := start(t, c, &cluster{}, &hub{})
	done := make(chan string)
	for range 8 {
		go func() {
			resp, err := httpClient.Get("http://" + r.App.AdminAddr() + "/metrics")
			if err != nil {
				done <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			done <- string(b)
		}()
	}
	<-c.came
	close(c.gate)
	for range 8 {
		if text := <-done; !strings.Contains(text, "\nswitchyard_runners{") {
			t.Errorf("a scrape lacks the runners: %s", text)
		}
	}
	if n := c.asked.Load(); n != 2 { // once for the counts, once for what is wrong
		t.Errorf("8 scrapes asked the store %d times", n)
	}
}

// failing is a store that cannot count.
type failing struct{ Store }

func (failing) OpenJobs(context.Context, router.Scope) ([]router.OpenJobs, error) {
	return nil, errors.New("disk I/O error")
}

func TestAScrapeShowsTheRestWhenTheStoreFails(t *testing.T) {
	bubble(t, testAScrapeShowsTheRestWhenTheStoreFails)
}
func testAScrapeShowsTheRestWhenTheStoreFails(t *testing.T) {
	r := start(t, failing{openStore(t)}, &cluster{}, &hub{})
	text := scrape(t, r.App)
	if strings.Contains(text, "\nswitchyard_jobs_waiting{") || !strings.Contains(text, "\nswitchyard_runners{") {
		t.Errorf("want the runners and no jobs that wait: %s", text)
	}
	shows(t, r.App, `promhttp_metric_handler_errors_total{cause="gathering"}`)
}

func TestADeniedJobThatOurRunnerServedIsSaid(t *testing.T) {
	bubble(t, testADeniedJobThatOurRunnerServedIsSaid)
}
func testADeniedJobThatOurRunnerServedIsSaid(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	denied := delivery(2, "queued", "self-hosted", "linux")
	denied.Job.Repo.Fork = true
	r.deliver(denied)
	r.await(2, in(router.Denied))
	req := r.dispatch(1)
	if status, body := r.Claim(req.ClaimToken); status != http.StatusOK {
		t.Fatalf("claim = %d %s", status, body)
	}
	shows(t, r.App, `switchyard_refused_jobs_served_total{state="denied"} 0`)
	for _, action := range []string{"in_progress", "completed"} {
		d := delivery(2, action, "self-hosted", "linux")
		d.Job.RunnerName = r.hub.asked()[0].Name
		r.deliver(d)
		d.ID += " again"
		r.deliver(d)
	}
	shows(t, r.App, `switchyard_refused_jobs_served_total{state="denied"} 1`, "switchyard_thefts_total 1\n")
	if j := r.await(2, in(router.Completed)); !strings.Contains(j.Reason, "denied, but runner gha-1-1-") || !strings.Contains(j.Reason, "forks get no runner") {
		t.Errorf("the reason is %q", j.Reason)
	}
}
