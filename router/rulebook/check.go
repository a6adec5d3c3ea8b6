package rulebook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/rules"
)

// Load returns the set of rules, or the faults that keep the files from loading.
func Load(ctx context.Context, files []rules.File) (*rules.Set, rules.Diagnostics, error) {
	set, err := rules.Load(ctx, files...)
	var faults rules.Diagnostics
	if err != nil && !errors.As(err, &faults) {
		return nil, nil, fmt.Errorf("load the rules: %w", err)
	}
	return set, faults, nil
}

// Lint is Set.Lint with what is known about the jobspecs.
func Lint(ctx context.Context, set *rules.Set, specs *jobspecs.Set) (rules.Diagnostics, error) {
	var known []rules.Jobspec
	for _, name := range specs.Names() {
		spec, _ := specs.Get(name)
		j := rules.Jobspec{Name: name, NoClaim: !spec.Claims, NoVerify: !spec.Verifies, NoWait: !spec.Waits}
		if spec.Parsed != nil {
			var job api.Job
			if err := json.Unmarshal(spec.Parsed, &job); err != nil {
				return nil, fmt.Errorf("read the jobspec %s: %w", spec.Path, err)
			}
			j.Driver, j.Constraints = needs(&job)
		}
		known = append(known, j)
	}
	return set.Lint(ctx, known), nil
}

// needs returns what a jobspec asks of a node: its driver ("" when it has several) and the
// constraints of the job, its group and the task.
func needs(job *api.Job) (driver string, constraints []rules.Constraint) {
	add := func(list []*api.Constraint) {
		for _, c := range list {
			constraints = append(constraints, rules.Constraint{Attribute: c.LTarget, Operator: c.Operand, Value: c.RTarget})
		}
	}
	add(job.Constraints)
	for _, g := range job.TaskGroups {
		add(g.Constraints)
		for _, t := range g.Tasks {
			add(t.Constraints)
			driver = t.Driver
		}
		if len(g.Tasks) != 1 {
			driver = ""
		}
	}
	return driver, constraints
}
