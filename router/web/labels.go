package web

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/rules"
)

const (
	useDays     = 7
	maxUnknown  = 25  // unknown labels that are shown
	maxTakers   = 4   // rules that are shown of a label
	maxOnePage  = 100 // labels that are shown; the others are found by the search
	maxExamples = 3

	uniqueToRun = "${{ github.run_id }}" // in a workflow
)

// A LabelUse is how often a label was asked for, and how long those jobs waited.
type LabelUse struct {
	Jobs     int
	Started  int           // of them those that a runner took
	P50, P95 time.Duration // from the first delivery of a job until a runner took it
}

// labelUse counts the labels of the jobs of the last days.
type labelUse struct {
	of      *rules.Set
	entries map[string]LabelUse // by LabelInfo.Name
	unknown map[string]int      // jobs, by label
}

// labelUses are the counts for each scope.
type labelUses struct {
	demand func(ctx context.Context, within router.Scope, since time.Time) ([]router.Demand, error)
	rules  interface{ Rules() *rules.Set }
	counts counts[labelUse]
}

// labels returns what the jobs in a scope asked for; nil: it is being counted.
func (u *labelUses) labels(ctx context.Context, scope router.Scope) (*labelUse, error) {
	set := u.rules.Rules()
	return u.counts.get(ctx, [2]any{set, scopeKey(scope)}, func(ctx context.Context) (*labelUse, error) {
		demand, err := u.demand(ctx, scope, u.counts.now().Add(-useDays*24*time.Hour))
		if err != nil {
			return nil, err
		}
		return countLabels(set, demand), nil
	})
}

func countLabels(set *rules.Set, demand []router.Demand) *labelUse {
	l := &labelUse{of: set, entries: map[string]LabelUse{}, unknown: map[string]int{}}
	waits := map[string][]time.Duration{}
	for _, d := range demand {
		entries, unknown := set.Named(d.Labels)
		for _, name := range entries {
			use := l.entries[name]
			use.Jobs += d.Jobs
			l.entries[name] = use
			waits[name] = append(waits[name], d.Waits...)
		}
		for _, label := range unknown {
			l.unknown[label] += d.Jobs
		}
	}
	for name, w := range waits {
		use, q := l.entries[name], quantilesOf(w)
		use.Started, use.P50, use.P95 = q.Jobs, q.P50, q.P95
		l.entries[name] = use
	}
	return l
}

type labelsView struct {
	Query   string
	Total   int // labels that the rules know
	Labels  []labelView
	More    int // labels that are found and not shown
	Unknown []unknownLabel
	Days    int
	NoCount bool // how often labels were asked for cannot be read
	Counted bool // it was
}

type labelView struct {
	rules.LabelInfo
	Words []meaningView
	Use   LabelUse
	Param string // what stands for the *; "": nothing to say
	Takes []takerView
	More  int    // rules that take it and are not shown
	Try   string // labels of a job with it, for the playground
}

type takerView struct{ Rule, RunsOn string }

type unknownLabel struct {
	Label   string
	Jobs    int
	Nearest []string
}

func (s *console) labelsPage(req *http.Request) (any, error) {
	p := api.Parameters{Values: req.URL.Query()}
	v := labelsView{Query: p.Text("q"), Days: useDays}
	if err := p.End(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Context(), api.ReadTimeout)
	defer cancel()
	use, err := s.labelUses.labels(ctx, auth.Who(ctx).Scope)
	v.NoCount, v.Counted = err != nil, use != nil
	if use == nil {
		use = &labelUse{}
	}
	labels, _, _ := s.api.RulesInfo()
	v.Total = len(labels)
	terms := strings.Fields(strings.ToLower(v.Query))
	for _, info := range labels {
		l := labelOf(info, use.entries[info.Name])
		switch {
		case !l.has(terms):
		case len(v.Labels) == maxOnePage:
			v.More++
		default:
			v.Labels = append(v.Labels, l)
		}
	}
	for _, label := range slices.SortedFunc(maps.Keys(use.unknown), func(a, b string) int {
		return cmp.Or(use.unknown[b]-use.unknown[a], strings.Compare(a, b))
	}) {
		if len(v.Unknown) == maxUnknown {
			break
		}
		v.Unknown = append(v.Unknown, unknownLabel{label, use.unknown[label], use.of.Nearest(label)})
	}
	return v, nil
}

func labelOf(info rules.LabelInfo, use LabelUse) labelView {
	l := labelView{LabelInfo: info, Use: use, Param: paramWords(info.Param)}
	for _, m := range info.Means {
		l.Words = append(l.Words, meaningOf(m))
	}
	l.Examples = l.Examples[:min(len(l.Examples), maxExamples)]
	written := func(labels []string) []string { return labels }
	if prefix, open := strings.CutSuffix(l.Name, "*"); open && prefix != "" && l.Param == "" {
		// Any text may stand for the *, but one that is the same in each run would be of no use.
		l.Examples = []string{prefix + uniqueToRun}
		written = func(labels []string) []string {
			labels = slices.Clone(labels)
			for i, label := range labels {
				if strings.HasPrefix(label, prefix) {
					labels[i] = prefix + uniqueToRun
				}
			}
			return labels
		}
	}
	for i, r := range info.Rules {
		if i == maxTakers {
			l.More = len(info.Rules) - i
			break
		}
		l.Takes = append(l.Takes, takerView{r.Rule, runsOn(written(r.RunsOn))})
	}
	if len(info.Rules) > 0 {
		l.Try = strings.Join(info.Rules[0].RunsOn, ", ")
	}
	return l
}

// Open reports whether any text may stand for the label's *.
func (l labelView) Open() bool { return strings.HasSuffix(l.Name, "*") }

// has reports whether each of the terms, in lower case, stands in what is said of the label.
func (l labelView) has(terms []string) bool {
	said := []string{l.Name, l.Param}
	said = append(said, l.Examples...)
	for _, w := range l.Words {
		said = append(said, w.Words, w.As)
	}
	for _, t := range l.Rules {
		said = append(said, t.Rule)
	}
	return found(terms, said...)
}

// found reports whether each of the terms, in lower case, stands in the texts.
func found(terms []string, texts ...string) bool {
	all := strings.ToLower(strings.Join(texts, "\n"))
	return !slices.ContainsFunc(terms, func(t string) bool { return !strings.Contains(all, t) })
}

func paramWords(p *rules.ParamInfo) string {
	switch {
	case p == nil:
		return ""
	case p.Type == "int":
		return fmt.Sprintf("a whole number from %s to %s", p.Least, p.Most)
	case p.Type == "size":
		return fmt.Sprintf("a size from %s to %s", p.Least, p.Most)
	case p.Pattern != "":
		return "a text that matches " + p.Pattern
	}
	return "one of " + strings.Join(p.OneOf, ", ")
}

// A meaningView is one thing that a label asks for, in words and, where that
// says more, as the rules file has it.
type meaningView struct{ Words, As string }

// fromLabel matches an expression that is just what stands for the * in the label.
var fromLabel = regexp.MustCompile(`\$\{\{\s*param\.[A-Za-z0-9_]+\s*\}\}`)

// meaningOf says a Meaning in words. Expressions that are more than the label's
// value stay as they are.
func meaningOf(m rules.Meaning) meaningView {
	value := fromLabel.ReplaceAllString(m.Value, "what the label says")
	switch m.What {
	case "constraint":
		return meaningView{"Only nodes whose " + conditionWords(value), m.Value}
	case "device constraint":
		return meaningView{"Only devices whose " + conditionWords(value), m.Value}
	case "affinity":
		condition, weight, _ := strings.Cut(value, ", weight ")
		rather := "Preferably nodes whose "
		if strings.HasPrefix(weight, "-") {
			rather = "Preferably not nodes whose "
		}
		return meaningView{rather + conditionWords(condition), m.Value}
	case "device":
		if count, name, ok := strings.Cut(value, " × "); ok && count == "what the label says" {
			return meaningView{"As many devices " + name + " as the label says", ""}
		}
		return meaningView{"Device: " + value, ""}
	}
	words := map[string]string{
		"cpu": "CPU: at least ", "cores": "Reserved cores: at least ", "memory": "Memory: at least ", "disk": "Disk: at least ",
		"memory max": "Memory, where tasks may exceed theirs: up to ", "node pool": "Only nodes of the pool ", "datacenters": "Only nodes in the datacenters ",
	}[m.What]
	return meaningView{cmp.Or(words, strings.ToUpper(m.What[:1])+m.What[1:]+": ") + value, ""}
}

// conditionWords says a constraint such as "${attr.cpu.arch} = amd64" in words.
func conditionWords(c string) string {
	left, rest := c, ""
	if i := strings.Index(c, "}"); strings.HasPrefix(c, "${") && i > 0 {
		left, rest = c[2:i], strings.TrimSpace(c[i+1:])
	}
	op, value, _ := strings.Cut(rest, " ")
	verb := map[string]string{
		"=": "is", "!=": "is not", ">": "is more than", ">=": "is at least", "<": "is less than", "<=": "is at most",
		"regexp": "matches", "version": "is a version", "semver": "is a version", "is_set": "is set", "is_not_set": "is not set",
		"set_contains": "contains", "set_contains_all": "contains all of", "set_contains_any": "contains any of",
	}[op]
	if verb == "" {
		return c
	}
	name, known := map[string]string{
		"attr.cpu.arch": "CPU architecture", "attr.kernel.name": "operating system", "node.class": "class", "node.datacenter": "datacenter", "node.pool": "pool",
	}[left]
	if meta, ok := strings.CutPrefix(left, "meta."); ok {
		name = "metadata " + meta
	} else if attr, ok := strings.CutPrefix(left, "attr."); ok && !known {
		name = "attribute " + attr
	}
	name = cmp.Or(name, left)
	return strings.TrimSpace(name + " " + verb + " " + value)
}

// plain matches a label that YAML takes for a text without quotes, also in a list.
var plain = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./=+-]*$`)

// runsOn returns the line of a workflow for these labels.
func runsOn(labels []string) string {
	quoted := make([]string, len(labels))
	for i, l := range labels {
		quoted[i] = l
		if !plain.MatchString(l) || slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(l)) {
			quoted[i] = "'" + strings.ReplaceAll(l, "'", "''") + "'"
		}
	}
	return "runs-on: [" + strings.Join(quoted, ", ") + "]"
}
