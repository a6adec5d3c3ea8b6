package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/rulebook"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

type checkFlags struct {
	specDir, format string
	strict, live    bool
	accept          []string // codes
	history         string
	login           serveFlags // to GitHub
}

func checkCommand() *cobra.Command {
	var f checkFlags
	login := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.login.loginFlags(login)
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check rules for faults and likely mistakes",
		Long: `Check reports every fault of a rules file, or of a directory of them, with its
place. It also warns about likely mistakes: rules that never win, labels that no
job can use, runners that GitHub may give to another rule's jobs, and so on.
rules/README.md lists the codes.

With --live it also asks the cluster at NOMAD_ADDR whether what the rules name
exists, and whether today's nodes could serve each route. With a login to GitHub
and a --history it asks GitHub whether the runner groups exist, and allow the
repositories of the recorded jobs, and how long it supports the runners' versions.

Exit codes: 0, no fault; 1, faults (with --strict, warnings count as faults);
2, could not tell.`,
		Example: "  switchyard check --strict rules.example.yaml",
		Args:    exactlyOne("rules file", "switchyard check rules.example.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flagsFromEnv(login); err != nil {
				return err
			}
			return f.check(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0])
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.strict, "strict", false, "treat warnings as faults")
	fl.StringSliceVar(&f.accept, "accept", nil, "`codes` of warnings that stay warnings with --strict, such as empty-pool")
	fl.BoolVar(&f.live, "live", false, "also ask the Nomad cluster at NOMAD_ADDR, which needs node:read and submit-job, and GitHub")
	fl.BoolVar(&f.live, "nomad", false, "the earlier name of --live")
	fl.StringVar(&f.history, "history", "", "`file` of recorded jobs, or a database, as for diff: whose runner groups --live asks GitHub about")
	fl.AddFlagSet(login)
	fl.StringVar(&f.format, "format", "text", "text, json or github")
	jobspecsFlag(fl, &f.specDir, "`directory` of your own jobspecs, besides the built-in ones")
	return cmd
}

// jobspecsFlag adds --jobspecs, whose default is the same environment variable as
// for serve.
func jobspecsFlag(fl *pflag.FlagSet, dir *string, usage string) {
	fl.StringVar(dir, "jobspecs", os.Getenv(envName("jobspecs")), usage+" (SWITCHYARD_JOBSPECS)")
}

// checkTimeout bounds the checks without Nomad, as in the console for a draft.
const checkTimeout = 10 * time.Second

var errCheckTimeout = fmt.Errorf("it takes longer than %v", checkTimeout)

func (f *checkFlags) check(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, path string) error {
	if err := checkFormat(f.format, "text", "json", "github"); err != nil {
		return err
	}
	if f.history != "" && !f.live {
		return errors.New("--history is for --live: it says which repositories GitHub is asked about")
	}
	for _, code := range f.accept {
		if known := append(append(rules.Warnings(), capacity.Warnings()...), groupRefuses, runnerTooOld); !slices.Contains(known, code) {
			return fmt.Errorf("--accept %s: no such warning; want any of %s", code, strings.Join(known, ", "))
		}
	}
	specs, err := jobspecs.Load(f.specDir)
	if err != nil {
		return fmt.Errorf("load jobspecs: %w", err)
	}
	within, cancel := context.WithTimeoutCause(ctx, checkTimeout, errCheckTimeout)
	defer cancel()
	files, set, found, err := loadPath(within, path)
	if err != nil {
		return err
	}
	var unasked error // the checks are incomplete; the findings are shown all the same
	if set != nil {
		if found, err = rulebook.Lint(within, set, specs); err != nil {
			return err
		}
		if said := saysOldBuild(telemetry.ThisBuild().Date, time.Now(), set, specs); said != "" {
			fmt.Fprintf(stderr, "warning: %s\n", said)
		}
		if within.Err() != nil {
			unasked = fmt.Errorf("check %s completely: %w", path, context.Cause(within))
		} else if f.live {
			said, refused := f.checkGitHub(ctx, stdin, stderr, set, specs)
			found = append(found, said...)
			said, unasked = survey(ctx, stderr, set, specs)
			found = append(found, said...)
			if n := len(slices.DeleteFunc(said, func(d rules.Diagnostic) bool { return d.Code != capacity.CannotTell })); n > 0 && unasked == nil {
				unasked = fmt.Errorf("the Nomad at NOMAD_ADDR could not answer for %s", router.Count(n, "rule"))
			}
			unasked = errors.Join(refused, unasked)
			slices.SortStableFunc(found, func(a, b rules.Diagnostic) int {
				return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
			})
		}
	}
	faults := 0
	for i := range found {
		found[i].Warning = found[i].Warning && (!f.strict || slices.Contains(f.accept, found[i].Code))
		if !found[i].Warning {
			faults++
		}
	}
	switch f.format {
	case "json":
		err = writeJSON(stdout, map[string]any{"files": rulebook.Names(files), "findings": append(rules.Diagnostics{}, found...)})
	case "github":
		for _, d := range found {
			level := "error"
			if d.Warning {
				level = "warning"
			}
			err = errors.Join(err, annotate(stdout, level, d.File, d.Line, d.Column, d.Code, d.Message))
		}
	default:
		writeFindings(stderr, files, found)
		if unasked != nil {
			break
		}
		if set != nil && faults == 0 {
			said := fmt.Sprintf("%s: no faults, %s", path, router.Count(len(set.Rules()), "rule"))
			if n := len(found); n > 0 {
				said += ", " + router.Count(n, "warning")
			}
			_, err = fmt.Fprintln(stdout, said)
		} else {
			fmt.Fprintf(stderr, "%s: %s\n", path, router.Count(faults, "fault"))
		}
	}
	if err = cmp.Or(err, unasked); err == nil && faults > 0 {
		return errNo
	}
	return err
}

// survey asks Nomad about the placements that the rules can choose. It warns of an
// untried release on stderr, because that belongs to no line of a file.
func survey(ctx context.Context, stderr io.Writer, set *rules.Set, specs *jobspecs.Set) (rules.Diagnostics, error) {
	client, err := nomad.New(nomad.Config{Jobspecs: specs})
	if err != nil {
		return nil, err
	}
	if r, err := client.Releases(ctx); err == nil && r.Untried() != "" { // CheckRules meets the same error
		fmt.Fprintf(stderr, "warning: %s\n", r.Untried())
	}
	found, err := capacity.New(client).CheckRules(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("ask the Nomad at NOMAD_ADDR: %w", err)
	}
	return found, nil
}

// exactlyOne requires one argument as cobra.ExactArgs(1) does, with a hint.
func exactlyOne(what, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want one %s, got %d arguments; for example: %s", what, len(args), example)
		}
		return nil
	}
}

// loadRules loads the built-in jobspecs, those of specDir ("" for none), and the
// rules at path, and checks that the rules' jobspecs exist. It prints the rules'
// faults; the error is then errNo.
func loadRules(ctx context.Context, stderr io.Writer, path, specDir string) (*rules.Set, *jobspecs.Set, error) {
	specs, err := jobspecs.Load(specDir)
	if err != nil {
		return nil, nil, fmt.Errorf("load jobspecs: %w", err)
	}
	set, err := loadRulesFor(ctx, stderr, path, specs)
	return set, specs, err
}

// loadRulesFor loads rules as loadRules does, for jobspecs that are loaded already;
// with nil it does not check that they exist.
func loadRulesFor(ctx context.Context, stderr io.Writer, path string, specs *jobspecs.Set) (*rules.Set, error) {
	files, set, faults, err := loadPath(ctx, path)
	if err != nil {
		return nil, err
	}
	if set != nil && specs != nil {
		faults = set.CheckJobspecs(specs.Names())
	}
	if len(faults) == 0 {
		return set, nil
	}
	writeFindings(stderr, files, faults)
	fmt.Fprintf(stderr, "%s: %s\n", path, router.Count(len(faults), "fault"))
	return nil, errNo
}

// loadPath reads and loads the rules at path; set is nil when there are faults.
func loadPath(ctx context.Context, path string) (files []rules.File, set *rules.Set, faults rules.Diagnostics, err error) {
	if files, err = rulebook.ReadRules(ctx, path); err == nil {
		set, faults, err = rulebook.Load(ctx, files)
		return files, set, faults, err
	}
	if faults, err = rulebook.Faults(err); err != nil {
		err = fmt.Errorf("read the rules: %w", err)
	}
	return nil, nil, faults, err
}
