package rules

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A labelCheck checks the vocabulary, and what its labels ask for.
type labelCheck struct{ linter }

// check checks each label.
func (l *labelCheck) check() {
	// Any label may change a decision then: by an expression, or by what a job is counted under.
	counts := l.sees || slices.ContainsFunc(l.rules, func(ru rule) bool { return ru.limit != nil && ru.limit.per == "label" })
	for _, lb := range l.vocabulary.all() {
		if l.over() {
			l.leftOut(lb.at, "the labels from "+words.Quote(lb.pattern)+" on")
			return
		}
		_, open := lb.prefix()
		if a, b, found := l.clash(lb.layer.stated("label " + lb.pattern)); found {
			l.add("contradictory-constraints", b.at, "", "no node can satisfy both %s and %s of the label %s; remove one of them", a, b, words.Quote(lb.pattern))
			continue
		}
		switch {
		case counts || lb.pattern == "self-hosted" || open && lb.param == nil:
		case l.asksFor(lb) || lb.param != nil && l.asked[lb.param.Name]:
		case reflect.DeepEqual(lb.layer, layer{}):
			l.add("ignored-label", lb.at, "", "label %s changes nothing: no rule asks for it, and it has no meaning; give it one, or remove it", words.Quote(lb.pattern))
			continue
		}
		if why := l.unusable(lb); why != "" {
			l.add("unusable-label", lb.at, "", "no job can use the label %s: %s", words.Quote(lb.pattern), why)
		}
	}
}

// asksFor reports whether an expression names a label of the entry.
func (l *labelCheck) asksFor(lb *label) bool {
	prefix, open := lb.prefix()
	if !open {
		return l.mentions[lb.pattern]
	}
	l.left -= len(l.mentions)
	for m := range l.mentions {
		if strings.HasPrefix(m, prefix) {
			return true
		}
	}
	return false
}

// unusable returns why no rule can place a job with the label, "" when one may.
func (l *labelCheck) unusable(lb *label) string {
	if c := l.compound; c.prefix != "" && strings.HasPrefix(lb.pattern, c.prefix) {
		return "it begins with the compound prefix " + words.Quote(c.prefix) + ", so it is always expanded; rename it"
	}
	if l.asksFor(lb) && slices.ContainsFunc(l.rules, func(ru rule) bool { // refused on purpose
		return ru.deny != "" && slices.ContainsFunc(ru.when.Labels, func(m cond.Mention) bool {
			found, _ := l.vocabulary.find(m.Label)
			return found == lb
		})
	}) {
		return ""
	}
	why := ""
	names, all := l.trials(lb)
	for _, name := range names {
		env := newEnv([]string{name}, Facts{})
		if found, _ := l.vocabulary.find(name); found != lb {
			continue // it means something else
		}
		if _, _, err := l.read(env); err != nil {
			continue // no job may have it
		}
		has := cond.That(cond.Has(name), true)
		taken := false
		for i := range l.rules {
			ru := &l.rules[i]
			if !l.spend(50) {
				return ""
			}
			if ru.deny != "" || !l.possible(cond.That(l.scope.Root, true), cond.That(ru.when.Root, true), has) {
				continue
			}
			taken = true
			reason := l.misfit(ru, lb, env, all)
			if reason == "" {
				return ""
			}
			why = cmp.Or(why, reason)
		}
		if !taken {
			why = cmp.Or(why, "no rule takes a job that has it; write a rule for it, or remove it")
		}
	}
	return why
}

// trials returns labels of the entry that show whether any can be used: all if they are few;
// otherwise those that conditions ask for, and the least one that none asks for.
func (l *labelCheck) trials(lb *label) (names []string, all bool) {
	const few = 64
	p := lb.param
	if p == nil || p.Kind == "string" {
		return lb.samples(), true
	}
	prefix, _ := lb.prefix()
	for m := range l.mentions {
		if strings.HasPrefix(m, prefix) {
			names = append(names, m)
		}
	}
	slices.Sort(names)
	all = p.Max-p.Min < few
	for n := p.Min; n <= p.Max; n++ {
		name := fmt.Sprintf("%s%d", prefix, n)
		names = append(names, name)
		if l.mentions[name] { // the same value, in a way that none asks for
			names = append(names, fmt.Sprintf("%s%012d", prefix, n))
		}
		if !all {
			break
		}
	}
	return names, all
}

// misfit returns why a rule cannot place a job with the label, "" when it may. all says that each
// value of a param is tried, not only the least.
func (l *labelCheck) misfit(ru *rule, lb *label, env *cond.Env, all bool) string {
	if ru.dispatch != "" {
		return ""
	}
	l.left -= env.Spent
	env.Spent = 0
	list := append(l.defaults.stated("defaults"), ru.layer.stated("rule "+ru.name)...)
	for _, c := range lb.layer.constraints {
		if v, ok := fixed(&c.value, lb, env); ok && (all || c.value.template == nil) {
			list = append(list, stated{Constraint{c.attribute, c.operator, v, "label"}, c.at})
		}
	}
	if a, b, found := l.clash(list); found {
		if b.From != "label" {
			return "" // the rule's own fault
		}
		return fmt.Sprintf("with rule %s no node can satisfy both %s (%s) and %s (%s); fix one of them", ru.name, a, a.From, b, b.From)
	}
	for _, f := range sizes {
		size, limit := lb.layer.get(f), ru.most(&l.defaults, f)
		if size == nil || !all && size.template != nil && !size.template.IsParam(lb.param) {
			continue // a greater value may ask for less
		}
		if n, ok := fixed(&size.value, lb, env); ok && limit.most != 0 && n.(int) > limit.most {
			return fmt.Sprintf("its %s, %s, exceeds the maximum that rule %s allows, %s (%s); raise max or lower it", f.key, f.show(n), ru.name, f.show(limit.most), limit.from)
		}
	}
	return ""
}

// fixed returns the value of a label's setting when it depends on nothing but the label's own
// param.
func fixed[T any](v *value[T], lb *label, env *cond.Env) (got T, ok bool) {
	if !v.set {
		return got, false
	}
	if v.template != nil && !v.template.DependsOnly(lb.param) {
		return got, false
	}
	got, err := v.get(env)
	return got, err == nil
}

// samples returns labels that the entry stands for: the least of a number, each of a list; none
// when it cannot tell.
func (lb *label) samples() []string {
	prefix, open := lb.prefix()
	switch {
	case !open:
		return []string{lb.pattern}
	case lb.param == nil:
		return nil
	case lb.param.Kind != "string":
		return []string{fmt.Sprintf("%s%d", prefix, lb.param.Min)}
	}
	var list []string
	for _, one := range lb.param.OneOf {
		list = append(list, prefix+strings.ToLower(one))
	}
	return list
}

// bounds reports sizes that labels ask for and max does not bound, beside one that it does.
func (l *labelCheck) bounds() {
	const mhzOfACore = 1000 // at least: no server has slower ones
	sized := slices.DeleteFunc(l.vocabulary.all(), func(lb *label) bool {
		return lb.layer.get(cpu) == nil && lb.layer.get(cores) == nil && lb.layer.get(memoryMax) == nil
	})
	seen := map[string]bool{}
	for i := range l.rules {
		ru := &l.rules[i]
		if ru.deny != "" || ru.dispatch != "" {
			continue
		}
		var all []limit
		for _, size := range sizes {
			all = append(all, ru.most(&l.defaults, size))
		}
		key := fmt.Sprint(all)
		if seen[key] {
			continue
		}
		seen[key] = true
		mhz, whole, reserved, most := ru.most(&l.defaults, cpu), ru.most(&l.defaults, cores), ru.most(&l.defaults, memory), ru.most(&l.defaults, memoryMax)
		if !l.spend(5 * len(sized)) {
			return
		}
		for _, lb := range sized {
			asksMHz, fixedMHz := lb.asks(cpu)
			asksCores, literal := lb.asks(cores)
			asksMax, _ := lb.asks(memoryMax)
			switch {
			case mhz.most != 0 && whole.most == 0 && lb.layer.get(cores) != nil && (!literal || asksCores*mhzOfACore > mhz.most):
				l.unbounded(mhz, cores, lb)
			case whole.most != 0 && mhz.most == 0 && !fixedMHz && asksMHz > whole.most*mhzOfACore:
				l.unbounded(whole, cpu, lb)
			case reserved.most != 0 && most.most == 0 && asksMax > reserved.most:
				l.unbounded(reserved, memoryMax, lb)
			}
		}
	}
}

func (l *labelCheck) unbounded(limit limit, lacks *field, lb *label) {
	l.add("unbounded-size", limit.at, "", "max %s (%s) does not bound what the label %s asks for, %s: add %s to max", limit.key, limit.from, words.Quote(lb.pattern), lacks.key, lacks.key)
}

// asks returns the most that a label asks for of a size, 0 when it cannot tell; literal reports
// whether it is written out.
func (lb *label) asks(size *field) (most int, literal bool) {
	switch s := lb.layer.get(size); {
	case s == nil:
		return 0, false
	case s.template == nil:
		return s.literal.(int), true
	case s.template.IsParam(lb.param):
		return lb.param.Max, false
	}
	return 0, false
}

// empty reports a pattern that makes the label of a param known without a value.
func (l *labelCheck) empty() {
	for _, lb := range l.vocabulary.prefixes {
		if lb.param == nil {
			continue
		}
		if !l.spend(len(l.vocabulary.prefixes)) {
			return
		}
		prefix, _ := lb.prefix()
		if wide, _ := l.vocabulary.find(prefix); wide != nil && wide.param == nil {
			l.add("empty-value", wide.at, "", "the pattern %s makes the label %s known without a value and without a meaning, so a job that forgets the value is served anyway; name the labels that you mean, such as \"run-*\"",
				words.Quote(wide.pattern), words.Quote(prefix))
			return
		}
	}
}
