package nomadsim

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	goversion "github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/feasible"
)

// A faults is what Nomad's validation finds, as a list in its form.
type faults []string

func (f faults) Error() string {
	if len(f) == 1 {
		return fmt.Sprintf("1 error occurred:\n\t* %s\n\n", f[0])
	}
	return fmt.Sprintf("%d errors occurred:\n\t* %s\n\n", len(f), strings.Join(f, "\n\t* "))
}

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// nest adds the faults of a part as one fault, with a prefix.
func (f *faults) nest(words string, part faults) {
	if len(part) > 0 {
		*f = append(*f, words+part.Error())
	}
}

// admit checks a job as Nomad does before it accepts one, as far as a runner's
// job can fail (nomad/job_endpoint*.go and nomad/structs, v2.0.6-dev, read
// 2026-11-24). s.mu is held.
func (s *cluster) admit(j *api.Job) (warnings string, err error) {
	var f faults
	if !s.hasNamespace(*j.Namespace) {
		f.add("job %q is in nonexistent namespace %q", *j.ID, *j.Namespace)
	}
	if !s.pools[*j.NodePool] {
		f.add("job %q is in nonexistent node pool %q", *j.ID, *j.NodePool)
	}
	f = append(f, jobFaults(j)...)
	if *j.Priority < 1 || *j.Priority > 100 {
		f.add("job priority must be between [1, 100]")
	}
	var numa bool
	var over []string
	for _, g := range j.TaskGroups {
		for _, t := range g.Tasks {
			numa = numa || t.Resources.NUMA != nil && t.Resources.NUMA.Affinity != "" && t.Resources.NUMA.Affinity != "none"
			if m := t.Resources.MemoryMaxMB; m != nil && *m != 0 {
				over = append(over, fmt.Sprintf("* Memory oversubscription is not enabled; Task \"%s.%s\" memory_max value will be ignored. Update the Scheduler Configuration to allow oversubscription.", *g.Name, t.Name))
			}
		}
	}
	if numa {
		f.add("numa scheduling requires Nomad Enterprise")
	}
	if n := len(over); n > 0 {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		warnings = fmt.Sprintf("%d warning%s:\n\n%s", n, plural, strings.Join(over, "\n"))
	}
	if len(f) > 0 {
		return warnings, f
	}
	return warnings, nil
}

func jobFaults(j *api.Job) (f faults) {
	switch id := *j.ID; {
	case id == "":
		f.add("Missing job ID")
	case strings.Contains(id, " "):
		f.add("Job ID contains a space")
	case strings.Contains(id, "\x00"):
		f.add("Job ID contains a null character")
	}
	switch name := *j.Name; {
	case name == "":
		f.add("Missing job name")
	case strings.Contains(name, "\x00"):
		f.add("Job Name contains a null character")
	}
	if !slices.Contains([]string{"service", "batch", "system", "sysbatch"}, *j.Type) {
		f.add("Invalid job type: %q", *j.Type)
	}
	if slices.Contains(j.Datacenters, "") {
		f.add("Job datacenter must be non-empty string")
	}
	if len(j.TaskGroups) == 0 {
		f.add("Missing job task groups")
	}
	f.constraints(j.Constraints)
	f.affinities(j.Affinities)
	if j.UI != nil && len(j.UI.Description) > 1000 {
		f.add("UI description must be under 1000 characters, currently %d", len(j.UI.Description))
	}
	seen := map[string]int{}
	for i, g := range j.TaskGroups {
		if first, ok := seen[*g.Name]; *g.Name == "" {
			f.add("Job task group %d missing name", i+1)
		} else if ok {
			f.add("Job task group %d redefines '%s' from group %d", i+1, *g.Name, first+1)
		} else {
			seen[*g.Name] = i
		}
	}
	for _, g := range j.TaskGroups {
		f.nest(fmt.Sprintf("Task group %s validation failed: ", *g.Name), groupFaults(g))
	}
	if j.IsParameterized() {
		if *j.Type != "batch" && *j.Type != "sysbatch" {
			f.add("Parameterized job can only be used with %q or %q scheduler", "batch", "sysbatch")
		}
		f.nest("", parameterFaults(j.ParameterizedJob))
	}
	return f
}

func parameterFaults(p *api.ParameterizedJobConfig) (f faults) {
	if !slices.Contains([]string{"", "optional", "required", "forbidden"}, p.Payload) {
		f.add("Unknown payload requirement: %q", p.Payload)
	}
	var both []string
	for _, k := range p.MetaRequired {
		if slices.Contains(p.MetaOptional, k) {
			both = append(both, k)
		}
	}
	if both != nil {
		f.add("Required and optional meta keys should be disjoint. Following keys exist in both: %v", both)
	}
	return f
}

func groupFaults(g *api.TaskGroup) (f faults) {
	if *g.Name == "" {
		f.add("Missing task group name")
	}
	if *g.Count < 0 {
		f.add("Task group count can't be negative")
	}
	if len(g.Tasks) == 0 {
		f.add("Missing tasks for task group")
	}
	f.constraints(g.Constraints)
	f.affinities(g.Affinities)
	mode, attempts := *g.RestartPolicy.Mode, *g.RestartPolicy.Attempts
	if mode != "fail" && mode != "delay" {
		f.add("Unsupported restart mode: %q", mode)
	}
	if mode != "fail" && attempts == 0 {
		f.add("Restart policy %q with 0 attempts is ambiguous", mode)
	}
	if mb := *g.EphemeralDisk.SizeMB; mb < 10 {
		f.add("minimum DiskMB value is 10; got %d", mb)
	}
	seen := map[string]int{}
	for i, t := range g.Tasks {
		if first, ok := seen[t.Name]; t.Name == "" {
			f.add("Task %d missing name", i+1)
		} else if ok {
			f.add("Task %d redefines '%s' from task %d", i+1, t.Name, first+1)
		} else {
			seen[t.Name] = i
		}
	}
	for _, t := range g.Tasks {
		f.nest(fmt.Sprintf("Task %s validation failed: ", t.Name), taskFaults(g, t))
	}
	return f
}

func taskFaults(g *api.TaskGroup, t *api.Task) (f faults) {
	switch {
	case t.Name == "":
		f.add("Missing task name")
	case t.Name == "alloc":
		f.add(`Task cannot be named "alloc"`)
	case strings.ContainsAny(t.Name, `/\`):
		f.add("Task name cannot include slashes")
	case strings.Contains(t.Name, "\x00"):
		f.add("Task name cannot include null characters")
	}
	if t.Driver == "" {
		f.add("Missing task driver")
	}
	if *t.KillTimeout < 0 {
		f.add("KillTimeout must be a positive value")
	}
	f.nest("", resourceFaults(t.Resources))
	if logs := *t.LogConfig.MaxFiles * *t.LogConfig.MaxFileSizeMB; logs >= *g.EphemeralDisk.SizeMB {
		f.nest("", faults{fmt.Sprintf("log storage (%d MB) must be less than requested disk capacity (%d MB)", logs, *g.EphemeralDisk.SizeMB)})
	}
	f.constraints(t.Constraints)
	for i, c := range t.Constraints {
		if strings.HasPrefix(c.Operand, "distinct_") {
			f.add("Constraint %d has disallowed Operand at task level: %s", i+1, c.Operand)
		}
	}
	f.affinities(t.Affinities)
	for i, a := range t.Artifacts {
		f.nest(fmt.Sprintf("Artifact %d validation failed: ", i+1), artifactFaults(a))
	}
	return f
}

func artifactFaults(a *api.TaskArtifact) (f faults) {
	if *a.GetterSource == "" {
		f.add("source must be specified")
	}
	if mode := *a.GetterMode; !slices.Contains([]string{"any", "file", "dir"}, mode) {
		f.add("invalid artifact mode %q; must be one of: any, file, dir", mode)
	}
	// It is joined to the task's directory in the allocation's.
	if strings.HasPrefix(path.Join("task", *a.RelativeDest), "..") {
		f.add("destination escapes allocation directory")
	}
	return f
}

func resourceFaults(r *api.Resources) (f faults) {
	cpu, cores, memory := *r.CPU, *r.Cores, *r.MemoryMB
	if cores > 0 && cpu > 0 {
		f.add("Task can only ask for 'cpu' or 'cores' resource, not both.")
	}
	if cores < 0 {
		f.add("cores value (%d) cannot be negative", cores)
	}
	var least faults
	if cores == 0 && cpu < 1 {
		least.add("minimum CPU value is 1; got %d", cpu)
	}
	if memory < 10 {
		least.add("minimum MemoryMB value is 10; got %d", memory)
	}
	f.nest("", least)
	for i, d := range r.Devices {
		var device faults
		if d.Name == "" {
			device.add("device name must be given as one of the following: type, vendor/type, or vendor/type/name")
		}
		device.constraints(d.Constraints)
		device.affinities(d.Affinities)
		f.nest(fmt.Sprintf("device %d failed validation: ", i+1), device)
	}
	if m := r.MemoryMaxMB; m != nil && *m != 0 && *m != -1 && *m < memory {
		f.add("MemoryMaxMB value (%d) should be larger than MemoryMB value (%d)", *m, memory)
	}
	return f
}

func (f *faults) constraints(list []*api.Constraint) {
	for i, c := range list {
		f.nest(fmt.Sprintf("Constraint %d validation failed: ", i+1), constraintFaults(c))
	}
}

func constraintFaults(c *api.Constraint) (f faults) {
	switch c.Operand {
	case "":
		f.add("Missing constraint operand")
		f.add(`Unknown constraint type ""`)
	case "distinct_hosts":
		return nil // it needs no target
	case "set_contains", "set_contains_all", "set_contains_any":
		if c.RTarget == "" {
			f.add("Set contains constraint requires an RTarget")
		}
	case "distinct_property":
		if n, err := strconv.ParseUint(c.RTarget, 10, 64); c.RTarget == "" {
			break
		} else if err != nil {
			f.add("Failed to convert RTarget %q to uint64: %v", c.RTarget, err)
		} else if n < 1 {
			f.add("Distinct Property must have an allowed count of 1 or greater: %d < 1", n)
		}
	case "is_set", "is_not_set":
		if c.RTarget != "" {
			f.add("Operator %q does not support an RTarget", c.Operand)
		}
	default:
		f.operand(c.Operand, c.RTarget, "constraint", "Unknown constraint type %q")
	}
	switch left := c.LTarget; {
	case left == "":
		f.add("no attribute provided but is required by operator")
	case !strings.HasPrefix(left, "$"):
		// a literal
	case !strings.HasPrefix(left, "${"):
		f.add("attribute %q is missing an opening brace", left)
	case !strings.HasSuffix(left, "}"):
		f.add("attribute %q is missing a closing brace", left)
	case !supported(left):
		f.add("unsupported attribute %q", left)
	}
	return f
}

// supported reports whether a target is one that nodes can have.
func supported(target string) bool {
	return strings.HasPrefix(target, "${attr.") || strings.HasPrefix(target, "${meta.") || strings.HasPrefix(target, "${device.") ||
		slices.Contains([]string{"${node.unique.id}", "${node.unique.name}", "${node.datacenter}", "${node.class}", "${node.pool}"}, target)
}

// operand checks the operators that constraints and affinities share.
func (f *faults) operand(operand, right, kind, unknown string) {
	switch operand {
	case "=", "==", "is", "!=", "not", "<", "<=", ">", ">=":
		if right == "" {
			f.add("Operator %q requires an RTarget", operand)
		}
	case "regexp":
		if _, err := regexp.Compile(right); err != nil {
			f.add("Regular expression failed to compile: %v", err)
		}
	case "version":
		if _, err := goversion.NewConstraint(right); err != nil {
			f.add("Version %s is invalid: %v", kind, err)
		}
	case "semver":
		if err := feasible.CheckSemver(right); err != nil {
			f.add("Semver %s is invalid: %v", kind, err)
		}
	default:
		f.add(unknown, operand)
	}
}

func (f *faults) affinities(list []*api.Affinity) {
	for i, a := range list {
		f.nest(fmt.Sprintf("Affinity %d validation failed: ", i+1), affinityFaults(a))
	}
}

func affinityFaults(a *api.Affinity) (f faults) {
	switch a.Operand {
	case "":
		f.add("Missing affinity operand")
		f.add(`Unknown affinity operator ""`)
	case "set_contains", "set_contains_all", "set_contains_any":
		if a.RTarget == "" {
			f.add("Set contains operators require an RTarget")
		}
	default:
		f.operand(a.Operand, a.RTarget, "affinity", "Unknown affinity operator %q")
	}
	if a.LTarget == "" {
		f.add("No LTarget provided but is required")
	}
	switch w := *a.Weight; {
	case w == 0:
		f.add("Affinity weight cannot be zero")
	case w < -100 || w > 100:
		f.add("Affinity weight must be within the range [-100,100]")
	}
	return f
}

// checkUpdate refuses to change a job's kind.
func checkUpdate(old, j *api.Job) error {
	switch {
	case old == nil:
		return nil
	case *old.Type != *j.Type:
		return failure("cannot update job from type %q to %q", *old.Type, *j.Type)
	case old.IsParameterized() && !j.IsParameterized():
		return failure("cannot update parameterized job to being non-parameterized")
	case j.IsParameterized() && !old.IsParameterized():
		return failure("cannot update non-parameterized job to being parameterized")
	}
	return nil
}

// validateJob answers the check of a job.
func (s jobAPI) validateJob(_ http.Header, r *http.Request) (any, error) {
	var req api.JobValidateRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if req.Job == nil {
		return nil, badRequest("Job must be specified")
	}
	warnings, err := s.admit(s.canonical(r, req.Job))
	resp := api.JobValidateResponse{DriverConfigValidated: true, Warnings: warnings}
	if f, ok := errors.AsType[faults](err); ok {
		resp.Error, resp.ValidationErrors = f.Error(), f
	}
	return resp, nil
}
