package capacity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/sync/errgroup"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
)

const (
	maxAsks    = 500  // different placements that one Survey asks about
	asksAtOnce = 8    // placements that are asked about at the same time
	maxMessage = 2000 // characters of a finding's message

	// surveyID is the ID of the jobs that are planned. Tries count from 1, so
	// that no runner ever has it.
	surveyID = "gha-0-0"
)

// The codes of findings.
const (
	NoSuchRegion     = "no-such-region"      // the region is not joined
	NoSuchNamespace  = "no-such-namespace"   // the namespace does not exist
	NoSuchPool       = "no-such-pool"        // the node pool does not exist
	NoSuchDatacenter = "no-such-datacenter"  // a warning when other datacenters of the route exist
	NoSuchJob        = "no-such-job"         // the job to dispatch does not exist, cannot be dispatched, or does not accept the rule's meta
	ClaimUndeclared  = "claim-undeclared"    // a warning: the job to dispatch fetches the claim, and does not declare the meta for it
	JobspecRefused   = router.JobspecRefused // there is no such jobspec, or Nomad finds its job invalid
	JobspecWarns     = "jobspec-warns"       // Nomad accepts it with a warning
	NoNode           = "no-node"             // no node in service could ever run it
	EmptyPool        = "empty-pool"          // a warning: no node of its pool is in service now, as in one that scales from zero
	CannotTell       = "cannot-tell"         // Nomad did not say: the token lacks a capability there, or Nomad failed. The exit code is then 2
	NotAsked         = "not-asked"           // Nomad was asked about 500 other placements, and not about this one
)

// Warnings returns the codes of findings that may be warnings, at a label at least.
func Warnings() []string {
	return []string{NoSuchRegion, NoSuchNamespace, NoSuchPool, NoSuchDatacenter, NoSuchJob, ClaimUndeclared, JobspecRefused, JobspecWarns, NoNode, EmptyPool, NotAsked}
}

// A Finding is a problem of one or more routes on this cluster.
type Finding struct {
	Routes  []int  // indices into Survey's argument, ascending; never empty
	Code    string // one of the constants above
	Warning bool   // the routes may work all the same
	Message string // one printable line for people
}

// Survey asks the cluster, as it is now, which problems routes would have, and changes
// nothing there. Findings are in the order of their first route. Routes with the same
// demands are asked about once, the first 500 different ones, with a plan or two each.
//
// No node can ever run a route if each node in service is filtered, or too small even when
// idle; full nodes are no finding. Nodes that are down, draining or ineligible are not in
// service; a finding names those that could run the route. Sizes are what Nomad reports,
// less what it reserves; a node that reports none counts as large enough.
//
// An error means that nothing could be found out; what could not be found out about one
// route is a finding. Errors are classified as for nomad.Client.Start. It needs node read,
// and on each route's namespace submit-job, list-jobs, read-job and, where a job is
// dispatched, dispatch-job.
func (c *Client) Survey(ctx context.Context, routes []Route) ([]Finding, error) {
	s := &survey{Client: c, regions: map[string]*region{}, asked: map[string]*allowance{}}
	if _, err := c.nodesIndex(ctx, listNodes("")); err != nil {
		return nil, err
	}
	asks := group(routes)
	told := make([][]problem, len(asks))
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(asksAtOnce)
	for i, same := range asks[:min(len(asks), maxAsks)] {
		all.Go(func() (err error) {
			if told[i], err = s.ask(ctx, routes[same[0]]); err != nil && ctx.Err() == nil {
				told[i], err = []problem{cannotTell(err)}, nil
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for i := maxAsks; i < len(asks); i++ {
		told[i] = []problem{{code: NotAsked, warning: true, say: func(Route) string {
			return fmt.Sprintf("the cluster was asked about %d of %d different placements, and not about this one", maxAsks, len(asks))
		}}}
	}
	return findings(routes, asks, told), nil
}

// group collects the routes with the same demands, in the order of the first.
func group(routes []Route) (asks [][]int) {
	known := map[string]int{}
	for i, r := range routes {
		ask := shape(r.Placement)
		at, ok := known[ask]
		if !ok {
			at = len(asks)
			known[ask] = at
			asks = append(asks, nil)
		}
		asks[at] = append(asks[at], i)
	}
	return asks
}

// shape returns, as text, those parts of a placement that Nomad's answer depends on.
func shape(p router.Placement) string {
	ask, none := p, router.Placement{}
	ask.Priority, ask.Task, ask.Runner, ask.From = none.Priority, none.Task, none.Runner, none.From
	ask.DispatchMeta = map[string]string{}
	ask.Constraints, ask.Affinities, ask.Devices = anonymous(p.Constraints), slices.Clone(p.Affinities), slices.Clone(p.Devices)
	for key := range p.DispatchMeta {
		ask.DispatchMeta[key] = ""
	}
	for i := range ask.Affinities {
		ask.Affinities[i].From = ""
	}
	for i, d := range ask.Devices {
		ask.Devices[i].From, ask.Devices[i].Constraints = "", anonymous(d.Constraints)
	}
	text, err := json.Marshal(ask)
	if err != nil {
		panic(err) // all of it is text and numbers
	}
	return string(text)
}

func anonymous(list []router.Constraint) []router.Constraint {
	list = slices.Clone(list)
	for i := range list {
		list[i].From = ""
	}
	return list
}

// A problem is a finding before it is worded for a route, whose values have origins of
// their own.
type problem struct {
	code    string
	warning bool
	away    bool // of NoNode and EmptyPool: nodes out of service would do
	again   bool // it may end, or more be known of it, while the nodes stay
	say     func(Route) string
}

// said returns a problem that is worded the same for every route.
func said(code, message string) []problem {
	return []problem{{code: code, say: func(Route) string { return message }}}
}

// findings words the problems of each ask for its routes, and merges equal ones.
func findings(routes []Route, asks [][]int, problems [][]problem) []Finding {
	var all []Finding
	known := map[[2]string]int{}
	for i, same := range asks {
		for _, p := range problems[i] {
			for _, r := range same {
				message := nomad.Printable(p.say(routes[r]), maxMessage)
				at, ok := known[[2]string{p.code, message}]
				if !ok {
					at = len(all)
					known[[2]string{p.code, message}] = at
					all = append(all, Finding{Code: p.code, Warning: p.warning, Message: message})
				}
				all[at].Routes = append(all[at].Routes, r)
			}
		}
	}
	for i := range all {
		slices.Sort(all[i].Routes)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Routes[0], b.Routes[0]) })
	return all
}

type survey struct {
	*Client
	mu      sync.Mutex
	regions map[string]*region    // by name
	asked   map[string]*allowance // by capability, with where
}

// An allowance is whether the token has a capability somewhere.
type allowance struct {
	once sync.Once
	err  error // it has not
}

// ask returns the problems of a route, and of all with the same demands.
func (s *survey) ask(ctx context.Context, r Route) ([]problem, error) {
	job, problems, err := s.job(ctx, r)
	if err != nil || problems != nil {
		return problems, err
	}
	undeclared := claimUndeclared(r, job)
	at := nomad.ScopeOf(job)
	if at.Region != "" { // is it joined?
		if _, err := s.nodesIndex(ctx, listNodes(at.Region)); err != nil {
			return nil, err
		}
	}
	apart(job)
	plan, problems, err := s.plan(ctx, r, job)
	if err != nil || problems != nil {
		return problems, err
	}
	problems = undeclared
	if err := s.allowed(ctx, at, r.Placement.Dispatch != ""); err != nil {
		return nil, err
	}
	for _, w := range nomad.Warnings(plan.Warnings) {
		problems = append(problems, problem{code: JobspecWarns, warning: true, say: func(r Route) string { return fmt.Sprintf("%s: Nomad warns: %s", r.source(), w) }})
	}
	if len(plan.FailedTGAllocs) == 0 && slices.Equal(datacentersOf(job), []string{"*"}) {
		return problems, nil // whatever the nodes are
	}
	in, err := s.region(ctx, at.Region)
	if err != nil {
		return nil, err
	}
	problems = append(problems, in.unknownDatacenters(job)...)
	for group, m := range failed(job, plan) {
		more, err := s.unplaced(ctx, r, in, job, group, m)
		if err != nil {
			return nil, err
		}
		problems = append(problems, more...)
	}
	return problems, nil
}

// failed returns the groups for which a plan found no node, by name, with its metrics.
func failed(job *api.Job, plan *api.JobPlanResponse) iter.Seq2[*api.TaskGroup, *api.AllocationMetric] {
	return func(yield func(*api.TaskGroup, *api.AllocationMetric) bool) {
		for _, name := range slices.Sorted(maps.Keys(plan.FailedTGAllocs)) {
			i := slices.IndexFunc(job.TaskGroups, func(g *api.TaskGroup) bool { return *g.Name == name })
			if i >= 0 && !yield(job.TaskGroups[i], plan.FailedTGAllocs[name]) {
				return
			}
		}
	}
}

// job returns the job that a route runs, or why there is none.
func (s *survey) job(ctx context.Context, r Route) (*api.Job, []problem, error) {
	ask := router.StartRequest{Runner: router.Runner{ID: surveyID, Name: surveyID}, Rule: r.Rule, Placement: r.Placement}
	if r.Placement.Dispatch == "" {
		job, err := s.Render(ctx, ask)
		if atFault(err) {
			return nil, said(JobspecRefused, err.Error()), nil
		}
		if err != nil {
			return nil, nil, err
		}
		return job, nil, nil
	}
	home, err := s.Home(ctx, r.Placement)
	if err != nil {
		return nil, nil, err
	}
	at := nomad.Scope(home)
	job, _, err := s.Parent(ctx, ask)
	if atFault(err) {
		if _, _, missing := s.API().Namespaces().Info(at.Namespace, at.Read(ctx)); nomad.Status(missing) == http.StatusNotFound {
			return nil, []problem{noNamespace(at.Namespace)}, nil
		}
		return nil, said(NoSuchJob, err.Error()), nil
	}
	if err != nil {
		return nil, nil, err
	}
	job.ID = new(surveyID)
	if at.Region == "" {
		job.Region = nil // it is in the client's own, whose name Nomad has filled in
	}
	return job, nil, nil
}

// cannotTell returns the problem that Nomad said nothing about a route.
func cannotTell(err error) problem {
	if none, ok := errors.AsType[*nomad.NoRegionError](err); ok {
		return problem{code: NoSuchRegion, say: func(r Route) string {
			return fmt.Sprintf("%v%s: correct it, or join its servers (nomad server join)", none, r.from("region"))
		}}
	}
	return problem{code: CannotTell, say: func(r Route) string { return r.source() + ": " + err.Error() }}
}

// claimUndeclared returns the problem of a parameterized job that fetches the claim
// but does not declare the meta for it, and so does not get it.
func claimUndeclared(r Route, job *api.Job) []problem {
	p := job.ParameterizedJob
	if r.Placement.Dispatch == "" || p == nil {
		return nil
	}
	declared := slices.Concat(p.MetaRequired, p.MetaOptional)
	if slices.Contains(declared, nomad.MetaClaimToken) {
		return nil
	}
	text, err := json.Marshal(job)
	if err != nil || !jobspecs.Claims(text) {
		return nil
	}
	message := fmt.Sprintf("job %s fetches the claim, but does not declare %s and %s: add them to its meta_optional, or let its runner register itself",
		nomad.Printable(r.Placement.Dispatch, router.MaxText), nomad.MetaClaimURL, nomad.MetaClaimToken)
	return []problem{{code: ClaimUndeclared, warning: true, say: func(Route) string { return message }}}
}

func atFault(err error) bool { return errors.As(err, new(*router.JobspecError)) }

// plan asks Nomad for a plan of a job, or why it refuses the job.
func (s *survey) plan(ctx context.Context, r Route, job *api.Job) (*api.JobPlanResponse, []problem, error) {
	at := nomad.ScopeOf(job)
	plan := nomad.Call{What: "plan a job of " + r.source(), At: at, Capability: "submit-job"}
	resp, _, err := s.API().Jobs().Plan(job, false, at.Write(ctx))
	if err == nil {
		return resp, nil, nil
	}
	if !nomad.Unclear(err) {
		return nil, nil, s.Classify(ctx, plan, err)
	}
	// 500 may be the job's fault or Nomad's.
	verdict, _, validateErr := s.API().Jobs().Validate(job, at.Write(ctx))
	if validateErr != nil {
		plan.What, plan.Capability = "validate a job of "+r.source(), "read-job"
		return nil, nil, s.Classify(ctx, plan, validateErr)
	}
	if verdict.Error == "" {
		return nil, nil, s.Classify(ctx, plan, err)
	}
	var problems []problem
	faults := verdict.ValidationErrors
	if len(faults) == 0 {
		faults = []string{verdict.Error}
	}
	for _, fault := range faults {
		switch {
		case strings.Contains(fault, "nonexistent namespace"):
			problems = append(problems, noNamespace(at.Namespace))
		case strings.Contains(fault, "nonexistent node pool"):
			in, _ := s.region(ctx, at.Region) // nil: it names no pools
			problems = append(problems, in.noPool(*job.NodePool))
		default:
			fault = strings.ReplaceAll(nomad.Line(fault), "1 error occurred: * ", "") // it nests them
			problems = append(problems, problem{code: JobspecRefused, say: func(r Route) string {
				return fmt.Sprintf("%s: Nomad refuses it: %s", r.source(), fault)
			}})
		}
	}
	return nil, problems, nil
}

// allowed asks, once per namespace and region, whether the token has the other
// capabilities that a runner needs there, besides that of a plan. It asks about a job
// that does not exist, so that it changes nothing.
func (s *survey) allowed(ctx context.Context, at nomad.Scope, dispatch bool) error {
	for _, c := range []struct {
		capability string
		needed     bool
		ask        func() error
	}{
		{"list-jobs", true, func() error {
			list := at.Read(ctx)
			list.Prefix = surveyID
			_, _, err := s.API().Jobs().List(list)
			return err
		}},
		{"read-job", true, func() error { _, _, err := s.API().Jobs().Info(surveyID, at.Read(ctx)); return err }},
		{"dispatch-job", dispatch, func() error { _, _, err := s.API().Jobs().Dispatch(surveyID, nil, nil, "", at.Write(ctx)); return err }},
	} {
		if !c.needed {
			continue
		}
		of := nomad.Call{What: "ask for " + c.capability, At: at, Capability: c.capability}
		s.mu.Lock()
		known := s.asked[of.String()]
		if known == nil {
			known = new(allowance)
			s.asked[of.String()] = known
		}
		s.mu.Unlock()
		known.once.Do(func() {
			if err := c.ask(); nomad.Status(err) == http.StatusForbidden {
				known.err = s.Classify(ctx, of, err)
			}
		})
		if known.err != nil {
			return known.err // to each route: the first may be one that nobody is told about
		}
	}
	return nil
}

func noNamespace(name string) problem {
	return problem{code: NoSuchNamespace, say: func(r Route) string {
		origin := r.from("namespace")
		if r.Placement.Namespace == "" {
			origin = ""
		}
		return fmt.Sprintf("there is no namespace %q%s: create it, or correct it in the rule, the jobspec or NOMAD_NAMESPACE", name, origin)
	}}
}
