package rules

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A field describes one field of a Placement, once: loading, merging, max, lint, tests,
// comparisons, the console, the JSON Schema and the reference page all read placementFields. A
// field of one value needs no code of its own; a list or a mapping has its list's.
type field struct {
	key     string // in the rules file, within its section: "memory"
	path    string // in a decision's JSON: "resources.memory_mb"; empty in the table: section and key
	word    string // for people: "memory"; empty in the table: key with blanks
	doc     string // of the reference page and of editors
	example string // YAML

	// Of a section, such as resources.
	fields []*field

	// Of one value.
	of         func(*Placement) any // points to it: a *string, *int, *bool or *RunnerGroup
	kind       fieldKind
	least, top int      // of a number
	words      []string // that a text may be; nil: pattern says it
	pattern    *regexp.Regexp
	noun       string                                                 // what a text is that matches pattern
	unit       string                                                 // of a size, for people
	maxExample string                                                 // of a size: YAML of max
	read       func(any) (any, error)                                 // gives a string or an int; nil in the table: as the kind says
	merge      func(m *merger, s *setting) error                      // nil in the table: mergeSingle, of a size mergeSize
	rows       func(p *Placement, row func(what, value, from string)) // nil in the table: one row when it is set, or as the list says

	list *list

	// A dispatched Nomad job runs as it is: it takes these fields alone.
	dispatched bool
	// Rules and fallbacks have it as a key of their own, and labels and defaults do not.
	target bool

	section *field // nil: none
}

type fieldKind int

const (
	aString fieldKind = iota
	aWhole
	aMHz // a size of the CPU
	aMiB // another size
)

// A list does what differs for a field of several values.
type list struct {
	read    func(r *placementReader, n ast.Node, l *layer, what string)
	merge   func(m *merger, l *layer) error
	empty   func(l *layer) bool
	means   func(l *layer, add func(what, value string))
	compare func(d *differences, was, is *Placement)
	expect  func(e *expected, n ast.Node)
	rows    func(p *Placement, row func(what, value, from string))
}

// placementFields are the fields of a Placement in the order of a decision.
var placementFields = completed([]*field{
	{
		key: "jobspec", target: true, of: func(p *Placement) any { return &p.Jobspec },
		doc: "the runner jobspec", example: "docker-linux",
	},
	{
		key: "dispatch", target: true, of: func(p *Placement) any { return &p.Dispatch },
		doc: "the parameterized Nomad job", example: "github_runner",
	},
	{
		key: "dispatch_meta", target: true, list: &list{
			compare: func(d *differences, was, is *Placement) {
				entries(d, "dispatch_meta.", was.DispatchMeta, is.DispatchMeta, strconv.Quote)
			},
			rows: func(p *Placement, row func(what, value, from string)) {
				textRows(row, "meta", "dispatch_meta.", p.DispatchMeta, p.From)
			},
		},
	},
	{
		key: "constraints", list: constraintList,
		doc: "conditions on the node; those of defaults, rule and labels add up", example: "['${attr.cpu.arch} = arm64']",
	},
	{
		key: "affinities", list: affinityList,
		doc: "nodes to prefer or to avoid; those of defaults, rule and labels add up", example: "[{ attribute: '${node.class}', value: spot, weight: 50 }]",
	},
	{
		key: "devices", list: deviceList,
		doc:     "devices of the runner task; of defaults, rule and labels the largest count of each, and of two of which one includes the other the narrower",
		example: "[{ name: nvidia/gpu, count: 2 }]",
	},
	{
		key: "resources",
		doc: "sizes of the runner task; a label raises what is there and never lowers it", example: "{ cpu: 2000, memory: 4GiB }",
		fields: []*field{
			{
				key: "cpu", kind: aMHz, unit: "MHz", of: func(p *Placement) any { return &p.Resources.CPU }, merge: mergeMHz,
				doc: "MHz of processor, shared with other tasks", example: "2000", maxExample: "64000",
			},
			{
				key: "cores", kind: aWhole, least: 1, top: maxCores, unit: "reserved", of: func(p *Placement) any { return &p.Resources.Cores }, merge: mergeCores,
				doc: "whole processor cores, reserved for the task", example: "8", maxExample: "32",
			},
			{
				key: "memory", path: "resources.memory_mb", kind: aMiB, unit: "MiB", of: func(p *Placement) any { return &p.Resources.MemoryMB },
				doc: "memory, reserved for the task", example: "4GiB", maxExample: "128GiB",
			},
			{
				key: "memory_max", path: "resources.memory_max_mb", kind: aMiB, unit: "MiB", of: func(p *Placement) any { return &p.Resources.MemoryMaxMB },
				doc: "memory that the task may use while the node has some to spare", example: "8GiB", maxExample: "256GiB",
			},
			{
				key: "disk", path: "resources.disk_mb", kind: aMiB, unit: "MiB", of: func(p *Placement) any { return &p.Resources.DiskMB },
				doc: "the size of the ephemeral disk", example: "20GiB", maxExample: "200GiB",
			},
		},
	},
	{
		key: "node_pool", of: func(p *Placement) any { return &p.NodePool }, pattern: poolName, noun: "name of a Nomad node pool",
		doc: "the node pool", example: "ci",
	},
	{
		key: "datacenters", list: datacenterList,
		doc: "names or patterns of datacenters; `*` is any", example: "[dc1, 'eu-*']",
	},
	{
		key: "namespace", of: func(p *Placement) any { return &p.Namespace }, pattern: namespaceName, noun: "name of a Nomad namespace", dispatched: true,
		doc: "the namespace of the Nomad job", example: "ci",
	},
	{
		key: "region", of: func(p *Placement) any { return &p.Region }, pattern: regionName, noun: "name of a Nomad region", dispatched: true,
		doc: "the region of the Nomad job: one that is federated with that of NOMAD_ADDR", example: "tokyo",
	},
	{
		key: "priority", of: func(p *Placement) any { return &p.Priority }, kind: aWhole, least: 1, top: 100,
		doc: "the priority of the Nomad job", example: "70",
	},
	{
		key: "task", doc: "what is merged into the runner task", example: "{ config: { image: 'ghcr.io/actions/actions-runner:2.336.0' } }",
		fields: []*field{
			{key: "env", list: envList, doc: "environment variables", example: "{ REPOSITORY: '${{ repo.full_name }}' }"},
			{key: "config", list: configList, doc: "settings of the task driver", example: "{ image: 'ghcr.io/actions/actions-runner:2.336.0' }"},
		},
	},
	{
		key: "runner", dispatched: true,
		doc: "how the runner registers on GitHub", example: "{ scope: organization, group: 3 }",
		fields: []*field{
			{
				key: "scope", word: "runner scope", of: func(p *Placement) any { return &p.Runner.Scope }, words: []string{"repository", "organization", "enterprise"},
				doc:  "for the job's repository only, for its organization, or for an enterprise; repository when left out",
				rows: runnerRows,
			},
			{
				key: "enterprise", of: func(p *Placement) any { return &p.Runner.Enterprise }, pattern: enterpriseSlug, noun: "slug of an enterprise, as in github.com/enterprises/SLUG",
				doc: "the enterprise's slug, as in github.com/enterprises/SLUG; needed when `scope` is enterprise", example: "acme",
				rows: func(*Placement, func(what, value, from string)) {}, // scope has it in its row, as it has the group
			},
			{
				key: "group", word: "runner group", of: func(p *Placement) any { return &p.Runner.Group }, read: boxed(readGroup),
				doc: "a runner group by its ID, a number, or by its name; 1, GitHub's Default, when left out", example: "gpu-runners",
				rows: func(*Placement, func(what, value, from string)) {},
			},
			{
				key: "registration", of: func(p *Placement) any { return &p.Runner.Registration }, words: []string{"jit", "token", "own"},
				doc:  "`jit`, a configuration for each runner; `token`: the runner configures itself by a registration token, which serves many; or `own`: it brings its own registration, and never claims; with `dispatch` it does by itself, and jit when left out elsewhere",
				rows: registrationRows,
			},
			{
				key: "verify", of: func(p *Placement) any { return &p.Runner.Verify }, words: []string{"false", "true"},
				doc:  "`true`: before the first step of a job its runner asks Switchyard whether its rule may serve that job, and ends the job if not",
				rows: verifyRows,
			},
		},
	},
	{
		key: "debug", doc: "what becomes of the runner of a job that failed", example: "{ keep: 30m }",
		fields: []*field{
			{
				key: "keep", word: "kept after a failure", of: func(p *Placement) any { return &p.Debug.Keep }, read: boxed(keepTime),
				doc: "for how long it stays, so that somebody can look at it; from 1m to 24h", example: "30m",
			},
		},
	},
})

// singles are the fields of one value, lists those of several that any section may have, sizes
// those of resources. All are in the order of the table.
var (
	singles = leaves(placementFields, func(f *field) bool { return f.of != nil })
	lists   = leaves(placementFields, func(f *field) bool { return f.list != nil && !f.target })
	sizes   = at("resources").fields

	cpu, cores        = at("resources.cpu"), at("resources.cores")
	memory, memoryMax = at("resources.memory"), at("resources.memory_max")
	regionField       = at("region")

	runnerScope, runnerEnterprise, runnerGroup, runnerRegistration = at("runner.scope"), at("runner.enterprise"), at("runner.group"), at("runner.registration")
	runnerVerify                                                   = at("runner.verify")
)

// placementKeys are the keys of a placement in any section, placementParts what a test can expect of one.
var (
	placementKeys  = keysOf(placementFields, "jobspec", "dispatch", "dispatch_meta")
	placementParts = keysOf(placementFields, "dispatch_meta")
)

// completed fills in what the table leaves out.
func completed(table []*field) []*field {
	each(table, func(f *field) {
		if f.path == "" {
			f.path = f.name()
		}
		if f.word == "" {
			f.word = strings.ReplaceAll(f.key, "_", " ")
		}
		for _, sub := range f.fields {
			sub.section, sub.dispatched = f, f.dispatched
		}
		if f.of == nil {
			return
		}
		switch {
		case f.read != nil || f.target:
		case f.kind == aMHz:
			f.read = boxed(cpuShares)
		case f.kind == aMiB:
			f.read = boxed(memorySize)
		case f.kind == aWhole:
			f.read = boxed(wholeBetween(f.least, f.top))
		case f.words != nil:
			f.read = boxed(oneOf(f.words...))
		default:
			f.read = boxed(named(f.pattern.MatchString, f.noun))
		}
		switch {
		case f.merge != nil:
		case f.kind == aMiB:
			f.merge = mergeSize
		default:
			f.merge = mergeSingle
		}
	})
	return table
}

// boxed makes a reader of any value of one.
func boxed[T any](as func(any) (T, error)) func(any) (any, error) {
	return func(v any) (any, error) { return as(v) }
}

// each calls do for every field of a table, a section before its own.
func each(table []*field, do func(*field)) {
	for _, f := range table {
		do(f)
		each(f.fields, do)
	}
}

func leaves(table []*field, is func(*field) bool) (found []*field) {
	each(table, func(f *field) {
		if is(f) {
			found = append(found, f)
		}
	})
	return found
}

// keysOf returns the keys of the fields, but for some.
func keysOf(table []*field, but ...string) (keys []string) {
	for _, f := range table {
		if !slices.Contains(but, f.key) {
			keys = append(keys, f.key)
		}
	}
	return slices.Clip(keys) // what is appended to it is copied: files may load at the same time
}

// at returns the field with a name.
func at(name string) *field {
	return leaves(placementFields, func(f *field) bool { return f.name() == name })[0]
}

// name returns the field's key with that of its section: "resources.memory".
func (f *field) name() string {
	if f.section == nil {
		return f.key
	}
	return f.section.key + "." + f.key
}

// show writes a value of a field for people.
func (f *field) show(v any) string {
	switch v := v.(type) {
	case int:
		switch f.kind {
		case aMHz:
			return fmt.Sprintf("%d MHz", v)
		case aMiB:
			return cond.FormatMiB(v)
		}
	}
	return fmt.Sprint(v)
}

// number returns the field's number in a placement.
func (f *field) number(p *Placement) int {
	if at, ok := f.of(p).(*int); ok {
		return *at
	}
	return 0
}

// text returns the field's text in a placement, a number in digits; "" when it is not set, or false.
func (f *field) text(p *Placement) string {
	switch at := f.of(p).(type) {
	case *string:
		return *at
	case *RunnerGroup:
		return string(*at)
	case *bool:
		if *at {
			return "true"
		}
		return ""
	}
	if n := f.number(p); n != 0 {
		return strconv.Itoa(n)
	}
	return ""
}

// put puts a value that read gave into a placement.
func (f *field) put(p *Placement, v any) {
	switch at := f.of(p).(type) {
	case *string:
		*at = v.(string)
	case *int:
		*at = v.(int)
	case *RunnerGroup:
		*at = RunnerGroup(v.(string))
	case *bool:
		*at = v.(string) == "true"
	}
}

// A Row is one part of a placement for people. Its texts may come from a stranger.
type Row struct {
	What  string // constraint, device, cpu, …; "": more about the row before
	Value string
	From  string // where it came from: rule linux, label gpu, defaults
}

// Rows returns the parts of the placement that are set, in the order of a decision.
func (p Placement) Rows() (rows []Row) {
	row := func(what, value, from string) { rows = append(rows, Row{what, value, from}) }
	each(placementFields, func(f *field) {
		switch {
		case f.rows != nil:
			f.rows(&p, row)
		case f.list != nil:
			f.list.rows(&p, row)
		case f.of == nil:
		case f.text(&p) != "":
			row(f.word, strings.TrimSpace(f.text(&p)+" "+f.unit), p.From[f.path])
		}
	})
	return rows
}

// Changes says for people in what another placement differs; never empty.
func (p Placement) Changes(after Placement) (said []string) {
	lines := func(p Placement) (lines []string) {
		for _, r := range p.Rows() {
			lines = append(lines, r.What+" "+r.Value)
		}
		return lines
	}
	was, is := lines(p), lines(after)
	for _, l := range is {
		if !slices.Contains(was, l) {
			said = append(said, l)
		}
	}
	for _, l := range was {
		what, _, _ := strings.Cut(l, " ")
		replaced := slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, what+" ") })
		if many := what == "constraint" || what == "affinity" || what == "device"; !slices.Contains(is, l) && (many || !replaced) {
			said = append(said, "without "+l)
		}
	}
	if said == nil {
		said = []string{"the same"}
	}
	return said
}

var constraintList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		for _, c := range p.Constraints {
			row("constraint", c.String(), c.From)
		}
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		l.constraints = []constraintSpec{}
		for _, item := range r.list(n, what) {
			if c, ok := r.constraint(item, false); ok {
				l.constraints = append(l.constraints, c)
			}
		}
	},
	merge: (*merger).constraints,
	empty: func(l *layer) bool { return len(l.constraints) == 0 },
	means: func(l *layer, add func(what, value string)) {
		for i := range l.constraints {
			add("constraint", l.constraints[i].text())
		}
	},
	compare: func(d *differences, was, is *Placement) {
		compareLists(d, "constraints", was.Constraints, is.Constraints, Constraint.String)
	},
	expect: func(e *expected, n ast.Node) {
		addList(e, n, "constraints", func(n ast.Node) (Constraint, bool) {
			c, ok := e.r.constraint(n, false)
			return c.constraint(), ok
		}, func(d *Decision) []Constraint { return d.Constraints }, sameConstraint, Constraint.String)
	},
}

var affinityList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		for _, a := range p.Affinities {
			row("affinity", a.String(), a.From)
		}
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		l.affinities = []affinitySpec{}
		for _, item := range r.list(n, what) {
			if a, ok := r.affinity(item); ok {
				l.affinities = append(l.affinities, a)
			}
		}
	},
	merge: (*merger).affinities,
	empty: func(l *layer) bool { return len(l.affinities) == 0 },
	means: func(l *layer, add func(what, value string)) {
		for i := range l.affinities {
			a := &l.affinities[i]
			add("affinity", a.constraintSpec.text()+", weight "+a.weight.text(strconv.Itoa))
		}
	},
	compare: func(d *differences, was, is *Placement) {
		compareLists(d, "affinities", was.Affinities, is.Affinities, Affinity.String)
	},
	expect: func(e *expected, n ast.Node) {
		addList(e, n, "affinities", func(n ast.Node) (Affinity, bool) {
			a, ok := e.r.affinity(n)
			return Affinity{a.attribute, a.operator, a.value.literal, a.weight.literal, ""}, ok
		}, func(d *Decision) []Affinity { return d.Affinities }, func(want, got Affinity) bool {
			want.From = got.From
			return want == got
		}, Affinity.String)
	},
}

var deviceList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		for _, d := range p.Devices {
			row("device", fmt.Sprintf("%d × %s", d.Count, d.Name), d.From)
			for _, c := range d.Constraints {
				row("", c.String(), c.From)
			}
		}
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		l.devices = []deviceSpec{}
		for _, item := range r.list(n, what) {
			if d, ok := r.device(item); ok {
				l.devices = append(l.devices, d)
			}
		}
	},
	merge: func(m *merger, l *layer) error {
		for _, d := range l.devices {
			if err := m.device(d); err != nil {
				return err
			}
		}
		return nil
	},
	empty: func(l *layer) bool { return len(l.devices) == 0 },
	means: func(l *layer, add func(what, value string)) {
		for i := range l.devices {
			d := &l.devices[i]
			add("device", d.count.text(strconv.Itoa)+" × "+d.name.text(nil))
			for n := range d.constraints {
				add("device constraint", d.constraints[n].text())
			}
		}
	},
	compare: func(d *differences, was, is *Placement) {
		compareLists(d, "devices", was.Devices, is.Devices, Device.text)
	},
	expect: func(e *expected, n ast.Node) {
		addList(e, n, "devices", e.r.wantDevice, func(d *Decision) []Device { return d.Devices }, sameDevice, showDevice)
	},
}

var datacenterList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		if len(p.Datacenters) > 0 {
			row("datacenters", strings.Join(p.Datacenters, ", "), p.From["datacenters"])
		}
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		items := r.list(n, what)
		if items != nil && len(items) == 0 {
			r.Fault(n, "%s must list at least one; [\"*\"] is any", what)
		}
		for _, i := range items {
			l.datacenters = append(l.datacenters, read(&r.valueReader, i, what, named(datacenterGlob.MatchString, "name or pattern of a Nomad datacenter")))
		}
	},
	merge: (*merger).datacenters,
	empty: func(l *layer) bool { return len(l.datacenters) == 0 },
	means: func(l *layer, add func(what, value string)) {
		var names []string
		for i := range l.datacenters {
			names = append(names, l.datacenters[i].text(nil))
		}
		add("datacenters", strings.Join(names, ", "))
	},
	compare: func(d *differences, was, is *Placement) {
		compareLists(d, "datacenters", was.Datacenters, is.Datacenters, strings.Clone)
	},
	expect: func(e *expected, n ast.Node) {
		addList(e, n, "datacenters", func(n ast.Node) (string, bool) { return e.r.Text(n, "a datacenter") },
			func(d *Decision) []string { return d.Datacenters }, equal, strings.Clone)
	},
}

var envList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		textRows(row, "env", "task.env.", p.Task.Env, p.From)
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		for _, p := range r.Pairs(n, what) {
			if !envName.MatchString(p.Key) {
				r.Fault(p.KeyNode, "%s is not a valid name of an environment variable", words.Quote(p.Key))
				continue
			}
			if v := readText(&r.valueReader, p.Value, what+" "+p.Key, anyText, true); v.set {
				l.env = append(l.env, envSpec{p.Key, v})
			}
		}
	},
	merge: (*merger).taskEnv,
	empty: func(l *layer) bool { return len(l.env) == 0 },
	means: func(l *layer, add func(what, value string)) {
		for i := range l.env {
			add("env", l.env[i].name+"="+l.env[i].value.text(nil))
		}
	},
	compare: func(d *differences, was, is *Placement) {
		entries(d, "task.env.", was.Task.Env, is.Task.Env, strconv.Quote)
	},
	expect: (*expected).taskEnv,
}

var configList = &list{
	rows: func(p *Placement, row func(what, value, from string)) {
		for _, k := range slices.Sorted(maps.Keys(p.Task.Config)) {
			row("config", k+" = "+showJSON(p.Task.Config[k]), p.From["task.config."+k])
		}
	},
	read: func(r *placementReader, n ast.Node, l *layer, what string) {
		for _, p := range r.Pairs(n, what) {
			if tree, ok := r.json(p.Value, what+" "+p.Key); ok {
				l.config = append(l.config, configSpec{p.Key, tree})
			}
		}
	},
	merge: (*merger).taskConfig,
	empty: func(l *layer) bool { return len(l.config) == 0 },
	means: func(l *layer, add func(what, value string)) {
		for i := range l.config {
			add("config", l.config[i].name)
		}
	},
	compare: func(d *differences, was, is *Placement) {
		entries(d, "task.config.", was.Task.Config, is.Task.Config, showJSON)
	},
	expect: (*expected).taskConfig,
}

// textRows adds a row for each entry of a mapping.
func textRows(row func(what, value, from string), what, path string, all, from map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		row(what, k+"="+all[k], from[path+k])
	}
}

// showJSON writes a JSON value for people.
func showJSON(v any) string {
	text, _ := json.Marshal(v) // values are JSON values
	return string(text)
}

func runnerRows(p *Placement, row func(what, value, from string)) {
	who := p.Runner.Scope + " scope"
	if p.Runner.Scope == "enterprise" {
		who = "enterprise " + p.Runner.Enterprise
	}
	row("runner", fmt.Sprintf("%s, group %s", who, p.Runner.Group), p.From["runner.scope"])
}

func verifyRows(p *Placement, row func(what, value, from string)) {
	if p.Runner.Verify {
		row("", "verifies its job before the first step", p.From["runner.verify"])
	}
}

// keepTime reads how long a runner is kept.
func keepTime(v any) (string, error) {
	s, err := cond.AsText(v)
	if err != nil {
		return "", err
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not a duration: write it as 90s, 5m or 1h30m", words.Quote(s))
	case d < time.Minute || d > 24*time.Hour:
		return "", fmt.Errorf("%s is not between 1m and 24h", words.Quote(s))
	}
	return Duration(d).String(), nil
}

func registrationRows(p *Placement, row func(what, value, from string)) {
	switch {
	case p.Dispatch != "":
		row("", "brings its own registration", p.From["dispatch"])
	case p.Runner.Registration == "own":
		row("", "brings its own registration", p.From["runner.registration"])
	case p.Runner.Registration == "token":
		row("", "registers itself by a token", p.From["runner.registration"])
	}
}
