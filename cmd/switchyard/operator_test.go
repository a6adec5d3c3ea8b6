package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	nomadapi "github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/web/api"
	"switchyard/rules"
)

const operatorsToken = "let-me-in"

// operated runs a server for the scripts of the operators' commands until
// stop: its API wants operatorsToken, and it has three jobs, 4001 dispatched to
// a Nomad without nodes, 4002 unroutable and 4003 ignored.
func operated(dir string, socket ...string) (url string, stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for len(stops) > 0 {
			last := stops[len(stops)-1]
			stops = stops[:len(stops)-1]
			errs = append(errs, last())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	closed := func(f func()) { stops = append(stops, func() error { f(); return nil }) }
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	sim := nomadsim.New(nomadsim.Config{})
	closed(sim.Close)
	fleet := httptest.NewServer(sim)
	closed(fleet.Close)
	specs, err := jobspecs.Load("")
	if err != nil {
		return "", stop, err
	}
	set, err := rules.Parse("rules.example.yaml", demoRules)
	if err != nil {
		return "", stop, err
	}
	log := slog.New(slog.DiscardHandler)
	cluster, err := nomad.New(nomad.Config{Jobspecs: specs, Logger: log, API: &nomadapi.Config{Address: fleet.URL}})
	if err != nil {
		return "", stop, err
	}
	var github *githubsim.Server
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { github.ServeHTTP(w, r) }))
	closed(hub.Close)
	client, err := gh.New(gh.Config{Token: gh.StaticToken("ghp_test"), BaseURL: hub.URL})
	if err != nil {
		return "", stop, err
	}
	st, err := store.Open(ctx, filepath.Join(dir, "server.db"), store.Unsynced)
	if err != nil {
		return "", stop, err
	}
	stops = append(stops, st.Close)
	flags, token := serveFlags{adminListen: "127.0.0.1:0"}, router.Secret(operatorsToken)
	for _, path := range socket {
		flags.adminListen, token = server.SocketPrefix+path, ""
	}
	access, err := flags.accessSource(token, log)
	if err != nil {
		return "", stop, err
	}
	app, err := newApp(appParts{store: st, nomad: capacity.New(cluster), github: client, rules: set, secrets: []router.Secret{testSecret}, access: access},
		server.Config{Listen: "127.0.0.1:0", AdminListen: flags.adminListen, Logger: log})
	if err != nil {
		return "", stop, err
	}
	github = githubsim.New(githubsim.Config{WebhookURL: "http://" + app.Addr() + "/webhooks/github", Secret: testSecret, FirstID: 4001})
	closed(github.Close)
	running, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- app.Run(running) }()
	stops = append(stops, func() error { end(); return <-done })

	for _, labels := range [][]string{{"self-hosted", "linux", "x64"}, {"self-hosted", "linx"}, {"ubuntu-latest"}} {
		github.Queue(ctx, githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, RunID: 7, Name: "build \x1b[31m", Labels: labels})
	}
	for id, want := range map[int64]router.JobState{4001: router.Dispatched, 4002: router.Unroutable, 4003: router.Ignored} {
		for {
			j, err := st.Job(ctx, id)
			if err == nil && j.State == want {
				break
			}
			if ctx.Err() != nil {
				return "", stop, errors.Join(errors.New("the server's jobs do not come into their states"), err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if len(socket) > 0 {
		return app.AdminAddr(), stop, nil
	}
	return "http://" + app.AdminAddr(), stop, nil
}

// The commands reach a server by its socket, which is its user's alone, and
// need no token there; web pages of other sites do not.
func TestTheCommandsUseASocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	server, stop, err := operated(t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 || server != "unix:"+path {
		t.Errorf("the socket is %v, %v; the server is at %s", info, err, server)
	}
	for _, args := range [][]string{{"jobs", "list"}, {"rules", "status"}, {"jobs", "retry", "4002"}, {"explain", "--repo", "acme/web", "--labels", "self-hosted,linux"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(args, "--server", server), nil, &out, &errs); code != exitYes {
			t.Errorf("switchyard %v = %d: %s%s", args, code, out.String(), errs.String())
		}
	}
	o := operator{server: server}
	ctx, cancel := context.WithCancel(t.Context())
	o.stream(ctx, cancel, func() {}) // ends as it is opened
	if ctx.Err() == nil {
		t.Error("changes are not told by the socket")
	}
	for url, want := range map[string]int{
		"http://localhost/metrics": 200, "http://127.0.0.1:8081/readyz": 200, "http://evil.example/healthz": 200,
		"http://evil.example/metrics": 403, "http://evil.example:8081/readyz": 403, "http://evil.example/": 403,
	} {
		resp, err := o.client().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s is answered %s, want %d", url, resp.Status, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays behind: %v", err)
	}
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"jobs", "list", "--server", server}, nil, io.Discard, &errs); code != exitUnknown || !strings.Contains(errs.String(), path) {
		t.Errorf("without a server = %d: %s", code, errs.String())
	}
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 12 * time.Millisecond: "12ms", 2500 * time.Millisecond: "2.5s", 59900 * time.Millisecond: "59.9s", time.Minute: "1m", 90 * time.Second: "1m30s",
		time.Hour: "1h00m", 100 * time.Minute: "1h40m", 47 * time.Hour: "47h00m", 72 * time.Hour: "3d",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestATableFitsItsTerminal(t *testing.T) {
	var out bytes.Buffer
	tab := table{columns: 12}
	tab.row("A", "WHY")
	tab.row("abc", "\x1b[31mvery long")
	tab.row("é", "ok")
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("A    WHY\nabc  \\x1b[3…\né    ok\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A watch shows until it is interrupted, which is no failure.
func TestAWatchEndsWithoutAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	shown := 0
	err := watch(ctx, io.Discard, pause, func(w io.Writer) error {
		shown++
		cancel()
		return ctx.Err() // as a request that was cut off
	})
	if err != nil || shown != 1 {
		t.Errorf("watch = %v after %d", err, shown)
	}
	broken := errors.New("no server")
	if err := watch(t.Context(), io.Discard, pause, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("watch = %v, want the error", err)
	}
}

// A watch of a server shows a change when there is one.
func TestAWatchFollowsTheServer(t *testing.T) {
	url, stop, err := operated(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("SWITCHYARD_ADMIN_TOKEN", operatorsToken)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := operator{server: url, most: time.Hour}
	err = o.follow(ctx, func(ctx context.Context, next func(context.Context)) error {
		if err := o.ask(ctx, http.MethodPost, api.Prefix+"/jobs/4002/cancel", nil, nil, new(api.JobDetail)); err != nil {
			return err
		}
		next(ctx)
		var d api.JobDetail
		if err := o.ask(ctx, http.MethodGet, api.Prefix+"/jobs/4002", nil, nil, &d); err != nil || d.Job.State != router.Denied {
			t.Errorf("told of a change, job 4002 is %s, %v", d.Job.State, err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A server that has no stream is looked at again and again.
func TestAWatchDoesWithoutAStream(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := operator{server: server.URL, most: time.Hour}
	err := o.follow(ctx, func(ctx context.Context, next func(context.Context)) error {
		next(ctx)
		return ctx.Err()
	})
	if err != nil {
		t.Errorf("it waits for a stream that there is not: %v", err)
	}
}
