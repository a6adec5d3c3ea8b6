package capacity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

// The policy of jobspecs/install.md is all that a client's token needs, and when a
// part of it is missing, the error names it.
func TestThePolicyOfTheInstallationIsEnough(t *testing.T) {
	addr, management := nomadtest.WithACLs(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
	}
	readme, err := os.ReadFile("../../../jobspecs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(readme), "```hcl\n")
	policy, _, _ = strings.Cut(policy, "```")
	admin, err := api.NewClient(&api.Config{Address: addr, SecretID: management})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Namespaces().Register(&api.Namespace{Name: "teams"}, nil); err != nil { // which rules do not name
		t.Fatal(err)
	}
	// token makes a token for the policy with some words replaced.
	token := func(t *testing.T, name, words, by string) *Client {
		t.Helper()
		if !strings.Contains(policy, words) {
			t.Fatalf("the policy does not say %s:\n%s", words, policy)
		}
		text := strings.ReplaceAll(policy, words, by)
		if _, err := admin.ACLPolicies().Upsert(&api.ACLPolicy{Name: name, Rules: text}, nil); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		made, _, err := admin.ACLTokens().Create(&api.ACLToken{Name: name, Type: "client", Policies: []string{name}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, &api.Config{Address: addr, SecretID: made.SecretID})
	}
	start := func(t *testing.T, client *Client, id int64, p router.Placement) router.Runner {
		t.Helper()
		r := nomadtest.Request(p)
		r.Job.ID, r.Job.Try = id, 1
		r.Runner = router.Runner{ID: r.Job.RunnerID(), JobID: id, Try: 1, Name: r.Job.RunnerID()}
		got, err := client.Start(t.Context(), r)
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		r.Runner.NomadJob, r.Runner.NomadAt = got.NomadJob, got.At
		return r.Runner
	}
	classic := &api.Job{ID: new("classic"), Type: new("batch"), ParameterizedJob: &api.ParameterizedJobConfig{}, TaskGroups: []*api.TaskGroup{{
		Name: new("g"), Tasks: []*api.Task{{Name: "t", Driver: "raw_exec", Config: map[string]any{"command": "/usr/bin/env"}}},
	}}}
	if _, _, err := admin.Jobs().Register(classic, nil); err != nil {
		t.Fatal(err)
	}
	shell := router.Placement{Jobspec: "shell"}
	waiting := router.Placement{Jobspec: "shell", Constraints: nomadtest.Unplaceable}
	parsed := router.Placement{Jobspec: "burst", Constraints: nomadtest.Unplaceable} // JSON: Nomad need not parse it

	client := token(t, "whole", "", "")
	_, index, err := client.Jobs(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ran, waits := start(t, client, 1, shell), start(t, client, 2, waiting)
	if jobs, _, err := client.Jobs(t.Context(), ""); err != nil || len(jobs) != 2 {
		t.Errorf("Jobs: %v, %v, want 2", jobs, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := errors.New("seen")
	if err := client.Follow(ctx, "", index, func(e router.NomadEvent) error {
		if e.Job == ran.NomadJob && e.Kind == router.NomadEnded {
			return seen
		}
		return nil
	}); !errors.Is(err, seen) {
		t.Errorf("Follow does not see the runner's end: %v", err)
	}
	if r, err := client.Releases(t.Context()); err != nil || r.Untried() != "" {
		t.Errorf("Releases = %v, %v", r, err)
	}
	if a, err := client.Allocation(t.Context(), ran); err != nil || a.NodeAddr == "" {
		t.Errorf("Allocation = %+v, %v", a, err)
	}
	unplacedNow(t, client, router.Job{ID: 2}, waits)
	if found, err := client.Survey(t.Context(), []Route{{Rule: "r", Placement: waiting}}); err != nil || len(found) != 1 || found[0].Code != NoNode {
		t.Errorf("Survey = %v, %v", found, err)
	}
	if err := client.Stop(t.Context(), waits); err != nil {
		t.Errorf("Stop: %v", err)
	}
	nomadtest.Await(t, "the stop to be evaluated", func() bool {
		ended, err := client.Ended(t.Context(), waits)
		if err != nil {
			t.Fatalf("Ended = %v, %v", ended, err)
		}
		return ended
	})

	// survey asks about one placement; what it cannot tell is a finding.
	survey := func(c *Client, p router.Placement) error {
		found, err := c.Survey(t.Context(), []Route{{Rule: "r", Placement: p}})
		for _, f := range found {
			if f.Code == CannotTell {
				err = &router.FixError{Fix: f.Message, Err: errors.New(f.Message)}
			}
		}
		return err
	}
	for i, tt := range []struct {
		name     string
		without  [2]string // words of the policy, and what stands in their place
		ask      func(*Client) error
		wantFix  string
		together string // what else the error says
	}{
		{"start", [2]string{`, "submit-job"`}, func(c *Client) error {
			_, err := c.Start(t.Context(), nomadtest.Request(parsed))
			return err
		}, "submit-job on namespace default", "register job"},
		{"start by HCL", [2]string{`, "submit-job"`}, func(c *Client) error { // which has it, too
			_, err := c.Start(t.Context(), nomadtest.Request(waiting))
			return err
		}, "parse-job on namespace default", "parse jobspec"},
		{"stop", [2]string{`, "submit-job"`}, func(c *Client) error { return c.Stop(t.Context(), ran) }, "submit-job on namespace default", "stop job"},
		{"ended", [2]string{`, "read-job"`}, func(c *Client) error { _, err := c.Ended(t.Context(), ran); return err }, "read-job on namespace default", ""},
		{"allocation", [2]string{`, "read-job"`}, func(c *Client) error { _, err := c.Allocation(t.Context(), ran); return err }, "read-job on namespace default", ""},
		{"unplaced", [2]string{`, "read-job"`}, func(c *Client) error {
			_, err := c.Unplaced(t.Context(), router.Job{ID: 2}, waits)
			return err
		}, "read-job on namespace default", ""},
		{"jobs", [2]string{`"list-jobs", `}, func(c *Client) error { _, _, err := c.Jobs(t.Context(), ""); return err }, "list-jobs", "list jobs"},
		{"survey", [2]string{`policy = "read"`, `policy = "deny"`}, func(c *Client) error { return survey(c, waiting) }, `node { policy = "read" }`, "list nodes"},
		{"releases", [2]string{`policy = "read"`, `policy = "deny"`}, func(c *Client) error { _, err := c.Releases(t.Context()); return err },
			`node { policy = "read" }`, "list Nomad's servers"},
		{"survey of a namespace", [2]string{`, "submit-job"`}, func(c *Client) error { return survey(c, parsed) }, "submit-job on namespace default", "plan a job"},
		{"survey, of the listing", [2]string{`"list-jobs", `}, func(c *Client) error { return survey(c, parsed) }, "list-jobs on namespace default", "ask for"},
		{"survey, of reading", [2]string{`"read-job", `}, func(c *Client) error { return survey(c, parsed) }, "read-job on namespace default", "ask for"},
		{"survey, of dispatching", [2]string{}, func(c *Client) error { return survey(c, router.Placement{Dispatch: "classic"}) }, "dispatch-job on namespace default", "ask for"},
	} {
		t.Run("without a part of it, "+tt.name+" names the part", func(t *testing.T) {
			err := tt.ask(token(t, fmt.Sprint("part-", i), tt.without[0], tt.without[1]))
			if fix, ok := errors.AsType[*router.FixError](err); !ok || !strings.Contains(fix.Fix, tt.wantFix) || !strings.Contains(err.Error(), tt.together) {
				t.Errorf("error %v, want a FixError that names %s", err, tt.wantFix)
			}
		})
	}
}
