package rules

import (
	"errors"
	"strings"
	"testing"
)

func TestConstraintsInTheirShortForm(t *testing.T) {
	for _, tt := range []struct{ short, want string }{
		{`${attr.cpu.arch} = arm64`, `${attr.cpu.arch} = arm64`},
		{`${attr.cpu.arch}=arm64`, `${attr.cpu.arch} = arm64`},
		{`  ${attr.cpu.arch}   ==   arm64  `, `${attr.cpu.arch} = arm64`},
		{`${attr.cpu.arch} is arm64`, `${attr.cpu.arch} = arm64`},
		{`${attr.cpu.arch} != arm64`, `${attr.cpu.arch} != arm64`},
		{`${attr.cpu.arch}!=arm64`, `${attr.cpu.arch} != arm64`},
		{`${attr.cpu.arch} not arm64`, `${attr.cpu.arch} != arm64`},
		{`${attr.cpu.numcores} > 8`, `${attr.cpu.numcores} > 8`},
		{`${attr.cpu.numcores} >= 8`, `${attr.cpu.numcores} >= 8`},
		{`${attr.cpu.numcores}<8`, `${attr.cpu.numcores} < 8`},
		{`${attr.cpu.numcores}<=8`, `${attr.cpu.numcores} <= 8`},
		{`${node.unique.name} regexp ^web-[0-9]+$`, `${node.unique.name} regexp ^web-[0-9]+$`},
		{`${attr.driver.docker.version} version >= 20.10, < 28`, `${attr.driver.docker.version} version >= 20.10, < 28`},
		{`${attr.nomad.version} semver >= 1.6.0-beta.1`, `${attr.nomad.version} semver >= 1.6.0-beta.1`},
		{`${attr.nomad.version} version ~> 1.6`, `${attr.nomad.version} version ~> 1.6`},
		{`${meta.tools} set_contains go,node`, `${meta.tools} set_contains go,node`},
		{`${meta.tools} set_contains_all go,node`, `${meta.tools} set_contains go,node`},
		{`${meta.tools} set_contains_any go,node`, `${meta.tools} set_contains_any go,node`},
		{`${meta.rack} is_set`, `${meta.rack} is_set`},
		{`${meta.rack} is_not_set`, `${meta.rack} is_not_set`},
		{`distinct_hosts`, `distinct_hosts`},
		{`distinct_hosts true`, `distinct_hosts true`},
		{`${meta.rack} distinct_property`, `${meta.rack} distinct_property`},
		{`${meta.rack} distinct_property 2`, `${meta.rack} distinct_property 2`},
		{`${node.class} = a b = c`, `${node.class} = a b = c`},
		{`${node.pool} = gpu`, `${node.pool} = gpu`},
		{`${meta.a} = ${attr.os.name}`, `${meta.a} = ${attr.os.name}`},
		{`${meta.a-b.c/d} = ''`, `${meta.a-b.c/d} = ''`},
	} {
		t.Run(tt.short, func(t *testing.T) {
			quoted := "'" + strings.ReplaceAll(tt.short, "'", "''") + "'"
			s := parse(t, "version: 1\nlabels: { self-hosted: {} }\nrules: [{ name: r, jobspec: j, constraints: ["+quoted+"] }]\n")
			d := s.Decide(job(), false)
			if len(d.Constraints) != 1 || d.Constraints[0].String() != tt.want {
				t.Errorf("constraints of %s = %v, want %s", tt.short, d.Constraints, tt.want)
			}
		})
	}
}

func TestTheMappingFormOfAConstraintMeansTheSame(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {} }
rules:
  - name: r
    jobspec: j
    constraints:
      - { attribute: '${attr.cpu.arch}', value: amd64 }
      - { attribute: '${attr.cpu.numcores}', operator: '>=', value: 8 }
      - { attribute: '${meta.on}', value: true }
      - { attribute: '${meta.rack}', operator: is_set }
      - { attribute: '${meta.site}', operator: is_not_set, value: }
      - { operator: distinct_hosts }
      - { attribute: '${meta.rack}', operator: distinct_property, value: 3 }
      - attribute: ${node.class}
        operator: regexp
        value: |
          ^(a|b)$
`)
	want := "${attr.cpu.arch} = amd64\n${attr.cpu.numcores} >= 8\n${meta.on} = true\n${meta.rack} is_set\n${meta.site} is_not_set\ndistinct_hosts\n${meta.rack} distinct_property 3\n${node.class} regexp ^(a|b)$"
	var got []string
	for _, c := range s.Decide(job(), false).Constraints {
		got = append(got, c.String())
	}
	if strings.Join(got, "\n") != want {
		t.Errorf("constraints =\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestConstraintsThatNomadWouldRefuseOrNeverPlace(t *testing.T) {
	for _, tt := range []struct{ constraint, want string }{
		{`''`, `constraint "" must begin with an attribute such as ${attr.cpu.arch}`},
		{`x`, `constraint "x" must begin with an attribute such as ${attr.cpu.arch}`},
		{`attr.cpu.arch = arm64`, `constraint "attr.cpu.arch = arm64" must begin with an attribute such as ${attr.cpu.arch}`},
		{`${attr.cpu.arch = arm64`, `constraint "${attr.cpu.arch = arm64": } is missing after the attribute`},
		{`${attr.cpu.arch}`, `constraint "${attr.cpu.arch}" has no operator: write it as '${attr.cpu.arch} = arm64'`},
		{`'${{ job.name }} = x'`, `constraint "${{ job.name }} = x": the attribute must be written out, not come from an expression`},
		{`${attr.cpu.arch} ${{ job.name }}`, `unknown operator "${{"; Nomad takes !=, <, <=, =, ==, >, >=, distinct_hosts, distinct_property, is, is_not_set, is_set, not, regexp, semver, set_contains, set_contains_all, set_contains_any, version`},
		{`${attr.cpu.arch} =~ arm`, `unknown operator "=~"; did you mean =?`},
		{`${attr.cpu.arch} regex arm`, `unknown operator "regex"; did you mean regexp?`},
		{`${attr.cpu.arch} === arm`, `unknown operator "==="; did you mean ==?`},
		{`${attr.cpu.arch} =`, `constraint on ${attr.cpu.arch}: operator = needs a value`},
		{`${attr.cpu.arch} regexp (`, "constraint on ${attr.cpu.arch}: \"(\" is not a regular expression: error parsing regexp: missing closing ): `(`"},
		{`${attr.nomad.version} version new`, `constraint on ${attr.nomad.version}: "new" is not a version constraint: write it as '>= 1.6, < 2.0'`},
		{`${meta.a} is_set x`, `constraint on ${meta.a}: operator is_set takes no value, got "x"`},
		{`${meta.a} distinct_property 0`, `constraint on ${meta.a}: operator distinct_property takes how many may share the property, got "0"`},
		{`distinct_hosts maybe`, `constraint on distinct_hosts: operator distinct_hosts takes true, false or nothing, got "maybe"`},
		{`${meta.a} distinct_hosts`, `operator distinct_hosts takes no attribute`},
		{`${namespace} = x`, `attribute "${namespace}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`${node.name} = x`, `attribute "${node.name}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`${device.model} = x`, `attribute "${device.model}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`${attr.a b} = x`, `attribute "${attr.a b}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`"${meta.a} = x\ny"`, `constraint on ${meta.a}: value "x\ny" is not printable`},
		{`{ value: x }`, `attribute "" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`{ attribute: '${meta.a}' }`, `constraint on ${meta.a}: operator = needs a value`},
		{`{ attribute: '${meta.${{ job.name }}}', value: x }`, `attribute "${meta.${{ job.name }}}" is not a node attribute: write ${attr.NAME}, ${meta.NAME}, or ${node.NAME} with class, pool, datacenter, unique.id or unique.name`},
		{`{ attribute: '${meta.a}', operator: is_set, value: '${{ 1 }}' }`, `constraint on ${meta.a}: operator is_set takes no value, got "${{ 1 }}"`},
		{`{ attribute: '${meta.a}', operator: '${{ "=" }}', value: x }`, `unknown operator "${{ \"=\" }}"; Nomad takes !=, <, <=, =, ==, >, >=, distinct_hosts, distinct_property, is, is_not_set, is_set, not, regexp, semver, set_contains, set_contains_all, set_contains_any, version`},
		{`{ attribute: '${meta.a}', value: [x] }`, `value of a constraint must be a text, not a list`},
		{`[a]`, `constraint must be a mapping, not a list`},
	} {
		t.Run(tt.constraint, func(t *testing.T) {
			_, err := Parse("rules.yaml", []byte("version: 1\nrules:\n  - name: r\n    jobspec: j\n    constraints:\n      - "+tt.constraint+"\n"))
			var ds Diagnostics
			if !errors.As(err, &ds) || len(ds) != 1 || !strings.HasPrefix(ds[0].Message, tt.want) || ds[0].Rule != "r" {
				t.Errorf("Parse: %v, want one fault of rule r: %s", err, tt.want)
			}
		})
	}
}

func TestAffinitiesThatNomadWouldRefuse(t *testing.T) {
	for _, tt := range []struct{ affinity, want string }{
		{`${node.class} = a`, `an affinity is a mapping: { attribute: '${node.class}', value: spot, weight: 50 }`},
		{`{ attribute: '${node.class}', value: a }`, `an affinity needs a weight from -100 to 100, not 0`},
		{`{ attribute: '${node.class}', value: a, weight: 0 }`, `affinity weight: a weight of 0 has no effect`},
		{`{ attribute: '${node.class}', value: a, weight: 101 }`, `affinity weight: 101 is not between -100 and 100`},
		{`{ attribute: '${node.class}', operator: is_set, weight: 1 }`, `an affinity cannot have the operator is_set`},
		{`{ operator: distinct_hosts, weight: 1 }`, `an affinity cannot have the operator distinct_hosts`},
		{`{ attribute: '${node.class}', operator: version, value: a, weight: 1 }`, `affinity on ${node.class}: "a" is not a version constraint: write it as '>= 1.6, < 2.0'`},
	} {
		t.Run(tt.affinity, func(t *testing.T) {
			_, err := Parse("rules.yaml", []byte("version: 1\nrules:\n  - name: r\n    jobspec: j\n    affinities:\n      - "+tt.affinity+"\n"))
			var ds Diagnostics
			if !errors.As(err, &ds) || len(ds) != 1 || ds[0].Message != tt.want {
				t.Errorf("Parse: %v, want one fault: %s", err, tt.want)
			}
		})
	}
}

func TestConstraintsThatContradictEachOther(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"${attr.a} = x", "${attr.a} = y", true},
		{"${attr.a} = x", "${attr.a} = x", false},
		{"${attr.a} = x", "${attr.b} = y", false},
		{"${attr.a} = x", "${attr.a} != x", true},
		{"${attr.a} = x", "${attr.a} != y", false},
		{"${attr.a} = x", "${attr.a} regexp ^y", true},
		{"${attr.a} = x", "${attr.a} regexp ^x", false},
		{"${attr.a} = x", "${attr.a} is_not_set", true},
		{"${attr.a} is_set", "${attr.a} is_not_set", true},
		{"${attr.a} > 1", "${attr.a} is_not_set", true},
		{"${attr.a} set_contains x", "${attr.a} is_not_set", true},
		{"${attr.a} != x", "${attr.a} is_not_set", false}, // Nomad takes a missing attribute for different
		{"${attr.a} = x", "${attr.a} is_set", false},
		{"${attr.a} = ${meta.x}", "${attr.a} = y", false}, // Nomad puts something in there
		{"${attr.a} = 1", "${attr.a} > 2", false},         // not known
		{"${attr.a} version > 2", "${attr.a} version < 1", false},
		{"${device.model} = x", "${device.model} = y", true},
		{"${device.attr.memory} = 1GiB", "${device.attr.memory} = 1024MiB", false}, // Nomad compares units
		{"distinct_hosts", "distinct_hosts false", false},
	} {
		t.Run(tt.a+" and "+tt.b, func(t *testing.T) {
			constraint := func(s string) Constraint {
				attribute, operator, value, err := splitConstraint(s)
				if err != nil {
					t.Fatal(err)
				}
				return Constraint{Attribute: attribute, Operator: operators[operator].canonical, Value: value}
			}
			a, b := constraint(tt.a), constraint(tt.b)
			_, _, got := contradiction([]Constraint{a, b})
			_, _, reversed := contradiction([]Constraint{b, a})
			if got != tt.want || reversed != tt.want {
				t.Errorf("contradiction = %v, %v the other way round; want %v", got, reversed, tt.want)
			}
		})
	}
}
