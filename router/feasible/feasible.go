// Package feasible owns the meaning of Nomad's constraints: whether one holds on a node
// or a device (scheduler/feasible in Nomad 2.0, tested against it). It is called by
// nomad/capacity and nomadsim, and makes no requests.
package feasible

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"
)

// Broken returns the first constraint that does not hold on a node, as Nomad
// writes it; "" when all do. A constraint about other allocations holds.
func Broken(n *api.Node, list []*api.Constraint) string {
	for _, c := range list {
		l, lok := Target(n, c.LTarget)
		r, rok := Target(n, c.RTarget)
		if !Holds(c.Operand, l, lok, r, rok) {
			return fmt.Sprintf("%s %s %s", c.LTarget, c.Operand, c.RTarget)
		}
	}
	return ""
}

// Target returns the value of a constraint's target on a node, and whether the node
// has it. A target that is no ${…} is its own value.
func Target(n *api.Node, target string) (string, bool) {
	name, ok := strings.CutPrefix(target, "${")
	if !ok {
		return target, true // a literal
	}
	name = strings.TrimSuffix(name, "}")
	switch name {
	case "node.unique.id":
		return n.ID, true
	case "node.unique.name":
		return n.Name, true
	case "node.datacenter":
		return n.Datacenter, true
	case "node.class":
		return n.NodeClass, true
	case "node.pool":
		return n.NodePool, true
	}
	if attr, ok := strings.CutPrefix(name, "attr."); ok {
		v, found := n.Attributes[attr]
		return v, found
	}
	if meta, ok := strings.CutPrefix(name, "meta."); ok {
		v, found := n.Meta[meta]
		return v, found
	}
	return "", false
}

// Unique reports whether a constraint is about what is unique to a node.
func Unique(c *api.Constraint) bool {
	return slices.ContainsFunc([]string{c.LTarget, c.RTarget}, func(target string) bool {
		return strings.HasPrefix(target, "${node.unique.") || strings.HasPrefix(target, "${attr.unique.") || strings.HasPrefix(target, "${meta.unique.")
	})
}

// Class returns, as text, all that constraints see of a node except what is unique to it,
// as Nomad's computed class, and more.
func Class(n *api.Node, more ...any) string {
	common := func(m map[string]string) map[string]string {
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, "unique.") })
		return m
	}
	var devices []any
	for _, d := range n.NodeResources.Devices {
		devices = append(devices, d.Vendor, d.Type, d.Name, d.Attributes)
	}
	text, err := json.Marshal([]any{n.Datacenter, n.NodeClass, n.NodePool, common(n.Attributes), common(n.Meta), devices, more})
	if err != nil {
		panic(err) // nothing in it fails to marshal
	}
	return string(text)
}

// InDatacenters reports whether a node is in one of the datacenters of a job: in a
// pattern * stands for any text, and nothing else is special.
func InDatacenters(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		first, rest, star := strings.Cut(pattern, "*")
		s, ok := strings.CutPrefix(name, first)
		for star && ok {
			var part string
			if part, rest, star = strings.Cut(rest, "*"); !star {
				return strings.HasSuffix(s, part)
			}
			_, s, ok = strings.Cut(s, part)
		}
		return ok && s == ""
	})
}

// Holds reports whether an operator holds between left and right. A value that a node
// does not have is "", and not found.
func Holds(operator, left string, leftFound bool, right string, rightFound bool) bool {
	both := leftFound && rightFound
	switch operator {
	case "=", "==", "is":
		return both && left == right
	case "!=", "not":
		return left != right
	case "is_set":
		return leftFound
	case "is_not_set":
		return !leftFound
	case "<", "<=", ">", ">=":
		return both && inOrder(operator, compare(left, right))
	case "version", "semver":
		return both && versionHolds(operator, left, right)
	case "regexp":
		return both && matches(right, left)
	case "set_contains", "set_contains_all":
		have := set(left)
		return both && !slices.ContainsFunc(set(right), func(v string) bool { return !slices.Contains(have, v) })
	case "set_contains_any":
		have := set(left)
		return both && slices.ContainsFunc(set(right), func(v string) bool { return slices.Contains(have, v) })
	case "distinct_hosts", "distinct_property":
		return true // these are about allocations
	}
	return false
}

func set(s string) []string {
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// compare compares its arguments as integers, else as floats, else as text.
func compare(left, right string) int {
	l, lerr := strconv.ParseInt(left, 10, 64)
	r, rerr := strconv.ParseInt(right, 10, 64)
	if lerr == nil && rerr == nil {
		return cmp.Compare(l, r)
	}
	lf, lerr := strconv.ParseFloat(left, 64)
	rf, rerr := strconv.ParseFloat(right, 64)
	if lerr == nil && rerr == nil {
		return cmp.Compare(lf, rf)
	}
	return cmp.Compare(left, right)
}

func inOrder(operator string, c int) bool {
	switch operator {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c >= 0
	}
}

func matches(pattern, s string) bool {
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(s)
}

// versionHolds reads a comma-separated list of version constraints. The
// operator version takes ~> and refuses pre-releases that no constraint names;
// semver orders pre-releases before their release, and takes them.
func versionHolds(operator, left, right string) bool {
	v, err := goversion.NewVersion(left)
	if err != nil {
		return false
	}
	if operator == "version" {
		c, err := goversion.NewConstraint(right)
		return err == nil && c.Check(v)
	}
	terms, err := readSemver(right)
	return err == nil && !slices.ContainsFunc(terms, func(t semverTerm) bool { return !t.holds(v) })
}

type semverTerm struct {
	operator string
	version  *goversion.Version
}

func (t semverTerm) holds(v *goversion.Version) bool {
	switch c := v.Compare(t.version); t.operator {
	case "", "=":
		return c == 0
	case "!=":
		return c != 0
	default:
		return inOrder(t.operator, c)
	}
}

var semverPattern = regexp.MustCompile(`^\s*(|=|!=|>|<|>=|<=)\s*(` + goversion.SemverRegexpRaw + `)\s*$`)

// CheckSemver returns what is wrong with the value of a semver constraint.
func CheckSemver(text string) error {
	_, err := readSemver(text)
	return err
}

func readSemver(text string) (terms []semverTerm, err error) {
	for one := range strings.SplitSeq(text, ",") {
		m := semverPattern.FindStringSubmatch(one)
		if m == nil {
			//lint:ignore ST1005 it is in Nomad's words
			return nil, fmt.Errorf("Malformed constraint: %s", one)
		}
		v, err := goversion.NewSemver(m[2])
		if err != nil {
			return nil, err
		}
		terms = append(terms, semverTerm{m[1], v})
	}
	return terms, nil
}

// Named reports whether a request's name means a device: type, vendor/type or
// vendor/type/model.
func Named(d *api.NodeDeviceResource, name string) bool {
	switch p := strings.SplitN(name, "/", 3); len(p) {
	case 1:
		return d.Type == p[0]
	case 2:
		return d.Vendor == p[0] && d.Type == p[1]
	default:
		return d.Vendor == p[0] && d.Type == p[1] && d.Name == p[2]
	}
}

// Suits reports whether a device satisfies a request's name and constraints.
func Suits(d *api.NodeDeviceResource, ask *api.RequestedDevice) bool {
	return Named(d, ask.Name) && !slices.ContainsFunc(ask.Constraints, func(c *api.Constraint) bool {
		return !deviceHolds(c.Operand, deviceAttribute(d, c.LTarget), deviceAttribute(d, c.RTarget))
	})
}

// deviceAttribute returns a constraint's target on a device; nil when it has none.
func deviceAttribute(d *api.NodeDeviceResource, target string) *api.Attribute {
	if !strings.HasPrefix(target, "${") {
		return ReadAttribute(target)
	}
	switch target {
	case "${device.model}":
		return &api.Attribute{StringVal: &d.Name}
	case "${device.vendor}":
		return &api.Attribute{StringVal: &d.Vendor}
	case "${device.type}":
		return &api.Attribute{StringVal: &d.Type}
	case "${device.ids}":
		var ids []string
		for _, i := range d.Instances {
			ids = append(ids, i.ID)
		}
		return &api.Attribute{StringVal: new(strings.Join(ids, ","))}
	}
	name, _ := strings.CutPrefix(target, "${device.attr.")
	return d.Attributes[strings.TrimSuffix(name, "}")]
}

// deviceHolds is Holds for the attributes of devices, which have types and units.
func deviceHolds(operator string, left, right *api.Attribute) bool {
	switch operator {
	case "is_set":
		return left != nil
	case "is_not_set":
		return left == nil
	case "!=", "not":
		if left == nil || right == nil {
			return left != right
		}
		c, ok := compareAttributes(left, right)
		return ok && c != 0
	}
	if left == nil || right == nil {
		return false
	}
	switch operator {
	case "=", "==", "is", "<", "<=", ">", ">=":
		c, ok := compareAttributes(left, right)
		if operator[0] == '=' || operator == "is" {
			return ok && c == 0
		}
		return ok && inOrder(operator, c)
	case "version", "semver":
		return left.BoolVal == nil && left.FloatVal == nil && right.StringVal != nil && versionHolds(operator, left.String(), *right.StringVal)
	}
	return left.StringVal != nil && right.StringVal != nil && Holds(operator, *left.StringVal, true, *right.StringVal, true)
}

// Healthy returns how many instances of a device can be assigned.
func Healthy(d *api.NodeDeviceResource) (n int) {
	for _, i := range d.Instances {
		if i.Healthy {
			n++
		}
	}
	return n
}

// HasDevices reports whether a node would have the devices that a group asks
// for if nothing else ran there. A request for none of them is never met.
func HasDevices(n *api.Node, g *api.TaskGroup) bool {
	taken := map[*api.NodeDeviceResource]int{}
	for _, t := range g.Tasks {
		if t.Resources == nil {
			continue
		}
		for _, ask := range t.Resources.Devices {
			left := 1
			if ask.Count != nil {
				left = int(*ask.Count)
			}
			met := false
			for _, d := range n.NodeResources.Devices {
				if free := Healthy(d) - taken[d]; free > 0 && Suits(d, ask) {
					take := min(left, free)
					taken[d] += take
					left -= take
					met = left == 0
				}
				if met {
					break
				}
			}
			if !met {
				return false
			}
		}
	}
	return true
}

// units has the units of device attributes, with what each measures and its factor
// (https://developer.hashicorp.com/nomad/docs/job-specification/device, read 2026-11-24).
var units = func() map[string]unit {
	all := map[string]unit{
		"MHz": {"Hz", 1e6}, "GHz": {"Hz", 1e9},
		"mW": {"W", 1e-3}, "W": {"W", 1}, "kW": {"W", 1e3}, "MW": {"W", 1e6}, "GW": {"W", 1e9},
	}
	for i, prefix := range []string{"K", "M", "G", "T", "P", "E"} {
		all[prefix+"iB"] = unit{"B", math.Pow(1024, float64(i+1))}
		all[prefix+"B"] = unit{"B", math.Pow(1000, float64(i+1))}
	}
	all["kB"] = all["KB"]
	for name, u := range maps.Clone(all) {
		if u.of == "B" {
			all[name+"/s"] = unit{"B/s", u.factor}
		}
	}
	return all
}()

type unit struct {
	of     string
	factor float64
}

// ReadAttribute reads a literal: a number, with or without a unit, a boolean,
// or text.
func ReadAttribute(s string) *api.Attribute {
	number, u := s, ""
	for name := range units {
		if strings.HasSuffix(s, name) && len(name) > len(u) {
			u = name
		}
	}
	if u != "" {
		number = strings.TrimSpace(strings.TrimSuffix(s, u))
	}
	if i, err := strconv.ParseInt(number, 10, 64); err == nil {
		return &api.Attribute{IntVal: &i, Unit: u}
	}
	if f, err := strconv.ParseFloat(number, 64); err == nil {
		return &api.Attribute{FloatVal: &f, Unit: u}
	}
	if b, err := strconv.ParseBool(s); err == nil {
		return &api.Attribute{BoolVal: &b}
	}
	return &api.Attribute{StringVal: &s}
}

// compareAttributes orders two attributes of one kind; ok is false for others.
func compareAttributes(a, b *api.Attribute) (c int, ok bool) {
	if units[a.Unit].of != units[b.Unit].of {
		return 0, false
	}
	switch {
	case a.StringVal != nil && b.StringVal != nil:
		return cmp.Compare(*a.StringVal, *b.StringVal), true
	case a.BoolVal != nil && b.BoolVal != nil:
		if *a.BoolVal == *b.BoolVal {
			return 0, true
		}
		return 1, true
	}
	x, xok := quantity(a)
	y, yok := quantity(b)
	return cmp.Compare(x, y), xok && yok
}

func quantity(a *api.Attribute) (float64, bool) {
	factor := 1.0
	if u, ok := units[a.Unit]; ok {
		factor = u.factor
	}
	switch {
	case a.IntVal != nil:
		return float64(*a.IntVal) * factor, true
	case a.FloatVal != nil:
		return *a.FloatVal * factor, true
	}
	return 0, false
}
