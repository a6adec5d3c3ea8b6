package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/web/api"
)

func fleetCommand() *cobra.Command {
	var o operator
	var nodes, export bool
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Show Nomad's nodes and which rules they could serve",
		Long: `Fleet asks a running server which nodes Nomad has, by platform, class and pool,
and how many of them could serve the simplest job of each rule: now, when they
are idle, if they were in service (away), or never, and the first reason why not.

With --export it asks the Nomad at NOMAD_ADDR instead, and prints a fleet file for
switchyard simulate: the nodes in service, less what others than runners use.

Exit codes: 0, there is a node in service for each rule; 1, for some rule there
is none; 2, could not tell.`,
		Example: "  switchyard fleet --nodes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if export {
				return exportFleet(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			var f router.Fleet
			err := show(cmd, &o, func(ctx context.Context) (router.Fleet, error) {
				for {
					f = router.Fleet{}
					err := o.ask(ctx, http.MethodGet, api.Prefix+"/fleet", nil, nil, &f)
					if err != nil || f.Reading == nil || ctx.Err() != nil {
						return f, err
					}
				} // the server waits before it answers, and gives up in the end
			}, func(out io.Writer, f router.Fleet, columns int, now time.Time) error {
				return writeFleet(out, f, nodes, columns, now)
			})
			switch {
			case err != nil:
				return err
			case f.At == nil:
				return &exitError{code: exitUnknown} // the cause is printed
			}
			for _, r := range f.Rules {
				if r.Now+r.Idle == 0 {
					return errNo
				}
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&nodes, "nodes", false, "also list each node")
	fl.BoolVar(&export, "export", false, "print a fleet file of the Nomad cluster at NOMAD_ADDR, which needs node:read and read-job on all namespaces")
	o.flags(fl)
	return cmd
}

func writeFleet(out io.Writer, f router.Fleet, nodes bool, columns int, now time.Time) error {
	if p := f.Problem; p != nil {
		said := fmt.Sprintf("Nomad has not answered for %s: %s", ago(now, p.Since), router.Printable(p.Reason))
		if f.At != nil {
			said += fmt.Sprintf("\nthis is the state of %s ago", ago(now, *f.At))
		}
		if _, err := fmt.Fprintln(out, said+"\n"); err != nil {
			return err
		}
	}
	if f.At == nil {
		return nil
	}
	t := table{columns: columns}
	t.row("OS", "ARCH", "CLASS", "POOL", "NODES", "READY", "CPU", "MEMORY")
	for _, g := range f.Groups {
		t.row(cmp.Or(g.OS, "-"), cmp.Or(g.Arch, "-"), cmp.Or(g.Class, "-"), cmp.Or(g.Pool, "-")+inRegion(g.Region), strconv.Itoa(g.Nodes), strconv.Itoa(g.Ready), share(g.Used.CPU, g.Total.CPU, 1000, "GHz"), share(g.Used.MemoryMB, g.Total.MemoryMB, 1024, "GiB"))
	}
	if nodes {
		t.row()
		t.row("NODE", "STATE", "CLASS", "POOL", "DATACENTER", "RUNNING", "CPU", "MEMORY")
		for _, n := range f.Nodes {
			t.row(n.Name, n.State, cmp.Or(n.Class, "-"), n.Pool+inRegion(n.Region), n.Datacenter, strconv.Itoa(n.Running), share(n.Used.CPU, n.Total.CPU, 1000, "GHz"), share(n.Used.MemoryMB, n.Total.MemoryMB, 1024, "GiB"))
		}
		if f.More > 0 {
			t.row(fmt.Sprintf("and %d more", f.More))
		}
	}
	if err := t.write(out); err != nil {
		return err
	}
	t = table{columns: columns}
	t.row()
	t.row("RULE", "NOW", "IDLE", "AWAY", "NEVER", "WHY")
	for _, r := range f.Rules {
		t.row(r.Rule, strconv.Itoa(r.Now), strconv.Itoa(r.Idle), strconv.Itoa(r.Away), strconv.Itoa(r.Never), why(r))
	}
	return t.write(out)
}

// why returns the most common reason why no node in service can serve a rule.
func why(r router.RuleFleet) string {
	if r.Problem != "" || r.Now > 0 {
		return r.Problem
	}
	nodes := map[string]int{}
	most := ""
	for _, c := range r.Cells {
		for _, w := range c.Why {
			nodes[w.Text] += w.Nodes
			if most == "" || nodes[w.Text] > nodes[most] {
				most = w.Text
			}
		}
	}
	if most == "" {
		return ""
	}
	if nodes[most] == 1 {
		return "1 node " + most
	}
	return fmt.Sprintf("each of %d nodes %s", nodes[most], most)
}

func share(used, total, unit int, name string) string {
	return fmt.Sprintf("%.3g of %.4g %s", float64(used)/float64(unit), float64(total)/float64(unit), name)
}

// inRegion names a region other than that of the server's Nomad client.
func inRegion(name string) string {
	if name == "" {
		return ""
	}
	return " in " + name
}
