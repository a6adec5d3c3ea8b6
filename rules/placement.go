package rules

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A layer is the part of a placement that one section of the file gives.
type layer struct {
	constraints []constraintSpec
	affinities  []affinitySpec
	devices     []deviceSpec
	datacenters []value[string] // nil: not set
	env         []envSpec
	config      []configSpec
	settings    []setting // of the fields of one value
	urgency     value[int]
	max         []limit
}

// A setting is the value of a field in one section of the file.
type setting struct {
	*field
	value[any]
	at cond.Spot
}

// get returns what the layer sets a field to, nil when it does not.
func (l *layer) get(f *field) *setting {
	for i := range l.settings {
		if l.settings[i].field == f {
			return &l.settings[i]
		}
	}
	return nil
}

// isLiteral reports whether there is a setting, and it is written out.
func (s *setting) isLiteral() bool { return s != nil && s.template == nil }

// A limit is the most that a job may ask for of a size.
type limit struct {
	*field
	most int // 0: there is no limit
	from string
	at   cond.Spot
}

// limit returns the layer's own limit of a size.
func (l *layer) limit(f *field) limit {
	for _, have := range l.max {
		if have.field == f {
			return have
		}
	}
	return limit{field: f}
}

type constraintSpec struct {
	at        cond.Spot
	attribute string
	operator  string // canonical
	value     value[string]
}

type affinitySpec struct {
	constraintSpec
	weight value[int]
}

type deviceSpec struct {
	name        value[string]
	count       value[int]
	constraints []constraintSpec
}

type envSpec struct {
	name  string
	value value[string]
}

// configSpec is one entry of a task's config: a JSON value whose texts may be templates.
type configSpec struct {
	name string
	tree any // map[string]any, []any, value[any], or a JSON scalar
}

// empty reports whether a dispatched job gets all that the layer has.
func (l *layer) empty() bool {
	return !slices.ContainsFunc(lists, func(f *field) bool { return !f.list.empty(l) }) && !slices.ContainsFunc(l.settings, func(s setting) bool { return !s.dispatched })
}

// A merger merges layers: defaults, then the rule, then the labels in the order of the vocabulary.
type merger struct {
	p    Placement
	env  *cond.Env
	from string // whose layer is being added: "defaults", "rule linux", "label cpu=8"
	mhz  string // the label that asked for cpu in MHz; "" when none did

	devicesBy []deviceBy
}

// nowhere returns the placement that asks for nothing.
func nowhere() Placement {
	return Placement{Constraints: []Constraint{}, Affinities: []Affinity{}, Devices: []Device{}, Datacenters: []string{}}
}

const (
	labelOrigin = "label "
	builtIn     = "built in" // nobody said so
)

func isLabel(from string) bool { return strings.HasPrefix(from, labelOrigin) }

// add merges one layer over those before. Its error begins with whose layer it is.
func (m *merger) add(l *layer, from string) error {
	m.from = from
	if err := m.lay(l); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// dispatchMeta evaluates what a rule gives to the job that it dispatches.
func (m *merger) dispatchMeta(meta []envSpec, from string) error {
	m.from = from
	if err := m.texts(meta, "dispatch_meta.", &m.p.DispatchMeta); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

func (m *merger) lay(l *layer) error {
	if m.p.Dispatch == "" { // it runs as it is: only where it is and how its runner registers is ours to say
		for _, f := range lists {
			if err := f.list.merge(m, l); err != nil {
				return err
			}
		}
	}
	for i := range l.settings {
		s := &l.settings[i]
		if m.p.Dispatch != "" && !s.dispatched {
			continue
		}
		if err := s.merge(m, s); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) constraints(l *layer) error {
	if err := m.env.Spend(len(l.constraints) * (1 + len(m.p.Constraints)/4)); err != nil {
		return err
	}
	for _, c := range l.constraints {
		got, err := m.constraint(c)
		if err != nil {
			return err
		}
		m.p.Constraints = addConstraint(m.p.Constraints, got)
	}
	return nil
}

func (m *merger) affinities(l *layer) error {
	for _, a := range l.affinities {
		c, err := m.constraint(a.constraintSpec)
		if err != nil {
			return err
		}
		weight, err := a.weight.get(m.env)
		if err != nil {
			return err
		}
		m.p.Affinities = append(m.p.Affinities, Affinity{c.Attribute, c.Operator, c.Value, weight, m.from})
	}
	return nil
}

func (m *merger) constraint(c constraintSpec) (Constraint, error) {
	v, err := c.value.get(m.env)
	if err == nil && c.value.template != nil {
		err = checkValue(c.operator, v)
	}
	if err != nil {
		return Constraint{}, fmt.Errorf("constraint on %s: %w", cmp.Or(c.attribute, c.operator), err)
	}
	return Constraint{c.attribute, c.operator, v, m.from}, nil
}

// addConstraint adds a constraint unless an earlier one says the same.
func addConstraint(list []Constraint, c Constraint) []Constraint {
	if slices.ContainsFunc(list, func(have Constraint) bool { return sameConstraint(have, c) }) {
		return list
	}
	return append(list, c)
}

// device keeps the largest count of each device; narrowed does the rest.
func (m *merger) device(d deviceSpec) error {
	name, err := d.name.get(m.env)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	count, err := d.count.get(m.env)
	if err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	at := slices.IndexFunc(m.p.Devices, func(have Device) bool { return have.Name == name })
	if at < 0 {
		at = len(m.p.Devices)
		m.p.Devices = append(m.p.Devices, Device{Name: name})
	}
	m.devicesBy = append(m.devicesBy, deviceBy{name, m.from})
	have := &m.p.Devices[at]
	if count > have.Count {
		have.Count, have.From = count, m.from
	}
	for _, c := range d.constraints {
		got, err := m.constraint(c)
		if err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
		have.Constraints = addConstraint(have.Constraints, got)
	}
	return nil
}

// mergeMHz and mergeCores merge MHz and cores, of which Nomad takes one. Whole cores of a rule or a
// label take the place of MHz from a default or a rule. They cannot be compared, so labels that ask
// for both, or for MHz where whole cores stand, contradict each other.
func mergeMHz(m *merger, s *setting) error {
	r := &m.p.Resources
	if isLabel(m.from) {
		if m.mhz = m.from; r.Cores != 0 {
			return mhzAndCores(m.from, m.p.From["resources.cores"])
		}
	}
	r.Cores = 0
	delete(m.p.From, "resources.cores")
	return mergeSize(m, s)
}

func mergeCores(m *merger, s *setting) error {
	if m.mhz != "" {
		return mhzAndCores(m.mhz, m.from)
	}
	m.p.Resources.CPU = 0
	delete(m.p.From, "resources.cpu")
	return mergeSize(m, s)
}

func mhzAndCores(mhz, cores string) error {
	return fmt.Errorf("%s asks for cpu in MHz and %s for whole cores: a Nomad task has one of them", mhz, cores)
}

// mergeSize merges a size: a label raises it and never lowers it.
func mergeSize(m *merger, s *setting) error {
	v, err := s.get(m.env)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if isLabel(m.from) && v.(int) <= s.number(&m.p) {
		return nil
	}
	s.put(&m.p, v)
	m.p.From[s.path] = m.from
	return nil
}

// mergeSingle merges a single value: a rule replaces a default, a label replaces both, and two
// labels must agree.
func mergeSingle(m *merger, s *setting) error {
	v, err := s.get(m.env)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if before := m.p.From[s.path]; isLabel(m.from) && isLabel(before) {
		if was := s.field.text(&m.p); was != fmt.Sprint(v) {
			return contradictory(before, s.path, was, m.from, v)
		}
		return nil
	}
	s.put(&m.p, v)
	m.p.From[s.path] = m.from
	return nil
}

func contradictory(before, path string, was any, from string, is any) error {
	return fmt.Errorf("%s sets %s to %s and %s to %s: a job has one of them", before, path, show(was), from, show(is))
}

// texts merges the entries of a mapping, each as mergeSingle does.
func (m *merger) texts(list []envSpec, path string, all *map[string]string) error {
	for i := range list {
		e := &list[i]
		got, err := e.value.get(m.env)
		if err := setEntry(m, path+e.name, e.name, all, got, err); err != nil {
			return err
		}
	}
	return nil
}

// setEntry sets an entry of a mapping as set does; err says why there is no value.
func setEntry[T any](m *merger, path, name string, all *map[string]T, got T, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if *all == nil {
		*all = map[string]T{}
	}
	v := (*all)[name]
	err = set(m, path, &v, got)
	(*all)[name] = v
	return err
}

// set sets a value, unless another label has set it to something else.
func set[T any](m *merger, key string, at *T, got T) error {
	if before := m.p.From[key]; isLabel(m.from) && isLabel(before) {
		if !reflect.DeepEqual(*at, got) {
			return contradictory(before, key, *at, m.from, got)
		}
		return nil
	}
	*at, m.p.From[key] = got, m.from
	return nil
}

func show(v any) string { return words.Quote(fmt.Sprint(v)) }

func (m *merger) datacenters(l *layer) error {
	if l.datacenters == nil {
		return nil
	}
	list := make([]string, len(l.datacenters))
	for i := range l.datacenters {
		var err error
		if list[i], err = l.datacenters[i].get(m.env); err != nil {
			return fmt.Errorf("datacenters: %w", err)
		}
	}
	return set(m, "datacenters", &m.p.Datacenters, list)
}

func (m *merger) taskEnv(l *layer) error { return m.texts(l.env, "task.env.", &m.p.Task.Env) }

func (m *merger) taskConfig(l *layer) error {
	for i := range l.config {
		c := &l.config[i]
		got, err := m.json(c.tree)
		if err := setEntry(m, "task.config."+c.name, c.name, &m.p.Task.Config, got, err); err != nil {
			return err
		}
	}
	return nil
}

// json evaluates a config's tree to a JSON value of its own.
func (m *merger) json(tree any) (any, error) {
	switch t := tree.(type) {
	case map[string]any:
		out := make(map[string]any, len(t))
		for _, k := range slices.Sorted(maps.Keys(t)) {
			v, err := m.json(t[k])
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
		return out, nil
	case []any:
		out := make([]any, len(t))
		for i := range t {
			var err error
			if out[i], err = m.json(t[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case value[any]:
		return t.get(m.env)
	}
	return tree, nil
}

// weighRegexps counts the steps of the regular expressions that contradiction compiles.
func (m *merger) weighRegexps() error {
	for _, c := range m.p.Constraints {
		if c.Operator == "regexp" && slices.ContainsFunc(m.p.Constraints, func(other Constraint) bool { return other.Attribute == c.Attribute && other.Operator == "=" }) {
			if err := m.env.Spend(20 * (50 + cond.PatternSize(c.Value))); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish fills in what nobody set, and checks the whole. most returns the limit of a size.
func (m *merger) finish(most func(size *field) limit) error {
	p := &m.p
	if p.Runner.Scope == "" {
		p.Runner.Scope, p.From["runner.scope"] = "repository", builtIn
	}
	if p.Runner.Scope == "repository" && p.From["runner.group"] == "defaults" && p.From["runner.scope"] != builtIn && p.From["runner.scope"] != "defaults" {
		p.Runner.Group = "" // a default that this rule has no use for
	}
	if p.Runner.Group == "" {
		p.Runner.Group, p.From["runner.group"] = DefaultGroup, builtIn
	}
	if p.Runner.Registration == "" {
		p.Runner.Registration, p.From["runner.registration"] = "jit", builtIn
	}
	if p.Runner.Verify && (p.Runner.Registration == "own" || p.Dispatch != "") {
		return fmt.Errorf("runner.verify (%s): its runner brings its own registration, so Switchyard cannot give it the means to ask", p.From["runner.verify"])
	}
	switch enterprise := p.Runner.Scope == "enterprise"; {
	case enterprise && p.Runner.Enterprise == "":
		return fmt.Errorf("runner.scope enterprise (%s): no rule, label or default names the enterprise", p.From["runner.scope"])
	case !enterprise: // a default that this rule has no use for
		p.Runner.Enterprise = ""
		delete(p.From, "runner.enterprise")
	}
	r := &p.Resources
	if r.MemoryMaxMB != 0 && r.MemoryMaxMB < r.MemoryMB { // a label raised memory past it; Nomad wants it at least as large
		r.MemoryMaxMB, p.From["resources.memory_max_mb"] = r.MemoryMB, p.From["resources.memory_mb"]
	}
	for _, f := range sizes {
		if got, limit := f.number(p), most(f); limit.most != 0 && got > limit.most {
			return fmt.Errorf("%s %s (%s) exceeds the maximum of %s (%s)", f.key, f.show(got), p.From[f.path], f.show(limit.most), limit.from)
		}
	}
	if err := m.weighRegexps(); err != nil {
		return err
	}
	if a, b, found := contradiction(p.Constraints); found {
		return fmt.Errorf("no node can satisfy both %s (%s) and %s (%s)", a, a.From, b, b.From)
	}
	if len(p.Devices) > 1 {
		p.Devices = narrowed(p.Devices, m.devicesBy)
	}
	for _, d := range p.Devices {
		if len(d.Constraints) == 0 {
			continue
		}
		if a, b, found := contradiction(d.known()); found {
			return fmt.Errorf("no device %s can satisfy both %s (%s) and %s (%s)", d.Name, a, a.From, b, b.From)
		}
	}
	return nil
}

// without returns the layer without the lists that over replaces. Single values are replaced when
// they are merged.
func (l layer) without(over *layer) layer {
	if over.constraints != nil {
		l.constraints = nil
	}
	if over.affinities != nil {
		l.affinities = nil
	}
	if over.devices != nil {
		l.devices = nil
	}
	return l
}
