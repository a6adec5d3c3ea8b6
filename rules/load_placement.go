package rules

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

// A placementReader reads what a section of the file gives to a placement.
type placementReader struct{ valueReader }

// layer reads the placement keys of a section.
func (r *placementReader) layer(f map[string]ast.Node, l *layer, what string) {
	for _, field := range placementFields {
		if n, ok := f[field.key]; ok && !field.target {
			r.field(field, n, l, what+": "+field.key)
		}
	}
	if l.get(cpu) != nil && l.get(cores) != nil {
		r.FaultAt(l.get(cores).at.Line, l.get(cores).at.Column, "%s: resources sets cpu and cores: a Nomad task has MHz or whole cores, not both", what)
	}
	if reserved, most := l.get(memory), l.get(memoryMax); reserved.isLiteral() && most.isLiteral() && most.literal.(int) < reserved.literal.(int) {
		r.FaultAt(most.at.Line, most.at.Column, "%s: resources: memory_max is below memory", what)
	}
	if s := l.get(runnerScope); s.isLiteral() && s.literal != "enterprise" && l.get(runnerEnterprise) != nil {
		r.FaultAt(l.get(runnerEnterprise).at.Line, l.get(runnerEnterprise).at.Column, "%s: runner enterprise has no effect: scope is %s", what, s.literal)
	}
}

// field reads a field that stands at n.
func (r *placementReader) field(f *field, n ast.Node, l *layer, what string) {
	switch {
	case f.list != nil:
		f.list.read(r, n, l, what)
	case f.of != nil:
		if v := read(&r.valueReader, n, what, f.read); v.set {
			l.settings = append(l.settings, setting{f, v, r.at(n)})
		}
	default:
		entries := r.Fields(n, what, keysOf(f.fields)...)
		for _, sub := range f.fields {
			if n, ok := entries[sub.key]; ok {
				r.field(sub, n, l, what+" "+sub.key)
			}
		}
	}
}

// constraint reads the short or the mapping form.
func (r *placementReader) constraint(n ast.Node, device bool) (c constraintSpec, ok bool) {
	c, _, ok = r.comparison(n, device, "constraint")
	return c, ok
}

// comparison reads what constraints and affinities share; f holds the keys of the mapping form.
func (r *placementReader) comparison(n ast.Node, device bool, what string) (c constraintSpec, f map[string]ast.Node, ok bool) {
	var attribute, operator, val string
	valueNode, text := n, "" // where val stands: at the end of the text of a scalar
	if s, short := yamlfile.Scalar(n); short {
		text = strings.TrimRight(s, " \n")
		if what == "affinity" {
			r.Fault(n, "an affinity is a mapping: { attribute: '${node.class}', value: spot, weight: 50 }")
			return c, nil, false
		}
		var err error
		if attribute, operator, val, err = splitConstraint(s); err != nil {
			r.Fault(n, "%v", err)
			return c, nil, false
		}
	} else {
		keys := []string{"attribute", "operator", "value"}
		if what == "affinity" {
			keys = append(keys, "weight")
		}
		if f = r.Fields(n, what, keys...); f == nil {
			return c, nil, false
		}
		operator = "="
		ok = true
		for key, at := range map[string]*string{"attribute": &attribute, "operator": &operator, "value": &text} {
			v, there := f[key]
			if !there {
				continue
			}
			s, isScalar := yamlfile.Scalar(v)
			if _, null := v.(*ast.NullNode); !isScalar && !null {
				r.Fault(v, "%s of a %s must be a text, not %s", key, what, yamlfile.KindOf(v))
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
		r.Fault(n, "unknown operator %s%s", words.Quote(operator), cmp.Or(words.DidYouMean(operator, operatorNames()), "; Nomad takes "+strings.Join(operatorNames(), ", ")))
		return c, nil, false
	}
	if what == "affinity" && (op.operand == noValue || op.operand == standsAlone || op.operand == countOnly) {
		r.Fault(n, "an affinity cannot have the operator %s", operator)
		return c, nil, false
	}
	if op.operand == standsAlone {
		if attribute != "" {
			r.Fault(n, "operator %s takes no attribute", operator)
			return c, nil, false
		}
	} else if err := checkTarget(attribute, device); err != nil {
		r.Fault(n, "%v", err)
		return c, nil, false
	}
	c = constraintSpec{at: r.at(n), attribute: attribute, operator: op.canonical}
	c.value = readPart(&r.valueReader, valueNode, text, len(text)-len(val), what+" on "+cmp.Or(attribute, operator), anyText)
	if c.value.set && (c.value.template == nil || op.operand == noValue) {
		if err := checkValue(operator, val); err != nil {
			r.Fault(n, "%s on %s: %v", what, cmp.Or(attribute, operator), err)
			return c, nil, false
		}
	}
	return c, f, c.value.set
}

func (r *placementReader) affinity(n ast.Node) (a affinitySpec, ok bool) {
	c, f, ok := r.comparison(n, false, "affinity")
	if !ok {
		return a, false
	}
	w, there := f["weight"]
	if !there {
		r.Fault(n, "an affinity needs a weight from -100 to 100, not 0")
		return a, false
	}
	a.constraintSpec = c
	a.weight = read(&r.valueReader, w, "affinity weight", func(v any) (int, error) {
		n, err := wholeBetween(-100, 100)(v)
		if err == nil && n == 0 {
			err = errors.New("a weight of 0 has no effect")
		}
		return n, err
	})
	return a, a.weight.set
}

func (r *placementReader) device(n ast.Node) (d deviceSpec, ok bool) {
	readName := named(deviceName.MatchString, "device: write type, vendor/type or vendor/type/model, such as nvidia/gpu")
	d.count = value[int]{set: true, literal: 1}
	if _, short := yamlfile.Scalar(n); short {
		d.name = read(&r.valueReader, n, "device", readName)
		return d, d.name.set
	}
	f := r.Fields(n, "device", "name", "count", "constraints")
	if f == nil {
		return d, false
	}
	if _, there := f["name"]; !there {
		r.Fault(n, "a device needs a name, such as nvidia/gpu")
		return d, false
	}
	d.name = read(&r.valueReader, f["name"], "device name", readName)
	if c, there := f["count"]; there {
		d.count = read(&r.valueReader, c, "device count", wholeBetween(1, maxDevices))
	}
	for _, c := range r.list(f["constraints"], "device constraints") {
		if got, ok := r.constraint(c, true); ok {
			d.constraints = append(d.constraints, got)
		}
	}
	return d, d.name.set && d.count.set
}

// max reads the most that a job may ask for; from is whose limits they are.
func (r *placementReader) max(n ast.Node, l *layer, from string) {
	if n == nil {
		return
	}
	f := r.Fields(n, "max", keysOf(sizes)...)
	for _, size := range sizes {
		if v, there := f[size.key]; there {
			if got := literal(&r.valueReader, v, "max "+size.key, size.read); got.set {
				l.max = append(l.max, limit{size, got.literal.(int), from, r.at(v)})
			}
		}
	}
}

// json reads a value of a driver's config.
func (r *placementReader) json(n ast.Node, what string) (any, bool) {
	switch s := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		out := map[string]any{}
		for _, p := range r.Pairs(n, what) {
			v, ok := r.json(p.Value, what+"."+p.Key)
			if !ok {
				return nil, false
			}
			out[p.Key] = v
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
		v := readText(&r.valueReader, n, what, configScalar, true)
		return v, v.set
	}
	r.Fault(n, "%s: %s is not a valid value in a task's config", what, yamlfile.KindOf(n))
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
