package nomad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// env is a placement that runs the jobspec script with an environment.
func env(pairs ...string) router.Placement {
	p := router.Placement{Jobspec: "script"}
	p.Task.Env = map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		p.Task.Env[pairs[i]] = pairs[i+1]
	}
	return p
}

// followed is what a Follow tells, from when it has begun.
func followed(t *testing.T, client *Client, index uint64) <-chan router.NomadEvent {
	t.Helper()
	events := make(chan router.NomadEvent, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		for { // a busy Nomad ends a stream now and then
			err := client.Follow(ctx, "", index, func(e router.NomadEvent) error {
				index = max(index, e.Index)
				events <- e
				return nil
			})
			if ctx.Err() != nil || !strings.Contains(err.Error(), "Nomad ended the stream") {
				done <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
	})
	if first := next(t, events, ""); first.Kind != router.NomadFollowed {
		t.Fatalf("the first event is %+v", first)
	}
	return events
}

// next waits for the next event of a Nomad job.
func next(t *testing.T, events <-chan router.NomadEvent, job string) router.NomadEvent {
	t.Helper()
	timeout := time.After(5 * time.Minute)
	for {
		select {
		case e := <-events:
			if e.Job == job {
				return e
			}
		case <-timeout:
			t.Fatalf("no further event of %q", job)
		}
	}
}

// upTo collects the events of a Nomad job up to one of a kind. Nomad repeats
// some, which are left out.
func upTo(t *testing.T, events <-chan router.NomadEvent, job string, kind router.NomadEventKind) (all []router.NomadEvent) {
	t.Helper()
	for {
		e := next(t, events, job)
		if len(all) == 0 || all[len(all)-1].Kind != e.Kind {
			all = append(all, e)
		}
		if e.Kind == kind {
			return all
		}
	}
}

func kinds(events []router.NomadEvent) string {
	var list []string
	for _, e := range events {
		list = append(list, string(e.Kind))
	}
	return strings.Join(list, " ")
}

func TestContractFollow(t *testing.T) {
	claims := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer the-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/gone":
			w.WriteHeader(http.StatusGone)
		default:
			fmt.Fprint(w, "a configuration")
		}
	}))
	t.Cleanup(claims.Close)
	targets(t, func(t *testing.T, on target, client *Client) {
		events := followed(t, client, 0)
		claim := func(path string) router.StartRequest {
			p := env("WANT", "a configuration")
			p.Jobspec = "claim"
			r := on.Fresh(t, p)
			r.ClaimURL = claims.URL + path
			return r
		}
		for _, c := range []struct {
			name    string
			request router.StartRequest
			kinds   string // those that may be left out in brackets
			text    string
			code    int
		}{
			{"one that does its work", on.Fresh(t, env()), "placed started ended", "complete: Exit Code: 0", 0},
			{"one that fails", on.Fresh(t, env("EXIT", "3")), "placed started ended", "failed: Exit Code: 3", 3},
			{"one that claims", claim("/ok"), "placed started ended", "complete: Exit Code: 0", 0},
			{"one whose claim is refused", claim("/gone"), "placed ended", "bad response code: 410", 0},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := on.Start(t, client, c.request)
				all := upTo(t, events, r.NomadJob, router.NomadEnded)
				// A client reports in batches, and may leave out that a short task ran.
				if got := kinds(all); got != c.kinds && got != strings.Replace(c.kinds, " started", "", 1) {
					t.Errorf("it is reported as %s, want %s", got, c.kinds)
				}
				last := all[len(all)-1]
				if !strings.Contains(last.Text, c.text) {
					t.Errorf("its end is %q, want %q", last.Text, c.text)
				}
				if e, err := client.End(t.Context(), r); err != nil || e.Code != c.code || last.Code != c.code {
					t.Errorf("its exit code is %d by the event and %d by End (%v), want %d", last.Code, e.Code, err, c.code)
				}
				for i, e := range all {
					if e.Index == 0 || i > 0 && e.Index < all[i-1].Index || e.Time.IsZero() || e.Node == "" || e.At.Namespace != "default" {
						t.Errorf("event %+v after %+v", e, all[:i])
					}
				}
			})
		}
		t.Run("one that is stopped while it runs", func(t *testing.T) {
			r := on.Start(t, client, on.Fresh(t, env("WAIT", "60")))
			upTo(t, events, r.NomadJob, router.NomadStarted)
			if err := client.Stop(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if got := upTo(t, events, r.NomadJob, router.NomadEnded); kinds(got) != "stopped ended" || got[1].Text != "killed: its Nomad job was stopped (alloc not needed due to job update)" {
				t.Errorf("it is reported as %+v", got)
			}
		})
		t.Run("one whose allocation is stopped, as by a drain", func(t *testing.T) {
			r := on.Start(t, client, on.Fresh(t, env("WAIT", "60")))
			upTo(t, events, r.NomadJob, router.NomadStarted)
			list, _, err := on.Nomad.Jobs().Allocations(r.NomadJob, false, nil)
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			if _, err := on.Nomad.Allocations().Stop(&api.Allocation{ID: list[0].ID}, nil); err != nil {
				t.Fatal(err)
			}
			var ended, again router.NomadEvent // in any order
			for ended.Kind == "" || again.Kind == "" {
				switch e := next(t, events, r.NomadJob); {
				case e.Again:
					again = e
				case e.Kind == router.NomadEnded:
					ended = e
				}
			}
			if ended.Text != "killed: somebody stopped its allocation (alloc is being migrated)" || ended.Node == "" || ended.Loss != "" {
				t.Errorf("it is reported as %+v", ended)
			}
			if e, err := client.End(t.Context(), r); err != nil || e.Text != ended.Text || e.Node != ended.Node || e.Kind != router.NomadEnded || e.Loss != "" {
				t.Errorf("End = %+v, %v", e, err)
			}
		})
		t.Run("one that waits, is stopped and is purged", func(t *testing.T) {
			r := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
			if e := next(t, events, r.NomadJob); e.Kind != router.NomadWaits || e.Time.IsZero() {
				t.Errorf("first event %+v", e)
			}
			if err := client.Stop(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if e := next(t, events, r.NomadJob); e.Kind != router.NomadStopped || e.Text != "stopped" {
				t.Errorf("next event %+v", e)
			}
			on.Deregister(t, r.NomadJob, true)
			if e := next(t, events, r.NomadJob); e.Kind != router.NomadStopped || e.Text != "purged" {
				t.Errorf("next event %+v", e)
			}
		})
		t.Run("again from an index on", func(t *testing.T) {
			_, index, err := client.Jobs(t.Context(), "")
			if err != nil || index == 0 {
				t.Fatal(index, err)
			}
			r := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
			first := next(t, events, r.NomadJob)
			if got := next(t, followed(t, client, index), r.NomadJob); got != first || got.Index <= index {
				t.Errorf("from %d on, the first is %+v, want %+v", index, got, first)
			}
		})
		t.Run("a failure of its caller's ends it", func(t *testing.T) {
			mine := errors.New("mine")
			if err := client.Follow(t.Context(), "", 0, func(router.NomadEvent) error { return mine }); err != mine {
				t.Errorf("Follow = %v", err)
			}
		})
	})
}

func TestContractJobs(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		running := on.Fresh(t, env("WAIT", "60"))
		done := on.Fresh(t, env())
		waiting := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
		stopped := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
		before := time.Now().Add(-time.Minute)
		want := map[string]router.NomadJob{}
		for r, j := range map[*router.StartRequest]router.NomadJob{
			&running: {Status: "running"},
			&done:    {Status: "dead"},
			&waiting: {Status: "pending", Waiting: true},
			&stopped: {Status: "dead", Stopped: true},
		} {
			runner := on.Start(t, client, *r)
			j.ID, j.RunnerID, j.At = runner.NomadJob, runner.ID, runner.NomadAt
			j.JobID, j.RunID, j.Attempt, j.Repo = r.Job.ID, 7, 2, "acme/web"
			want[j.ID] = j
			if j.Stopped {
				if err := client.Stop(t.Context(), runner); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A dispatched one, and others' jobs that have similar names.
		parent := api.NewBatchJob("contract-"+running.Runner.ID, "parent", "global", 50)
		parent.ParameterizedJob = &api.ParameterizedJobConfig{MetaOptional: []string{metaJobID}}
		task := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true")
		task.Require(&api.Resources{CPU: new(50), MemoryMB: new(32)})
		parent.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task)).Constrain(api.NewConstraint("${meta.no_such}", "is_set", ""))
		other := *parent
		other.ID, other.ParameterizedJob = new("gha-"+running.Runner.ID), nil
		for _, j := range []*api.Job{parent, &other} {
			on.Purge(t, *j.ID)
			on.Register(t, j)
		}
		dispatched := on.Fresh(t, router.Placement{Dispatch: *parent.ID})
		runner := on.Start(t, client, dispatched)
		on.Purge(t, runner.NomadJob)
		want[runner.NomadJob] = router.NomadJob{
			ID: runner.NomadJob, RunnerID: runner.ID, At: runner.NomadAt, Status: "pending", Waiting: true, JobID: dispatched.Job.ID,
		}

		var wrong string
		for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			list, index, err := client.Jobs(t.Context(), "")
			if err != nil || index == 0 {
				t.Fatalf("Jobs = %d jobs at %d, %v", len(list), index, err)
			}
			found, differ := 0, ""
			for _, got := range list {
				if got.ID == *other.ID || got.ID == *parent.ID {
					t.Errorf("it lists %s", got.ID)
				}
				w, mine := want[got.ID]
				if !mine {
					continue
				}
				found++
				if got.Submitted.Before(before) || got.Submitted.After(time.Now().Add(time.Minute)) {
					t.Errorf("%s was submitted at %v", got.ID, got.Submitted)
				}
				if got.Submitted = (time.Time{}); got != w {
					differ += fmt.Sprintf("got  %+v\nwant %+v\n", got, w)
				}
			}
			if wrong = differ; wrong == "" && found != len(want) {
				wrong = fmt.Sprintf("%d of %d jobs are listed", found, len(want))
			}
			if wrong == "" {
				break
			}
		}
		if wrong != "" {
			t.Error(wrong)
		}
	})
}

// A stopped runner is not purged: its ID stays taken.
func TestContractStop(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		request := on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable})
		r := on.Start(t, client, request)
		for range 2 { // the second time changes nothing
			if err := client.Stop(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		on.ended(t, client, r)
		nomadtest.Await(t, "no evaluation to wait", func() bool {
			evals, _, err := on.Nomad.Jobs().Evaluations(r.NomadJob, nil)
			if err != nil {
				t.Fatal(err)
			}
			return !slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == "blocked" })
		})
		if !*on.Job(t, r.NomadJob).Stop {
			t.Error("it is not stopped")
		}
		if got, err := client.Start(t.Context(), request); err != nil || !got.Existed {
			t.Errorf("Start again = %+v, %v, want the stopped one", got, err)
		}
		if err := client.Stop(t.Context(), router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1", NomadAt: r.NomadAt}); err != nil {
			t.Errorf("Stop of one that is not there: %v", err)
		}
		if err := client.Stop(t.Context(), router.Runner{ID: "gha-1-1"}); err == nil {
			t.Error("one that was never registered is stopped")
		}
	})
}

func TestRunnerOf(t *testing.T) {
	for id, want := range map[string]string{
		"gha-1-1":         "gha-1-1",
		"gha-48001502-12": "gha-48001502-12",
		"docker/dispatch-gha-1-2-1700000000-0123abcd":  "gha-1-2",
		"gha-1-1/dispatch-gha-1-2-1700000000-0123abcd": "gha-1-2",
		"gha-1":                               "",
		"gha-1-1-1":                           "",
		"gha-01-1":                            "",
		"gha-+1-1":                            "",
		"gha-0-1":                             "",
		"gha--1-1":                            "",
		"gha-a-1":                             "",
		"GHA-1-1":                             "",
		"my-gha-1-1":                          "",
		"docker/dispatch-1700000000-0123abcd": "",
		"docker/dispatch-gha-1-2":             "",
		"gha-99999999999999999999-1":          "",
		"":                                    "",
	} {
		if got := runnerOf(id); got != want {
			t.Errorf("runnerOf(%q) = %q, want %q", id, got, want)
		}
	}
}

// Nomad that goes away, or that only seems to be there, ends Follow.
func TestFollowNoticesALostStream(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a stream that ends": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}\n") }, "Nomad ended the stream"},
		"a stream that never begins, as for a token that may not read": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/namespaces" {
				fmt.Fprint(w, "[]")
			}
		}, "no stream began"},
		"a stream that is cut": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{}`+"\n"+`{"Index":1,`)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "unexpected EOF"},
		"a stream that falls silent": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "{}\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "not even a heartbeat"},
		"an answer that never comes": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "not even a heartbeat"},
		"a refusal":                  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "No cluster leader", 500) }, "No cluster leader"},
		"what is no event stream":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "invalid character"},
	} {
		virtual(t, name, func(t *testing.T) {
			client := answered(t, c.answer)
			begin := time.Now()
			err := client.Follow(t.Context(), "", 0, func(router.NomadEvent) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Follow = %v after %v, want %q", err, time.Since(begin), c.want)
			}
		})
	}
}

// Nomad has no stream of all namespaces for a token that may not read them all.
func TestFollowOfSomeNamespaces(t *testing.T) {
	for name, namespaces := range map[string]string{
		"two of three":           `[{"Name":"ci"},{"Name":"apps"},{"Name":"secret"}]`,
		"two of three, with 403": `[{"Name":"ci"},{"Name":"apps"},{"Name":"secret"}]`,
		"none":                   `[{"Name":"secret"}]`,
		"no namespace":           `[]`,
	} {
		virtual(t, name, func(t *testing.T) {
			client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				namespace := r.URL.Query().Get("namespace")
				switch {
				case r.URL.Path == "/v1/namespaces":
					fmt.Fprint(w, namespaces)
				case (namespace == "*" || namespace == "secret") && strings.HasSuffix(name, "403"):
					http.Error(w, "Permission denied", http.StatusForbidden)
				case namespace == "*":
					panic(http.ErrAbortHandler)
				case namespace == "secret":
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				default:
					fmt.Fprintf(w, `{}
{"Index":7,"Events":[{"Topic":"Job","Type":"JobDeregistered","Key":"gha-1-1","Payload":{"Job":{"ID":"gha-1-1","Namespace":%q}}}]}
`, namespace)
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}))
			enough := errors.New("enough")
			var kinds []string
			seen := map[string]bool{}
			err := client.Follow(t.Context(), "", 0, func(e router.NomadEvent) error {
				kinds = append(kinds, string(e.Kind))
				if seen[e.At.Namespace] = true; seen["ci"] && seen["apps"] && seen[""] {
					return enough
				}
				return nil
			})
			if strings.HasPrefix(name, "two of three") {
				if err != enough || len(kinds) != 3 {
					t.Errorf("Follow = %v after %v", err, kinds)
				}
				return
			}
			wantKind(t, err, "fix", "read-job")
			if len(kinds) > 0 {
				t.Errorf("it told %v", kinds)
			}
		})
	}
}

// Before 1.11.3 Nomad does not say of a Nomad job that it is gone.
func TestAPurgeIsToldFromAStop(t *testing.T) {
	for payload, want := range map[string]string{
		`{"Job":{"ID":"gha-1-1","Namespace":"ci","ModifyIndex":9}}`:                "stopped",
		`{"Job":{"ID":"gha-1-1","Namespace":"ci","ModifyIndex":9},"Deleted":true}`: "purged",
		`{"Job":{"ID":"gha-1-1","Namespace":"ci","ModifyIndex":7}}`:                "purged",
	} {
		e, ok, err := streamed{Topic: "Job", Type: "JobDeregistered", Key: "gha-1-1", Index: 9, Payload: []byte(payload)}.event(nil)
		if err != nil || !ok || e.Kind != router.NomadStopped || e.Text != want {
			t.Errorf("%s is %+v, %t, %v; want %s", payload, e, ok, err, want)
		}
	}
}

// Nomad replaces what is lost with a node. The loss is told first.
func TestFollowALostNode(t *testing.T) {
	var nodes []*api.Node
	for _, name := range []string{"a", "b"} {
		nodes = append(nodes, nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 4096}))
	}
	on := target{nomadtest.Simulated(t, nomadsim.Config{Nodes: nodes})}
	client := newClient(t, on.Config)
	events := followed(t, client, 0)
	r := on.Start(t, client, on.Fresh(t, env("WAIT", "60")))
	started := upTo(t, events, r.NomadJob, router.NomadStarted)
	first := started[len(started)-1].Node
	if err := on.Sim.FailNode(first); err != nil {
		t.Fatal(err)
	}
	e := next(t, events, r.NomadJob)
	if e.Kind != router.NomadEnded || e.Node != first || e.Text != "lost: alloc is lost since its node is down" || e.Loss != router.LossNode {
		t.Errorf("first it is reported as %+v", e)
	}
	if e := next(t, events, r.NomadJob); e.Kind != router.NomadPlaced || e.Node == first {
		t.Errorf("then as %+v", e)
	}
	a, err := client.Allocation(t.Context(), r)
	if err != nil || a.Node == first || a.NodeAddr != "127.0.0.1" || a.Desired != "run" || a.Created.IsZero() {
		t.Errorf("its allocation is %+v, %v", a, err)
	}
}

// What takes a runner from its job is told with its end, and later.
func TestFollowWhatWasDrainedOrPreempted(t *testing.T) {
	for want, lose := range map[router.Loss]func(s *nomadsim.Server, node, job string) error{
		router.LossDrained:   func(s *nomadsim.Server, node, _ string) error { return s.DrainNode(node) },
		router.LossPreempted: func(s *nomadsim.Server, _, job string) error { return s.Preempt(job) },
		router.LossNode: func(s *nomadsim.Server, node, _ string) error {
			return errors.Join(s.FailNode(node), s.RestoreNode(node)) // which has it end by itself
		},
	} {
		on := target{nomadtest.Simulated(t, nomadsim.Config{Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "a", Kernel: "linux", Arch: "amd64", Cores: 4, MemoryMB: 4096})}})}
		client := newClient(t, on.Config)
		events := followed(t, client, 0)
		r := on.Start(t, client, on.Fresh(t, env("WAIT", "60")))
		upTo(t, events, r.NomadJob, router.NomadStarted)
		if _, err := client.End(t.Context(), r); !errors.Is(err, router.ErrNotFound) {
			t.Errorf("End of one that runs = %v", err)
		}
		if err := lose(on.Sim, "a", r.NomadJob); err != nil {
			t.Fatal(err)
		}
		ended := next(t, events, r.NomadJob)
		for ended.Kind != router.NomadEnded {
			ended = next(t, events, r.NomadJob)
		}
		if ended.Loss != want {
			t.Errorf("%s: it is reported as %+v", want, ended)
		}
		if e, err := client.End(t.Context(), r); err != nil || e.Loss != want || e.Node != "a" {
			t.Errorf("%s: End = %+v, %v", want, e, err)
		}
	}
}

// A runner that is preempted cancels its job before it ends. Meanwhile Nomad starts it again
// elsewhere, where it comes to nothing.
func TestFollowWhatIsInThePlaceOfAPreemptedAllocation(t *testing.T) {
	first, cancels := make(chan struct{}, 1), make(chan struct{})
	first <- struct{}{}
	on := target{nomadtest.Simulated(t, nomadsim.Config{Run: func(ctx context.Context, _ nomadsim.Task) int {
		select {
		case <-first:
			<-ctx.Done()
			<-cancels
		default:
		}
		return 1
	}})}
	client := newClient(t, on.Config)
	events := followed(t, client, 0)
	r := on.Start(t, client, on.Fresh(t, env()))
	upTo(t, events, r.NomadJob, router.NomadStarted)
	if err := on.Sim.Preempt(r.NomadJob); err != nil {
		t.Fatal(err)
	}
	end := func() router.NomadEvent {
		all := upTo(t, events, r.NomadJob, router.NomadEnded)
		return all[len(all)-1]
	}
	if e := end(); !e.Again || e.Loss != "" {
		t.Errorf("the end of the second one is %+v", e)
	}
	close(cancels)
	if e := end(); e.Again || e.Loss != router.LossPreempted {
		t.Errorf("the end of the first one is %+v", e)
	}
}

// As a real agent has them (2.0.5, 2026-11-30).
func TestWhyAnAllocationWasLost(t *testing.T) {
	for payload, want := range map[string]router.Loss{
		`"ClientStatus": "complete", "DesiredStatus": "stop", "DesiredDescription": "alloc is being migrated", "DesiredTransition": {"ForceReschedule": null, "Migrate": true, "MigrateDisablePlacement": true, "NoShutdownDelay": null, "Reschedule": null}`:  router.LossDrained,
		`"ClientStatus": "complete", "DesiredStatus": "stop", "DesiredDescription": "alloc is being migrated", "DesiredTransition": {"ForceReschedule": null, "Migrate": true, "MigrateDisablePlacement": null, "NoShutdownDelay": false, "Reschedule": true}`: "",
		`"ClientStatus": "complete", "DesiredStatus": "evict", "DesiredDescription": "Preempted by alloc ID 6f960f8c", "PreemptedByAllocation": "6f960f8c-1aff-ac85-ebcd-9b3ada60dba1"`:                                                                        router.LossPreempted,
		`"ClientStatus": "complete", "DesiredStatus": "stop", "DesiredDescription": "alloc not needed due to job update"`:                                                                                                                                      "",
		`"ClientStatus": "lost", "DesiredStatus": "stop", "DesiredDescription": "alloc is lost since its node is down"`:                                                                                                                                        router.LossNode,
		`"ClientStatus": "failed", "DesiredStatus": "run"`:  "",
		`"ClientStatus": "unknown", "DesiredStatus": "run"`: router.LossNode,
	} {
		e, ok, err := streamed{Topic: "Allocation", Key: "1", FilterKeys: []string{"gha-1-1"}, Payload: []byte(`{"Allocation": {"JobID": "gha-1-1", ` + payload + `}}`)}.event(map[string]string{})
		if err != nil || !ok || e.Loss != want {
			t.Errorf("%s is %+v, %t, %v; want %q", payload, e, ok, err, want)
		}
	}
}

// An outage of any kind ends Follow; afterwards a listing and another Follow
// go on from where it was.
func TestContractFollowAfterARestart(t *testing.T) {
	test := func(t *testing.T, on target, restart func()) {
		client := newClient(t, on.Config)
		before := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
		ended := make(chan error, 1)
		events := make(chan router.NomadEvent, 1000)
		go func() {
			ended <- client.Follow(context.Background(), "", 0, func(e router.NomadEvent) error { events <- e; return nil })
		}()
		seen := next(t, events, before.NomadJob)
		restart()
		select {
		case err := <-ended:
			t.Logf("Follow ended: %v", err)
		case <-time.After(5 * time.Minute):
			t.Fatal("Follow goes on over a restart")
		}
		var jobs []router.NomadJob
		var index uint64
		nomadtest.Await(t, "a listing", func() (ok bool) {
			var err error
			jobs, index, err = client.Jobs(t.Context(), "")
			return err == nil
		})
		if index < seen.Index || !slices.ContainsFunc(jobs, func(j router.NomadJob) bool { return j.ID == before.NomadJob && j.Waiting }) {
			t.Errorf("after event %d the listing at %d is %+v", seen.Index, index, jobs)
		}
		again := followed(t, client, index)
		after := on.Start(t, client, on.Fresh(t, router.Placement{Jobspec: "plain", Constraints: nomadtest.Unplaceable}))
		if e := next(t, again, after.NomadJob); e.Kind != router.NomadWaits || e.Index <= index {
			t.Errorf("the first event after index %d is %+v", index, e)
		}
		if err := client.Stop(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		if e := next(t, again, before.NomadJob); e.Kind != router.NomadStopped {
			t.Errorf("the stop of the one from before is reported as %+v", e)
		}
	}
	t.Run("real", func(t *testing.T) {
		server := nomadtest.StartServer(t)
		if server == nil {
			t.Skip("no nomad on PATH")
		}
		test(t, target{nomadtest.At(t, server.Addr)}, func() { server.Restart(t) })
	})
	t.Run("simulated", func(t *testing.T) {
		on := nomadtest.Simulated(t, nomadsim.Config{})
		test(t, target{on}, on.Sim.Restart)
	})
}

// A waiting runner is stopped before the one that takes its place, with the
// fallback's placement, is started.
func TestContractFallback(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		events := followed(t, client, 0)
		request := on.Fresh(t, router.Placement{Jobspec: "script", Constraints: nomadtest.Unplaceable})
		first := on.Start(t, client, request)
		if e := next(t, events, first.NomadJob); e.Kind != router.NomadWaits {
			t.Fatalf("the first event is %+v", e)
		}
		if err := client.Stop(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		request.Job.Try = 2
		request.Runner = router.Runner{ID: request.Job.RunnerID(), JobID: request.Job.ID, Try: 2, Name: request.Job.RunnerID()}
		request.Placement = router.Placement{Jobspec: "script"}
		on.Purge(t, request.Runner.ID)
		second := on.Start(t, client, request)
		if want := strings.TrimSuffix(first.NomadJob, "1") + "2"; second.NomadJob != want {
			t.Errorf("the second is %s, want %s", second.NomadJob, want)
		}
		if all := upTo(t, events, second.NomadJob, router.NomadEnded); !strings.HasPrefix(all[len(all)-1].Text, "complete") {
			t.Errorf("the second is reported as %+v", all)
		}
		if a, err := client.Allocation(t.Context(), first); !errors.Is(err, router.ErrNotFound) {
			t.Errorf("the first has allocation %+v, %v", a, err)
		}
		if ended, err := client.Ended(t.Context(), first); err != nil || !ended {
			t.Errorf("the first has ended: %v, %v", ended, err)
		}
	})
}

func TestContractAllocation(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		r := on.Start(t, client, on.Fresh(t, env("WAIT", "60")))
		on.Runs(t, client, r)
		a, err := client.Allocation(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if a.ID == "" || a.Desired != "run" || a.Node == "" || a.NodeID == "" || net.ParseIP(a.NodeAddr) == nil || time.Since(a.Created).Abs() > time.Minute {
			t.Errorf("its allocation is %+v", a)
		}
		if err := client.Stop(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		nomadtest.Await(t, "the stopped allocation to be complete", func() bool {
			if a, err = client.Allocation(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			return a.Desired == "stop" && a.Status == "complete"
		})
	})
}

// BenchmarkList lists the Nomad jobs of 10,000 live runners: from the
// simulator, or from SWITCHYARD_NOMAD_ADDR, whose answer takes time to make, and
// from a server that has the same answer at hand, which is what it costs here.
func BenchmarkList(b *testing.B) {
	const jobs = 10_000
	addr := os.Getenv("SWITCHYARD_NOMAD_ADDR")
	if addr == "" {
		sim := nomadsim.New(nomadsim.Config{})
		b.Cleanup(sim.Close)
		server := httptest.NewServer(sim)
		b.Cleanup(server.Close)
		addr = server.URL
	}
	set, err := jobspecs.Load("")
	if err != nil {
		b.Fatal(err)
	}
	client, err := New(Config{Jobspecs: set, API: &api.Config{Address: addr}})
	if err != nil {
		b.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(8)
	for i := range jobs {
		g.Go(func() error {
			r := nomadtest.Request(router.Placement{Jobspec: "docker-linux", Constraints: nomadtest.Unplaceable})
			r.Job.ID, r.Job.Try = int64(48_000_000_000+i), 1
			r.Runner.ID, r.Runner.Name = r.Job.RunnerID(), r.Job.RunnerID()
			r.ClaimToken = router.Secret(strings.Repeat("t", 43))
			_, err := client.Start(b.Context(), r)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	list := func(b *testing.B, client *Client) {
		b.ReportAllocs()
		for b.Loop() {
			got, _, err := client.Jobs(b.Context(), "")
			if err != nil || len(got) < jobs {
				b.Fatalf("%d jobs, %v", len(got), err)
			}
		}
	}
	b.Run("jobs=10000", func(b *testing.B) { list(b, client) })
	resp, err := http.Get(addr + "/v1/jobs?" + url.Values{"filter": {ours}, "meta": {"true"}, "namespace": {"*"}}.Encode())
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("jobs=10000/answer at hand", func(b *testing.B) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(body)
		}))
		defer server.Close()
		ready, err := New(Config{Jobspecs: set, API: &api.Config{Address: server.URL}})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(body)))
		list(b, ready)
	})
}
