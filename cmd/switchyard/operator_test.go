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

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/testnet"
	"switchyard/router/web/api"
)

const operatorsToken = "let-me-in"

// operated runs a server for tests of the operators' commands: its API wants
// operatorsToken, and it has three jobs, 4001 dispatched to a Nomad without
// nodes, 4002 unroutable and 4003 ignored. Its database is server.db in dir.
func operated(t testing.TB, dir string, socket ...string) (url string, w *routertest.World) {
	t.Helper()
	flags, token := serveFlags{adminListen: "127.0.0.1:0"}, router.Secret(operatorsToken)
	for _, path := range socket {
		flags.adminListen, token = server.SocketPrefix+path, ""
	}
	log := slog.New(slog.DiscardHandler)
	access, err := flags.accessSource(token, log)
	must(t, err)
	w = routertest.New(t, routertest.Config{
		Rules: string(demoRules), Network: &testnet.Net{Loopback: true}, Logger: log, Database: filepath.Join(dir, "server.db"),
		Hub: githubsim.Config{FirstID: 4001}, Cluster: nomadsim.Config{Nodes: []*nomadapi.Node{}}, New: wired(appParts{access: access}),
	})
	w.Start(func(c *server.Config) { c.AdminListen = flags.adminListen })
	for _, labels := range [][]string{{"self-hosted", "linux", "x64"}, {"self-hosted", "linx"}, {"ubuntu-latest"}} {
		w.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, RunID: 7, Name: "build \x1b[31m", Labels: labels})
	}
	for id, want := range map[int64]router.JobState{4001: router.Dispatched, 4002: router.Unroutable, 4003: router.Ignored} {
		w.Await(id, routertest.In(want))
	}
	if len(socket) > 0 {
		return w.App.AdminAddr(), w
	}
	return "http://" + w.App.AdminAddr(), w
}

// The commands reach a server by its socket, which is its user's alone, and
// need no token there; web pages of other sites do not.
func TestTheCommandsUseASocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	server, w := operated(t, t.TempDir(), path)
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
		must(t, err)
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s is answered %s, want %d", url, resp.Status, want)
		}
	}
	w.Stop()
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
	must(t, tab.write(&out))
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
	url, _ := operated(t, t.TempDir())
	t.Setenv("SWITCHYARD_ADMIN_TOKEN", operatorsToken)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := operator{server: url, most: time.Hour}
	err := o.follow(ctx, func(ctx context.Context, next func(context.Context)) error {
		if err := o.ask(ctx, http.MethodPost, api.Prefix+"/jobs/4002/cancel", nil, nil, new(api.JobDetail)); err != nil {
			return err
		}
		next(ctx)
		var d api.JobDetail
		if err := o.ask(ctx, http.MethodGet, api.Prefix+"/jobs/4002", nil, nil, &d); err != nil || d.Job.State != router.Denied {
			t.Errorf("told of a change, job 4002 is %s, %v", d.Job.State, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A server that has no stream is polled.
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
