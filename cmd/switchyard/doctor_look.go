package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/store"
	webapi "switchyard/router/web/api"
	"switchyard/router/web/problem"
)

func (d *doctor) lookAtDatabase(ctx context.Context, e *examination) {
	r, err := store.OpenReadOnly(ctx, d.serve.db)
	switch {
	case err == nil:
		_ = r.Close()
	case errors.Is(err, fs.ErrNotExist):
		if _, running := d.operator.ready(ctx); running != nil { // else the server has it elsewhere
			e.add("database", err.Error(), "start the server, which makes it, or correct --db")
		}
	default:
		e.fault("database", err, "see that this user may read it, and run switchyard db check --db "+d.serve.db)
	}
}

// lookAtServer asks the running server what it knows.
func (d *doctor) lookAtServer(ctx context.Context, e *examination) {
	if _, err := d.operator.ready(ctx); err != nil {
		e.add("server", err.Error(), "start the server, or name its --admin-listen by --server")
		return
	}
	var s router.Status
	err := d.operator.ask(ctx, http.MethodGet, webapi.Prefix+"/status", nil, nil, &s)
	if said, ok := errors.AsType[*problem.Details](err); ok && (said.Status == http.StatusUnauthorized || said.Status == http.StatusForbidden) {
		e.skip("status", "the server's status needs a token: --token-file FILE")
		return
	}
	if err != nil {
		e.failed("status", fmt.Errorf("ask for the status: %w", err))
		return
	}
	for _, t := range s.Troubles {
		if t.Severity == router.Info {
			continue
		}
		says := t.What
		if t.Said != "" {
			says += ": " + t.Said
		}
		e.add("status", says, t.Fix)
	}
}

func (d *doctor) lookAtPublicURL(ctx context.Context, e *examination) {
	const check = "public-url"
	at, err := url.Parse(d.serve.publicURL)
	switch {
	case d.serve.publicURL == "":
		e.add(check, "--public-url URL is missing", "give the address at which the runners on Nomad's clients reach --listen, such as http://10.0.0.5:8080")
		return
	case err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https":
		e.add(check, fmt.Sprintf("--public-url %q is not the URL of a server", d.serve.publicURL), "write it as http://10.0.0.5:8080, or https")
		return
	}
	ip, _ := netip.ParseAddr(at.Hostname())
	if here := at.Hostname() == "localhost" || ip.IsLoopback() || ip.IsValid() && ip.IsUnspecified(); here {
		if node := d.otherNode(ctx); node != "" {
			e.add(check, fmt.Sprintf("%s means each node itself, and %s is another machine than the server's", d.serve.publicURL, node), "give serve --public-url an address that the nodes reach")
			return
		}
	}
	if at.Scheme == "http" && ip.IsValid() && ip.IsGlobalUnicast() && !ip.IsPrivate() {
		e.add(check, "the runners' configurations go over the Internet in clear: "+d.serve.publicURL, "use https, by a proxy with a certificate")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.serve.publicURL, "/")+router.ClaimPath, nil)
	if err != nil {
		e.add(check, err.Error(), "correct --public-url")
		return
	}
	resp, err := (&http.Client{Timeout: readyTimeout}).Do(req)
	if err != nil {
		e.add(check, router.WithoutLocalPort(err).Error(), "see that the server listens at --listen, and that proxies and firewalls let runners through to it")
		return
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(string(said), "a claim needs ") {
		e.add(check, fmt.Sprintf("what answers at %s is not Switchyard: %s", req.URL, resp.Status), "let the address lead to --listen of the server, with the path "+router.ClaimPath)
	}
}

// otherNode returns the name and address of a node in service that is another machine; "": none
// is known.
func (d *doctor) otherNode(ctx context.Context) string {
	if d.nomad == nil {
		return ""
	}
	nodes, _, err := d.nomad.API().Nodes().List((&api.QueryOptions{PerPage: 500}).WithContext(ctx))
	if err != nil {
		return "" // another look says so
	}
	own := map[string]bool{}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				own[p.Addr().String()] = true
			}
		}
	}
	for _, n := range nodes {
		if n.Status == "ready" && !own[n.Address] {
			return fmt.Sprintf("node %s (%s)", n.Name, n.Address)
		}
	}
	return ""
}

// lookAtNomad asks Nomad what check --live asks.
func (d *doctor) lookAtNomad(ctx context.Context, e *examination) {
	if d.nomad == nil {
		return
	}
	releases, err := d.nomad.Releases(ctx)
	if err != nil {
		e.fault("nomad", err, "see that NOMAD_ADDR is right, that the agent runs, and that its servers have a leader")
		return
	}
	if said := releases.Untried(); said != "" {
		says, mend, _ := strings.Cut(said, "; ")
		e.add("nomad-release", says, mend)
	}
	switch ahead, err := d.nomad.Ahead(ctx); {
	case err != nil:
		e.failed("clock", err)
	case ahead.Abs() > clockOff:
		e.add("clock", saysAhead(ahead, "the agent at NOMAD_ADDR"), "set the clocks of both machines by NTP")
	}
	if d.set == nil {
		return
	}
	found, err := d.nomad.CheckRules(ctx, d.set)
	if err != nil {
		e.failed("nomad-rules", err)
		return
	}
	for _, f := range found {
		if f.Code == capacity.NoNode && f.Warning {
			continue // a label that no node has now: the status says when a job asks for it
		}
		at := fmt.Sprintf("%s:%d", f.File, f.Line)
		switch f.Code {
		case capacity.EmptyPool, capacity.NotAsked:
			e.skip("nomad-rules", f.Message)
		case capacity.CannotTell:
			if says, fix, ok := strings.Cut(f.Message, ": set NOMAD_TOKEN "); ok {
				fix, _, _ = strings.Cut(fix, " (a job with ")
				fix = "set NOMAD_TOKEN " + fix
				if !slices.ContainsFunc(e.Findings, func(have finding) bool { return have.Mend == fix }) { // once for all rules
					e.add("nomad-token", says, fix)
				}
			} else {
				e.failed("nomad-rules", errors.New(f.Message))
			}
		case capacity.NoNode:
			e.add("nodes", f.Message, mendOfNodes(f.Message, at))
		default:
			e.add("nomad-rules", f.Message, "correct it at "+at+", or on Nomad")
		}
	}
}

func saysAhead(ahead time.Duration, whose string) string {
	if ahead < 0 {
		return fmt.Sprintf("this machine's clock is %v behind that of %s", -ahead.Round(time.Second), whose)
	}
	return fmt.Sprintf("this machine's clock is %v ahead of that of %s", ahead.Round(time.Second), whose)
}

var (
	lacksMeta   = regexp.MustCompile(`\$\{meta\.([A-Za-z0-9_.-]+)\}`)
	lacksDriver = regexp.MustCompile(`lacks? the driver (\S+) in working order`)
)

// mendOfNodes says what to do when no node could run a rule's runners.
func mendOfNodes(message, at string) string {
	if m := lacksDriver.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("make the driver %s work on the nodes, see nomad node status -verbose NODE", m[1])
	}
	if m := lacksMeta.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("set client { meta { %s = … } } on the nodes that have it, as the head of the jobspec says, or correct %s", m[1], at)
	}
	return "add a node that fits, or ask for less at " + at
}

// lookAtClients compares the settings of Nomad's clients with what the runners need.
func (d *doctor) lookAtClients(ctx context.Context, e *examination) {
	if d.nomad == nil || d.set == nil {
		return
	}
	faults, unasked, err := d.nomad.CheckClients(ctx, d.set)
	if err != nil {
		if !errors.As(err, new(*router.FixError)) { // lookAtNomad meets that too
			e.failed("clients", err)
		}
		return
	}
	for _, f := range faults {
		e.add(f.Setting, onNodes(f.Nodes)+": "+f.Says, f.Fix)
	}
	for _, u := range unasked {
		if fix, ok := errors.AsType[*router.FixError](u.Err); ok && strings.Contains(fix.Fix, nomad.AgentRead) {
			e.skip("clients", "the settings of "+onNodes(u.Nodes)+" need a NOMAD_TOKEN with "+nomad.AgentRead)
		} else {
			e.skip("clients", "the settings of "+onNodes(u.Nodes)+": "+u.Err.Error())
		}
	}
}

// onNodes names nodes for people.
func onNodes(names []string) string {
	const most = 3
	text := "node " + strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// lookAtImages asks the registries whether they have the runners' images.
func (d *doctor) lookAtImages(ctx context.Context, e *examination) {
	if d.nomad == nil {
		return
	}
	var images []string
	for _, x := range d.placements() {
		if x.Placement.Dispatch != "" {
			continue
		}
		job, err := d.nomad.Render(ctx, router.StartRequest{Runner: router.Runner{ID: "gha-0-0", Name: "gha-0-0"}, Rule: x.Rule, Placement: x.Placement})
		if err != nil {
			continue // lookAtNomad says so
		}
		for _, g := range job.TaskGroups {
			for _, task := range g.Tasks {
				if image, _ := task.Config["image"].(string); task.Driver == "docker" && image != "" && !slices.Contains(images, image) {
					images = append(images, image)
				}
			}
		}
	}
	for _, image := range images {
		switch found, err := imageExists(ctx, image); {
		case errors.Is(err, errImageLogin):
			e.skip("image", image+": "+err.Error())
		case err != nil:
			e.skip("image", fmt.Sprintf("%s: its registry cannot be asked from here: %v", image, err))
		case !found:
			e.add("image", image+": its registry has no such image", "correct its name in the rule or its jobspec")
		}
	}
}
