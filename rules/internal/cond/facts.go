package cond

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// Repo is the repository the job belongs to, as conditions see it (repo.…).
type Repo struct {
	Host       string `expr:"host" json:"host,omitempty"`   // of its GitHub: github.com, TENANT.ghe.com or that of a server
	Owner      string `expr:"owner" json:"owner"`           // organization or user
	Name       string `expr:"name" json:"name"`             // without the owner
	FullName   string `expr:"full_name" json:"full_name"`   // owner/name
	Private    bool   `expr:"private" json:"private"`       // true for private and internal repositories
	Visibility string `expr:"visibility" json:"visibility"` // public, private or internal; "" when GitHub did not say
	Fork       bool   `expr:"fork" json:"fork"`             // the repository itself is a fork
	URL        string `expr:"url" json:"-"`                 // of its page: https://github.com/acme/web
}

// Job is the GitHub workflow job, as conditions see it (job.…).
type Job struct {
	Name     string `expr:"name" json:"name"`         // the job's name in the run, matrix values included
	Workflow string `expr:"workflow" json:"workflow"` // the workflow's name; "" when GitHub did not say
	Branch   string `expr:"branch" json:"branch"`     // head branch; "" when GitHub did not say
	Attempt  int    `expr:"attempt" json:"attempt"`   // run attempt, from 1
	Sender   string `expr:"sender" json:"sender"`     // login of the user or app that caused the delivery
}

// Run is the workflow run, as conditions see it (run.…). It costs a call to
// GitHub, so it is looked up only for jobs that reach a rule that asks for it.
type Run struct {
	Event string `expr:"event" json:"event"` // the event that started the run: push, pull_request, …
	Fork  bool   `expr:"fork" json:"fork"`   // the commit comes from another repository: a pull request of a fork
	Actor string `expr:"actor" json:"actor"` // login of the user or app that first started the run
}

// Env is what an expression sees: the README's table of variables is generated from its fields.
type Env struct {
	Labels []string       `expr:"labels"` // in lower case, each once
	Param  map[string]any `expr:"param"`  // the value of a label such as cpu=8; nil when the job has no such label
	Repo   Repo           `expr:"repo"`
	Job    Job            `expr:"job"`
	Run    Run            `expr:"run"` // in a rule's if only

	RunKnown bool     `expr:"-"`
	Asked    []string `expr:"-"` // the job's labels as they came

	Spent, Limit    int `expr:"-"` // steps of work so far, and at most; 0: DecisionSteps
	text, allLabels int // bytes of the longest text, and of all labels; text 0: not counted yet
}

// The bounds of a job's labels that Decide accepts. GitHub registers a runner with at most 100 (its
// OpenAPI description, read 2026-11-24).
const (
	MaxLabels      = 100
	MaxLabelLength = 256 // characters
)

// A Spot is a place in a file.
type Spot struct {
	File         string
	Line, Column int
}

// textFacts and flagFacts are the facts that a part of a condition can ask for.
var textFacts = map[string]func(*Env) string{
	"repo.host":       func(e *Env) string { return e.Repo.Host },
	"repo.owner":      func(e *Env) string { return e.Repo.Owner },
	"repo.name":       func(e *Env) string { return e.Repo.Name },
	"repo.full_name":  func(e *Env) string { return e.Repo.FullName },
	"repo.url":        func(e *Env) string { return e.Repo.URL },
	"repo.visibility": func(e *Env) string { return e.Repo.Visibility },
	"job.name":        func(e *Env) string { return e.Job.Name },
	"job.workflow":    func(e *Env) string { return e.Job.Workflow },
	"job.branch":      func(e *Env) string { return e.Job.Branch },
	"job.sender":      func(e *Env) string { return e.Job.Sender },
	"run.event":       func(e *Env) string { return e.Run.Event },
	"run.actor":       func(e *Env) string { return e.Run.Actor },
}

var flagFacts = map[string]func(*Env) bool{
	"repo.private": func(e *Env) bool { return e.Repo.Private },
	"repo.fork":    func(e *Env) bool { return e.Repo.Fork },
	"run.fork":     func(e *Env) bool { return e.Run.Fork },
}

// factName returns the name of a fact's field, such as "repo.owner"; "" for any other node.
func factName(n ast.Node) string {
	m, ok := n.(*ast.MemberNode)
	if !ok {
		return ""
	}
	id, isID := m.Node.(*ast.IdentifierNode)
	name, isName := m.Property.(*ast.StringNode)
	if !isID || !isName || !slices.Contains(envNames[1:], id.Value) {
		return ""
	}
	return id.Value + "." + name.Value
}

// factsOf returns the facts that an expression asks for, in its order: "repo.owner", "param.cpu",
// "label gpu" for a literal label, "labels" for any; "repo" when it asks for the whole.
func factsOf(n ast.Node) (names []string) {
	walk(n, func(n *ast.Node) {
		name := factName(*n)
		switch n := (*n).(type) {
		case *ast.MemberNode:
			if name != "" { // its identifier came before
				names = names[:len(names)-1]
			}
		case *ast.IdentifierNode:
			if slices.Contains(envNames, n.Value) {
				name = n.Value
			}
		case *ast.BinaryNode:
			if l, ok := n.Left.(*ast.StringNode); ok && n.Operator == "in" && isLabels(n.Right) {
				names[len(names)-1] = "label " + strings.ToLower(l.Value)
			}
		case *ast.CallNode:
			if labelCall(n) == "" {
				break
			}
			name = labelsName
			if made := labelNode(n); made != nil {
				var has []string
				made.keys(func(k key) { has = append(has, "label "+k.is) })
				only := false
				made.Each(func(k *Node) { only = only || k.Kind == hasOnly })
				if len(has) == len(n.Arguments) && !only {
					names = append(names, has...)
					name = ""
				}
			}
		}
		if name != "" {
			names = append(names, name)
		}
	})
	return names
}

func asksForRun(facts []string) bool {
	return slices.ContainsFunc(facts, func(f string) bool { return f == "run" || strings.HasPrefix(f, "run.") })
}

// factText returns a fact as it is compared with others.
func factText(name string, env *Env) string {
	s := textFacts[name](env)
	if nocaseFacts[name] {
		s = strings.ToLower(s)
	}
	return s
}

// Values returns the values of those facts of a job that names selects, as Language.Facts has
// them, in one text: it differs for jobs of which any differs. A name of the whole selects all
// that it has.
func (e *Env) Values(names map[string]bool) string {
	asked := func(name string) bool {
		of, _, _ := strings.Cut(name, ".")
		return names[of] || names[name]
	}
	var b strings.Builder
	for _, name := range allFacts {
		if !asked(name) {
			continue
		}
		switch {
		case textFacts[name] != nil:
			b.WriteString(strconv.Quote(textFacts[name](e)))
		case flagFacts[name] != nil:
			b.WriteString(strconv.FormatBool(flagFacts[name](e)))
		default: // job.attempt, the only number
			b.WriteString(strconv.Itoa(e.Job.Attempt))
		}
		b.WriteByte(' ')
	}
	if slices.ContainsFunc(allFacts, func(name string) bool { return strings.HasPrefix(name, "run.") && asked(name) }) {
		b.WriteString(strconv.FormatBool(e.RunKnown))
	}
	return b.String()
}

// allFacts are the facts of a job besides its labels.
var allFacts = slices.Concat(slices.Sorted(maps.Keys(textFacts)), slices.Sorted(maps.Keys(flagFacts)), []string{"job.attempt"})

// Alike returns how many steps a decision for the job may take so that none takes more than
// DecisionSteps for a job with the same labels and facts that are asked for: what an expression
// costs depends on the longest text of the job, asked for or not. 0: the job has a longer one than
// others may have.
func (e *Env) Alike() (steps int) {
	if e.longest() > MaxLabelLength {
		return 0
	}
	return DecisionSteps * e.longest() / MaxLabelLength / 2 // the shares of a text in Steps are rounded down
}
