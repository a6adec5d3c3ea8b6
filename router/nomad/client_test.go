package nomad

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

func TestErrors(t *testing.T) {
	const (
		register = "PUT /v1/jobs"
		read     = "GET /v1/job/gha-77-1"
		validate = "PUT /v1/validate/job"
		parse    = "PUT /v1/jobs/parse"
		parent   = "GET /v1/job/classic"
		dispatch = "PUT /v1/job/classic/dispatch"
		children = "GET /v1/jobs"
	)
	type answers = nomadtest.Answers
	var (
		plain   = router.Placement{Jobspec: "plain"}
		denied  = "403 Permission denied"
		absent  = "404 job not found"
		trouble = "500 rpc error: timed out enqueuing operation"
		classic = `200 {"ID":"classic","ParameterizedJob":{"MetaRequired":["GH_REPO_URL"]}}`
	)
	for _, c := range []struct {
		name      string
		placement router.Placement
		answers   answers
		kind      string // "fix", "give up" or "retry"
		want      string
	}{
		{"no submit-job", plain, answers{register: denied}, "fix",
			"register job gha-77-1 in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has submit-job on namespace default"},
		{"no submit-job where the rule puts it", router.Placement{Jobspec: "plain", Namespace: "ci"}, answers{register: denied}, "fix",
			"submit-job on namespace ci"},
		{"registration is switched off", plain,
			answers{register: "403 Job registration, dispatch, and scale are disabled by the scheduler configuration"}, "fix",
			"-reject-job-registration=false"},
		{"no read-job to look at what exists", plain, answers{register: "500 Enforcing job modify index 0: job already exists", read: denied}, "fix",
			"Nomad answered 500: Enforcing job modify index 0: job already exists: set NOMAD_TOKEN to a token that has read-job on namespace default, to see"},
		{"a namespace that is missing, so that the token has nothing there", router.Placement{Jobspec: "plain", Namespace: "ci"},
			answers{register: `500 job "gha-77-1" is in nonexistent namespace "ci"`, read: denied}, "fix", "create the namespace"},
		{"no read-job to ask for a verdict", plain, answers{register: trouble, read: absent, validate: denied}, "fix", "has read-job on namespace default"},
		{"no leader", plain, answers{"": "500 No cluster leader"}, "retry",
			"register job gha-77-1 in namespace default: Nomad answered 500: No cluster leader"},
		{"too many connections", plain,
			answers{"": "429 Your IP is issuing too many concurrent connections, please rate limit your calls\n"}, "retry", "answered 429"},
		{"a proxy without a Nomad behind it", plain,
			answers{"": "502 <html>\r\n<h1>502 Bad Gateway</h1>\r\n</html>"}, "retry", "answered 502: <html> <h1>502 Bad Gateway</h1> </html>"},
		{"trouble of its own with a job it finds valid", plain,
			answers{register: trouble, read: absent, validate: `200 {}`}, "retry", "timed out enqueuing operation"},
		{"trouble that also hides the verdict", plain,
			answers{register: trouble, read: absent, validate: trouble}, "retry", "timed out enqueuing operation"},
		{"a job it refuses", plain,
			answers{register: "500 1 error occurred:\n\t* bad\n\n", read: absent, validate: `200 {"Error":"1 error occurred:\n\t* bad\n\n"}`}, "give up",
			"register job gha-77-1 in namespace default: Nomad refuses it: 1 error occurred: * bad"},
		{"a job it cannot read", plain, answers{register: "400 json: cannot unmarshal string", read: absent}, "give up", "json: cannot unmarshal string"},
		{"a region it does not know", plain, answers{"": "500 No path to region"}, "fix", "NOMAD_REGION"},
		{"an agent that wants TLS", plain, answers{"": "400 Client sent an HTTP request to an HTTPS server.\n"}, "fix", "https:// instead of http://"},
		{"a server that is no Nomad", plain, answers{"": "404 404 page not found"}, "fix", "check that NOMAD_ADDR"},
		{"no parse-job", router.Placement{Jobspec: "shell"}, answers{parse: denied}, "fix", "has parse-job on namespace default"},
		{"a jobspec it cannot parse", router.Placement{Jobspec: "broken"},
			answers{parse: "400 Failed to parse job: input.hcl:3,5-12: Unsupported argument; An argument named \"no_such\" is not expected here."}, "fix",
			"broken.nomad.hcl in namespace default: Nomad answered 400: Failed to parse job: input.hcl:3,5-12: Unsupported argument; An argument named \"no_such\" is not expected here.: correct the file"},
		{"a parser in trouble", router.Placement{Jobspec: "shell"}, answers{parse: trouble}, "retry", "timed out"},
		{"no read-job for a dispatch", router.Placement{Dispatch: "classic"}, answers{parent: denied}, "fix", "has read-job on namespace default"},
		{"no dispatch-job", router.Placement{Dispatch: "classic"}, answers{parent: classic, dispatch: denied}, "fix",
			"dispatch job classic in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has dispatch-job on namespace default"},
		{"a dispatch in trouble", router.Placement{Dispatch: "classic"}, answers{parent: classic, dispatch: trouble}, "retry", "timed out"},
		{"children that cannot be listed", router.Placement{Dispatch: "classic"},
			answers{parent: classic, dispatch: `200 {"DispatchedJobID":"classic/dispatch-1"}`, children: denied}, "fix",
			"list the children classic/dispatch-gha-77-1-… in namespace default: Nomad answered 403: Permission denied: set NOMAD_TOKEN to a token that has list-jobs on namespace default"},
		{"a child that went away", router.Placement{Dispatch: "classic"},
			answers{
				children: "200 []",
				parent:   `200 {"ID":"classic","ParameterizedJob":{"MetaOptional":["SWITCHYARD_CLAIM_TOKEN"]}}`,
				dispatch: `200 {"DispatchedJobID":"classic/dispatch-1"}`, "": trouble,
			}, "retry", "read job classic/dispatch-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := answered(t, c.answers).Start(t.Context(), nomadtest.Request(c.placement))
			wantKind(t, err, c.kind, c.want)
		})
	}
	t.Run("long answers are cut", func(t *testing.T) {
		_, err := answered(t, nomadtest.Answers{"": "503 " + strings.Repeat("é\x00", 1e6)}).Start(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain"}))
		wantKind(t, err, "retry", "answered 503")
		if n := len([]rune(err.Error())); n > maxWords+100 {
			t.Errorf("the error has %d characters", n)
		}
	})
}

func wantKind(t *testing.T, err error, kind, want string) {
	t.Helper()
	got := "retry"
	var fix *router.FixError
	switch {
	case errors.As(err, &fix):
		got = "fix"
	case errors.As(err, new(*router.GiveUpError)):
		got = "give up"
	}
	if err == nil || got != kind || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\t\x00") {
		t.Errorf("error is %s: %q\nwant %s: %q", got, err, kind, want)
	}
}

func TestAddresses(t *testing.T) {
	started := func(t *testing.T, c *Client) {
		t.Helper()
		if _, err := c.Start(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain"})); err != nil {
			t.Error(err)
		}
	}
	fails := func(t *testing.T, config *api.Config, want string) {
		t.Helper()
		_, err := newClient(t, config).Start(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain"}))
		wantKind(t, err, "fix", want)
	}
	accepts := nomadtest.Answers{"PUT /v1/jobs": `200 {"EvalID":"e"}`}
	t.Run("a Unix socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a socket")
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: accepts}}
		server.Start()
		defer server.Close()
		started(t, newClient(t, &api.Config{Address: "unix://" + path}))
	})
	secure := httptest.NewUnstartedServer(accepts)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	t.Run("TLS with a known authority", func(t *testing.T) {
		started(t, newClient(t, &api.Config{Address: secure.URL, TLSConfig: &api.TLSConfig{CACertPEM: authority}}))
	})
	t.Run("TLS with an unknown one waits for an operator", func(t *testing.T) {
		fails(t, &api.Config{Address: secure.URL}, "set NOMAD_CACERT")
	})
	t.Run("TLS to an agent without it waits for an operator", func(t *testing.T) {
		server := httptest.NewServer(accepts)
		defer server.Close()
		fails(t, &api.Config{Address: strings.Replace(server.URL, "http", "https", 1)}, "http:// instead of https://")
	})
	t.Run("an address that is none is refused at once", func(t *testing.T) {
		for _, addr := range []string{"127.0.0.1:4646", "localhost:4646", "ftp://nomad", "http://a b"} {
			if _, err := New(Config{Jobspecs: &jobspecs.Set{}, API: &api.Config{Address: addr}}); err == nil || !strings.Contains(err.Error(), "NOMAD_ADDR") {
				t.Errorf("New with %q = %v", addr, err)
			}
		}
	})
	t.Run("the environment says where Nomad is", func(t *testing.T) {
		var got *http.Request
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Clone(context.Background())
			accepts.ServeHTTP(w, r)
		}))
		defer server.Close()
		t.Setenv("NOMAD_ADDR", server.URL)
		t.Setenv("NOMAD_TOKEN", "secret")
		t.Setenv("NOMAD_NAMESPACE", "ci")
		t.Setenv("NOMAD_REGION", "tokyo")
		started(t, newClient(t, nil))
		if q := got.URL.Query(); got.Header.Get("X-Nomad-Token") != "secret" || q.Get("namespace") != "ci" || q.Get("region") != "tokyo" {
			t.Errorf("asked %s with %v", got.URL, got.Header)
		}
	})
}

// Nomad lets the namespace of the query win over the job's.
func TestEveryCallNamesTheNamespace(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	said := nomadtest.Answers{ // so that Start makes all the calls it knows
		"PUT /v1/jobs": "500 ?", "GET /v1/job/gha-77-1": "404 job not found", "PUT /v1/validate/job": "200 {}",
		"PUT /v1/jobs/parse":           `200 {"TaskGroups":[{"Tasks":[{}]}]}`,
		"GET /v1/job/classic":          `200 {"ParameterizedJob":{"MetaOptional":["SWITCHYARD_CLAIM_TOKEN"]}}`,
		"PUT /v1/job/classic/dispatch": `200 {"DispatchedJobID":"child"}`,
		"GET /v1/job/child":            "200 {}",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Query().Get("namespace"))
		said.ServeHTTP(w, r)
	}))
	defer server.Close()
	for _, c := range []struct {
		name      string
		placement router.Placement
		want      []string
	}{
		{"the rule's first", router.Placement{Jobspec: "full", Namespace: "rule"}, []string{"rule", "rule", "rule"}},
		{"then the jobspec's", router.Placement{Jobspec: "full"}, []string{"ci", "ci", "ci"}},
		{"then the client's, when parsing too", router.Placement{Jobspec: "shell"}, []string{"client", "client", "client", "client"}},
		{"the rule's for a dispatch", router.Placement{Dispatch: "classic", Namespace: "rule"}, []string{"rule", "rule", "rule"}},
		{"the client's for a dispatch", router.Placement{Dispatch: "classic"}, []string{"client", "client", "client"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked = nil
			_, err := newClient(t, &api.Config{Address: server.URL, Namespace: "client"}).Start(t.Context(), nomadtest.Request(c.placement))
			if diff := cmp.Diff(c.want, asked); diff != "" {
				t.Errorf("namespaces asked (-want +got), with error %v:\n%s", err, diff)
			}
		})
	}
}

// Nomad would make a child for each of two that overlap.
func TestDispatchesOfOneRunnerDoNotOverlap(t *testing.T) {
	synctest.Test(t, testDispatchesOfOneRunnerDoNotOverlap)
}

func testDispatchesOfOneRunnerDoNotOverlap(t *testing.T) {
	var running, overlaps atomic.Int32
	client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			if running.Add(1) > 1 {
				overlaps.Add(1)
			}
			defer running.Add(-1)
			time.Sleep(time.Second) // so that they would meet
		}
		if r.URL.Path == "/v1/jobs" {
			_, _ = io.WriteString(w, "[]")
			return
		}
		_, _ = io.WriteString(w, `{"ParameterizedJob":{},"DispatchedJobID":"child","EvalID":"e"}`)
	}))
	race(t, 8, func(int) (router.Started, error) {
		return client.Start(t.Context(), nomadtest.Request(router.Placement{Dispatch: "classic"}))
	})
	if n := overlaps.Load(); n != 0 {
		t.Errorf("%d of 8 dispatches overlapped another", n)
	}
}

func TestKeyedLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyed
		release, err := k.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if other, err := k.lock(t.Context(), "b"); err != nil {
			t.Errorf("another key waits: %v", err)
		} else {
			other()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lock of a held key = %v, want a deadline", err)
		}
		taken := make(chan func())
		go func() {
			again, err := k.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			taken <- again
		}()
		synctest.Wait()
		release()
		(<-taken)()
		if len(k.held) != 0 {
			t.Errorf("%d keys are left", len(k.held))
		}
	})
}

func TestWarnings(t *testing.T) {
	got := Warnings("2 warnings:\n\n* first\n  goes on\n* second")
	if len(got) != 2 || got[0] != "first goes on" || got[1] != "second" {
		t.Errorf("warnings = %q", got)
	}
	if got := Warnings(""); got != nil {
		t.Errorf("warnings of none = %q", got)
	}
}
