package web

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
)

const (
	nowOldest  = 10 // jobs that wait longest
	nowRules   = 40 // rules with most to do
	nowRepos   = 20 // repositories with most open jobs
	nowGroups  = 8  // groups of a trouble that are shown at once
	nowChanges = 3  // likewise, of what changed lately
	nowHours   = 24
	dayShare   = 100 // times as long as it took to make, the last day is shown
)

// waitBands are the bands of queue time in the chart of the last day.
var waitBands = []struct {
	Name  string
	under time.Duration // 0: the rest
}{
	{"under 30 s", 30 * time.Second},
	{"30 s to 2 min", 2 * time.Minute},
	{"2 to 10 min", 10 * time.Minute},
	{"over 10 min", 0},
}

// A summary is what the page Now tells of the jobs of a scope.
type summary struct {
	Waiting, Placing, Starting, Running int
	Rules                               []ruleNow // those with most to do first
	MoreRules                           int
	Why                                 []waitsFor
	Oldest                              []waiting
	Repos                               []router.RepoJobs // those with most open jobs
	Unroutable                          []api.UnroutableGroup
	MoreUnroutable                      bool // than those
	Warm                                []api.WarmCount
	MoreWarm                            int // rules than those

	*lastDay
}

// A lastDay is what is told of the jobs that runners took on the last day.
type lastDay struct {
	Hour, Day quantiles
	byRule    map[string]quantiles
	Hours     []hourBar // the last 24, oldest first
	Most      int       // starts in one of them
}

// A ruleNow is how far the jobs of a rule are, and how long those waited that
// runners took on the last day.
type ruleNow struct {
	Name                                string // "": they were not decided yet
	Waiting, Placing, Starting, Running int
	quantiles
}

// quantiles describe the queue time of jobs: from the first delivery to a runner.
type quantiles struct {
	Jobs              int
	P50, P95, Longest time.Duration
}

// A waitsFor is how many jobs wait for the same.
type waitsFor struct {
	Jobs  int
	For   string
	Fleet bool // the page Fleet says more
	State router.JobState
}

// A waiting is a job that waits, with the runner of its current try.
type waiting struct {
	Job    api.Job
	router router.Job
	runner *router.Runner
}

// An hourBar is the jobs that runners took in an hour.
type hourBar struct {
	From   time.Time
	Jobs   int
	Counts []int // by wait band
	X      int
	Parts  []barPart
}

// Until returns when the hour ends.
func (h hourBar) Until() time.Time { return h.From.Add(time.Hour) }

// A barPart is one part of a bar, in percent of the picture.
type barPart struct {
	Band, Y, Height string
}

// waits says what jobs wait for, in the order in which it is shown.
var waits = []struct {
	reason router.Cause
	words  string
	state  router.JobState
}{
	{router.CauseNoNodeFits, "no node of the cluster could ever run the runner", router.Dispatched},
	{router.CauseOutOfService, "the nodes that could run the runner are out of service", router.Dispatched},
	{router.CauseRefused, "Nomad refuses the runner until what its message asks for is done", router.Retrying},
	{router.CauseSilent, "Nomad accepts the request for the runner and does not answer it", router.Retrying},
	{router.CauseNomad, "Nomad could not take the runner; it is asked again", router.Retrying},
	{router.CauseGitHubRefused, "GitHub refuses to register the runner until what its message asks for is done", router.Retrying},
	{router.CauseGitHub, "GitHub did not answer as it should; it is asked again", router.Retrying},
	{router.CauseGitHubLimit, "GitHub takes no more runners for now: its limit is reached", router.Retrying},
	{router.CauseDied, "the runner ended with its configuration, before it had a job; another comes", router.Retrying},
	{router.CauseNoJob, "the runner was online, and GitHub gave it no job; another comes", router.Retrying},
	{router.CauseRunner, "the runner was lost; another comes", router.Retrying},
	{router.CauseReplaced, "the runner was stopped, serves another job, or makes room for a fallback; another comes", router.Retrying},
	{router.CauseNoNodeFree, "the nodes that could run the runner are full", router.Dispatched},
	{router.CauseVersion, "a newer runner: GitHub gives the runners of their rule no jobs, as their version is too old", router.Held},
	{router.CauseLimit, "their rule's limit: a place is free when another job ends", router.Held},
	{router.CauseSiblings, "others of their run: GitHub may hand these out one after another (max-parallel)", router.Held},
	{router.CauseApproval, "GitHub does not let them start yet: an approval, or their concurrency group", router.Held},
	{router.CauseQueued, "they are decided next", router.Queued},
	{router.CausePlacing, "Nomad looks for a node", router.Dispatched},
	{router.CauseStarting, "the runner has a node, and no job yet", router.Dispatched},
}

// A nowView is what the page shows; its times pass while a summary stays.
type nowView struct {
	*summary
	router.Status
	Bands any
	now   time.Time
}

// Groups returns the groups of a trouble, the newest first: those that are shown at once,
// and the others.
func (v nowView) Groups(t router.Trouble) [][]router.TroubleGroup {
	if len(t.Groups) < 2 || t.Cause == router.CauseUnroutable && len(v.Unroutable) > 0 { // has a list of its own
		return nil
	}
	all := slices.SortedStableFunc(slices.Values(t.Groups), func(a, b router.TroubleGroup) int { return b.Since.Compare(a.Since) })
	if len(all) <= nowGroups+1 {
		return [][]router.TroubleGroup{all}
	}
	return [][]router.TroubleGroup{all[:nowGroups], all[nowGroups:]}
}

// Says returns what a group says that its trouble does not, apart from numbers.
func (v nowView) Says(t router.Trouble, g router.TroubleGroup) string {
	words := func(s string) string {
		return strings.Trim(strings.Map(func(r rune) rune {
			if unicode.IsDigit(r) {
				return -1
			}
			return r
		}, s), " ")
	}
	if t.Cause == router.CauseLimit || words(g.Said) == words(t.Said) {
		return ""
	}
	return g.Said
}

// List returns where the jobs of a group are.
func (v nowView) List(g router.TroubleGroup) string {
	if g.Jobs == 1 {
		return fmt.Sprintf("/jobs/%d", g.Newest)
	}
	q := url.Values{"state": {"held,queued,retrying,dispatched,unroutable"}, "repo": {g.Repository}}
	if g.Rule != "" {
		q.Set("rule", g.Rule)
	}
	return "/jobs?" + q.Encode()
}

// Routed reports whether the rules in force would route some of the unroutable jobs.
func (v nowView) Routed() bool {
	return slices.ContainsFunc(v.Unroutable, func(g api.UnroutableGroup) bool { return g.Routed })
}

// Ago returns how long ago t was.
func (v nowView) Ago(t time.Time) string { return took(v.now.Sub(t)) }

// After says which change a trouble began after; "": none.
func (v nowView) After(t router.Trouble) string { return v.Status.After(t, took) }

// Latest returns the changes that are shown at once, and the others.
func (v nowView) Latest() [][]router.Changed {
	if len(v.Changes) <= nowChanges+1 {
		return [][]router.Changed{v.Changes}
	}
	return [][]router.Changed{v.Changes[:nowChanges], v.Changes[nowChanges:]}
}

// For returns how long the job has waited.
func (v nowView) For(w waiting) string { return took(v.now.Sub(w.Job.ReceivedAt)) }

// Next says what happens to the job next.
func (v nowView) Next(w waiting) string { return next(w.router, w.runner, v.now) }

// nowPage is the page Now.
type nowPage struct {
	api   *api.API
	clock func() time.Time
	day   shared[*lastDay]
}

func (n *nowPage) page(req *http.Request) (any, error) {
	scope := auth.Who(req.Context()).Scope
	ctx, cancel := context.WithTimeout(req.Context(), api.ReadTimeout)
	defer cancel()
	s, err := n.summarize(ctx, scope)
	if err != nil {
		return nil, err
	}
	return nowView{s, n.api.Status(req.Context()), waitBands, n.clock()}, nil
}

func (n *nowPage) summarize(ctx context.Context, scope router.Scope) (*summary, error) {
	now := n.clock()
	open, err := n.api.Database.OpenJobs(ctx, scope)
	if err != nil {
		return nil, err
	}
	oldest, err := n.api.Database.Oldest(ctx, scope, nowOldest)
	if err != nil {
		return nil, err
	}
	repos, err := n.api.Database.OpenRepos(ctx, scope, nowRepos)
	if err != nil {
		return nil, err
	}
	unroutable, more, err := n.api.Unroutable(ctx)
	if err != nil {
		return nil, err
	}
	warm, _, err := n.api.Warm(ctx)
	if err != nil {
		return nil, err
	}
	// This alone is long, and may be a little old.
	day, err := n.day.get(ctx, scopeKey(scope), n.clock, dayShare, func(ctx context.Context) (*lastDay, error) {
		started, err := n.api.Database.Starts(ctx, scope, now.Add(-nowHours*time.Hour))
		if err != nil {
			return nil, err
		}
		return newLastDay(started, now), nil
	})
	if err != nil {
		return nil, err
	}
	s := &summary{lastDay: day, Repos: repos, Unroutable: unroutable, MoreUnroutable: more}
	s.MoreWarm = max(0, len(warm)-nowRules)
	s.Warm = warm[:len(warm)-s.MoreWarm]
	for _, j := range oldest {
		w := waiting{Job: api.JobOf(j), router: j}
		if j.State == router.Dispatched {
			runners, err := n.api.Database.Runners(ctx, j.ID)
			if err != nil {
				return nil, err
			}
			if i := slices.IndexFunc(runners, func(r router.Runner) bool { return r.Try == j.Try }); i >= 0 {
				w.runner = &runners[i]
			}
		}
		s.Oldest = append(s.Oldest, w)
	}
	s.count(open)
	return s, nil
}

// count fills in what is open, and the rules.
func (s *summary) count(open []router.OpenJobs) {
	byRule := map[string]*ruleNow{}
	of := func(name string) *ruleNow {
		if byRule[name] == nil {
			byRule[name] = &ruleNow{Name: name}
		}
		return byRule[name]
	}
	why := map[router.Cause]int{}
	for _, o := range open {
		r := of(o.Rule)
		total, some := &s.Waiting, &r.Waiting
		switch {
		case o.State == router.Running:
			total, some = &s.Running, &r.Running
		case o.State == router.Dispatched && o.Cause == router.CauseStarting:
			total, some = &s.Starting, &r.Starting
		case o.State == router.Dispatched:
			total, some = &s.Placing, &r.Placing
		}
		*total += o.Jobs
		*some += o.Jobs
		if o.State != router.Running {
			why[o.Cause] += o.Jobs
		}
	}
	for _, w := range waits {
		if n := why[w.reason]; n > 0 {
			s.Why = append(s.Why, waitsFor{
				Jobs: n, For: w.words, State: w.state,
				Fleet: slices.Contains([]router.Cause{router.CauseNoNodeFits, router.CauseOutOfService, router.CauseNoNodeFree}, w.reason),
			})
		}
	}
	for name, q := range s.byRule {
		of(name).quantiles = q
	}
	for _, r := range slices.SortedFunc(maps.Values(byRule), func(a, b *ruleNow) int {
		return cmp.Or(cmp.Compare(b.Waiting+b.Placing, a.Waiting+a.Placing), cmp.Compare(b.Starting+b.Running, a.Starting+a.Running),
			cmp.Compare(b.Jobs, a.Jobs), cmp.Compare(a.Name, b.Name))
	}) {
		s.Rules = append(s.Rules, *r)
	}
	if len(s.Rules) > nowRules {
		s.Rules, s.MoreRules = s.Rules[:nowRules], len(s.Rules)-nowRules
	}
}

// retryUnroutableForm retries the unroutable jobs like one, or all that the rules in force
// would route.
func (s *console) retryUnroutableForm(req *http.Request) (string, error) {
	p := api.Parameters{Values: req.PostForm}
	like := p.Number("like", 0, 1, 1<<62)
	if err := p.End(); err != nil {
		return "", err
	}
	return "/", s.api.RetryUnroutable(req, like)
}

func newLastDay(started []router.Start, now time.Time) *lastDay {
	d := &lastDay{byRule: map[string]quantiles{}}
	var all, hour []time.Duration
	ofRule := map[string][]time.Duration{}
	for _, start := range started {
		all = append(all, start.Waited)
		ofRule[start.Rule] = append(ofRule[start.Rule], start.Waited)
		if start.At.After(now.Add(-time.Hour)) {
			hour = append(hour, start.Waited)
		}
	}
	d.Day, d.Hour = quantilesOf(all), quantilesOf(hour)
	for name, waited := range ofRule {
		d.byRule[name] = quantilesOf(waited)
	}
	d.draw(started, now)
	return d
}

// quantilesOf sorts what it is given.
func quantilesOf(waited []time.Duration) quantiles {
	n := len(waited)
	if n == 0 {
		return quantiles{}
	}
	slices.Sort(waited)
	return quantiles{n, waited[(n-1)/2], waited[(n-1)*95/100], waited[n-1]}
}

// draw makes the picture of the last day, whose hours are those of the clock.
func (d *lastDay) draw(started []router.Start, now time.Time) {
	first := now.Truncate(time.Hour).Add(-(nowHours - 1) * time.Hour)
	for i := range nowHours {
		d.Hours = append(d.Hours, hourBar{From: first.Add(time.Duration(i) * time.Hour), X: i, Counts: make([]int, len(waitBands))})
	}
	for _, start := range started {
		i := int(start.At.Sub(first) / time.Hour)
		if start.At.Before(first) || i >= nowHours {
			continue
		}
		band := 0
		for band < len(waitBands)-1 && start.Waited >= waitBands[band].under {
			band++
		}
		d.Hours[i].Jobs++
		d.Hours[i].Counts[band]++
		d.Most = max(d.Most, d.Hours[i].Jobs)
	}
	for i := range d.Hours {
		h, y := &d.Hours[i], 100.0
		for band, n := range h.Counts {
			if n == 0 {
				continue
			}
			height := 100 * float64(n) / float64(d.Most)
			y -= height
			h.Parts = append(h.Parts, barPart{fmt.Sprint(band), fmt.Sprintf("%.2f", y), fmt.Sprintf("%.2f", height)})
		}
	}
}

// next says in plain words what happens to a job that has not ended, and when.
// r is the runner of its current try; nil: it has none.
func next(j router.Job, r *router.Runner, now time.Time) string {
	in := "now"
	if wait := j.DueAt.Sub(now); wait >= time.Second {
		in = "in " + took(wait)
	}
	switch j.State {
	case router.Held:
		switch {
		case j.Cause == router.CauseVersion:
			return "it gets a runner when the rules or jobspecs change, or when it is retried"
		case j.Decision == nil:
			return "GitHub says when it may start"
		}
		return "it gets a place when another job of its rule ends"
	case router.Queued:
		return "it is decided " + in
	case router.Retrying:
		return fmt.Sprintf("it is tried again %s, as try %d", in, j.Try)
	case router.Running:
		return "GitHub says when it has ended"
	case router.Dispatched:
	default:
		return ""
	}
	switch {
	case r == nil:
		return "it gets its runner"
	case r.State.Final():
		return "it gets another runner when Nomad has stopped this one"
	case r.State != router.RunnerDispatched:
		return "GitHub gives its runner a job"
	case r.Own && !r.PlacedAt.IsZero():
		return "GitHub gives its runner on " + r.Node + " a job, once that has registered itself"
	case !r.PlacedAt.IsZero():
		return "its runner starts on " + r.Node
	}
	fallback := ""
	if d := j.Decision; d != nil && j.Fallback < len(d.Fallback) && !j.DispatchedAt.IsZero() {
		for i, f := range d.Fallback[j.Fallback:] {
			if f.Reason != "" {
				continue
			}
			when := "now"
			if wait := j.DispatchedAt.Add(time.Duration(f.After)).Sub(now); wait >= time.Second {
				when = "in " + took(wait)
			}
			fallback = fmt.Sprintf("fallback %d of its rule is tried %s", j.Fallback+i+1, when)
			break
		}
	}
	switch {
	case r.Unplaced != nil && r.Unplaced.Never && fallback != "":
		return fallback
	case r.Unplaced != nil && r.Unplaced.Never:
		return "nothing, until there is a node that fits or it is cancelled"
	case fallback != "":
		return "Nomad places it when a node has room; " + fallback
	}
	return "Nomad places it when a node has room"
}
