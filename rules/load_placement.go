package rules

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// placementKeys are the keys of a placement in any section.
var placementKeys = []string{
	"constraints", "affinities", "devices", "resources", "node_pool", "datacenters", "namespace", "priority", "task", "runner",
}

// read reads a value that may be a template.
func read[T any](r *loader, n ast.Node, what string, as func(any) (T, error)) value[T] {
	return readText(r, n, what, as, false)
}

// literal reads a value that is written out.
func literal[T any](r *loader, n ast.Node, what string, as func(any) (T, error)) value[T] {
	v := read(r, n, what, as)
	if v.template != nil {
		r.fault(n, "%s must be written out, not come from an expression", what)
		v.set = false
	}
	return v
}

func readText[T any](r *loader, n ast.Node, what string, as func(any) (T, error), mayBeEmpty bool) (v value[T]) {
	if n == nil {
		return v
	}
	s, ok := scalar(n)
	if !ok {
		r.fault(n, "%s must be a single value, not %s", what, kindOf(n))
		return v
	}
	if strings.TrimSpace(s) == "" && !mayBeEmpty {
		r.fault(n, "%s must not be empty", what)
		return v
	}
	return readPart(r, n, s, 0, what, as)
}

// readPart reads a value from a scalar's text, which begins at a byte of it.
func readPart[T any](r *loader, n ast.Node, text string, from int, what string, as func(any) (T, error)) (v value[T]) {
	var err error
	v.read = as
	s := text[from:]
	if r.lang != nil {
		if v.template, err = r.lang.template(s); err != nil {
			r.expressionFault(n, what, shifted(err, text, from))
			return value[T]{}
		}
	}
	if v.template != nil {
		for _, d := range v.template.doubts {
			e := shifted(&expressionError{d.line, d.column, ""}, text, from).(*expressionError)
			r.doubt(n, e.line, e.column, d)
		}
		v.template.doubts = nil
	}
	if v.template == nil {
		if v.literal, err = as(s); err != nil {
			r.fault(n, "%s: %v", what, err)
			return value[T]{}
		}
	}
	v.set = true
	return v
}

// layer reads the placement keys of a section.
func (r *loader) layer(f map[string]ast.Node, l *layer, what string) {
	in := func(key string) string { return what + ": " + key }
	if f["constraints"] != nil {
		l.constraints = []constraintSpec{}
	}
	if f["affinities"] != nil {
		l.affinities = []affinitySpec{}
	}
	if f["devices"] != nil {
		l.devices = []deviceSpec{}
	}
	for _, n := range r.list(f["constraints"], in("constraints")) {
		if c, ok := r.constraint(n, false); ok {
			l.constraints = append(l.constraints, c)
		}
	}
	for _, n := range r.list(f["affinities"], in("affinities")) {
		if a, ok := r.affinity(n); ok {
			l.affinities = append(l.affinities, a)
		}
	}
	for _, n := range r.list(f["devices"], in("devices")) {
		if d, ok := r.device(n); ok {
			l.devices = append(l.devices, d)
		}
	}
	if n, ok := f["resources"]; ok {
		r.resources(n, l, in("resources"))
	}
	l.nodePool = read(r, f["node_pool"], in("node_pool"), named(poolName, "name of a Nomad node pool"))
	l.namespace = read(r, f["namespace"], in("namespace"), named(namespaceName, "name of a Nomad namespace"))
	l.priority = read(r, f["priority"], in("priority"), wholeBetween(1, 100))
	if n, ok := f["datacenters"]; ok {
		items := r.list(n, in("datacenters"))
		if items != nil && len(items) == 0 {
			r.fault(n, "%s must list at least one; [\"*\"] is any", in("datacenters"))
		}
		for _, i := range items {
			l.datacenters = append(l.datacenters, read(r, i, in("datacenters"), named(datacenterGlob, "name or pattern of a Nomad datacenter")))
		}
	}
	if n, ok := f["task"]; ok {
		r.task(n, l, in("task"))
	}
	if n, ok := f["runner"]; ok {
		rf := r.fields(n, in("runner"), runnerKeys...)
		l.scope = read(r, rf["scope"], in("runner scope"), oneOf("repository", "organization", "enterprise"))
		l.enterprise = read(r, rf["enterprise"], in("runner enterprise"), named(enterpriseSlug, "slug of an enterprise, as in github.com/enterprises/SLUG"))
		l.group = read(r, rf["group"], in("runner group"), groupID)
		l.registration = read(r, rf["registration"], in("runner registration"), oneOf("jit", "token", "own"))
		if l.scope.set {
			l.scopeAt = r.at(rf["scope"])
		}
		if s := l.scope; s.set && s.template == nil && s.literal != "enterprise" && l.enterprise.set {
			r.fault(rf["enterprise"], "%s has no effect: scope is %s", in("runner enterprise"), s.literal)
		}
	}
}

var runnerKeys = []string{"scope", "enterprise", "group", "registration"}

// list is items with a bound.
func (r *loader) list(n ast.Node, what string) []ast.Node {
	if n == nil {
		return nil
	}
	items := r.items(n, what)
	if len(items) > maxConstraints {
		r.fault(n, "%s has %d entries; at most %d are taken", what, len(items), maxConstraints)
		return nil
	}
	return items
}

// constraint reads the short or the mapping form.
func (r *loader) constraint(n ast.Node, device bool) (c constraintSpec, ok bool) {
	c, _, ok = r.comparison(n, device, "constraint")
	return c, ok
}

// comparison reads what constraints and affinities share; f holds the keys of
// the mapping form.
func (r *loader) comparison(n ast.Node, device bool, what string) (c constraintSpec, f map[string]ast.Node, ok bool) {
	var attribute, operator, val string
	valueNode, text := n, "" // where val stands: at the end of the text of a scalar
	if s, short := scalar(n); short {
		text = strings.TrimRight(s, " \n")
		if what == "affinity" {
			r.fault(n, "an affinity is a mapping: { attribute: '${node.class}', value: spot, weight: 50 }")
			return c, nil, false
		}
		var err error
		if attribute, operator, val, err = splitConstraint(s); err != nil {
			r.fault(n, "%v", err)
			return c, nil, false
		}
	} else {
		keys := []string{"attribute", "operator", "value"}
		if what == "affinity" {
			keys = append(keys, "weight")
		}
		if f = r.fields(n, what, keys...); f == nil {
			return c, nil, false
		}
		operator = "="
		ok = true
		for key, at := range map[string]*string{"attribute": &attribute, "operator": &operator, "value": &text} {
			v, there := f[key]
			if !there {
				continue
			}
			s, isScalar := scalar(v)
			if _, null := v.(*ast.NullNode); !isScalar && !null {
				r.fault(v, "%s of a %s must be a text, not %s", key, what, kindOf(v))
				ok = false
			}
			*at = strings.TrimRight(s, " \n")
		}
		if !ok {
			return c, nil, false
		}
		val = strings.TrimLeft(text, " \n")
		if v, there := f["value"]; there {
			valueNode = v
		}
	}
	op, known := operators[operator]
	if !known {
		r.fault(n, "unknown operator %s%s", quote(operator), cmp.Or(didYouMean(operator, operatorNames()), "; Nomad takes "+strings.Join(operatorNames(), ", ")))
		return c, nil, false
	}
	if what == "affinity" && (op.operand == noValue || op.operand == standsAlone || op.operand == countOnly) {
		r.fault(n, "an affinity cannot have the operator %s", operator)
		return c, nil, false
	}
	if op.operand == standsAlone {
		if attribute != "" {
			r.fault(n, "operator %s takes no attribute", operator)
			return c, nil, false
		}
	} else if err := checkTarget(attribute, device); err != nil {
		r.fault(n, "%v", err)
		return c, nil, false
	}
	c = constraintSpec{at: r.at(n), attribute: attribute, operator: op.canonical}
	c.value = readPart(r, valueNode, text, len(text)-len(val), what+" on "+cmp.Or(attribute, operator), anyText)
	if c.value.set && (c.value.template == nil || op.operand == noValue) {
		if err := checkValue(operator, val); err != nil {
			r.fault(n, "%s on %s: %v", what, cmp.Or(attribute, operator), err)
			return c, nil, false
		}
	}
	return c, f, c.value.set
}

func (r *loader) affinity(n ast.Node) (a affinitySpec, ok bool) {
	c, f, ok := r.comparison(n, false, "affinity")
	if !ok {
		return a, false
	}
	w, there := f["weight"]
	if !there {
		r.fault(n, "an affinity needs a weight from -100 to 100, not 0")
		return a, false
	}
	a.constraintSpec = c
	a.weight = read(r, w, "affinity weight", func(v any) (int, error) {
		n, err := wholeBetween(-100, 100)(v)
		if err == nil && n == 0 {
			err = errors.New("a weight of 0 says nothing")
		}
		return n, err
	})
	return a, a.weight.set
}

func (r *loader) device(n ast.Node) (d deviceSpec, ok bool) {
	readName := named(deviceName, "device: write type, vendor/type or vendor/type/model, such as nvidia/gpu")
	d.count = value[int]{set: true, literal: 1}
	if _, short := scalar(n); short {
		d.name = read(r, n, "device", readName)
		return d, d.name.set
	}
	f := r.fields(n, "device", "name", "count", "constraints")
	if f == nil {
		return d, false
	}
	if _, there := f["name"]; !there {
		r.fault(n, "a device needs a name, such as nvidia/gpu")
		return d, false
	}
	d.name = read(r, f["name"], "device name", readName)
	if c, there := f["count"]; there {
		d.count = read(r, c, "device count", wholeBetween(1, maxDevices))
	}
	for _, c := range r.list(f["constraints"], "device constraints") {
		if got, ok := r.constraint(c, true); ok {
			d.constraints = append(d.constraints, got)
		}
	}
	return d, d.name.set && d.count.set
}

var sizeKeys = []string{"cpu", "cores", "memory", "memory_max", "disk"}

func (r *loader) resources(n ast.Node, l *layer, what string) {
	f := r.fields(n, what, sizeKeys...)
	l.cpu = read(r, f["cpu"], what+" cpu", cpuShares)
	l.cores = read(r, f["cores"], what+" cores", wholeBetween(1, maxCores))
	l.memory = read(r, f["memory"], what+" memory", memorySize)
	l.memoryMax = read(r, f["memory_max"], what+" memory_max", memorySize)
	l.disk = read(r, f["disk"], what+" disk", memorySize)
	if l.cpu.set && l.cores.set {
		r.fault(f["cores"], "%s sets cpu and cores: a Nomad task has MHz or whole cores, not both", what)
	}
	if l.memory.set && l.memoryMax.set && l.memory.template == nil && l.memoryMax.template == nil && l.memoryMax.literal < l.memory.literal {
		r.fault(f["memory_max"], "%s: memory_max is below memory", what)
	}
}

// max reads the most that a job may ask for; from is whose limits they are.
func (r *loader) max(n ast.Node, l *layer, from string) {
	if n == nil {
		return
	}
	f := r.fields(n, "max", sizeKeys...)
	for key, at := range map[string]struct {
		to *limit
		as func(any) (int, error)
	}{
		"cpu": {&l.max.cpu, cpuShares}, "cores": {&l.max.cores, wholeBetween(1, maxCores)},
		"memory": {&l.max.memory, memorySize}, "memory_max": {&l.max.memoryMax, memorySize}, "disk": {&l.max.disk, memorySize},
	} {
		if v, there := f[key]; there {
			*at.to = limit{literal(r, v, "max "+key, at.as).literal, from, r.at(v)}
		}
	}
}

func (r *loader) task(n ast.Node, l *layer, what string) {
	f := r.fields(n, what, "env", "config")
	if env, ok := f["env"]; ok {
		for _, p := range r.pairs(env, what+" env") {
			if !envName.MatchString(p.key) {
				r.fault(p.keyNode, "%s is no name of an environment variable", quote(p.key))
				continue
			}
			if v := readText(r, p.value, what+" env "+p.key, anyText, true); v.set {
				l.env = append(l.env, envSpec{p.key, v})
			}
		}
	}
	if config, ok := f["config"]; ok {
		for _, p := range r.pairs(config, what+" config") {
			if tree, ok := r.json(p.value, what+" config "+p.key); ok {
				l.config = append(l.config, configSpec{p.key, tree})
			}
		}
	}
}

// json reads a value of a driver's config.
func (r *loader) json(n ast.Node, what string) (any, bool) {
	switch s := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		out := map[string]any{}
		for _, p := range r.pairs(n, what) {
			v, ok := r.json(p.value, what+"."+p.key)
			if !ok {
				return nil, false
			}
			out[p.key] = v
		}
		return out, true
	case *ast.SequenceNode:
		out := []any{}
		for _, i := range s.Values {
			v, ok := r.json(i, what)
			if !ok {
				return nil, false
			}
			out = append(out, v)
		}
		return out, true
	case *ast.BoolNode:
		return s.Value, true
	case *ast.IntegerNode:
		if i, err := strconv.ParseInt(s.Token.Value, 0, 64); err == nil {
			return float64(i), true // as JSON would have it when read again
		}
	case *ast.FloatNode:
		if !math.IsInf(s.Value, 0) && !math.IsNaN(s.Value) {
			return s.Value, true
		}
	case *ast.StringNode, *ast.LiteralNode:
		v := readText(r, n, what, configScalar, true)
		return v, v.set
	}
	r.fault(n, "%s: %s is no value of a task's config", what, kindOf(n))
	return nil, false
}

// configScalar reads what an expression gives to a config: numbers are those of JSON.
func configScalar(v any) (any, error) {
	if i, ok := v.(int); ok {
		return float64(i), nil
	}
	_, err := anyText(v)
	return v, err
}
