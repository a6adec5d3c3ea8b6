package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

const (
	maxMetaKeys = 50
	maxMetaText = 4096 // bytes of a value; Nomad would take megabytes, but it ends up in the environment of a task
)

var (
	metaKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

	// claimKeys are Switchyard's alone: their values are made for each runner.
	claimKeys = map[string]bool{"SWITCHYARD_CLAIM_URL": true, "SWITCHYARD_CLAIM_TOKEN": true}
)

// A ruleReader reads rules.
type ruleReader struct{ placementReader }

// dispatch reads the parameterized job of a rule: its ID, or a mapping with the meta to give it.
func (r *ruleReader) dispatch(n ast.Node, ru *rule) {
	job := n
	if _, short := yamlfile.Scalar(n); !short {
		f := r.Fields(n, "dispatch", "job", "meta")
		if f == nil {
			return
		}
		ru.dispatch = "?" // so that what is left out is the one fault
		if job = f["job"]; job == nil {
			r.Fault(n, "dispatch needs job, the ID of a parameterized Nomad job: { job: github_runner, meta: { REPO_URL: '${{ repo.url }}' } }")
		}
		if f["meta"] != nil {
			ru.meta = r.dispatchMeta(f["meta"])
		}
	}
	if job == nil {
		return
	}
	ru.dispatch = literal(&r.valueReader, job, "dispatch", func(v any) (string, error) {
		s, err := cond.AsText(v)
		if err == nil && (strings.ContainsAny(s, " \x00") || len(s) > 300 || !words.Printable(s)) {
			err = fmt.Errorf("%s is not a valid ID of a Nomad job", words.Quote(s))
		}
		return s, err
	}).literal
}

func (r *ruleReader) dispatchMeta(n ast.Node) (meta []envSpec) {
	pairs := r.Pairs(n, "dispatch meta")
	if len(pairs) > maxMetaKeys {
		r.Fault(n, "dispatch meta has %d keys; the maximum is %d", len(pairs), maxMetaKeys)
		return nil
	}
	for _, p := range pairs {
		what := "dispatch meta " + p.Key
		switch {
		case !metaKey.MatchString(p.Key):
			r.Fault(p.KeyNode, "%s is not a valid meta key of a Nomad job: write letters, digits and _.-", words.Quote(p.Key))
			continue
		case claimKeys[p.Key]:
			r.Fault(p.KeyNode, "%s is made for each runner: declare it in the Nomad job, and leave it out here", p.Key)
			continue
		}
		v := readText(&r.valueReader, p.Value, what, metaText, true)
		if v.template != nil {
			if kind := v.template.Kind(); kind != "" {
				r.Fault(p.Value, "%s must be a text, and %s is a %s: write join(labels, \",\") for a list", what, words.OneLine(v.template.Source), kind)
				continue
			}
		}
		if v.set {
			meta = append(meta, envSpec{p.Key, v})
		}
	}
	return meta
}

// metaText reads a value of meta.
func metaText(v any) (string, error) {
	s, err := cond.AsText(v)
	if err == nil && len(s) > maxMetaText {
		err = fmt.Errorf("it has %d bytes; the maximum is %d", len(s), maxMetaText)
	}
	if err == nil && !words.Printable(s) {
		err = fmt.Errorf("%s is not one line of printable text", words.Quote(s))
	}
	return s, err
}

// ruleKeys are the keys of a rule besides those of a placement.
var ruleKeys = []string{"name", "if", "deny", "jobspec", "dispatch", "max", "limit", "urgency", "time_limit", "rerun", "fallback", "overflow", "warm"}

// rule reads a rule, as far as it has no fault.
func (r *ruleReader) rule(n ast.Node) (ru rule) {
	f := r.Fields(n, "a rule", append(ruleKeys, placementKeys...)...)
	ru = rule{at: r.at(n)}
	if f == nil {
		return ru
	}
	if v, ok := f["name"]; !ok {
		r.Fault(n, "a rule needs a name")
	} else if s, ok := r.Text(v, "rule name"); ok {
		ru.name = s
		if !isPlainName(s) {
			r.Fault(v, "rule name %s: write letters, digits, spaces and ._/+:-, at most 128", words.Quote(s))
		} else {
			r.once(v, "rule "+s)
		}
	}
	if v, ok := f["if"]; ok {
		if s, ok := r.Text(v, "if"); ok {
			ru.when = r.condition(v, "if", s)
		}
	}
	switch kinds := presentKeys(f, "deny", "jobspec", "dispatch"); len(kinds) {
	case 0:
		r.Fault(n, "a rule needs one of jobspec, dispatch or deny")
	case 1:
	default:
		r.Fault(f[kinds[1]], "a rule has one of jobspec, dispatch and deny, not both %s and %s", kinds[0], kinds[1])
	}
	if v, ok := f["deny"]; ok {
		ru.deny = words.OneLine(strings.TrimSpace(literal(&r.valueReader, v, "deny", anyText).literal))
		for _, k := range presentKeys(f, append([]string{"max", "limit", "urgency", "time_limit", "rerun", "fallback", "overflow", "warm"}, placementKeys...)...) {
			r.Fault(f[k], "a rule that denies places nothing: %s has no effect", k)
		}
	}
	if v, ok := f["jobspec"]; ok {
		ru.jobspec = literal(&r.valueReader, v, "jobspec", named(isPlainName, "name of a jobspec")).literal
		ru.jobspecAt = r.at(v)
	}
	if v, ok := f["dispatch"]; ok {
		r.dispatch(v, &ru)
		for _, k := range presentKeys(f, append([]string{"max", "rerun", "fallback", "warm"}, placementKeys...)...) {
			if !slices.ContainsFunc(placementFields, func(f *field) bool { return f.key == k && f.dispatched }) {
				r.Fault(f[k], "a dispatched Nomad job runs as it is: %s has no effect", k)
			}
		}
	}
	r.layer(f, &ru.layer, "rule")
	r.max(f["max"], &ru.layer, "rule "+ru.name)
	if v, ok := f["limit"]; ok {
		ru.limit = r.limit(v)
	}
	if v, ok := f["urgency"]; ok {
		ru.layer.urgency, ru.urgencyAt = r.urgency(v, "urgency"), r.at(v)
	}
	ru.timeLimit = r.timeLimit(f["time_limit"])
	if v, ok := f["rerun"]; ok {
		ru.rerun, ru.rerunAt = r.rerun(v), r.at(v)
	}
	if v, ok := f["fallback"]; ok {
		r.fallback(v, &ru)
	}
	if v, ok := f["overflow"]; ok {
		ru.overflow = r.overflow(v)
	}
	if v, ok := f["warm"]; ok {
		ru.warm = r.warm(v)
	}
	return ru
}

const maxReruns = 10 // of one job of a run

func (r *ruleReader) rerun(n ast.Node) *Rerun {
	f := r.Fields(n, "rerun", "when", "times")
	if f == nil {
		return nil
	}
	again := &Rerun{Times: 1}
	if v, ok := f["when"]; !ok {
		r.Fault(n, "rerun needs when, a list with any of %s", strings.Join(rerunWhen, ", "))
	} else {
		items := r.Items(v, "rerun when")
		if items != nil && len(items) == 0 {
			r.Fault(v, "rerun when is empty: list any of %s, or leave rerun out", strings.Join(rerunWhen, ", "))
		}
		for _, item := range items {
			switch s, ok := r.Text(item, "rerun when"); {
			case !ok:
			case !slices.Contains(rerunWhen, s):
				r.Fault(item, "rerun when %s: want %s%s", words.Quote(s), strings.Join(rerunWhen, ", "), words.DidYouMean(s, rerunWhen))
			case slices.Contains(again.When, s):
				r.Fault(item, "rerun when lists %s twice", s)
			default:
				again.When = append(again.When, s)
			}
		}
	}
	slices.SortFunc(again.When, func(a, b string) int { return slices.Index(rerunWhen, a) - slices.Index(rerunWhen, b) })
	if v, ok := f["times"]; ok {
		again.Times, _ = r.whole(v, "rerun times", 1, maxReruns)
	}
	return again
}

func (r *ruleReader) limit(n ast.Node) *limitSpec {
	f := r.Fields(n, "limit", "running", "per", "order")
	if f == nil {
		return nil
	}
	l := &limitSpec{per: "rule"}
	if v, ok := f["running"]; !ok {
		r.Fault(n, "limit needs running: how many jobs may run at once")
	} else {
		l.running, _ = r.whole(v, "limit running", 1, math.MaxInt32)
	}
	if v, ok := f["per"]; ok {
		if l.per, ok = r.Text(v, "limit per"); ok && !slices.Contains(limitPer, l.per) {
			r.Fault(v, "limit per %s: want %s%s", words.Quote(l.per), strings.Join(limitPer, ", "), words.DidYouMean(l.per, limitPer))
		}
	}
	if v, ok := f["order"]; ok {
		if l.order = literal(&r.valueReader, v, "limit order", oneOf(limitOrders...)).literal; l.order == limitOrders[0] {
			l.order = ""
		}
	}
	return l
}

// urgency reads how urgent a job is among those that wait for a place.
func (r *valueReader) urgency(n ast.Node, what string) value[int] {
	return read(r, n, what, wholeBetween(0, MaxUrgency))
}

const maxFallback = 10

// fallback reads the fallbacks of a rule.
func (r *ruleReader) fallback(n ast.Node, ru *rule) {
	items := r.Items(n, "fallback")
	if items != nil && len(items) == 0 || len(items) > maxFallback {
		r.Fault(n, "fallback must list 1 to %d placements", maxFallback)
		return
	}
	for i, item := range items {
		f := r.Fields(item, "a fallback", append([]string{"after", "jobspec"}, placementKeys...)...)
		if f == nil {
			continue
		}
		fb := fallback{at: r.at(item), from: fmt.Sprintf("rule %s, fallback %d", ru.name, i+1)}
		if v, ok := f["after"]; !ok {
			r.Fault(item, "a fallback needs after: how long since the job was dispatched, such as 5m")
		} else if d, ok := r.duration(v, "after", time.Second, 30*24*time.Hour); ok {
			if i > 0 && len(ru.fallback) == i && d <= ru.fallback[i-1].after {
				r.Fault(v, "after %s is not more than %s of the fallback before: they are tried in order", Duration(d), Duration(ru.fallback[i-1].after))
			}
			fb.after = d
		}
		if v, ok := f["jobspec"]; ok {
			fb.jobspec = literal(&r.valueReader, v, "jobspec", named(isPlainName, "name of a jobspec")).literal
			fb.jobspecAt = r.at(v)
		}
		r.layer(f, &fb.layer, "fallback")
		ru.fallback = append(ru.fallback, fb)
	}
}

// timeLimit reads the most that a job may run; 0 when n is nil.
func (r *valueReader) timeLimit(n ast.Node) time.Duration {
	if n == nil {
		return 0
	}
	d, _ := r.duration(n, "time_limit", time.Minute, maxRunning)
	return d
}

// presentKeys returns which of the keys are there.
func presentKeys(f map[string]ast.Node, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { _, ok := f[k]; return !ok })
}
