package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// operand is what an operator asks for besides its attribute.
type operand int

const (
	needsValue  operand = iota
	noValue             // is_set
	countOnly           // distinct_property: how many allocations may share the property; 1 when left out
	standsAlone         // distinct_hosts: no attribute either
)

// operators are Nomad's constraint operators by every spelling it takes, and
// the one we write (https://developer.hashicorp.com/nomad/docs/job-specification/constraint,
// tried on Nomad 2.0, 2026-11-24).
var operators = map[string]struct {
	canonical string
	operand   operand
}{
	"=": {"=", needsValue}, "==": {"=", needsValue}, "is": {"=", needsValue},
	"!=": {"!=", needsValue}, "not": {"!=", needsValue},
	">": {">", needsValue}, ">=": {">=", needsValue}, "<": {"<", needsValue}, "<=": {"<=", needsValue},
	"regexp": {"regexp", needsValue}, "version": {"version", needsValue}, "semver": {"semver", needsValue},
	"set_contains": {"set_contains", needsValue}, "set_contains_all": {"set_contains", needsValue},
	"set_contains_any": {"set_contains_any", needsValue},
	"is_set":           {"is_set", noValue}, "is_not_set": {"is_not_set", noValue},
	"distinct_hosts": {"distinct_hosts", standsAlone}, "distinct_property": {"distinct_property", countOnly},
}

func operatorNames() []string { return slices.Sorted(maps.Keys(operators)) }

// splitConstraint reads the short form: '${attr.cpu.arch} = arm64', '${meta.rack} is_set',
// 'distinct_hosts'. It looks at the text as it was written, before any expression in it has a
// value, so no value can bring an operator along.
func splitConstraint(s string) (attribute, operator, value string, err error) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "${") {
		operator, value, _ = strings.Cut(s, " ")
		if operators[operator].operand == standsAlone {
			return "", operator, strings.TrimSpace(value), nil
		}
		hint := ""
		if name := bareAttribute.FindString(s); name != "" {
			hint = ": write ${" + name + "}"
		}
		return "", "", "", fmt.Errorf("constraint %s must begin with an attribute such as ${attr.cpu.arch}%s", words.Quote(s), hint)
	}
	end := strings.IndexByte(s, '}')
	if strings.Contains(s[:max(end, 0)], cond.Opening) {
		hint := ""
		if name := bareAttribute.FindString(strings.TrimLeft(s, "${ ")); name != "" && strings.HasPrefix(s, cond.Opening) {
			hint = ": Nomad's has one brace, ${" + name + "}"
		}
		return "", "", "", fmt.Errorf("constraint %s: the attribute must be written out, not come from an expression%s", words.Quote(s), hint)
	}
	if end < 0 {
		return "", "", "", fmt.Errorf("constraint %s: } is missing after the attribute", words.Quote(s))
	}
	attribute, rest := s[:end+1], strings.TrimLeft(s[end+1:], " ")
	word := rest
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		word, value = rest[:i], strings.TrimSpace(rest[i:])
	}
	if strings.ContainsAny(word[:min(1, len(word))], "=!<>~") { // symbols need no space after them
		symbol := word[:len(word)-len(strings.TrimLeft(word, "=!<>~"))]
		word, value = symbol, strings.TrimSpace(rest[len(symbol):])
	}
	if word == "" {
		return "", "", "", fmt.Errorf("constraint %s has no operator: write it as '${attr.cpu.arch} = arm64'", words.Quote(s))
	}
	return attribute, word, value, nil
}

var (
	bareAttribute = regexp.MustCompile(`^(attr|meta|node|device)\.[A-Za-z0-9_.-]{1,100}`)

	nodeTarget   = regexp.MustCompile(`^\$\{(attr\.[^${}\s]+|meta\.[^${}\s]+|node\.(unique\.id|unique\.name|datacenter|class|pool))\}$`)
	deviceTarget = regexp.MustCompile(`^\$\{device\.(model|vendor|type|ids|attr\.[^${}\s]+)\}$`)
	// versions is Nomad's own grammar of version constraints, loosely.
	versions = regexp.MustCompile(`^\s*(=|!=|>|<|>=|<=|~>)?\s*v?\d+(\.\d+)*[0-9A-Za-z.+~-]*\s*(,\s*(=|!=|>|<|>=|<=|~>)?\s*v?\d+(\.\d+)*[0-9A-Za-z.+~-]*\s*)*$`)
)

// checkTarget checks an attribute. Nomad refuses some others, and places nothing for the rest.
func checkTarget(attribute string, device bool) error {
	if name := bareAttribute.FindString(attribute); name != "" && name == attribute {
		return fmt.Errorf("attribute %s has no ${ }: write '${%s}'", words.Quote(attribute), name)
	}
	if device {
		if !deviceTarget.MatchString(attribute) {
			return fmt.Errorf("attribute %s is not a device attribute: write ${device.attr.NAME}, ${device.model}, ${device.vendor}, ${device.type} or ${device.ids}", words.Quote(attribute))
		}
		return nil
	}
	if !nodeTarget.MatchString(attribute) {
		return fmt.Errorf("attribute %s is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name", words.Quote(attribute))
	}
	return nil
}

// checkValue checks what an operator is compared with.
func checkValue(operator, value string) error {
	switch op := operators[operator]; {
	case op.operand == noValue && value != "":
		return fmt.Errorf("operator %s takes no value, got %s", operator, words.Quote(value))
	case op.operand == countOnly && value != "":
		if n, err := strconv.Atoi(value); err != nil || n < 1 {
			return fmt.Errorf("operator %s takes how many may share the property, got %s", operator, words.Quote(value))
		}
	case op.operand == standsAlone && value != "" && value != "true" && value != "false":
		return fmt.Errorf("operator %s takes true, false or nothing, got %s", operator, words.Quote(value))
	case op.operand == needsValue && value == "":
		return fmt.Errorf("operator %s needs a value", operator)
	case op.canonical == "regexp":
		if err := cond.CheckPattern(value); err != nil {
			return err
		}
	case op.canonical == "version" || op.canonical == "semver":
		if !versions.MatchString(value) {
			return fmt.Errorf("%s is not a version constraint: write it as '>= 1.6, < 2.0'", words.Quote(value))
		}
	}
	if !words.Printable(value) {
		return fmt.Errorf("value %s is not printable", words.Quote(value))
	}
	return nil
}

// contradiction returns the first two constraints that no node can satisfy together. It claims
// nothing of values that Nomad interpolates, nor of pairs of operators that it does not know.
func contradiction(constraints []Constraint) (a, b Constraint, found bool) {
	for i, a := range constraints {
		for _, b := range constraints[i+1:] {
			if a.Attribute == b.Attribute && a.Attribute != "" && (excludes(a, b) || excludes(b, a)) {
				return a, b, true
			}
		}
	}
	return a, b, false
}

// excludes reports whether a, on the same attribute, leaves no value for b.
func excludes(a, b Constraint) bool {
	if strings.Contains(a.Value, "${") || strings.Contains(b.Value, "${") {
		return false
	}
	if strings.HasPrefix(a.Attribute, "${device.attr.") { // 1 GiB there equals 1024 MiB
		return false
	}
	if b.Operator == "is_not_set" {
		return slices.Contains([]string{"=", "is_set", "regexp", "version", "semver", "set_contains", "set_contains_any", ">", ">=", "<", "<="}, a.Operator)
	}
	if a.Operator != "=" {
		return false
	}
	switch b.Operator {
	case "=":
		return a.Value != b.Value
	case "!=":
		return a.Value == b.Value
	case "regexp":
		re, err := regexp.Compile(b.Value)
		return err == nil && !re.MatchString(a.Value)
	}
	return false
}

// String writes the constraint in the short form.
func (c Constraint) String() string {
	return strings.TrimSpace(c.Attribute + " " + c.Operator + " " + c.Value)
}
