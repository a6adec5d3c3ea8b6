package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/simulate"
	"switchyard/router/store"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	liveFleet    = "live"
	toldEvery    = 2 * time.Second  // between two lines of progress
	exportWithin = 60 * time.Second // for reading all nodes
)

type simulateFlags struct{ history, fleet, rules, scale, format, specDir string }

func simulateCommand() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate --history FILE --fleet FILE",
		Short: "Replay recorded jobs on a fleet, and tell how long they would wait",
		Long: `Simulate decides recorded jobs by the rules, and places them on a simulated fleet
as Nomad would, when they came and for as long as they ran. It tells how long they
would have waited, by rule, how far the nodes were used, and which nodes would help or
could go.

The history is a file of switchyard jobs export, or a server's database (even while
it is in use). The fleet is a file that is written by hand or by switchyard fleet
--export, or live: the nodes of the Nomad cluster at NOMAD_ADDR as they are now.

Exit codes: 0, simulated; 2, failed.`,
		Example: "  switchyard simulate --history history.jsonl --fleet fleet.yaml --rules rules.yaml --scale x1.5",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.simulate(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.history, "history", "", "`file` of recorded jobs, or a database (required); - for JSON lines on standard input")
	fl.StringVar(&f.fleet, "fleet", "", "`file` of nodes, or live (required)")
	fl.StringVar(&f.rules, "rules", "", "rules `file` or directory; those in the database when left out")
	fl.StringVar(&f.scale, "scale", "x1", "how many times as many jobs there are, such as x1.5")
	fl.StringVar(&f.format, "format", "text", "text or json")
	jobspecsFlag(fl, &f.specDir, "`directory` of your own jobspecs, besides the built-in ones; the Nomad at NOMAD_ADDR parses them")
	return cmd
}

func (f *simulateFlags) simulate(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkFormat(f.format, "text", "json"); err != nil {
		return err
	}
	if f.history == "" || f.fleet == "" {
		return errors.New("want --history FILE, an export of switchyard jobs export or a database, and --fleet FILE, a fleet file or live")
	}
	scale, err := strconv.ParseFloat(strings.TrimPrefix(f.scale, "x"), 64)
	if err != nil || !(0 < scale && scale <= simulate.MaxScale) { // NaN, too
		return fmt.Errorf("--scale %q: want such as x1.5, more than 0 and at most x%d", f.scale, simulate.MaxScale)
	}
	specs, err := jobspecs.Load(f.specDir)
	if err != nil {
		return fmt.Errorf("load jobspecs: %w", err)
	}
	set, err := f.loadRules(ctx, stderr, specs)
	if errors.Is(err, errNo) {
		return &exitError{code: exitUnknown} // the faults are printed
	}
	if err != nil {
		return err
	}
	client, err := nomad.New(nomad.Config{Jobspecs: specs})
	if err != nil {
		return err
	}
	nodes, err := f.readFleet(ctx, stderr, client)
	if err != nil {
		return err
	}
	told := time.Now()
	r, err := simulate.Run(ctx, simulate.Config{
		Rules: set, Nodes: nodes, Render: client.JobOf, Scale: scale, Advise: runtime.GOMAXPROCS(0),
		Progress: func(p simulate.Progress) {
			if time.Since(told) < toldEvery {
				return
			}
			told = time.Now()
			of := ""
			if p.Of > 0 {
				of = " of " + thousands(p.Of)
			}
			fmt.Fprintf(stderr, "%s: %s%s jobs\n", router.Printable(p.Doing), thousands(p.Done), of)
		},
	}, readPast(ctx, f.history, stdin))
	if err != nil {
		return err
	}
	if f.format == "json" {
		return writeJSON(stdout, r)
	}
	columns, _ := width(stdout)
	return writeSimulated(stdout, r, columns)
}

// loadRules loads the rules of the flag, or else those that the history's database has.
func (f *simulateFlags) loadRules(ctx context.Context, stderr io.Writer, specs *jobspecs.Set) (*rules.Set, error) {
	if f.rules != "" {
		return loadRulesFor(ctx, stderr, f.rules, specs)
	}
	if !isDatabase(f.history) {
		return nil, errors.New("--rules FILE is missing: a history that is no database has no rules")
	}
	r, err := store.OpenReadOnly(ctx, f.history)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	set, err := keptRules(ctx, r)
	if errors.Is(err, router.ErrNotFound) {
		return nil, errors.New("the database has no rules: name them with --rules FILE")
	}
	return set, err
}

func (f *simulateFlags) readFleet(ctx context.Context, stderr io.Writer, client *nomad.Client) ([]*api.Node, error) {
	if f.fleet == liveFleet {
		return readNodes(ctx, stderr, client)
	}
	src, err := os.ReadFile(f.fleet)
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	nodes, err := simulate.ReadFleet(f.fleet, src)
	if found, ok := errors.AsType[rules.Diagnostics](err); ok {
		writeFindings(stderr, []rules.File{{Name: f.fleet, Source: src}}, found)
		return nil, &exitError{code: exitUnknown}
	}
	return nodes, err
}

// readNodes asks Nomad for the nodes in service.
func readNodes(ctx context.Context, stderr io.Writer, client *nomad.Client) ([]*api.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, exportWithin)
	defer cancel()
	nodes, out, err := capacity.New(client).Nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the Nomad at NOMAD_ADDR for its nodes: %w", err)
	}
	if out > 0 {
		fmt.Fprintf(stderr, "%s out of service left out\n", things(out, "node"))
	}
	return nodes, nil
}

// exportFleet prints a fleet file of the live cluster.
func exportFleet(ctx context.Context, stdout, stderr io.Writer) error {
	client, err := nomad.New(nomad.Config{Jobspecs: &jobspecs.Set{}})
	if err != nil {
		return err
	}
	nodes, err := readNodes(ctx, stderr, client)
	if err != nil {
		return err
	}
	text, err := simulate.WriteFleet(nodes)
	if err != nil {
		return err
	}
	_, err = stdout.Write(text)
	return err
}

func writeSimulated(w io.Writer, r simulate.Report, columns int) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s on %s, %s to %s", things(r.Jobs, "job"), things(r.Nodes, "node"), r.From.Format("2006-01-02 15:04"), r.Until.Format("2006-01-02 15:04 MST"))
	if r.Scale != 1 {
		fmt.Fprintf(out, ", x%g", r.Scale)
	}
	fmt.Fprintln(out)
	for _, l := range r.LeftOut {
		fmt.Fprintf(out, "left out: %s: %s\n", things(l.Jobs, "job"), router.Printable(l.Why))
	}
	t := table{columns: columns}
	t.row()
	t.row("RULE", "JOBS", "SEEN 50%", "SEEN 95%", "WAIT 50%", "WAIT 95%", "WAIT 99%", "LONGEST", "PLACE 95%", "NODE 95%", "START 95%")
	for _, row := range append(r.Rules, r.Total) {
		cells := []string{cmp.Or(row.Rule, "TOTAL"), thousands(row.Jobs)}
		for _, s := range []float64{row.Recorded.P50, row.Recorded.P95, row.Queue.P50, row.Queue.P95, row.Queue.P99, row.Queue.Max, row.Limit.P95, row.Node.P95, row.Start.P95} {
			switch {
			case row.Jobs == 0:
				cells = append(cells, "-")
			case s == 0:
				cells = append(cells, "0s")
			default:
				cells = append(cells, short(time.Duration(s*float64(time.Second))))
			}
		}
		t.row(cells...)
	}
	err := t.write(out)
	t = table{columns: columns}
	t.row()
	t.row("OS", "ARCH", "CLASS", "POOL", "NODES", "USED", "AT ONCE", "CPU", "MEMORY", "DEVICES")
	for _, g := range r.Groups {
		percent := func(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }
		t.row(cmp.Or(g.OS, "-"), cmp.Or(g.Arch, "-"), cmp.Or(g.Class, "-"), cmp.Or(g.Pool, "-"), thousands(g.Nodes), thousands(g.Used), thousands(g.AtOnce),
			percent(g.CPU), percent(g.Memory), percent(g.Devices))
	}
	err = errors.Join(err, t.write(out))
	for _, row := range r.Rules {
		if row.Never > 0 {
			fmt.Fprintf(out, "\n%s of rule %s could never start:\n", things(row.Never, "job"), router.Printable(row.Rule))
			for _, why := range row.Why {
				fmt.Fprintf(out, "  %s\n", router.Printable(why))
			}
		}
	}
	for i, a := range r.Advice {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, advice(a))
	}
	return errors.Join(err, out.Flush())
}

// advice says which nodes would help, or could go.
func advice(a simulate.Advice) string {
	where := router.Printable(cmp.Or(a.OS, "-") + " " + cmp.Or(a.Arch, "-"))
	if a.Class != "" {
		where += ", class " + router.Printable(a.Class)
	}
	where += ", pool " + router.Printable(a.Pool)
	waits := func(s float64) string { return short(time.Duration(s * float64(time.Second))) }
	if a.More > 0 {
		verb := "bring"
		if a.More == 1 {
			verb = "brings"
		}
		return fmt.Sprintf("%s more %s (%s) %s the 95%% of rule %s from %s to %s", thousands(a.More), router.Printable(a.Like), where, verb, router.Printable(a.Rule), waits(a.Before), waits(a.After))
	}
	said := fmt.Sprintf("%s could go (%s)", things(-a.More, "node"), where)
	if a.Unused > 0 {
		said += fmt.Sprintf(": %s of them never had a job", thousands(a.Unused))
	}
	if a.Rule != "" {
		said += fmt.Sprintf("; without them the 95%% of rule %s is %s instead of %s", router.Printable(a.Rule), waits(a.After), waits(a.Before))
	}
	return said
}

// A simulator replays the jobs of a server's database on its cluster, for the console.
type simulator struct {
	store *store.Store
	nomad *capacity.Client
}

// Simulate implements web.Simulator.
func (s simulator) Simulate(ctx context.Context, set *rules.Set, since time.Time, most int, scale float64) (simulate.Report, error) {
	nodes, _, err := s.nomad.Nodes(ctx)
	if err != nil {
		return simulate.Report{}, problem.New(http.StatusServiceUnavailable, "Nomad does not say which nodes it has: %v", err)
	}
	jobs := func(yield func(router.PastJob, error) bool) {
		n := 0
		for j, err := range s.store.History(ctx, since) {
			if n++; n > most || !yield(j.Past(), err) {
				return
			}
		}
	}
	// One at a time: the router needs the processors, too.
	r, err := simulate.Run(ctx, simulate.Config{Rules: set, Nodes: nodes, Render: s.nomad.JobOf, Scale: scale, Advise: 1}, jobs)
	switch {
	case errors.Is(err, simulate.ErrNoJobs):
		err = problem.New(http.StatusNotFound, "%v", err)
	case ctx.Err() != nil:
		err = problem.New(http.StatusServiceUnavailable, "it takes too long: choose fewer days, or use switchyard simulate")
	}
	return r, err
}
