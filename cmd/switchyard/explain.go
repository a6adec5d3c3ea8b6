package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	nomadapi "github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/webhook"
	"switchyard/rules"
)

// claimPlaceholder is the claim token of a Nomad job that is only shown.
const claimPlaceholder = "(made when the job is registered)"

type explainFlags struct {
	rules, specDir, publicURL     string
	repo, visibility, payload     string
	host                          string
	labels                        []string
	fork                          bool
	job, workflow, branch, sender string
	render                        string
	run                           string
	all                           bool
	operator                      // if its server is set, the rules in force there decide
}

// A labelsFlag is a job's runs-on, as people type or paste it.
type labelsFlag []string

func (l *labelsFlag) String() string { return rules.ShowLabels(*l) }
func (l *labelsFlag) Type() string   { return "labels" }
func (l *labelsFlag) Set(text string) error {
	*l = append(append(labelsFlag{}, *l...), rules.ParseLabels(text)...)
	return nil
}

func explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain (--rules FILE | --server URL) (--repo OWNER/NAME --labels a,b,c | --payload FILE)",
		Short: "Show what the rules decide for a job, and why",
		Long: `Explain decides a job as the server would, and shows where each part of the
decision comes from and why each earlier rule did not take the job. With --server
it uses the rules that a running server has in force, and says how the job would
stand among those that wait for a place under its limit.

Exit codes: 0, routed; 1, not routed, with the reason; 2, could not tell.`,
		Example: "  switchyard explain --rules rules.example.yaml --repo acme/web --labels self-hosted,linux,x64",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.explain(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), cmd.InOrStdin())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rules, "rules", "", "rules `file`, or directory of them")
	fl.StringVar(&f.server, "server", "", "`URL` of a server's --admin-listen, for its rules; without --rules also SWITCHYARD_SERVER")
	f.tokenFlag(fl)
	fl.StringVar(&f.repo, "repo", "", "repository of the job, as `owner/name`")
	fl.StringVar(&f.host, "host", rules.DefaultHost, "`host` of the job's GitHub")
	fl.Var((*labelsFlag)(&f.labels), "labels", "the job's `labels`, separated by commas, or a list as in a workflow")
	fl.StringVar(&f.payload, "payload", "", "`file` with a workflow_job webhook body instead; - for standard input")
	fl.StringVar(&f.visibility, "visibility", "private", "the repository's `visibility`: private, internal or public")
	fl.BoolVar(&f.fork, "fork", false, "the repository is a fork")
	fl.StringVar(&f.job, "job", "", "job `name`")
	fl.StringVar(&f.workflow, "workflow", "", "workflow `name`")
	fl.StringVar(&f.branch, "branch", "", "head `branch`")
	fl.StringVar(&f.sender, "sender", "", "`login` of the person who caused the job")
	fl.StringVar(&f.run, "run", "", "the workflow `run`, as event=push,fork=true,actor=octocat, for rules that ask for it")
	fl.BoolVar(&f.all, "all", false, "show every rule, including those after the one that took the job")
	fl.StringVar(&f.format, "format", "text", "text or json")
	fl.StringVar(&f.render, "render", "", "json: print the Nomad job that would be registered instead")
	jobspecsFlag(fl, &f.specDir, "`directory` of your own jobspecs; the Nomad at NOMAD_ADDR parses HCL ones")
	fl.StringVar(&f.publicURL, "public-url", "http://127.0.0.1:8080", "the server's --public-url, for --render")
	return cmd
}

func (f *explainFlags) explain(ctx context.Context, stdout, stderr io.Writer, stdin io.Reader) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.render != "" && f.render != "json" {
		return fmt.Errorf("--render %q: want json", f.render)
	}
	if f.rules == "" && f.server == "" {
		f.server = os.Getenv(envName("server"))
	}
	switch {
	case f.rules == "" && f.server == "":
		return errors.New("--rules FILE is missing; for example: --rules rules.example.yaml; or give --server URL, for the rules that a server has in force")
	case f.rules != "" && f.server != "":
		return errors.New("--rules and --server exclude each other: leave one out")
	}
	job, err := f.describedJob(stdin)
	if err != nil {
		return err
	}
	run, err := describedRun(f.run)
	if err != nil {
		return err
	}
	var answer api.Answer
	if f.server != "" {
		answer, err = f.ask(ctx, job, run)
	} else {
		answer, err = f.decide(ctx, stderr, job, run)
	}
	if err != nil {
		return err
	}
	d := answer.Decision
	switch {
	case f.render == "json" && d.Outcome == rules.Routed:
		if answer.NotRendered != "" {
			return errors.New(router.Printable(answer.NotRendered))
		}
		var rendered struct{ Job *nomadapi.Job }
		if err := json.Unmarshal(answer.NomadJob, &rendered); err != nil {
			return err
		}
		if err := writeJSON(stdout, rendered); err != nil {
			return err
		}
	case f.render == "json":
		fmt.Fprintf(stderr, "switchyard: %s: %s\n", d.Outcome, router.Printable(d.Reason))
	case f.format == "json":
		if err := writeJSON(stdout, d); err != nil {
			return err
		}
	default:
		if err := writeDecision(stdout, d); err != nil {
			return err
		}
		if answer.Warm != "" {
			fmt.Fprintf(stdout, "\nwarm runners: %s\n", router.Printable(answer.Warm))
		}
		if q := answer.Queue; q != nil {
			fmt.Fprintf(stdout, "\nif it came now: %s\nit would start %s\n", router.Printable(q.Standing()), router.Printable(q.Starts(time.Now())))
		}
	}
	switch d.Outcome {
	case rules.Routed:
		return nil
	case rules.Undecided:
		return &exitError{exitUnknown, fmt.Errorf("describe the run, for example: --run event=pull_request,fork=true,actor=octocat")}
	}
	return errNo
}

// decide decides the job by the rules file.
func (f *explainFlags) decide(ctx context.Context, stderr io.Writer, job router.Job, run *rules.Run) (api.Answer, error) {
	set, specs, err := loadRules(ctx, stderr, f.rules, f.specDir)
	if errors.Is(err, errNo) {
		return api.Answer{}, &exitError{code: exitUnknown} // the faults are printed; the job cannot be decided
	}
	if err != nil {
		return api.Answer{}, err
	}
	facts := job.Facts()
	facts.Run = run
	answer := api.Answer{Decision: api.Decide(set, facts, f.all)}
	if set.HasWarm(answer.Decision.Rule) {
		answer.Warm = set.WarmPlan().Says(&answer.Decision, time.Now())
	}
	if f.render == "" || answer.Decision.Outcome != rules.Routed {
		return answer, nil
	}
	client, err := nomad.New(nomad.Config{Jobspecs: specs})
	if err != nil {
		return answer, err
	}
	answer.NomadJob, err = clusterAdapter{capacity.New(client), f.publicURL}.Render(ctx, job, answer.Decision)
	return answer, err
}

// ask has a running server decide the job.
func (f *explainFlags) ask(ctx context.Context, job router.Job, run *rules.Run) (answer api.Answer, err error) {
	q := api.Question{
		Repo: job.Repo.FullName, Host: job.Repo.Host, Visibility: job.Repo.Visibility, Fork: job.Repo.Fork, Labels: append([]string{}, job.Labels...),
		Job: job.Name, Workflow: job.Workflow, Branch: job.Branch, Sender: job.Sender, Attempt: job.Attempt, Run: run, All: f.all, Render: f.render != "", Queue: f.format == "text" && f.render == "",
	}
	if q.Visibility == "" && !job.Repo.Private {
		q.Visibility = "public"
	}
	err = f.operator.ask(ctx, http.MethodPost, api.Prefix+"/explain", nil, q, &answer)
	return answer, err
}

// describedRun parses --run; "" is an unknown run, nil.
func describedRun(s string) (*rules.Run, error) {
	if s == "" {
		return nil, nil
	}
	run := &rules.Run{}
	for part := range strings.SplitSeq(s, ",") {
		key, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "event":
			run.Event = v
		case "actor":
			run.Actor = v
		case "fork":
			var err error
			if run.Fork, err = strconv.ParseBool(v); err != nil {
				return nil, fmt.Errorf("--run fork=%q: want true or false", v)
			}
		default:
			return nil, fmt.Errorf("--run %q: want event=…, fork=true or false, and actor=…, separated by commas", part)
		}
	}
	return run, nil
}

// describedJob returns the job that the flags or the payload describe, on its
// first try.
func (f *explainFlags) describedJob(stdin io.Reader) (router.Job, error) {
	if f.payload != "" {
		if f.repo != "" || f.labels != nil {
			return router.Job{}, errors.New("--payload already has the repository and the labels: leave --repo and --labels out")
		}
		body, err := readFile(f.payload, stdin)
		if err != nil {
			return router.Job{}, fmt.Errorf("read the payload: %w", err)
		}
		d, err := webhook.Decode(body)
		if err != nil {
			return router.Job{}, fmt.Errorf("payload %s: %w", f.payload, err)
		}
		d.Job.Try, d.Job.Repo.Host = 1, f.host
		return d.Job, nil
	}
	if f.labels == nil {
		return router.Job{}, errors.New("--labels a,b,c is missing: the job's runs-on; or give a webhook body by --payload FILE")
	}
	job, err := api.Question{
		Repo: f.repo, Host: f.host, Visibility: f.visibility, Fork: f.fork, Labels: f.labels,
		Job: f.job, Workflow: f.workflow, Branch: f.branch, Sender: f.sender,
	}.Described()
	if err != nil {
		err = fmt.Errorf("--%w", err) // it begins with the name of the field, which is the flag's
	}
	return job, err
}

func readFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// A clusterAdapter makes a capacity.Client a api.Cluster, with rendered jobs as JSON.
type clusterAdapter struct {
	*capacity.Client
	publicURL string
}

// Render returns the Nomad job as `nomad job run -json` takes it.
func (c clusterAdapter) Render(ctx context.Context, job router.Job, decision rules.Decision) (json.RawMessage, error) {
	id := job.RunnerID()
	request := router.StartRequest{
		Runner: router.Runner{ID: id, JobID: job.ID, Try: job.Try, State: router.RunnerDispatched, Name: id},
		Job:    job, Rule: decision.Rule, Placement: decision.Placement,
		ClaimURL: strings.TrimSuffix(c.publicURL, "/") + router.ClaimPath, ClaimToken: claimPlaceholder,
	}
	if decision.Runner.Verify {
		request.VerifyURL, request.VerifyToken = strings.TrimSuffix(c.publicURL, "/")+router.VerifyPath, claimPlaceholder
	}
	rendered, err := c.Client.Render(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("render the Nomad job: %w", err)
	}
	var b bytes.Buffer
	err = writeJSON(&b, map[string]any{"Job": rendered})
	return b.Bytes(), err
}

// writeDecision prints a decision for people: one sentence, the placement with the
// origin of each part, and the trace.
func writeDecision(w io.Writer, d rules.Decision) error {
	fmt.Fprintf(w, "%s: %s\n", d.Outcome, router.Printable(d.Reason))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(what, value, from string) {
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", what, router.Printable(value), router.Printable(from))
	}
	if d.Outcome == rules.Routed {
		fmt.Fprintln(tw)
		for _, r := range web.PlacementRows(d) {
			row(r.What, r.Value, r.From)
		}
	}
	if len(d.Labels) > 0 {
		fmt.Fprintf(tw, "\n  labels\t%s\n", router.Printable(rules.ShowLabels(d.Labels)))
	}
	if n := d.Nearest; n != nil {
		fmt.Fprintf(tw, "\nthe nearest rule is %s:\n", n.Rule)
		for _, m := range n.Missing {
			fmt.Fprintf(tw, "  %s\n", router.Printable(m))
		}
		if len(n.Missing) == 0 {
			fmt.Fprintln(tw, "  its condition fails for this job")
		}
	}
	if len(d.Trace) > 0 {
		fmt.Fprintln(tw, "\nrules, in order:")
		for _, r := range web.TraceRows(d) {
			fmt.Fprintf(tw, "  %s\t%s\t%s\n", r.Held, r.Rule, router.Printable(r.Why))
		}
	}
	return tw.Flush()
}
