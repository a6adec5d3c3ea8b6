package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/intake"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

const (
	doctorTimeout = time.Minute      // of each look
	clockOff      = 10 * time.Second // from which a clock is wrong; GitHub refuses an App whose clock is 30 s ahead
)

func doctorCommand() *cobra.Command {
	var d doctor
	settings := pflag.NewFlagSet("", pflag.ContinueOnError)
	d.serve.doctorFlags(settings)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at all that a server needs, and say how to mend what is wrong",
		Long: `Doctor looks at what a server with these flags needs: its rules, files and
database; whether it runs, what its status says, and whether nodes reach it; Nomad,
its token's capabilities, nodes and their clients' settings, and the runner's
images and version; GitHub's App, permissions, events and deliveries; and the
clocks. It prints a line for each thing that is wrong, with what to do about it,
and changes nothing. Run it where the server runs, with the same environment:
each flag but --format can be set there, as for serve.

Clients' settings need agent { policy = "read" }, which the server does not.

Exit codes: 0, nothing is wrong; 1, something is; 2, nothing was found, but not
all could be looked at.`,
		Example: "  switchyard doctor --rules rules.yaml --public-url http://10.0.0.5:8080",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(d.operator.format, "text", "json"); err != nil {
				return err
			}
			if err := flagsFromEnv(settings); err != nil {
				return err
			}
			return d.write(cmd.OutOrStdout(), cmd.ErrOrStderr(), d.look(cmd.Context()))
		},
	}
	cmd.Flags().AddFlagSet(settings)
	d.operator.flags(cmd.Flags())
	return cmd
}

// doctorFlags adds the flags of serve that doctor looks at.
func (f *serveFlags) doctorFlags(fl *pflag.FlagSet) {
	fl.StringVar(&f.rules, "rules", "", "rules `PATH`, and these, as for serve:")
	fl.StringVar(&f.specDir, "jobspecs", "", "`directory` of your own jobspecs")
	fl.StringVar(&f.publicURL, "public-url", "", "`URL` where runners reach the server")
	fl.StringVar(&f.db, "db", "switchyard.db", "the server's `database`")
	fl.StringSliceVar(&f.webhookSecretFiles, "webhook-secret-file", nil, "`file` of the webhook's secret")
	f.loginFlags(fl)
	fl.StringVar(&f.intake.Intake, "github-intake", intakeWebhook, "how deliveries come: webhook, poll or both")
	fl.StringSliceVar(&f.intake.PollHooks, "github-poll-hook", nil, "`webhooks` whose deliveries are read")
}

// A finding is something that is wrong. Its JSON form is a contract, and so are those of the
// other parts of an examination.
type finding struct {
	Check string `json:"check"` // what was looked at, such as "database"
	Says  string `json:"says"`  // what is wrong
	Mend  string `json:"mend"`  // what to do
}

// An unseen is something that was not looked at.
type unseen struct {
	Check  string `json:"check"`
	Why    string `json:"why"`
	Failed bool   `json:"failed"` // somebody did not answer; false: something was not given
}

// An examination is what doctor found.
type examination struct {
	Findings    []finding `json:"findings"` // never null
	NotLookedAt []unseen  `json:"not_looked_at"`
}

func (e *examination) add(check, says, mend string) {
	e.Findings = append(e.Findings, finding{check, router.OneLine(says), router.OneLine(mend)})
}

// fault adds an error, with what it says is to be done, or else mend.
func (e *examination) fault(check string, err error, mend string) {
	if fix, ok := errors.AsType[*router.FixError](err); ok {
		e.add(check, strings.TrimSuffix(err.Error(), ": "+fix.Fix), fix.Fix)
		return
	}
	e.add(check, err.Error(), mend)
}

func (e *examination) skip(check, why string) {
	e.NotLookedAt = append(e.NotLookedAt, unseen{check, router.OneLine(why), false})
}

// failed adds what could not be looked at; one that an operator must mend is a finding.
func (e *examination) failed(check string, err error) {
	if errors.As(err, new(*router.FixError)) {
		e.fault(check, err, "")
		return
	}
	e.NotLookedAt = append(e.NotLookedAt, unseen{check, router.OneLine(err.Error()), true})
}

// A doctor looks at what a server needs.
type doctor struct {
	serve    serveFlags
	operator operator

	set    *rules.Set       // nil: there is none that can be used
	specs  *jobspecs.Set    // likewise
	github *gh.Client       // nil: no login
	polls  []intake.Poll    // of deliveries that are read
	nomad  *capacity.Client // nil: NOMAD_ADDR is wrong
}

// look looks at everything, at what does not depend on each other at the same time.
func (d *doctor) look(ctx context.Context) examination {
	var first examination
	d.settings(ctx, &first)
	looks := []func(context.Context, *examination){
		d.lookAtDatabase, d.lookAtServer, d.lookAtPublicURL, d.lookAtNomad, d.lookAtClients, d.lookAtImages, d.lookAtGitHub, d.lookAtVersions,
	}
	each := make([]examination, len(looks))
	var all sync.WaitGroup
	for i, look := range looks {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
			defer cancel()
			look(ctx, &each[i])
		})
	}
	all.Wait()
	found := examination{Findings: []finding{}, NotLookedAt: []unseen{}}
	for _, e := range append([]examination{first}, each...) {
		for _, f := range e.Findings {
			if !slices.Contains(found.Findings, f) { // several looks meet the same refusal
				found.Findings = append(found.Findings, f)
			}
		}
		for _, u := range e.NotLookedAt {
			if !slices.Contains(found.NotLookedAt, u) {
				found.NotLookedAt = append(found.NotLookedAt, u)
			}
		}
	}
	return found
}

// write prints an examination; its error has the exit code.
func (d *doctor) write(stdout, stderr io.Writer, e examination) (err error) {
	if d.operator.format == "json" {
		err = writeJSON(stdout, e)
	} else {
		for _, f := range e.Findings {
			_, bad := fmt.Fprintf(stdout, "%s: %s; do: %s\n", f.Check, router.Printable(f.Says), router.Printable(f.Mend))
			err = cmp.Or(err, bad)
		}
		for _, u := range e.NotLookedAt {
			fmt.Fprintf(stderr, "not looked at: %s: %s\n", u.Check, router.Printable(u.Why))
		}
		if len(e.Findings) == 0 {
			_, err = fmt.Fprintln(stdout, "nothing is wrong")
		}
	}
	switch {
	case err != nil:
		return err
	case len(e.Findings) > 0:
		return errNo
	case slices.ContainsFunc(e.NotLookedAt, func(u unseen) bool { return u.Failed }):
		return &exitError{code: exitUnknown}
	}
	return nil
}

// settings reads the flags and files, and prepares the other looks.
func (d *doctor) settings(ctx context.Context, e *examination) {
	f := &d.serve
	f.githubSide = telemetry.NewMetrics().GitHub
	d.readRules(ctx, e)
	if f.intake.receives() {
		if _, _, err := f.webhookSecrets(); err != nil {
			e.fault("webhook-secret", err, "write the secret of the webhook on GitHub to that file, readable by the server alone")
		}
	}
	client, err := f.github()
	if err != nil {
		e.fault("github-login", err, "give the login by the flags of serve, in files that the server alone may read")
	} else {
		d.github = client
		if d.polls, err = f.intake.polls(router.Instance{}, client, func(name string) string { return "--github-" + name }); err != nil {
			e.add("github-intake", err.Error(), "correct the flag")
		}
	}
	specs := d.specs
	if specs == nil {
		specs = new(jobspecs.Set)
	}
	cluster, err := nomad.New(nomad.Config{Jobspecs: specs})
	if err != nil {
		e.fault("nomad", err, "set NOMAD_ADDR and the other variables of the nomad command")
		return
	}
	d.nomad = capacity.New(cluster)
}

// readRules reads the rules and jobspecs as serve does.
func (d *doctor) readRules(ctx context.Context, e *examination) {
	f := &d.serve
	specs, err := jobspecs.Load(f.specDir)
	if err != nil {
		e.add("jobspecs", err.Error(), "correct the file, or --jobspecs")
		return
	}
	d.specs = specs
	if f.rules == "" {
		e.add("rules", "--rules PATH is missing", "give the rules of serve; switchyard init writes some to begin with")
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errCheckTimeout)
	defer cancel()
	_, set, faults, err := loadPath(ctx, f.rules)
	if err == nil && set != nil {
		faults = set.CheckJobspecs(specs.Names())
	}
	switch {
	case err != nil:
		e.add("rules", err.Error(), "correct --rules")
		return
	case len(faults) > 0:
		more := ""
		if n := len(faults) - 1; n > 0 {
			more = fmt.Sprintf(" (and %s more)", router.Count(n, "fault"))
		}
		e.add("rules", faults[0].String()+more, "correct the rules: switchyard check "+f.rules+" shows each fault")
		return
	}
	d.set = set
	if report := set.Test(ctx, set.Tests()); report.Failed > 0 {
		e.add("rules", router.Count(report.Failed, "test")+" of the rules failed", "correct the rules: switchyard test "+f.rules+" shows why")
	}
	if said := saysOldBuild(telemetry.ThisBuild().Date, time.Now(), set, specs); said != "" {
		says, mend, _ := strings.Cut(said, ". ")
		e.add("runner-version", says, mend)
	}
}

// placements returns those that the rules can choose, without those of single labels.
func (d *doctor) placements() (list []rules.Example) {
	if d.set == nil {
		return nil
	}
	return slices.DeleteFunc(d.set.Examples(), func(x rules.Example) bool { return x.Label != "" })
}
