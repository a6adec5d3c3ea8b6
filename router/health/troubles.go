package health

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

// A kind is what is known about all troubles of jobs with one cause.
type kind struct {
	check    string // that warns of it
	severity router.Severity
	what     string
	fix      string
}

var kinds = map[router.Cause]kind{
	router.CauseNomad:         {"nomad", router.Critical, "Nomad could not register runners; they are tried again", "check that Nomad's servers are up and have a leader: nomad server members"},
	router.CauseSilent:        {"nomad", router.Critical, "Nomad accepts requests for runners and does not answer them", "check whether Nomad's servers are overloaded, or a proxy in front of them holds requests"},
	router.CauseRefused:       {"nomad", router.Critical, "Nomad refuses to register runners", "do what Nomad says; the jobs are tried again by themselves"},
	router.CauseGitHub:        {"github", router.Critical, "GitHub could not register runners; they are tried again", "wait: see githubstatus.com, and the proxy in front of GitHub if there is one"},
	router.CauseGitHubRefused: {"github", router.Critical, "GitHub refuses to register runners", "do what GitHub says; the jobs are tried again within a minute or two"},
	router.CauseGitHubLimit:   {"github", router.Warning, "GitHub registers no more runners for now, as its rate limit is used up", "wait, or use a GitHub App, whose limits are higher and apply to each organization"},
	router.CauseRunner:        {"jobs", router.Warning, "runners end before they ask for their configuration: they do not reach --public-url, or do not start", "check from a node that --public-url can be reached, then the image: nomad alloc status has more"},
	router.CauseDied:          {"jobs", router.Warning, "runners end before they get a job: the command or the image of their jobspec fails", "correct the jobspec (exit code 127: no such command); the output of the runner: nomad alloc logs"},
	router.CauseOnline:        {"github", router.Warning, "runners are online, and GitHub gives them no job: the runner group keeps the repository out, or GitHub is ill", "check that the runner group allows the repository and its workflow; see githubstatus.com"},
	router.CauseNoNodeFits:    {"jobs", router.Warning, "no node could ever serve some jobs", "ask for less, add a node that fits, or correct the rule or label"},
	router.CauseOutOfService:  {"jobs", router.Warning, "the nodes that could run the runners are out of service", "bring them back: nomad node status; nomad node eligibility -enable NODE"},
	router.CauseVersion: {"jobs", router.Critical, "GitHub gives the runners of a rule no jobs, as their version is too old, so no more are started",
		"name a newer runner in the rule or its jobspec; if it was updated on the nodes, switchyard jobs retry ID for one of the jobs"},
	router.CauseUnroutable: {"jobs", router.Info, "jobs ask for what the rules do not serve", "correct runs-on, or add the label to the rules: the jobs are then decided again by themselves"},
	router.CauseLimit:      {"jobs", router.Info, "jobs wait for a place, as their limit is reached", "wait, or raise the limit in the rules"},
}

// Words returns what a status says of the jobs that have a cause; "": it is no trouble of
// jobs.
func Words(c router.Cause) string { return kinds[c].what }

// Check returns the check of /readyz that warns of a cause.
func Check(c router.Cause) string {
	switch c {
	case router.CauseStore:
		return "store"
	case router.CauseFirstSync:
		return "first_look"
	case router.CauseRules, router.CauseRulesDiffer:
		return "rules"
	case router.CauseNoLeader:
		return "leader"
	case router.CauseClock:
		return "clock"
	case router.CauseNomadCalls, router.CauseNomadDenies, router.CauseNotEvaluated:
		return "nomad"
	case router.CauseGitHubCalls, router.CauseGitHubDenies, router.CauseGitHubSilent, router.CauseOverflowFails:
		return "github"
	case router.CauseUnsigned, router.CauseNoDelivery, router.CauseLostDelivery, router.CausePollLimit, router.CausePollFails:
		return "deliveries"
	case router.CauseDisk:
		return "disk"
	}
	return cmp.Or(kinds[c].check, "jobs")
}

var severities = []router.Severity{router.Critical, router.Warning, router.Info}

// symptoms come of other troubles, most often.
var symptoms = []router.Cause{router.CausePollFails, router.CauseNoDelivery, router.CauseLostDelivery, router.CauseNothingStarts, router.CauseOverflowFails, router.CauseWarmFails}

// worstFirst orders troubles: the worst come first, of those the database's, then causes
// before symptoms, then the newest.
func worstFirst(a, b router.Trouble) int {
	return cmp.Or(
		cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
		cmp.Compare(rank(a.Cause), rank(b.Cause)),
		b.Since.Compare(a.Since), cmp.Compare(a.Cause, b.Cause),
	)
}

// rank returns -2 for the database, -1 for other causes, and 0 and more for symptoms.
func rank(c router.Cause) int {
	if c == router.CauseStore {
		return -2
	}
	return slices.Index(symptoms, c)
}

// jobTroubles returns the troubles of the jobs that a scope may see.
func jobTroubles(jobs []router.JobTrouble, holders []router.LimitHolder, within router.Scope) []router.Trouble {
	byCause := map[router.Cause]*router.Trouble{}
	var order []*router.Trouble
	rules, repos := map[router.Cause]map[string]int{}, map[router.Cause]map[string]int{}
	for _, j := range jobs {
		k, ok := kinds[j.Cause]
		if !ok || !within.Has(j.Repo) {
			continue
		}
		t := byCause[j.Cause]
		if t == nil {
			t = &router.Trouble{Cause: j.Cause, Severity: k.severity, Since: j.Since, What: k.what, Fix: k.fix}
			byCause[j.Cause], order = t, append(order, t)
			rules[j.Cause], repos[j.Cause] = map[string]int{}, map[string]int{}
		}
		if j.Since.Before(t.Since) {
			t.Since = j.Since
		}
		t.Jobs += j.Jobs
		if j.Rule != "" {
			rules[j.Cause][j.Rule] += j.Jobs
		}
		repos[j.Cause][j.Repo.FullName] += j.Jobs
		if t.Said == "" {
			t.Said, t.Labels = j.Reason, j.Labels
		}
		if len(t.Groups) < router.TroubleGroups {
			t.Groups = append(t.Groups, router.TroubleGroup{
				Rule: j.Rule, Repository: j.Repo.FullName, Jobs: j.Jobs, Since: j.Since, Labels: j.Labels, Said: j.Reason, Newest: j.Newest,
			})
		}
	}
	all := make([]router.Trouble, 0, len(order))
	for _, t := range order {
		t.Rules, t.Repositories = most(rules[t.Cause]), most(repos[t.Cause])
		if t.Severity == router.Warning && t.Jobs >= manyJobs {
			t.Severity = router.Critical
		}
		if t.Cause == router.CauseLimit {
			t.Said = saysLimits(holders, within)
			if len(t.Rules) == 1 {
				t.What = "jobs wait for a place, as the limit of rule " + t.Rules[0] + " is reached"
			}
		}
		t.Where = where(*t, len(rules[t.Cause]), len(repos[t.Cause]))
		all = append(all, *t)
	}
	return all
}

// behind has, of causes of jobs, the cause that is behind it when both are there.
var behind = map[router.Cause]router.Cause{
	router.CauseNomad: router.CauseNomadCalls, router.CauseRefused: router.CauseNomadDenies, router.CauseSilent: router.CauseSilent,
	router.CauseGitHub: router.CauseGitHubCalls, router.CauseGitHubRefused: router.CauseGitHubDenies,
}

// fold adds the troubles of jobs to those that are not about single jobs. Jobs that wait
// because of one of the latter are named there. No cause is in the result twice.
func fold(all, jobs []router.Trouble) []router.Trouble {
	for _, t := range jobs {
		i := slices.IndexFunc(all, func(other router.Trouble) bool { return other.Cause == behind[t.Cause] })
		if i < 0 {
			all = append(all, t)
			continue
		}
		of := &all[i]
		of.Said = cmp.Or(of.Said, t.Said)
		of.Jobs, of.Where, of.Rules, of.Repositories, of.Labels, of.Groups = t.Jobs, t.Where, t.Rules, t.Repositories, t.Labels, t.Groups
	}
	for i := range all {
		for _, list := range []*[]string{&all[i].Rules, &all[i].Repositories, &all[i].Labels} {
			if *list == nil {
				*list = []string{}
			}
		}
		if all[i].Groups == nil {
			all[i].Groups = []router.TroubleGroup{}
		}
		for j := range all[i].Groups {
			if all[i].Groups[j].Labels == nil {
				all[i].Groups[j].Labels = []string{}
			}
		}
	}
	if all == nil {
		return []router.Trouble{}
	}
	return all
}

// where says how many jobs of which rules and repositories a trouble hits, and what they ask
// for if that matters.
func where(t router.Trouble, rules, repos int) string {
	text := router.Count(t.Jobs, "job")
	switch {
	case rules > 2:
		text += fmt.Sprintf(" of %d rules", rules)
	case rules > 0:
		text += " of " + plural(rules, "rule", "rules") + " " + strings.Join(t.Rules, " and ")
	}
	if repos > 3 {
		return fmt.Sprintf("%s in %d repositories, most in %s", text, repos, t.Repositories[0])
	}
	text += " in " + strings.Join(t.Repositories, ", ")
	if len(t.Labels) > 0 && (t.Cause == router.CauseUnroutable || t.Cause == router.CauseNoNodeFits || t.Cause == router.CauseOutOfService) {
		text += "; the newest asks for " + strings.Join(t.Labels, ", ")
	}
	return text
}

// saysLimits says who has the places under limits, and whose jobs wait for them.
func saysLimits(holders []router.LimitHolder, within router.Scope) string {
	keys := []string{}
	for _, h := range holders {
		if !slices.Contains(keys, h.Key) {
			keys = append(keys, h.Key)
		}
	}
	var all []string
	more := 0
	for _, key := range keys {
		first := true
		for _, h := range holders {
			switch {
			case h.Key != key || !within.Has(h.Repo):
				continue
			case len(all) == router.TroubleNames:
				more++
				continue
			}
			said := h.Repo.FullName + " " + saysPlaces(h, first)
			if rule, counted, split := strings.Cut(key, "|"); first && (split || len(keys) > 1) {
				if counted != "" {
					rule += " for " + counted
				}
				said = "rule " + rule + ": " + said
			}
			all, first = append(all, said), false
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}

// saysPlaces says how many of the places a repository has, and how many of its jobs wait.
func saysPlaces(h router.LimitHolder, first bool) (text string) {
	switch {
	case h.Jobs == 0 && first:
		text = fmt.Sprintf("has no place (%d in all)", h.Places)
	case h.Jobs == 0:
		text = "has none"
	case h.Jobs < h.Places:
		text = fmt.Sprintf("has %d of %d places", h.Jobs, h.Places)
	case h.Places == 1:
		text = "has the only place"
	default:
		text = fmt.Sprintf("has all %d places", h.Places)
	}
	switch {
	case h.Waiting > 0 && h.Jobs > 0:
		text += fmt.Sprintf(" and %d more %s waiting", h.Waiting, plural(h.Waiting, "job", "jobs"))
	case h.Waiting > 0:
		text += fmt.Sprintf(" and %s waiting", router.Count(h.Waiting, "job"))
	}
	return text
}

// most returns the names with the highest counts.
func most(counts map[string]int) []string {
	names := []string{}
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return names[:min(len(names), router.TroubleNames)]
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func has(list []router.Trouble, cause router.Cause) bool {
	return slices.ContainsFunc(list, func(t router.Trouble) bool { return t.Cause == cause })
}

// sides returns what is wrong with Nomad, GitHub, the deliveries and the rules. quiet says
// that deliveries are missing: without that, requests without a valid signature are
// anybody's, and nobody is to be woken by them.
func (h *Health) sides(now time.Time, quiet bool) (all []router.Trouble) {
	all = append(nomadSide.troubles(h.config.Metrics.Nomad), gitHubSide.troubles(h.config.Metrics.GitHub)...)
	all = append(all, h.config.Replicas(now)...)
	add := func(cause router.Cause, severity router.Severity, since time.Time, what, said, fix string) {
		if i := slices.IndexFunc(all, func(t router.Trouble) bool { return t.Cause == cause }); i >= 0 {
			all[i].What, all[i].Since = what, earlier(all[i].Since, since)
			return
		}
		all = append(all, router.Trouble{Cause: cause, Severity: severity, Since: since, What: what, Said: said, Fix: fix})
	}
	if d, region := h.config.Silent(); d > 0 {
		n, _ := h.config.Metrics.Nomad.Silent()
		who := "Nomad "
		if region != "" {
			who = "Nomad's region " + region + " "
		}
		add(router.CauseSilent, router.Critical, now.Add(-d), who+router.SaysSilent(d)+underWay(n), "", kinds[router.CauseSilent].fix)
	} else if n, since := h.config.Metrics.Nomad.Silent(); n > 0 && time.Since(since) >= router.SilentAfter {
		add(router.CauseSilent, router.Critical, since, "Nomad "+router.SaysSilent(time.Since(since))+underWay(n), "", kinds[router.CauseSilent].fix)
	}
	if n, since := h.config.Metrics.GitHub.Silent(); n > 0 && time.Since(since) >= router.SilentAfter {
		add(router.CauseGitHubSilent, router.Critical, since, "GitHub "+router.SaysSilent(time.Since(since))+underWay(n), "", "see githubstatus.com, and any proxy on the way")
	}
	if d, region := h.config.NotEvaluating(); d > 0 {
		who := "Nomad"
		if region != "" {
			who = "Nomad's region " + region
		}
		add(router.CauseNotEvaluated, router.Critical, now.Add(-d), who+" accepts jobs but does not evaluate them", "", "check whether its evaluation broker is paused (nomad operator scheduler get-config), or its servers are too busy")
	}
	r := h.config.Rules()
	if refused := r.Refused(); refused != "" {
		severity, said := router.Warning, ""
		if r.Origin == router.LastGood {
			severity = router.Critical
		}
		for i, d := range r.Error.Diagnostics[:min(len(r.Error.Diagnostics), 3)] {
			if i > 0 {
				said += "; "
			}
			said += d.String()
		}
		add(router.CauseRules, severity, r.Error.Since, refused, said, "correct the files; they are loaded by themselves. switchyard rules status has all faults")
	}
	if h.config.FirstSync() {
		add(router.CauseFirstSync, router.Warning, h.started, "the first sync with GitHub is under way, as the database is new, or older than the deliveries that GitHub lists: not all jobs are known yet", "", "wait")
	}
	if n, first, last := h.config.Metrics.Worked.Unsigned(); n >= unsignedLeast && time.Since(last) < unsignedFor {
		severity, what, fix := router.Warning, "their jobs are not known", "if they are GitHub's, set the webhook's secret there to that of --webhook-secret-file"
		if quiet { // then they are
			severity, what, fix = router.Critical, "no other deliveries arrive: the webhook's secret is not that of --webhook-secret-file", "set the same secret on GitHub and in --webhook-secret-file"
		}
		add(router.CauseUnsigned, severity, first, fmt.Sprintf("%d requests to the webhook in a row have no valid signature, and %s", n, what), "", fix)
	}
	for _, p := range h.config.Polls() {
		if !p.ShortSince.IsZero() {
			add(router.CausePollLimit, router.Warning, p.ShortSince, p.Short(), "",
				"let GitHub reach --listen as well (--github-intake both), or read less often (--github-poll-every); at other times of the day there may be enough")
		}
		if p.Failing != "" && now.Sub(p.FailingSince) >= pollFailsFor {
			add(router.CausePollFails, router.Critical, p.FailingSince, "GitHub does not list the deliveries of "+p.Hook+", so new jobs are not known", p.Failing,
				"do what GitHub says; what it sent in the last three days is read by itself then")
		}
	}
	if n, since := h.config.Lost(); n > 0 && (time.Since(since) < lostFor || h.config.Metrics.Worked.Last(telemetry.WorkedDelivery).Before(since.Add(lostFor))) {
		add(router.CauseLostDelivery, router.Warning, since, fmt.Sprintf("GitHub could not deliver %s; they are redelivered", router.Count(n, "event")), "",
			"check that GitHub reaches --listen: the webhook's recent deliveries on GitHub have the errors")
	}
	return all
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func underWay(calls int) string {
	if calls == 0 {
		return ""
	}
	return "; " + router.Count(calls, "request") + plural(calls, " is", " are") + " under way"
}

// A side is what is said of Nomad or GitHub.
type side struct {
	name                  string
	calls, denies, silent router.Cause // when calls fail, are refused, or get no answer
	fix, allow            string       // what to do about the first and the last, and about the second
}

var (
	nomadSide = side{
		"Nomad", router.CauseNomadCalls, router.CauseNomadDenies, router.CauseSilent,
		"check that its servers are up, that NOMAD_ADDR is right, and any proxy on the way",
		"add what is missing to the ACL policy of Switchyard's token: nomad acl token self names the policies",
	}
	gitHubSide = side{
		"GitHub", router.CauseGitHubCalls, router.CauseGitHubDenies, router.CauseGitHubSilent,
		"see githubstatus.com, and check the network and any proxy on the way",
		"check the token, or the App's key, its permissions and where it is installed",
	}
)

// troubles returns what the answers of a side say about it.
func (of side) troubles(answers *telemetry.Side) (all []router.Trouble) {
	said, others := map[router.Cause]string{}, map[router.Cause]int{} // what was said last, so that the same is said once, and of how many more calls
	for _, f := range answers.Failing() {
		cause, what, do := of.calls, "", of.fix
		switch {
		case unneeded[callOf(f)]:
			continue
		case f.Status == 0:
			what = of.name + " cannot be reached"
		case f.Status == router.TimedOut:
			cause, what = of.silent, of.name+" accepts requests and does not answer them in time"
		case f.Status == router.Unreadable:
			what = of.name + "'s answers cannot be read, as they are empty, cut off or not its own"
		case f.Status == http.StatusUnauthorized:
			cause, do, what = of.denies, of.allow, of.name+" refuses the login (401)"
		case f.Status == http.StatusForbidden && optional[callOf(f)]:
			continue
		case f.Status == http.StatusForbidden:
			cause, do, what = of.denies, of.allow, of.name+" does not permit (403)"
		case f.Status == http.StatusTooManyRequests:
			what = of.name + " accepts no more requests for now"
		default:
			what = fmt.Sprintf("%s answers %d", of.name, f.Status)
		}
		i := slices.IndexFunc(all, func(t router.Trouble) bool { return t.Cause == cause })
		switch {
		case i < 0:
			all = append(all, router.Trouble{Cause: cause, Severity: router.Critical, Since: f.Since, What: what + ": " + f.Call, Fix: do})
		case said[cause] == what:
			others[cause]++
		default:
			all[i].What += "; " + what + ": " + f.Call
		}
		said[cause] = what
	}
	for i, t := range all {
		if n := others[t.Cause]; n > 0 {
			all[i].What += " and " + router.Count(n, "other call")
		}
	}
	return all
}

// callOf returns the name of a call without its host.
func callOf(f telemetry.Failing) string {
	call, _, _ := strings.Cut(f.Call, " at ")
	return call
}

// optional are calls that Switchyard works without, though it says less then, or whose refusal is a
// trouble of its own.
var optional = map[string]bool{
	"read scheduler configuration": true, "list servers": true, "list keys": true, "list nodes": true, "read node": true, "list namespaces": true,
	"GET repos/{owner}/{repo}/actions/variables/{variable}": true, "PATCH repos/{owner}/{repo}/actions/variables/{variable}": true,
	"GET orgs/{name}/actions/variables/{variable}": true, "PATCH orgs/{name}/actions/variables/{variable}": true,
}

// unneeded are calls on which no job depends: without them, the end of a version is not told early.
var unneeded = map[string]bool{
	"GET repos/{owner}/{repo}/actions/runners/deprecations/{id}": true, "GET orgs/{name}/actions/runners/deprecations/{id}": true, "GET enterprises/{name}/actions/runners/deprecations/{id}": true,
}

// shared returns what is wrong with what all share, as the database shows it.
func (h *Health) shared(ctx context.Context, f *found) (all []router.Trouble) {
	since := func(at *time.Time, bad bool) time.Time {
		switch {
		case !bad:
			*at = time.Time{}
		case at.IsZero():
			*at = f.at
		}
		return *at
	}
	if d := f.diskInfo; !since(&f.low, d.Total > 0 && (d.Free < diskLittle || d.Free < diskEnough && d.Free < d.Total/diskShare)).IsZero() {
		all = append(all, router.Trouble{
			Cause: router.CauseDisk, Severity: router.Warning, Since: f.low, What: "the disk of the database is nearly full" + d.Said(),
			Fix: "make room there, or keep the history for a shorter time with --keep: with a full disk no delivery is accepted",
		})
	}
	if quiet, expected := h.isQuiet(ctx, f.at); quiet > 0 {
		valid := ""
		if n, _, last := h.config.Metrics.Worked.Unsigned(); n > 0 && time.Since(last) < quiet {
			valid = "valid "
		}
		all = append(all, router.Trouble{
			Cause: router.CauseNoDelivery, Severity: router.Critical, Since: f.at.Add(-quiet),
			What: fmt.Sprintf("no %sdelivery has arrived for %s; on other days about %s came in this time", valid, router.Coarse(quiet), router.Count(expected, "job")),
			Fix:  "check the webhook's recent deliveries on GitHub (Settings, Webhooks; or the App's page, Advanced), and that GitHub reaches --listen; with --github-intake poll, that the webhook is active",
		})
	}
	if t := endingVersions(f.versions, f.at); t.What != "" {
		all = append(all, t)
	}
	oldest := h.oldestWaiting(ctx)
	last := h.config.Metrics.Worked.Last(telemetry.WorkedStart)
	if last.Before(h.started) {
		last = h.started
	}
	if stuck := !oldest.IsZero() && f.at.Sub(last) > nothingAfter && f.at.Sub(oldest) > nothingAfter; !since(&f.stuck, stuck).IsZero() {
		all = append(all, router.Trouble{
			Cause: router.CauseNothingStarts, Severity: router.Critical, Since: last,
			What: fmt.Sprintf("no job has started for %s, though jobs wait", router.Coarse(f.at.Sub(last))),
			Fix:  "look at what the oldest of them waits for: switchyard jobs list",
		})
	}
	return all
}

// endingVersions returns the trouble of rules to whose runners GitHub soon gives no jobs, or no
// longer does; zero: there are none.
func endingVersions(list []router.RuleVersion, now time.Time) (t router.Trouble) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b router.RuleVersion) int { return a.End.First().Compare(b.End.First()) })
	var said []string
	for _, v := range list {
		end := v.End.First()
		if end.IsZero() || end.Sub(now) >= router.EndsSoon {
			continue
		}
		if t.What == "" { // the first ends first
			t = router.Trouble{
				Cause: router.CauseVersionEnds, Severity: router.Warning, Since: end.Add(-router.EndsSoon),
				What: "GitHub soon gives no more jobs to the runners of some rules, as their version is too old",
				Fix:  "let the rule or its jobspec name a newer runner, or update it on the nodes",
			}
			if !now.Before(end) {
				t.Severity, t.What = router.Critical, "GitHub gives no more jobs to the runners of some rules, as their version is too old"
			}
		}
		if !slices.Contains(t.Rules, v.Rule) && len(t.Rules) < router.TroubleNames {
			t.Rules = append(t.Rules, v.Rule)
		}
		when := "in less than a day"
		switch days := int(end.Sub(now).Hours() / 24); {
		case !now.Before(end):
			when = "which is over"
		case days > 0:
			when = "in " + router.Count(days, "day")
		}
		said = append(said, fmt.Sprintf("rule %s: version %s until %s, %s", v.Rule, v.Version, end.Format(time.DateOnly), when))
	}
	if more := len(said) - router.TroubleNames; more > 0 {
		said = append(said[:router.TroubleNames], fmt.Sprintf("and %d more", more))
	}
	t.Said = strings.Join(said, "; ")
	return t
}

// oldestWaiting returns when the oldest job was received that waits for something other than
// a place, an approval or a free node; zero: there is none.
func (h *Health) oldestWaiting(ctx context.Context) (oldest time.Time) {
	open, err := h.config.Store.OpenJobs(ctx, nil)
	if err != nil {
		return time.Time{}
	}
	for _, o := range open {
		waits := o.State != router.Running && o.State != router.Held && o.Cause != router.CauseNoNodeFree && o.Cause.Label() != router.CauseNoNodeFits
		if waits && (oldest.IsZero() || o.Oldest.Before(oldest)) {
			oldest = o.Oldest
		}
	}
	return oldest
}

// isQuiet returns for how long no delivery has come, if the same hours brought jobs on most
// of the last days, and on the same day of the week before; and how many. Of a longer time
// without one, the last day counts: after a weekend, all of it would.
func (h *Health) isQuiet(ctx context.Context, now time.Time) (quiet time.Duration, expected int) {
	last := h.config.Metrics.Worked.Last(telemetry.WorkedDelivery)
	if last.IsZero() {
		last = h.started
	}
	if quiet = now.Sub(last); quiet < quietLeast {
		return 0, 0
	}
	if k := h.silence; !k.last.Equal(last) || now.Before(k.at) || now.Sub(k.at) >= k.at.Sub(last)/quietShare {
		if expected, err := h.expected(ctx, now, quiet); err == nil {
			h.silence = silence{last, now, expected}
		} else {
			h.silence = silence{}
		}
	}
	if h.silence.expected < quietExpected {
		return 0, 0
	}
	return quiet, h.silence.expected
}

// A silence is how many deliveries were expected since the last one. Counting them reads the
// times of a week of jobs, so the number stays until the silence is longer by some.
type silence struct {
	last, at time.Time
	expected int
}

// expected returns how many jobs the time of a silence until now brings.
func (h *Health) expected(ctx context.Context, now time.Time, quiet time.Duration) (expected int, err error) {
	hours := min(quiet, 24*time.Hour)
	var days []int
	for day := 1; day <= quietDays; day++ {
		until := now.AddDate(0, 0, -day)
		from := until.Add(-hours)
		n, oldest, err := h.config.Store.Received(ctx, from, until)
		if err != nil {
			return 0, err
		}
		if oldest.IsZero() || from.Before(oldest) {
			break
		}
		days = append(days, n)
	}
	if len(days) == 0 {
		return 0, nil
	}
	weekBefore := days[len(days)-1]
	whole := len(days) == quietDays
	slices.Sort(days)
	if expected = days[(len(days)-1)/2]; whole {
		expected = min(expected, weekBefore)
	}
	return expected, nil
}
