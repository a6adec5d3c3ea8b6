package capacity

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/rules"
)

const (
	maxClients    = 50              // nodes that are asked for their configuration
	clientsAtOnce = 8               // of them, at the same time
	clientWithin  = 5 * time.Second // for the answer of one

	// leastImageDelay is how long a node should keep an image after its last use, so that the
	// next job need not wait for it.
	leastImageDelay = time.Hour
	ownImageDelay   = 3 * time.Minute // of the docker driver
)

// The settings of a client that CheckClients compares.
const (
	MaxKillTimeout = "max_kill_timeout"
	DeniedEnvvars  = "denied_envvars"
	ImageDelay     = "image_delay"
)

// A ClientFault is a setting of clients that does not suit the runners which their nodes get.
type ClientFault struct {
	Setting   string   // one of the constants above
	Nodes     []string // names, sorted, with the region if it is not the client's own
	Says, Fix string   // of one line each
}

// An Unasked is nodes whose configuration could not be read.
type Unasked struct {
	Nodes []string // as of a ClientFault
	Err   error    // classified as for nomad.Client.Start
}

// CheckClients compares the settings of clients with what runners need: those that the rules can
// place on their nodes. It asks the agents of at most 50 nodes in service in each region, each at
// its own address, and changes nothing. What else keeps a rule from working is CheckRules', and so
// is a region that does not answer. An error means that it could not be found out which nodes the
// client's own region has. It needs node read and agent read.
func (c *Client) CheckClients(ctx context.Context, set *rules.Set) (faults []ClientFault, unasked []Unasked, err error) {
	asks := c.askedOf(ctx, set)
	for _, name := range slices.Sorted(maps.Keys(asks)) { // the client's own region first
		in, err := c.region(ctx, name, func() {})
		switch {
		case err != nil && name != "" && ctx.Err() == nil:
			continue
		case err != nil:
			return nil, nil, err
		}
		hosts := slices.DeleteFunc(slices.Clone(in.hosts), func(h *host) bool { return h.out != "" })
		slices.SortFunc(hosts, func(a, b *host) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id)) })
		details, err := in.details.read(ctx, c, hosts, func(int) {})
		if err != nil {
			return nil, nil, err
		}
		nameOf := func(h *host) string {
			if name == "" {
				return h.name
			}
			return h.name + " in region " + name
		}
		needs := clientNeeds(asks[name], hosts, details)
		hosts = slices.DeleteFunc(hosts, func(h *host) bool { return needs[h.id] == nil })
		if len(hosts) > maxClients {
			left := Unasked{Err: fmt.Errorf("only %d nodes of a region are asked", maxClients)}
			for _, h := range hosts[maxClients:] {
				left.Nodes = append(left.Nodes, nameOf(h))
			}
			hosts, unasked = hosts[:maxClients], append(unasked, left)
		}
		found := make([][]ClientFault, len(hosts))
		failed := make([]error, len(hosts))
		var all errgroup.Group
		all.SetLimit(clientsAtOnce)
		for i, h := range hosts {
			all.Go(func() error {
				within, cancel := context.WithTimeout(ctx, clientWithin)
				defer cancel()
				config, err := c.ClientConfig(within, name, h.id)
				if failed[i] = err; err == nil {
					found[i] = needs[h.id].faults(config)
				}
				return nil
			})
		}
		_ = all.Wait()
		for i, h := range hosts {
			if err := failed[i]; err != nil {
				unasked = collect(unasked, func(u *Unasked) bool { return u.Err.Error() == err.Error() }, Unasked{Err: err}, func(u *Unasked) { u.Nodes = append(u.Nodes, nameOf(h)) })
			}
			for _, f := range found[i] {
				faults = collect(faults, func(have *ClientFault) bool { return have.Says == f.Says && have.Setting == f.Setting }, f, func(have *ClientFault) { have.Nodes = append(have.Nodes, nameOf(h)) })
			}
		}
	}
	return faults, unasked, ctx.Err()
}

// collect calls add with the first element that is like another, which is appended if there is none.
func collect[T any](all []T, like func(*T) bool, another T, add func(*T)) []T {
	for i := range all {
		if like(&all[i]) {
			add(&all[i])
			return all
		}
	}
	add(&another)
	return append(all, another)
}

// A clientNeed is what the runners of a node need of its client.
type clientNeed struct {
	kill   time.Duration     // the longest kill_timeout
	whose  string            // jobspec that has it
	driver map[string]string // the jobspec of a runner, by its task's driver
}

// An asked is what the runners of a rule ask for.
type asked struct {
	route Route
	job   *api.Job
}

// askedOf returns what the runners of the rules ask for, by region; "": the client's own, which is
// always there.
func (c *Client) askedOf(ctx context.Context, set *rules.Set) map[string][]asked {
	of, asks := map[string][]asked{"": nil}, &survey{Client: c, regions: map[string]*region{}, asked: map[string]*allowance{}}
	var routes []Route
	for _, e := range set.Examples() {
		if e.Label == "" {
			routes = append(routes, Route{Rule: e.Rule, Labels: e.Labels, Placement: e.Placement})
		}
	}
	for _, same := range group(routes) {
		r := routes[same[0]]
		job, problems, err := asks.job(ctx, r)
		if err != nil || problems != nil || len(job.TaskGroups) != 1 {
			continue
		}
		region := nomad.ScopeOf(job).Region
		of[region] = append(of[region], asked{r, job})
	}
	return of
}

// clientNeeds returns what is needed of each node that some runners can be placed on, by ID.
func clientNeeds(runners []asked, hosts []*host, details map[string]*detail) map[string]*clientNeed {
	needs := map[string]*clientNeed{}
	for _, a := range runners {
		f := newFitting(a.route, a.job)
		for _, h := range hosts {
			d := details[h.id]
			if d == nil {
				continue
			}
			if v, _ := f.of(&machine{host: h, detail: d}); v != fitsNow {
				continue
			}
			if needs[h.id] == nil {
				needs[h.id] = &clientNeed{driver: map[string]string{}}
			}
			needs[h.id].add(a.job, a.route)
		}
	}
	return needs
}

func (n *clientNeed) add(job *api.Job, r Route) {
	for _, task := range job.TaskGroups[0].Tasks {
		if task.KillTimeout != nil && *task.KillTimeout > n.kill {
			n.kill, n.whose = *task.KillTimeout, r.source()
		}
		if n.driver[task.Driver] == "" {
			n.driver[task.Driver] = r.source()
		}
	}
}

// faults compares a configuration with what is needed.
func (n *clientNeed) faults(have nomad.ClientConfig) (faults []ClientFault) {
	add := func(setting, fix, format string, args ...any) {
		faults = append(faults, ClientFault{Setting: setting, Fix: fix, Says: router.OneLine(fmt.Sprintf(format, args...))})
	}
	if have.MaxKillTimeout < n.kill {
		add(MaxKillTimeout, fmt.Sprintf(`set client { max_kill_timeout = %q } and restart the agent`, n.kill),
			"a runner that is stopped is killed after %v, and %s gives it %v to cancel its job on GitHub", have.MaxKillTimeout, n.whose, n.kill)
	}
	if whose := n.driver["raw_exec"]; whose != "" {
		denied, _ := setting(have.Plugins["raw_exec"], "denied_envvars").([]any)
		if !slices.ContainsFunc(denied, func(pattern any) bool {
			ok, err := path.Match(strings.ToUpper(fmt.Sprint(pattern)), "NOMAD_TOKEN")
			return ok && err == nil
		}) {
			add(DeniedEnvvars, `set plugin "raw_exec" { config { denied_envvars = ["NOMAD_TOKEN"] } } and restart the agent`,
				"workflows that run by %s get the agent's environment, a NOMAD_TOKEN in it included", whose)
		}
	}
	if whose := n.driver["docker"]; whose != "" {
		gc := setting(have.Plugins["docker"], "gc")
		delay, err := time.ParseDuration(fmt.Sprint(setting(gc, "image_delay")))
		if err != nil {
			delay = ownImageDelay
		}
		if setting(gc, "image") != false && delay < leastImageDelay {
			add(ImageDelay, `set plugin "docker" { config { gc { image_delay = "72h" } } } and restart the agent`,
				"the image of %s is removed %v after its last runner, and the next job waits until it is pulled", whose, delay)
		}
	}
	return faults
}

// setting returns a setting of a plugin's configuration; nil: it has none. Nomad shows a block
// as a list of one.
func setting(config any, name string) any {
	if list, ok := config.([]any); ok && len(list) > 0 {
		config = list[0]
	}
	block, _ := config.(map[string]any)
	return block[name]
}
