package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	playgroundTimeout = 5 * time.Second // for an answer with its Nomad job
	maxChips          = 40              // known labels that are offered
	maxStarts         = 12              // rules whose job an empty playground offers
	maxTrace          = 300             // rules that are shown
)

// A playForm is what the playground is asked, as it was typed.
type playForm struct {
	Labels, Repo, Visibility, Host string
	Job, Workflow, Branch, Sender  string
	Event, Actor                   string // of the run
	Fork, RunFork                  bool
}

func readPlayForm(p *api.Parameters) playForm {
	return playForm{
		Labels: p.Text("labels"), Repo: p.Text("repo"), Visibility: cmp.Or(p.Text("visibility"), "private"), Host: p.Text("host"),
		Job: p.Text("job"), Workflow: p.Text("workflow"), Branch: p.Text("branch"), Sender: p.Text("sender"),
		Event: p.Text("event"), Actor: p.Text("actor"),
		Fork: p.Flag("fork"), RunFork: p.Flag("run_fork"),
	}
}

// playFormOf returns the form filled in for a known job.
func playFormOf(j router.Job) playForm {
	f := playForm{
		Labels: rules.ShowLabels(j.Labels), Repo: j.Repo.Owner + "/" + j.Repo.Name, Visibility: j.Repo.Visibility, Host: j.Repo.Host,
		Job: j.Name, Workflow: j.Workflow, Branch: j.Branch, Sender: j.Sender, Fork: j.Repo.Fork,
	}
	if f.Visibility == "" {
		f.Visibility = "public"
		if j.Repo.Private {
			f.Visibility = "private"
		}
	}
	if f.Host == rules.DefaultHost {
		f.Host = ""
	}
	if j.Decision != nil && j.Decision.Run != nil {
		f.Event, f.Actor, f.RunFork = j.Decision.Run.Event, j.Decision.Run.Actor, j.Decision.Run.Fork
	}
	return f
}

// address returns the playground's address with this form and other labels.
func (f playForm) address(labels []string) string {
	q := url.Values{"labels": {rules.ShowLabels(labels)}}
	flag := map[bool]string{true: "true"}
	for name, value := range map[string]string{
		"repo": f.Repo, "host": f.Host, "job": f.Job, "workflow": f.Workflow, "branch": f.Branch, "sender": f.Sender,
		"event": f.Event, "actor": f.Actor, "visibility": f.Visibility, "fork": flag[f.Fork], "run_fork": flag[f.RunFork],
	} {
		if value != "" && (name != "visibility" || value != "private") {
			q.Set(name, value)
		}
	}
	return "/playground?" + q.Encode()
}

// Details reports whether the form holds more than the labels and the repository.
func (f playForm) Details() bool {
	return f.Host+f.Job+f.Workflow+f.Branch+f.Sender+f.Event+f.Actor != "" || f.RunFork
}

// labels splits the labels that somebody typed or pasted, perhaps from a workflow: at
// commas, or at spaces if there are no commas and no quotes.
func (f playForm) labels() []string {
	text := strings.TrimSpace(f.Labels)
	if !strings.ContainsAny(text, ",\"'\n") && !strings.HasPrefix(text, "- ") {
		text = strings.TrimSpace(strings.TrimPrefix(text, "runs-on:"))
		text = strings.Join(strings.Fields(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")), ",")
	}
	return slices.DeleteFunc(rules.ParseLabels(text), func(l string) bool { return l == "" })
}

func (f playForm) question() api.Question {
	q := api.Question{
		Repo: f.Repo, Host: f.Host, Visibility: f.Visibility, Fork: f.Fork, Labels: f.labels(),
		Job: f.Job, Workflow: f.Workflow, Branch: f.Branch, Sender: f.Sender, All: true, Render: true,
	}
	if f.Event+f.Actor != "" || f.RunFork {
		q.Run = &router.Run{Event: f.Event, Fork: f.RunFork, Actor: f.Actor}
	}
	return q
}

type playgroundView struct {
	Form     playForm
	Known    []string // labels that a browser completes
	Chips    []chip
	Starts   []start // of an empty playground
	Fault    string  // why there is no answer; "": there is one, or nothing was asked
	Answer   *api.Answer
	NomadJob string // as indented JSON; "": none
	MoreStep int    // rules of the trace that are not shown
}

// A chip is a known label that can be added to those asked for, or taken away.
type chip struct {
	N              int
	Label, Address string
	On             bool
}

type start struct {
	Rule, Address string
	Labels        []string
}

func (s *console) playgroundPage(req *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(req.Context(), playgroundTimeout)
	defer cancel()
	p := api.Parameters{Values: req.URL.Query()}
	v := playgroundView{Form: readPlayForm(&p)}
	id := p.Number("job_id", 0, 1, 1<<62)
	if err := p.End(); err != nil {
		return nil, err
	}
	if id != 0 {
		j, err := s.api.VisibleJob(ctx, id)
		if err != nil {
			return nil, err
		}
		v.Form = playFormOf(j)
	}
	if v.Form.Repo == "" {
		v.Form.Repo = someRepo(ctx, s.api.Database)
	}
	labels, list, _ := s.api.RulesInfo()
	v.offer(s.config.App.Rules(), labels, list)
	q := v.Form.question()
	if id != 0 {
		q = api.Question{JobID: id, All: true, Render: true}
	} else if len(q.Labels) == 0 {
		return v, nil
	}
	answer, err := s.api.Explain(ctx, q)
	fault, answered := errors.AsType[*problem.Details](err)
	switch {
	case answered && fault.RetryAfter == 0:
		v.Fault = fault.Detail
		return v, nil
	case err != nil:
		return nil, err
	}
	if n := len(answer.Decision.Trace); n > maxTrace {
		v.MoreStep, answer.Decision.Trace = n-maxTrace, answer.Decision.Trace[:maxTrace]
	}
	v.Answer, v.NomadJob = &answer, indented(answer.NomadJob)
	return v, nil
}

// someRepo returns a repository to start with that may be seen: the newest job's
// for who sees all of them.
func someRepo(ctx context.Context, database api.Database) string {
	if scope := auth.Who(ctx).Scope; len(scope) > 0 {
		_, owner, name := router.SplitScope(scope[0])
		if name == "*" {
			name = "web"
		}
		return owner + "/" + name
	} else if scope == nil {
		if jobs, err := database.FindJobs(ctx, router.JobFilter{Limit: 1}); err == nil && len(jobs) == 1 {
			return jobs[0].Repo.Owner + "/" + jobs[0].Repo.Name
		}
	}
	return "acme/web"
}

// offer fills in what can be asked for.
func (v *playgroundView) offer(set *rules.Set, labels []rules.LabelInfo, list []rules.RuleInfo) {
	asked := v.Form.labels()
	entry := map[string]string{} // of what is asked for
	for _, l := range asked {
		if entries, _ := set.Named([]string{l}); len(entries) == 1 {
			entry[l] = entries[0]
		}
	}
	for _, l := range labels {
		if len(l.Examples) == 0 {
			continue
		}
		v.Known = append(v.Known, l.Examples[0])
		if len(v.Chips) == maxChips {
			continue
		}
		c, others := chip{N: len(v.Chips), Label: l.Examples[0]}, []string{}
		for _, label := range asked {
			if entry[label] == l.Name {
				c.On, c.Label = true, label
			} else {
				others = append(others, label)
			}
		}
		if !c.On {
			others = append(others, c.Label)
		}
		c.Address = v.Form.address(others)
		v.Chips = append(v.Chips, c)
	}
	v.Known = v.Known[:min(len(v.Known), 10*maxChips)]
	for _, r := range list {
		if r.Deny == "" && len(r.RunsOn) > 0 && len(v.Starts) < maxStarts {
			v.Starts = append(v.Starts, start{r.Name, v.Form.address(r.RunsOn), r.RunsOn})
		}
	}
}

// indented returns JSON indented for people and safe to show.
func indented(j json.RawMessage) string {
	var b bytes.Buffer
	if len(j) == 0 || string(j) == "null" || json.Indent(&b, j, "", "  ") != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, l := range lines {
		lines[i] = router.Printable(l)
	}
	return strings.Join(lines, "\n")
}
