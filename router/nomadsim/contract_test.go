package nomadsim_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// A cluster is a nomadtest.Target, with what only these tests ask of it.
type cluster struct{ nomadtest.Target }

// before reports whether the cluster's release is earlier than one, such as 1.11.2.
// What was different then is said where it is asked. It was read in the sources of the
// releases (2026-11-29).
func (on cluster) before(t *testing.T, release string) bool {
	t.Helper()
	self, err := on.Nomad.Agent().Self()
	if err != nil {
		t.Fatal(err)
	}
	is, _ := self.Config["Version"].(map[string]any)
	v, err := version.NewVersion(fmt.Sprint(is["Version"]))
	if err != nil {
		t.Fatal(err)
	}
	return v.LessThan(version.Must(version.NewVersion(release)))
}

// contract runs a test on the simulator and, when there is one, on a real agent.
func contract(t *testing.T, test func(t *testing.T, on cluster)) {
	t.Helper()
	nomadtest.Targets(t, nomadsim.Config{Run: script}, func(t *testing.T, on nomadtest.Target) { test(t, cluster{on}) })
}

// job is a batch job that runs one task once: the script of script_test.go.
func (on cluster) job(t *testing.T, change ...func(*api.Job)) *api.Job {
	t.Helper()
	j := api.NewBatchJob(fmt.Sprintf("contract-%d", rand.Int64()), "", "global", 50)
	j.Name = nil
	task := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/sh").SetConfig("args", []string{"-c", scriptText})
	task.Require(&api.Resources{CPU: new(50), MemoryMB: new(32)})
	g := api.NewTaskGroup("g", 1).AddTask(task)
	g.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
	g.ReschedulePolicy = &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)}
	j.AddTaskGroup(g)
	for _, c := range change {
		c(j)
	}
	if j.ID != nil {
		on.Purge(t, *j.ID)
	}
	return j
}

func constrain(l, operand, r string) func(*api.Job) {
	return func(j *api.Job) { j.Constrain(api.NewConstraint(l, operand, r)) }
}

// nowhere keeps a job from running where the test is about its registration.
var nowhere = constrain("${attr.kernel.name}", "=", "vax")

func env(key, value string) func(*api.Job) {
	return func(j *api.Job) {
		if task(j).Env == nil {
			task(j).Env = map[string]string{}
		}
		task(j).Env[key] = value
	}
}

func group(j *api.Job) *api.TaskGroup { return j.TaskGroups[0] }
func task(j *api.Job) *api.Task       { return j.TaskGroups[0].Tasks[0] }

// wait polls until done, and fails with what it saw last.
func wait(t *testing.T, what string, done func() (saw any, ok bool)) {
	t.Helper()
	var saw any
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var ok bool
		if saw, ok = done(); ok {
			return
		}
	}
	t.Fatalf("not within 5 minutes: %s; saw %+v", what, saw)
}

// ended waits for a job's only allocation to end.
func (on cluster) ended(t *testing.T, id string) *api.AllocationListStub {
	t.Helper()
	return on.reaches(t, id, "complete", "failed")
}

func (on cluster) reaches(t *testing.T, id string, statuses ...string) (stub *api.AllocationListStub) {
	t.Helper()
	wait(t, fmt.Sprintf("the allocation of %s to be %s", id, strings.Join(statuses, " or ")), func() (any, bool) {
		list, _, err := on.Nomad.Jobs().Allocations(id, false, nil)
		if err != nil || len(list) != 1 {
			return err, false
		}
		stub = list[0]
		return *stub, slices.Contains(statuses, stub.ClientStatus)
	})
	return stub
}

// evaluated waits for the evaluations of a job to be settled, and returns them
// in the order they were made.
func (on cluster) evaluated(t *testing.T, id string) (evals []*api.Evaluation) {
	t.Helper()
	wait(t, "the evaluation of "+id, func() (any, bool) {
		var err error
		evals, _, err = on.Nomad.Jobs().Evaluations(id, nil)
		return err, len(evals) > 0 && !slices.ContainsFunc(evals, func(e *api.Evaluation) bool { return e.Status == "pending" })
	})
	slices.SortFunc(evals, func(a, b *api.Evaluation) int { return int(a.CreateIndex) - int(b.CreateIndex) })
	return evals
}

// wantStatus checks that an error is Nomad's answer with a status and words,
// in which any white space is as good as another.
func wantStatus(t *testing.T, err error, status int, words string) {
	t.Helper()
	unexpected, ok := errors.AsType[api.UnexpectedResponseError](err)
	if !ok {
		t.Errorf("error %v is no answer, want %d %q", err, status, words)
		return
	}
	if got := strings.Join(strings.Fields(unexpected.Body()), " "); unexpected.StatusCode() != status || got != words {
		t.Errorf("answered %d %q\nwant     %d %q", unexpected.StatusCode(), got, status, words)
	}
}

func wantDiff(t *testing.T, what string, want, got any, opts ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, append(opts, cmpopts.EquateEmpty())...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func enforced(index uint64) *api.RegisterOptions {
	return &api.RegisterOptions{EnforceIndex: true, ModifyIndex: index}
}

func TestContractRegisterOnce(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		j := on.job(t, nowhere)
		_, _, err := on.Nomad.Jobs().RegisterOpts(j, enforced(7), nil)
		wantStatus(t, err, 500, "Enforcing job modify index 7: job does not exist")
		first, _, err := on.Nomad.Jobs().RegisterOpts(j, enforced(0), nil)
		if err != nil {
			t.Fatal(err)
		}
		if first.EvalID == "" || first.JobModifyIndex == 0 {
			t.Errorf("registered as %+v, want an evaluation and an index", first)
		}
		for _, c := range []struct {
			index uint64
			words string
		}{
			{0, "Enforcing job modify index 0: job already exists"},
			{7, fmt.Sprintf("Enforcing job modify index 7: job exists with conflicting job modify index: %d", first.JobModifyIndex)},
		} {
			_, _, err := on.Nomad.Jobs().RegisterOpts(j, enforced(c.index), nil)
			wantStatus(t, err, 500, c.words)
		}
		again, _, err := on.Nomad.Jobs().RegisterOpts(on.job(t, nowhere, func(same *api.Job) { same.ID = j.ID }), enforced(first.JobModifyIndex), nil)
		if got := on.Job(t, *j.ID); err != nil || again.JobModifyIndex != first.JobModifyIndex || *got.Version != 0 {
			t.Errorf("registered the same again as %+v, %v, version %d; want index %d and version 0", again, err, *got.Version, first.JobModifyIndex)
		}
		changed := on.Register(t, on.job(t, nowhere, func(c *api.Job) { c.ID = j.ID; c.Priority = new(60) }))
		if got := on.Job(t, *j.ID); changed.JobModifyIndex <= first.JobModifyIndex || *got.Version != 1 || *got.CreateIndex != first.JobModifyIndex {
			t.Errorf("registered a change as %+v, with version %d, created at %d", changed, *got.Version, *got.CreateIndex)
		}
		for words, change := range map[string]func(*api.Job){
			`cannot update job from type "batch" to "service"`:           func(j *api.Job) { j.Type = new("service") },
			"cannot update non-parameterized job to being parameterized": func(j *api.Job) { j.ParameterizedJob = &api.ParameterizedJobConfig{} },
		} {
			_, _, err := on.Nomad.Jobs().Register(on.job(t, nowhere, func(c *api.Job) { c.ID = j.ID }, change), nil)
			wantStatus(t, err, 500, words)
		}
	})
}

// What a client reads it may send again: not all of it counts.
func TestContractRegisterWhatWasRead(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		j := on.job(t, func(j *api.Job) {
			j.Dispatched, j.ParentID, j.Status, j.Version = true, new("parent"), new("running"), new(uint64(7))
			j.Stop = new(true)
		})
		on.Register(t, j)
		if evals := on.evaluated(t, *j.ID); len(evals) != 1 || evals[0].Status != "complete" {
			t.Errorf("evaluations %+v", evals)
		}
		got := on.Job(t, *j.ID)
		first := uint64(7)
		if on.before(t, "2.0.0") { // which counts by itself; no job of Switchyard's names a version
			first = 0
		}
		if got.Dispatched || *got.ParentID != "" || *got.Version != first || !*got.Stop || *got.Status != "dead" {
			t.Errorf("dispatched %t from %q, version %d, stop %t, %s; want a stopped job of version %d that is dead", got.Dispatched, *got.ParentID, *got.Version, *got.Stop, *got.Status, first)
		}
		if allocs, _, err := on.Nomad.Jobs().Allocations(*j.ID, true, nil); err != nil || len(allocs) != 0 {
			t.Errorf("allocations %v, %v; want none", allocs, err)
		}
	})
}

func TestContractEightClientsRaceForOneID(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		for range 5 {
			id := *on.job(t).ID
			var mu sync.Mutex
			var made int
			var refusals []error
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					j := on.job(t, nowhere, func(j *api.Job) { j.ID = &id; j.SetMeta("who", fmt.Sprint(rand.Int())) })
					_, _, err := on.Nomad.Jobs().RegisterOpts(j, enforced(0), nil)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						made++
					} else {
						refusals = append(refusals, err)
					}
				})
			}
			wg.Wait()
			for _, err := range refusals {
				wantStatus(t, err, 500, "Enforcing job modify index 0: job already exists")
			}
			// Until 2.0.1, Nomad does not look again as it commits: Client.Start says what is made of it.
			if v := *on.Job(t, id).Version; on.before(t, "2.0.1") {
				if made == 0 || v != uint64(made-1) {
					t.Errorf("%d of 8 registered it, version %d; want a version for each", made, v)
				}
			} else if made != 1 || v != 0 {
				t.Errorf("%d of 8 registered it, version %d; want one, and version 0", made, v)
			}
		}
	})
}

// What Nomad takes, and its words for what it does not.
func TestContractValidation(t *testing.T) {
	const kernel = "${attr.kernel.name}"
	one := func(fault string) string { return "1 error occurred: * " + fault }
	constraint := func(fault string) string { return one("Constraint 1 validation failed: " + one(fault)) }
	affinity := func(fault string) string { return one("Affinity 1 validation failed: " + one(fault)) }
	inGroup := func(fault string) string { return one("Task group g validation failed: " + one(fault)) }
	inTask := func(fault string) string { return inGroup("Task t validation failed: " + one(fault)) }
	like := func(operand, r string, weight int8) func(*api.Job) {
		return func(j *api.Job) { j.AddAffinity(api.NewAffinity(kernel, operand, r, weight)) }
	}
	size := func(r *api.Resources) func(*api.Job) {
		return func(j *api.Job) { task(j).Resources = r }
	}
	device := func(d *api.RequestedDevice) func(*api.Job) {
		return size(&api.Resources{CPU: new(50), MemoryMB: new(32), Devices: []*api.RequestedDevice{d}})
	}
	artifact := func(a *api.TaskArtifact) func(*api.Job) {
		return func(j *api.Job) { task(j).Artifacts = []*api.TaskArtifact{a} }
	}
	// Whoever started a job that has one of these is shown Nomad's words, whatever they are. What is taken
	// finds no node, and is shown as what filters all nodes.
	earlier := map[string]struct{ since, words string }{
		"a bad version":              {"1.11.1", constraint("Version constraint is invalid: Malformed constraint: foo")},
		"no attribute":               {"1.11.2", constraint("No LTarget provided but is required by constraint")},
		"the namespace":              {"1.11.2", ""},
		"the region":                 {"1.11.2", ""},
		"job meta":                   {"1.11.2", ""},
		"a brace that is not closed": {"1.11.2", ""},
	}
	for _, c := range []struct {
		name   string
		change func(*api.Job)
		words  string // "": taken
	}{
		{"=", constrain(kernel, "=", "vax"), ""},
		{"==", constrain(kernel, "==", "vax"), ""},
		{"is", constrain(kernel, "is", "vax"), ""},
		{"!=", constrain("${attr.cpu.arch}", "!=", runtime.GOARCH), ""},
		{"not", constrain("${attr.cpu.arch}", "not", runtime.GOARCH), ""},
		{">", constrain(kernel, ">", "zzz"), ""},
		{">=", constrain(kernel, ">=", "zzz"), ""},
		{"<", constrain(kernel, "<", "aaa"), ""},
		{"<=", constrain(kernel, "<=", "aaa"), ""},
		{"regexp", constrain(kernel, "regexp", "^vax$"), ""},
		{"version", constrain("${attr.nomad.version}", "version", ">= 99, < 100"), ""},
		{"semver", constrain("${attr.nomad.version}", "semver", ">= 99.0.0-beta"), ""},
		{"set_contains", constrain(kernel, "set_contains", "vax"), ""},
		{"set_contains_all", constrain(kernel, "set_contains_all", "vax,cray"), ""},
		{"set_contains_any", constrain(kernel, "set_contains_any", "vax,cray"), ""},
		{"is_set", constrain("${meta.no_such}", "is_set", ""), ""},
		{"is_not_set", constrain(kernel, "is_not_set", ""), ""},
		{"device targets of a job", constrain("${device.model}", "=", "x"), ""},
		{"a literal target", constrain("vax", "=", "cray"), ""},
		{"an empty attribute name", constrain("${attr.}", "=", "x"), ""},
		{"a device count of 0", device(&api.RequestedDevice{Name: "gpu", Count: new(uint64(0))}), ""},
		{"no datacenters", func(j *api.Job) { j.Datacenters = []string{}; nowhere(j) }, ""},
		{"priority 0", func(j *api.Job) { j.Priority = new(0); nowhere(j) }, ""},
		{"a link for people", func(j *api.Job) {
			j.UI = &api.JobUIConfig{Links: []*api.JobUILink{{Label: "x", URL: "https://example.com"}}}
			nowhere(j)
		}, ""},

		{"a bad regular expression", constrain(kernel, "regexp", "("), constraint("Regular expression failed to compile: error parsing regexp: missing closing ): `(`")},
		{"a bad version", constrain(kernel, "version", "foo"), constraint("Version constraint is invalid: malformed constraint: foo")},
		{"a bad semver", constrain(kernel, "semver", "foo"), constraint("Semver constraint is invalid: Malformed constraint: foo")},
		{"semver's missing ~>", constrain(kernel, "semver", "~> 1.0"), constraint("Semver constraint is invalid: Malformed constraint: ~> 1.0")},
		{"an unknown operator", constrain(kernel, "~", "x"), constraint(`Unknown constraint type "~"`)},
		{"an empty operator", constrain(kernel, "", "x"), one(`Constraint 1 validation failed: 2 errors occurred: * Missing constraint operand * Unknown constraint type ""`)},
		{"no right side", constrain(kernel, "=", ""), constraint(`Operator "=" requires an RTarget`)},
		{"no set", constrain(kernel, "set_contains", ""), constraint("Set contains constraint requires an RTarget")},
		{"is_set with a right side", constrain(kernel, "is_set", "x"), constraint(`Operator "is_set" does not support an RTarget`)},
		{"no attribute", constrain("", "=", "x"), constraint("no attribute provided but is required by operator")},
		{"the namespace", constrain("${namespace}", "=", "x"), constraint(`unsupported attribute "${namespace}"`)},
		{"the region", constrain("${node.region}", "=", "x"), constraint(`unsupported attribute "${node.region}"`)},
		{"job meta", constrain("${NOMAD_META_x}", "=", "x"), constraint(`unsupported attribute "${NOMAD_META_x}"`)},
		{"a brace that is not closed", constrain("${attr.x", "=", "x"), constraint(`attribute "${attr.x" is missing a closing brace`)},
		{"distinct_property of none", constrain(kernel, "distinct_property", "0"), constraint("Distinct Property must have an allowed count of 1 or greater: 0 < 1")},
		{"distinct_property of a word", constrain(kernel, "distinct_property", "x"), constraint(`Failed to convert RTarget "x" to uint64: strconv.ParseUint: parsing "x": invalid syntax`)},
		{"two faults", func(j *api.Job) { constrain(kernel, "~", "x")(j); constrain(kernel, "=", "")(j) },
			`2 errors occurred: * Constraint 1 validation failed: 1 error occurred: * Unknown constraint type "~" * Constraint 2 validation failed: 1 error occurred: * Operator "=" requires an RTarget`},
		{"a group's constraint", func(j *api.Job) { group(j).Constrain(api.NewConstraint(kernel, "~", "x")) }, inGroup(`Constraint 1 validation failed: ` + one(`Unknown constraint type "~"`))},
		{"a task's constraint", func(j *api.Job) { task(j).Constrain(api.NewConstraint(kernel, "~", "x")) }, inTask(`Constraint 1 validation failed: ` + one(`Unknown constraint type "~"`))},
		{"a task's distinct_hosts", func(j *api.Job) { task(j).Constrain(api.NewConstraint("", "distinct_hosts", "")) }, inTask("Constraint 1 has disallowed Operand at task level: distinct_hosts")},

		{"an affinity's unknown operator", like("~", "x", 50), affinity(`Unknown affinity operator "~"`)},
		{"an affinity's is_set", like("is_set", "", 50), affinity(`Unknown affinity operator "is_set"`)},
		{"an affinity without weight", like("=", "x", 0), affinity("Affinity weight cannot be zero")},
		{"an affinity of too much weight", like("=", "x", 101), affinity("Affinity weight must be within the range [-100,100]")},

		{"a namespace that is missing", func(j *api.Job) { j.ID, j.Namespace = new("x"), new("no-such") }, one(`job "x" is in nonexistent namespace "no-such"`)},
		{"a node pool that is missing", func(j *api.Job) { j.ID, j.NodePool = new("x"), new("no-such") }, one(`job "x" is in nonexistent node pool "no-such"`)},
		{"a priority out of range", func(j *api.Job) { j.Priority = new(101) }, one("job priority must be between [1, 100]")},
		{"an unknown type", func(j *api.Job) { j.Type = new("cron") }, one(`Invalid job type: "cron"`)},
		{"a space in the ID", func(j *api.Job) { j.ID = new("a b") }, one("Job ID contains a space")},
		{"a NUL in the name", func(j *api.Job) { j.Name = new("a\x00b") }, one("Job Name contains a null character")},
		{"an empty datacenter", func(j *api.Job) { j.Datacenters = []string{""} }, one("Job datacenter must be non-empty string")},
		{"no groups", func(j *api.Job) { j.TaskGroups = nil }, one("Missing job task groups")},
		{"no tasks", func(j *api.Job) { group(j).Tasks = nil }, inGroup("Missing tasks for task group")},
		{"no driver", func(j *api.Job) { task(j).Driver = "" }, inTask("Missing task driver")},
		{"a slash in a task's name", func(j *api.Job) { task(j).Name = "a/b" }, inGroup("Task a/b validation failed: " + one("Task name cannot include slashes"))},
		{"a negative count", func(j *api.Job) { group(j).Count = new(-1) }, inGroup("Task group count can't be negative")},
		{"a restart mode that is none", func(j *api.Job) { group(j).RestartPolicy.Mode = new("often") }, one(`Task group g validation failed: 2 errors occurred: * Unsupported restart mode: "often" * Restart policy "often" with 0 attempts is ambiguous`)},
		{"a kill timeout below 0", func(j *api.Job) { task(j).KillTimeout = new(-time.Second) }, inTask("KillTimeout must be a positive value")},
		{"too little memory", size(&api.Resources{CPU: new(50), MemoryMB: new(5)}), inTask(one(one("minimum MemoryMB value is 10; got 5")))},
		{"no CPU", size(&api.Resources{CPU: new(0), MemoryMB: new(32)}), inTask(one(one("minimum CPU value is 1; got 0")))},
		{"CPU and cores", size(&api.Resources{CPU: new(50), Cores: new(1), MemoryMB: new(32)}), inTask(one("Task can only ask for 'cpu' or 'cores' resource, not both."))},
		{"a memory limit below the memory", size(&api.Resources{CPU: new(50), MemoryMB: new(32), MemoryMaxMB: new(20)}), inTask(one("MemoryMaxMB value (20) should be larger than MemoryMB value (32)"))},
		{"NUMA", size(&api.Resources{Cores: new(1), MemoryMB: new(32), NUMA: &api.NUMAResource{Affinity: "require"}}), one("numa scheduling requires Nomad Enterprise")},
		{"less disk than logs", func(j *api.Job) { group(j).EphemeralDisk = &api.EphemeralDisk{SizeMB: new(50)} }, inTask(one("log storage (100 MB) must be less than requested disk capacity (50 MB)"))},
		{"a device without a name", device(&api.RequestedDevice{Count: new(uint64(1))}), inTask(one("device 1 failed validation: " + one("device name must be given as one of the following: type, vendor/type, or vendor/type/name")))},
		{"a device's constraint", device(&api.RequestedDevice{Name: "gpu", Constraints: []*api.Constraint{api.NewConstraint("${device.attr.memory}", "~", "x")}}),
			inTask(one("device 1 failed validation: " + constraint(`Unknown constraint type "~"`)))},
		{"an artifact without source", artifact(&api.TaskArtifact{}), inTask("Artifact 1 validation failed: " + one("source must be specified"))},
		{"an artifact outside", artifact(&api.TaskArtifact{GetterSource: new("http://x/y"), RelativeDest: new("../../x")}), inTask("Artifact 1 validation failed: " + one("destination escapes allocation directory"))},
		{"a payload that is neither", func(j *api.Job) { j.ParameterizedJob = &api.ParameterizedJobConfig{Payload: "maybe"} }, one(one(`Unknown payload requirement: "maybe"`))},
		{"a meta key twice", func(j *api.Job) {
			j.ParameterizedJob = &api.ParameterizedJobConfig{MetaRequired: []string{"a"}, MetaOptional: []string{"a"}}
		}, one(one("Required and optional meta keys should be disjoint. Following keys exist in both: [a]"))},
		{"a parameterized service", func(j *api.Job) { j.Type, j.ParameterizedJob = new("service"), &api.ParameterizedJobConfig{} }, one(`Parameterized job can only be used with "batch" or "sysbatch" scheduler`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			contract(t, func(t *testing.T, on cluster) {
				want := c.words
				if was, ok := earlier[c.name]; ok && on.before(t, was.since) {
					want = was.words
				}
				said, _, err := on.Nomad.Jobs().Validate(on.job(t, c.change), nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(strings.Fields(said.Error), " "); got != want {
					t.Errorf("validated: %q\nwant %q", got, want)
				}
				_, _, err = on.Nomad.Jobs().Register(on.job(t, c.change), nil)
				if want != "" {
					wantStatus(t, err, 500, want)
				} else if err != nil {
					t.Errorf("register: %v", err)
				}
			})
		})
	}
}

func TestContractWarnings(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		burst := func(j *api.Job) { task(j).Resources.MemoryMaxMB = new(64) }
		const want = `1 warning: * Memory oversubscription is not enabled; Task "g.t" memory_max value will be ignored. Update the Scheduler Configuration to allow oversubscription.`
		said, _, err := on.Nomad.Jobs().Validate(on.job(t, burst), nil)
		if err != nil || strings.Join(strings.Fields(said.Warnings), " ") != want {
			t.Errorf("validated with %+v, %v; want the warning %q", said, err, want)
		}
		if resp := on.Register(t, on.job(t, burst, nowhere)); strings.Join(strings.Fields(resp.Warnings), " ") != want {
			t.Errorf("registered with the warnings %q, want %q", resp.Warnings, want)
		}
	})
}

// Answers to requests that a client of Nomad's own would not send.
func TestContractRawAnswers(t *testing.T) {
	const id = "11111111-2222-3333-4444-555555555555"
	job := func(id string) string {
		return fmt.Sprintf(`{"Job":{"ID":%q,"Type":"batch","TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"raw_exec"}]}]}}`, id)
	}
	contract(t, func(t *testing.T, on cluster) {
		for _, c := range []struct {
			request, body string
			status        int
			words         string
		}{
			{"GET /v1/job/no-such", "", 404, "job not found"},
			{"GET /v1/job/no%2Fsuch", "", 404, "job not found"},
			{"GET /v1/job/no-such?namespace=no-such", "", 404, "job not found"},
			{"GET /v1/job/no-such/summary", "", 404, "job not found"},
			{"GET /v1/job/no-such/allocations", "", 200, "[]"},
			{"GET /v1/job/no-such/evaluations", "", 200, "[]"},
			{"GET /v1/jobs?namespace=no-such", "", 200, "[]"},
			{"GET /v1/jobs?prefix=no-such", "", 200, "[]"},
			{"PUT /v1/job/no-such/dispatch", "{}", 500, "parameterized job not found"},
			{"GET /v1/allocation/no-such", "", 500, "alloc lookup failed: index error: UUID must be 36 characters"},
			{"GET /v1/allocation/" + id, "", 404, "alloc not found"},
			{"GET /v1/evaluation/no-such", "", 500, "failed to lookup eval: eval lookup failed: index error: UUID must be 36 characters"},
			{"GET /v1/evaluation/" + id, "", 404, "eval not found"},
			{"GET /v1/node/no-such", "", 500, "node lookup failed: index error: UUID must be 36 characters"},
			{"GET /v1/node/" + id, "", 404, "node not found"},
			{"GET /v1/node/pool/no-such", "", 404, "node pool not found"},
			{"GET /v1/namespace/no-such", "", 404, "Namespace not found"},
			{"GET /v1/no-such", "", 404, ""},
			{"PATCH /v1/jobs", "", 405, "Invalid method"},
			{"PUT /v1/jobs", "", 400, "Request body is empty"},
			{"PUT /v1/jobs", "{", 400, "unexpected EOF"},
			{"PUT /v1/jobs", "{}", 400, "Job must be specified"},
			{"PUT /v1/jobs", `{"Job":{}}`, 400, "Job ID hasn't been provided"},
			{"PUT /v1/jobs", `{"Job":{"ID":"x","Affinities":[{"Weight":1000}]}}`, 400, "json: cannot unmarshal number 1000 into Go struct field Affinity.Job.Affinities.Weight of type int8"},
			{"PUT /v1/job/no-such", job("another"), 400, "Job ID does not match name"},
			{"PUT /v1/job/no-such/plan", job("another"), 400, "Job ID does not match"},
			{"PUT /v1/job/no-such/plan", "{}", 400, "Job must be specified"},
			{"PUT /v1/validate/job", "{}", 400, "Job must be specified"},
			{"PUT /v1/jobs?namespace=no-such", job("x"), 500, `1 error occurred: * job "x" is in nonexistent namespace "no-such"`},
			{"PUT /v1/jobs?region=no-such", job("x"), 500, "No path to region"},
			{"PUT /v1/jobs", strings.Replace(job("x"), `{"ID"`, `{"Region":"no-such","ID"`, 1), 500, "No path to region"},
			{"GET /v1/jobs?region=no-such", "", 500, "No path to region"},
			{"GET /v1/jobs?index=x", "", 400, "Invalid index"},
			{"GET /v1/jobs?index=1&wait=x", "", 400, "Invalid wait time"},
			{"GET /v1/jobs?per_page=x", "", 400, "Expect a number for `per_page` query string parameter"},
			{"GET /v1/event/stream?index=x", "", 400, `Unable to parse index: strconv.Atoi: parsing "x": invalid syntax`},
			{"GET /v1/regions", "", 200, `["global"]`},
			{"GET /v1/agent/health", "", 200, `{"client":{"message":"ok","ok":true},"server":{"message":"ok","ok":true}}`},
		} {
			method, path, _ := strings.Cut(c.request, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, on.Config.Address+path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			got := strings.Join(strings.Fields(string(body)), " ")
			if err != nil || resp.StatusCode != c.status || got != c.words {
				t.Errorf("%s %s answered %d %q\nwant %d %q", c.request, c.body, resp.StatusCode, got, c.status, c.words)
			}
		}
	})
}

// Why a job finds no node, as its plan and its evaluation say.
func TestContractPlacementFailures(t *testing.T) {
	const kernel = "${attr.kernel.name}"
	filtered := func(why string) api.AllocationMetric {
		return api.AllocationMetric{NodePool: "default", NodesEvaluated: 1, NodesInPool: 1, NodesFiltered: 1, ConstraintFiltered: map[string]int{why: 1}}
	}
	exhausted := func(dimension string, asked api.Resources) api.AllocationMetric {
		return api.AllocationMetric{
			NodePool: "default", NodesEvaluated: 1, NodesInPool: 1, NodesExhausted: 1, DimensionExhausted: map[string]int{dimension: 1},
			ResourcesExhausted: map[string]*api.Resources{"t": &asked},
		}
	}
	coalesced := func(m api.AllocationMetric, n int) api.AllocationMetric { m.CoalescedFailures = n; return m }
	size := func(cpu, memory int) func(*api.Job) {
		return func(j *api.Job) { task(j).Resources = &api.Resources{CPU: new(cpu), MemoryMB: new(memory)} }
	}
	devices := func(n uint64) func(*api.Job) {
		return func(j *api.Job) {
			task(j).Resources.Devices = []*api.RequestedDevice{{Name: "nvidia/gpu", Count: &n}}
		}
	}
	count := func(n int) func(*api.Job) { return func(j *api.Job) { group(j).Count = &n } }
	const lots = 1_000_000
	for _, c := range []struct {
		name   string
		change []func(*api.Job)
		queued int
		want   api.AllocationMetric
	}{
		{"a job's constraint", []func(*api.Job){nowhere}, 1, filtered("${attr.kernel.name} = vax")},
		{"the first of two constraints", []func(*api.Job){nowhere, constrain(kernel, "=", "cray")}, 1, filtered("${attr.kernel.name} = vax")},
		{"a constraint without a right side", []func(*api.Job){constrain("${meta.no_such}", "is_set", "")}, 1, filtered("${meta.no_such} is_set ")},
		{"a group's constraint", []func(*api.Job){func(j *api.Job) { group(j).Constrain(api.NewConstraint(kernel, "=", "vax")) }}, 1, filtered("${attr.kernel.name} = vax")},
		{"a task's constraint", []func(*api.Job){func(j *api.Job) { task(j).Constrain(api.NewConstraint(kernel, "=", "vax")) }}, 1, filtered("${attr.kernel.name} = vax")},
		{"a device's attribute at job level", []func(*api.Job){constrain("${device.model}", "=", "x")}, 1, filtered("${device.model} = x")},
		{"a driver that no node has", []func(*api.Job){func(j *api.Job) { task(j).Driver = "no-such" }}, 1, filtered("missing drivers")},
		{"a driver before a group's constraint", []func(*api.Job){func(j *api.Job) {
			task(j).Driver = "no-such"
			group(j).Constrain(api.NewConstraint(kernel, "=", "vax"))
		}}, 1, filtered("missing drivers")},
		{"a job's constraint before a driver", []func(*api.Job){nowhere, func(j *api.Job) { task(j).Driver = "no-such" }}, 1, filtered("${attr.kernel.name} = vax")},
		{"a device that no node has", []func(*api.Job){devices(1)}, 1, filtered("missing devices")},
		{"a device none of", []func(*api.Job){devices(0)}, 1, filtered("missing devices")},
		{"memory", []func(*api.Job){size(50, lots)}, 1, exhausted("memory", api.Resources{MemoryMB: new(lots)})},
		{"CPU", []func(*api.Job){size(lots, 32)}, 1, exhausted("cpu", api.Resources{CPU: new(lots)})},
		{"CPU before memory", []func(*api.Job){size(lots, lots)}, 1, exhausted("cpu", api.Resources{CPU: new(lots)})},
		{"cores", []func(*api.Job){func(j *api.Job) { task(j).Resources = &api.Resources{Cores: new(512), MemoryMB: new(32)} }}, 1, exhausted("cores", api.Resources{})},
		{"disk", []func(*api.Job){func(j *api.Job) { group(j).EphemeralDisk = &api.EphemeralDisk{SizeMB: new(100_000_000)} }}, 1, exhausted("disk", api.Resources{})},
		{"three of them", []func(*api.Job){count(3), size(50, lots)}, 3, coalesced(exhausted("memory", api.Resources{MemoryMB: new(3 * lots)}), 2)},
		{"an unknown datacenter", []func(*api.Job){func(j *api.Job) { j.Datacenters = []string{"nowhere", "n*"} }}, 1, api.AllocationMetric{NodePool: "default"}},
		{"the pool all", []func(*api.Job){nowhere, func(j *api.Job) { j.NodePool = new("all") }}, 1,
			func() api.AllocationMetric { m := filtered("${attr.kernel.name} = vax"); m.NodePool = "all"; return m }()},
		{"distinct hosts", []func(*api.Job){constrain("", "distinct_hosts", "true"), count(3), env("WAIT", "1")}, 2, coalesced(filtered("distinct_hosts"), 1)},
		{"a distinct property", []func(*api.Job){constrain("${node.datacenter}", "distinct_property", ""), count(2), env("WAIT", "1")}, 1, filtered("distinct_property: ${node.datacenter}=dc1 used by 1 allocs")},
		{"a distinct property that is missing", []func(*api.Job){constrain("${meta.no_such}", "distinct_property", "")}, 1, filtered(`missing property "${meta.no_such}"`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			contract(t, func(t *testing.T, on cluster) {
				if c.want.NodesInPool > 0 {
					c.want.NodesAvailable = map[string]int{"dc1": 1}
				}
				want := map[string]*api.AllocationMetric{"g": &c.want}
				ignore := cmp.Options{
					on.metrics(t), cmpopts.IgnoreFields(api.AllocationMetric{}, "ScoreMetaData", "Scores"),
					cmp.Transformer("zero", func(p *int) int {
						if p == nil {
							return 0
						}
						return *p
					}),
				}
				j := on.job(t, c.change...)
				wantDiff(t, "plan", want, on.plan(t, j), ignore)
				if _, _, err := on.Nomad.Jobs().Info(*j.ID, nil); err == nil {
					t.Error("the plan left a job behind")
				}
				on.Register(t, j)
				evals := on.evaluated(t, *j.ID)
				if len(evals) != 2 {
					t.Fatalf("%d evaluations, want 2", len(evals))
				}
				done, blocked := evals[0], evals[1]
				wantDiff(t, "evaluation", want, done.FailedTGAllocs, ignore)
				wantDiff(t, "blocked evaluation", want, blocked.FailedTGAllocs, ignore)
				short := func(e *api.Evaluation) string {
					return fmt.Sprintf("%s %s %q, %d left", e.TriggeredBy, e.Status, e.StatusDescription, e.QueuedAllocations["g"])
				}
				wantDiff(t, "first evaluation", fmt.Sprintf(`job-register complete "", %d left`, c.queued), short(done))
				wantDiff(t, "second evaluation", `queued-allocs blocked "created to place remaining allocations", 0 left`, short(blocked))
				if done.BlockedEval != blocked.ID || blocked.PreviousEval != done.ID {
					t.Errorf("%s is blocked by %q; %s comes after %q", done.ID, done.BlockedEval, blocked.ID, blocked.PreviousEval)
				}
				if one, _, err := on.Nomad.Evaluations().Info(blocked.ID, nil); err != nil || one.Status != "blocked" {
					t.Errorf("the evaluation itself: %+v, %v", one, err)
				}
			})
		})
	}
}

// metrics leaves out what differs between two looks at a placement, or between releases.
func (on cluster) metrics(t *testing.T) cmp.Option {
	t.Helper()
	ignored := []string{"AllocationTime"}
	if on.before(t, "1.10.4") {
		ignored = append(ignored, "NodePool") // Switchyard takes the pool from the job
	}
	return cmpopts.IgnoreFields(api.AllocationMetric{}, ignored...)
}

// plan returns for which groups a plan finds no node.
func (on cluster) plan(t *testing.T, j *api.Job) map[string]*api.AllocationMetric {
	t.Helper()
	plan, _, err := on.Nomad.Jobs().Plan(j, false, nil)
	if err != nil {
		t.Fatalf("plan with %v: %v", j.Constraints, err)
	}
	return plan.FailedTGAllocs
}

// What a plan says that nothing need be registered for.
func TestContractPlan(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		n := on.Node(t)
		if n.NodeResources == nil || n.ReservedResources == nil {
			t.Fatalf("node %+v, want it with its resources", n)
		}
		total := int(n.NodeResources.Memory.MemoryMB) - int(n.ReservedResources.Memory.MemoryMB)
		if r := n.NodeResources; total < 1024 || r.Cpu.CpuShares < 1 || int(r.Cpu.TotalCpuCores) != len(r.Cpu.ReservableCpuCores) || r.Disk.DiskMB < 1 || n.Drain {
			t.Errorf("the node has %+v and drains: %t", r, n.Drain)
		}
		memory := func(mb int) func(*api.Job) {
			return func(j *api.Job) { task(j).Resources.MemoryMB = &mb }
		}
		t.Run("of all the memory, and of more", func(t *testing.T) {
			wait(t, "the node to be idle", func() (any, bool) {
				got := on.plan(t, on.job(t, memory(total)))
				return got, got == nil
			})
			if got := on.plan(t, on.job(t, memory(total+1)))["g"]; got == nil || got.DimensionExhausted["memory"] != 1 {
				t.Errorf("plan of 1 MB more than there is: %+v", got)
			}
		})
		t.Run("of memory that is in use", func(t *testing.T) {
			hog := on.job(t, memory(total-100), env("WAIT", "1"))
			on.Register(t, hog)
			on.reaches(t, *hog.ID, "running")
			if got := on.plan(t, on.job(t, memory(100))); got != nil {
				t.Errorf("plan of what is left: %+v", got["g"])
			}
			got := on.plan(t, on.job(t, memory(101)))["g"]
			if got == nil || got.NodesEvaluated != 1 || got.NodesFiltered != 0 || got.NodesExhausted != 1 || got.DimensionExhausted["memory"] != 1 {
				t.Errorf("plan of 1 MB more than is left: %+v", got)
			}
			on.Deregister(t, *hog.ID, true)
			wait(t, "the node to be idle", func() (any, bool) {
				got := on.plan(t, on.job(t, memory(total)))
				return got, got == nil
			})
		})
		t.Run("of two groups of which one finds a node", func(t *testing.T) {
			j := on.job(t)
			other := api.NewTaskGroup("h", 1).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "/bin/true"))
			j.AddTaskGroup(other.Constrain(api.NewConstraint("${attr.kernel.name}", "=", "vax")))
			got := on.plan(t, j)
			if len(got) != 1 || got["h"] == nil || got["h"].ConstraintFiltered["${attr.kernel.name} = vax"] != 1 {
				t.Errorf("failed: %+v, want h alone", got)
			}
		})
		t.Run("without what is like a node by its ID", func(t *testing.T) {
			if got := on.plan(t, on.job(t, constrain("${node.unique.id}", "regexp", "^("+n.ID+"|x)$"))); got != nil {
				t.Errorf("failed on the node that is meant: %+v", got["g"])
			}
			got := on.plan(t, on.job(t, constrain("${node.unique.id}", "regexp", "^(x|y)$"), nowhere))["g"]
			if got == nil || got.ConstraintFiltered["${node.unique.id} regexp ^(x|y)$"] != 1 || got.NodesFiltered != 1 {
				t.Errorf("failed on another node: %+v", got)
			}
		})
		t.Run("in a pool without nodes", func(t *testing.T) {
			t.Cleanup(func() { _, _ = on.Nomad.NodePools().Delete("bare", nil) })
			if _, err := on.Nomad.NodePools().Register(&api.NodePool{Name: "bare"}, nil); err != nil {
				t.Fatal(err)
			}
			got := on.plan(t, on.job(t, func(j *api.Job) { j.NodePool = new("bare") }))["g"]
			want := &api.AllocationMetric{NodePool: "bare"}
			wantDiff(t, "plan", want, got, on.metrics(t))
		})
		t.Run("in a pool and a namespace that are not there", func(t *testing.T) {
			j := on.job(t, func(j *api.Job) { j.ID, j.NodePool, j.Namespace = new("x"), new("no-such"), new("no-such") })
			_, _, err := on.Nomad.Jobs().Plan(j, false, nil)
			wantStatus(t, err, 500, `2 errors occurred: * job "x" is in nonexistent namespace "no-such" * job "x" is in nonexistent node pool "no-such"`)
			said, _, err := on.Nomad.Jobs().Validate(j, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantDiff(t, "faults", []string{`job "x" is in nonexistent namespace "no-such"`, `job "x" is in nonexistent node pool "no-such"`}, said.ValidationErrors)
		})
		t.Run("of a parameterized job, as it was read, under another ID", func(t *testing.T) {
			j := on.job(t, nowhere, func(j *api.Job) { j.ParameterizedJob = &api.ParameterizedJobConfig{} })
			on.Register(t, j)
			stored := on.Job(t, *j.ID)
			stored.ID = new("contract-child")
			if got := on.plan(t, stored)["g"]; got == nil || got.NodesFiltered != 1 {
				t.Errorf("failed: %+v, want one node filtered", got)
			}
		})
	})
}

// What holds on this node, which stands for linux and a Nomad pre-release or 2.0.
func TestContractConstraintsThatHold(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		node, _, err := on.Nomad.Nodes().Info(on.Node(t).ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		kernel, arch := node.Attributes["kernel.name"], node.Attributes["cpu.arch"]
		for _, c := range []struct {
			l, operand, r string
			holds         bool
		}{
			{"${attr.kernel.name}", "=", kernel, true},
			{"${attr.kernel.name}", "==", strings.ToUpper(kernel), false},
			{"${attr.cpu.arch}", "is", arch, true},
			{"${attr.cpu.arch}", "!=", arch, false},
			{"${attr.cpu.arch}", "not", "vax", true},
			{"${meta.no_such}", "!=", "x", true},
			{"${meta.no_such}", "=", "x", false},
			{"${meta.no_such}", "is_not_set", "", true},
			{"${meta.no_such}", "regexp", ".*", false},
			{"${meta.no_such}", "<", "zzz", false},
			{"${attr.kernel.name}", "is_set", "", true},
			{"${attr.kernel.name}", "is_not_set", "", false},
			{"${attr.cpu.numcores}", ">=", "1", true},
			{"${attr.cpu.numcores}", "<", "1000000", true},
			{"${attr.cpu.numcores}", ">", "0.5", true},
			{"${attr.cpu.numcores}", "<=", "abc", true}, // as text
			{"10", "<", "9", false},
			{"10", "<", "9x", true},
			{"${attr.kernel.name}", "regexp", "^" + kernel[:2], true},
			{"${attr.kernel.name}", "regexp", "^x", false},
			{"1.2.3", "version", ">= 1.0, < 2.0", true},
			{"1.2.3", "version", "~> 1.2", true},
			{"1.3.0-beta", "version", ">= 1.0", false},
			{"1.3.0-beta", "semver", ">= 1.0.0", true},
			{"1.3.0-beta", "semver", ">= 1.3.0", false},
			{"1.3", "semver", "< 1.4", true},
			{"a, b,c", "set_contains", "c,a", true},
			{"a,b", "set_contains_all", "a,x", false},
			{"a,b", "set_contains_any", "x, b", true},
			{"a,b", "set_contains_any", "x", false},
			{"${node.unique.name}", "=", node.Name, true},
			{"${node.unique.id}", "=", node.ID, true},
			{"${node.datacenter}", "=", "dc1", true},
			{"${node.pool}", "=", "default", true},
			{"${node.class}", "=", "x", false},
			{"${node.class}", "is_set", "", true},
			{"${attr.kernel.name}", "=", "${attr.kernel.name}", true},
			{"${attr.no_such}", "=", "${attr.no_such}", false},
			{"literal", "=", "literal", true},
			{"", "distinct_hosts", "", true},
			{"${node.datacenter}", "distinct_property", "2", true},
		} {
			j := on.job(t, constrain(c.l, c.operand, c.r))
			if got := on.plan(t, j) == nil; got != c.holds {
				t.Errorf("%s %s %s holds: %t, want %t", c.l, c.operand, c.r, got, c.holds)
			}
		}
	})
}

func TestContractRunAndExit(t *testing.T) {
	const policy = "Policy allows no restarts"
	for _, c := range []struct {
		name                string
		exit                string
		status, description string
		events              []string
		summary             api.TaskGroupSummary
	}{
		{"a task that succeeds", "0", "complete", "All tasks have completed",
			[]string{"Received: Task received by client", "Task Setup: Building Task Directory", "Started: Task started by client", "Terminated: Exit Code: 0"},
			api.TaskGroupSummary{Complete: 1}},
		{"a task that fails", "3", "failed", "Failed tasks",
			[]string{"Received: Task received by client", "Task Setup: Building Task Directory", "Started: Task started by client", "Terminated: Exit Code: 3", "Not Restarting: " + policy},
			api.TaskGroupSummary{Failed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			contract(t, func(t *testing.T, on cluster) {
				j := on.job(t, env("EXIT", c.exit))
				reg := on.Register(t, j)
				stub := on.ended(t, *j.ID)
				wantDiff(t, "allocation", []string{"run", c.status, c.description, *j.ID + ".g[0]", reg.EvalID},
					[]string{stub.DesiredStatus, stub.ClientStatus, stub.ClientDescription, stub.Name, stub.EvalID})
				wantDiff(t, "events", c.events, events(stub))
				if s := stub.TaskStates["t"]; s.State != "dead" || s.Failed != (c.exit != "0") || s.StartedAt.IsZero() || s.FinishedAt.IsZero() {
					t.Errorf("task state %+v", s)
				}
				last := stub.TaskStates["t"].Events
				wantDiff(t, "exit code", c.exit, last[3].Details["exit_code"])
				if c.exit != "0" {
					wantDiff(t, "last event", map[string]string{"restart_reason": policy, "fails_task": "true"}, last[4].Details)
				}
				evals := on.evaluated(t, *j.ID)
				if len(evals) != 1 || evals[0].Status != "complete" || evals[0].BlockedEval != "" || evals[0].FailedTGAllocs != nil {
					t.Errorf("evaluations %+v, want one that is complete", evals[0])
				}
				wantDiff(t, "status", "dead", *on.Job(t, *j.ID).Status)
				sum, _, err := on.Nomad.Jobs().Summary(*j.ID, nil)
				if err != nil {
					t.Fatal(err)
				}
				wantDiff(t, "summary", map[string]api.TaskGroupSummary{"g": c.summary}, sum.Summary)

				alloc, _, err := on.Nomad.Allocations().Info(stub.ID, nil)
				if err != nil {
					t.Fatal(err)
				}
				if alloc.JobID != *j.ID || *alloc.Job.ID != *j.ID || alloc.NodeName != stub.NodeName || alloc.Metrics.NodesEvaluated != 1 {
					t.Errorf("allocation %+v", alloc)
				}
				// The same job again starts nothing; a changed one does.
				again := func(change ...func(*api.Job)) *api.Job {
					return on.job(t, append(change, env("EXIT", c.exit), func(k *api.Job) { k.ID = j.ID })...)
				}
				on.Register(t, again())
				on.evaluated(t, *j.ID)
				if list, _, err := on.Nomad.Jobs().Allocations(*j.ID, true, nil); err != nil || len(list) != 1 {
					t.Errorf("registered again: %d allocations, %v; want 1", len(list), err)
				}
				on.Register(t, again(func(k *api.Job) { k.SetMeta("change", "x") }))
				wait(t, "the changed job's allocation", func() (any, bool) {
					list, _, err := on.Nomad.Jobs().Allocations(*j.ID, true, nil)
					return err, len(list) == 2
				})
			})
		})
	}
}

func events(stub *api.AllocationListStub) (list []string) {
	for _, e := range stub.TaskStates["t"].Events {
		list = append(list, e.Type+": "+e.DisplayMessage)
	}
	return list
}

// The claim: one GET with the job's meta in it, before the task starts.
func TestContractArtifact(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		failed bool
	}{
		{200, "the configuration", false},
		{200, "", false},
		{204, "", true},
		{410, "gone", true},
		{503, "later", true},
	} {
		t.Run(fmt.Sprintf("%d %s", c.status, c.body), func(t *testing.T) {
			t.Parallel() // a real agent takes seconds to report a failure
			contract(t, func(t *testing.T, on cluster) {
				var mu sync.Mutex
				var asked []string
				origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header["Authorization"]))
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
				}))
				t.Cleanup(origin.Close)
				j := on.job(t, func(j *api.Job) {
					j.SetMeta("CLAIM_URL", origin.URL+"/claim?a=b").SetMeta("CLAIM_TOKEN", "the-token")
					task(j).Artifacts = []*api.TaskArtifact{{
						GetterSource: new("${NOMAD_META_CLAIM_URL}"), GetterMode: new("file"), RelativeDest: new("secrets/runner.jit"),
						GetterHeaders: map[string]string{"Authorization": "Bearer ${NOMAD_META_CLAIM_TOKEN}"},
					}}
				}, env("WANT", c.body))
				on.Register(t, j)
				stub := on.ended(t, *j.ID)
				want := []string{"Received: Task received by client", "Task Setup: Building Task Directory", "Downloading Artifacts: Client is downloading artifacts"}
				if c.failed {
					text := fmt.Sprintf(`failed to download artifact "${NOMAD_META_CLAIM_URL}": getter subprocess failed: exit status 1: failed to download artifact: bad response code: %d`, c.status)
					want = append(want, "Failed Artifact Download: "+text, "Not Restarting: Policy allows no restarts")
				} else {
					want = append(want, "Started: Task started by client", "Terminated: Exit Code: 0")
				}
				wantDiff(t, "events", want, events(stub))
				mu.Lock()
				defer mu.Unlock()
				wantDiff(t, "requests", []string{"GET /claim?a=b [Bearer the-token]"}, asked)
				if status := map[bool]string{true: "failed", false: "complete"}[c.failed]; stub.ClientStatus != status {
					t.Errorf("the allocation is %s, want %s", stub.ClientStatus, status)
				}
				wantDiff(t, "status", "dead", *on.Job(t, *j.ID).Status)
			})
		})
	}
}

func TestContractEnvironment(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		// Values of meta are interpolated, once. Whether they see other meta is
		// left to chance by Nomad.
		j := on.job(t, func(j *api.Job) {
			j.SetMeta("lower", "${attr.kernel.name} ${NOMAD_JOB_ID} ${no_such}")
		}, env("AGAIN", "${NOMAD_META_lower}/${NOMAD_META_LOWER}/${node.datacenter}/${NOMAD_GROUP_NAME}"))
		meta := runtime.GOOS + " " + *j.ID + " ${no_such}"
		// The text is given in hexadecimal, so that nothing interpolates it.
		env("WANT_AGAIN", fmt.Sprintf("%x", meta+"/"+meta+"/dc1/g"))(j)
		on.Register(t, j)
		if stub := on.ended(t, *j.ID); stub.ClientStatus != "complete" {
			t.Errorf("the task ended as %s: %q; AGAIN is not as expected", stub.ClientStatus, events(stub))
		}
	})
}

func TestContractStop(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		t.Run("a job that runs", func(t *testing.T) {
			j := on.job(t, env("WAIT", "1"), func(j *api.Job) { task(j).KillTimeout = new(2 * time.Second) })
			on.Register(t, j)
			if stub := on.reaches(t, *j.ID, "running"); stub.ClientDescription != "Tasks are running" {
				t.Errorf("the allocation says %q", stub.ClientDescription)
			}
			wantDiff(t, "status", "running", *on.Job(t, *j.ID).Status)
			evalID := on.Deregister(t, *j.ID, false)
			stub := on.ended(t, *j.ID)
			wantDiff(t, "allocation", []string{"complete", "stop", "alloc not needed due to job update"}, []string{stub.ClientStatus, stub.DesiredStatus, stub.DesiredDescription})
			got := strings.Join(events(stub)[2:], "; ")
			if want := regexp.MustCompile(`^Started: Task started by client; Killing: Sent interrupt. Waiting 2s before force killing; Terminated: Exit Code: \d+(, Signal: \d+)?; Killed: Task successfully killed$`); !want.MatchString(got) {
				t.Errorf("events %q, want %q", got, want)
			}
			info := on.Job(t, *j.ID)
			if *info.Status != "dead" || !*info.Stop || *info.Version != 1 {
				t.Errorf("the job is %s, stop %t, version %d; want it dead, stopped, of version 1", *info.Status, *info.Stop, *info.Version)
			}
			evals := on.evaluated(t, *j.ID)
			if last := evals[len(evals)-1]; len(evals) != 2 || last.ID != evalID || last.TriggeredBy != "job-deregister" || last.Status != "complete" || last.Type != "service" {
				t.Errorf("%d evaluations, the last %+v", len(evals), last)
			}
			_, _, err := on.Nomad.Jobs().RegisterOpts(j, enforced(0), nil)
			wantStatus(t, err, 500, "Enforcing job modify index 0: job already exists")
		})
		t.Run("a job that waits", func(t *testing.T) {
			j := on.job(t, nowhere)
			on.Register(t, j)
			on.evaluated(t, *j.ID)
			wantDiff(t, "status", "pending", *on.Job(t, *j.ID).Status)
			evalID := on.Deregister(t, *j.ID, false)
			wait(t, "the blocked evaluation to be canceled", func() (any, bool) {
				blocked := on.evaluated(t, *j.ID)[1]
				return *blocked, blocked.Status == "canceled" && blocked.StatusDescription == fmt.Sprintf("evaluation %q successful", evalID)
			})
			wantDiff(t, "status", "dead", *on.Job(t, *j.ID).Status)
		})
		t.Run("a job that is purged", func(t *testing.T) {
			j := on.job(t, env("WAIT", "1"))
			on.Register(t, j)
			stub := on.reaches(t, *j.ID, "running")
			on.Deregister(t, *j.ID, true)
			_, _, err := on.Nomad.Jobs().Info(*j.ID, nil)
			wantStatus(t, err, 404, "job not found")
			wait(t, "the allocation to be gone", func() (any, bool) {
				_, _, err := on.Nomad.Allocations().Info(stub.ID, nil)
				return err, err != nil
			})
			if evals := on.evaluated(t, *j.ID); len(evals) != 2 {
				t.Errorf("%d evaluations are left, want 2", len(evals))
			}
			if _, _, err := on.Nomad.Jobs().RegisterOpts(on.job(t, nowhere, func(n *api.Job) { n.ID = j.ID }), enforced(0), nil); err != nil {
				t.Errorf("register it again: %v", err)
			}
		})
		t.Run("a job that is not there", func(t *testing.T) {
			if evalID, _, err := on.Nomad.Jobs().Deregister("no-such", false, nil); err != nil || evalID != "" {
				t.Errorf("Deregister = %q, %v; want neither", evalID, err)
			}
		})
		t.Run("a changed job's earlier allocation", func(t *testing.T) {
			j := on.job(t, env("WAIT", "1"))
			on.Register(t, j)
			first := on.reaches(t, *j.ID, "running")
			on.Register(t, on.job(t, env("WAIT", "2"), func(k *api.Job) { k.ID = j.ID }))
			wait(t, "the allocation to be replaced", func() (any, bool) {
				list, _, err := on.Nomad.Jobs().Allocations(*j.ID, true, nil)
				if err != nil || len(list) != 2 {
					return err, false
				}
				slices.SortFunc(list, func(a, b *api.AllocationListStub) int { return int(a.CreateIndex) - int(b.CreateIndex) })
				old, new := list[0], list[1]
				return []any{*old, *new}, old.ID == first.ID && old.DesiredStatus == "stop" && old.ClientStatus == "complete" &&
					old.DesiredDescription == "alloc is being updated due to job update" && new.ClientStatus == "running" && new.JobVersion == 1
			})
		})
	})
}

func TestContractDispatch(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		parent := func(p api.ParameterizedJobConfig) string {
			j := on.job(t, nowhere, func(j *api.Job) { j.ParameterizedJob = &p; j.SetMeta("b", "parent").SetMeta("z", "1") })
			if resp := on.Register(t, j); resp.EvalID != "" {
				t.Errorf("a parameterized job has the evaluation %s", resp.EvalID)
			}
			return *j.ID
		}
		dispatch := func(id, token string, opts api.DispatchOptions) (*api.JobDispatchResponse, error) {
			opts.JobID = id
			resp, _, err := on.Nomad.Jobs().DispatchOpts(&opts, &api.WriteOptions{IdempotencyToken: token})
			if err == nil {
				on.Purge(t, resp.DispatchedJobID)
			}
			return resp, err
		}
		id := parent(api.ParameterizedJobConfig{MetaRequired: []string{"a", "c"}, MetaOptional: []string{"b"}})
		meta := map[string]string{"a": "1", "c": "", "b": "mine"}
		wantDiff(t, "status of the parent", "running", *on.Job(t, id).Status)

		child, err := dispatch(id, "", api.DispatchOptions{Meta: meta, Payload: []byte("x"), IdPrefixTemplate: "gh-1"})
		if err != nil {
			t.Fatal(err)
		}
		if want := regexp.MustCompile("^" + id + `/dispatch-gh-1-\d+-[0-9a-f]{8}$`); !want.MatchString(child.DispatchedJobID) || child.EvalID == "" {
			t.Errorf("dispatched as %+v, want an ID like %s and an evaluation", child, want)
		}
		on.evaluated(t, child.DispatchedJobID)
		got := on.Job(t, child.DispatchedJobID)
		wantDiff(t, "child's meta", map[string]string{"a": "1", "c": "", "b": "mine", "z": "1"}, got.Meta)
		if !got.Dispatched || *got.ParentID != id || string(got.Payload) != "x" || *got.Status != "pending" || *got.Name != child.DispatchedJobID {
			t.Errorf("child %+v", got)
		}
		sum, _, err := on.Nomad.Jobs().Summary(id, nil)
		if err != nil || sum.Children.Pending != 1 || sum.Children.Running+sum.Children.Dead != 0 {
			t.Errorf("summary of the parent %+v, %v", sum.Children, err)
		}

		first, err := dispatch(id, "token", api.DispatchOptions{Meta: meta})
		if err != nil {
			t.Fatal(err)
		}
		again, err := dispatch(id, "token", api.DispatchOptions{Meta: map[string]string{"a": "2", "c": "3"}})
		if err != nil || again.DispatchedJobID != first.DispatchedJobID || again.EvalID != "" || again.JobCreateIndex != first.JobCreateIndex {
			t.Errorf("dispatched again as %+v, %v; want %s and no evaluation", again, err, first.DispatchedJobID)
		}
		wantDiff(t, "token", "token", *on.Job(t, first.DispatchedJobID).DispatchIdempotencyToken)
		other := parent(api.ParameterizedJobConfig{Payload: "required"})
		if resp, err := dispatch(other, "token", api.DispatchOptions{Payload: make([]byte, 16<<10)}); err != nil || resp.EvalID == "" {
			t.Errorf("the same token for another job: %+v, %v", resp, err)
		}
		plain := on.job(t, nowhere)
		on.Register(t, plain)
		for _, c := range []struct {
			id    string
			opts  api.DispatchOptions
			words string
		}{
			{id, api.DispatchOptions{Meta: map[string]string{"a": "1"}}, "Dispatch did not provide required meta keys: [c]"},
			{id, api.DispatchOptions{Meta: map[string]string{"x": "1"}}, "Dispatch request included unpermitted metadata keys: [x]"},
			{other, api.DispatchOptions{}, "Payload is not provided but required by parameterized job"},
			{other, api.DispatchOptions{Payload: make([]byte, 16<<10+1)}, "Payload exceeds maximum size; 16385 > 16384"},
			{parent(api.ParameterizedJobConfig{Payload: "forbidden"}), api.DispatchOptions{Payload: []byte("x")}, "Payload provided but forbidden by parameterized job"},
			{*plain.ID, api.DispatchOptions{}, fmt.Sprintf("Specified job %q is not a parameterized job", *plain.ID)},
			{child.DispatchedJobID, api.DispatchOptions{}, fmt.Sprintf("Specified job %q is not a parameterized job", child.DispatchedJobID)},
			{"no-such", api.DispatchOptions{}, "parameterized job not found"},
		} {
			_, err := dispatch(c.id, "", c.opts)
			wantStatus(t, err, 500, c.words)
		}
		on.Deregister(t, id, false)
		_, err = dispatch(id, "token", api.DispatchOptions{Meta: meta})
		wantStatus(t, err, 500, fmt.Sprintf("Specified job %q is stopped", id))
		wantDiff(t, "status of the child", "pending", *on.Job(t, first.DispatchedJobID).Status)
	})
}

// What an allocation has of its node is listed when it is asked for.
func TestContractAllocatedResources(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		j := on.job(t, func(j *api.Job) {
			task(j).Resources = &api.Resources{CPU: new(50), MemoryMB: new(20)}
			group(j).EphemeralDisk = &api.EphemeralDisk{SizeMB: new(130)}
		})
		on.Register(t, j)
		id := *j.ID
		on.ended(t, id)
		list := func(params map[string]string) *api.AllocationListStub {
			t.Helper()
			stubs, _, err := on.Nomad.Allocations().List(&api.QueryOptions{Namespace: "*", Filter: fmt.Sprintf("JobID == %q", id), Params: params})
			if err != nil || len(stubs) != 1 {
				t.Fatalf("listed %d allocations of %s, %v", len(stubs), id, err)
			}
			return stubs[0]
		}
		if got := list(nil).AllocatedResources; got != nil {
			t.Errorf("not asked for, but listed: %+v", got)
		}
		got := list(map[string]string{"resources": "true"}).AllocatedResources
		want := &api.AllocatedResources{
			Tasks:  map[string]*api.AllocatedTaskResources{task(j).Name: {Cpu: api.AllocatedCpuResources{CpuShares: 50}, Memory: api.AllocatedMemoryResources{MemoryMB: 20}}},
			Shared: api.AllocatedSharedResources{DiskMB: 130},
		}
		wantDiff(t, "resources", want, got)
	})
}

func TestContractLists(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		base := *on.job(t).ID
		for _, suffix := range []string{"-b", "-a", "-a/1", "-c"} {
			on.Register(t, on.job(t, nowhere, func(j *api.Job) { j.ID = new(base + suffix); j.SetMeta("k", suffix) }))
		}
		ids := func(q *api.QueryOptions, o *api.JobListOptions) (list []string, next string) {
			t.Helper()
			stubs, meta, err := on.Nomad.Jobs().ListOptions(o, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range stubs {
				id := strings.TrimPrefix(s.ID, base)
				if len(s.Meta) > 0 {
					id += " " + s.Meta["k"]
				}
				list = append(list, id)
			}
			return list, meta.NextToken
		}
		got, _ := ids(&api.QueryOptions{Prefix: base}, nil)
		wantDiff(t, "by prefix", []string{"-a", "-a/1", "-b", "-c"}, got)
		got, _ = ids(&api.QueryOptions{Prefix: base + "-a/"}, nil)
		wantDiff(t, "children", []string{"-a/1"}, got)
		got, _ = ids(&api.QueryOptions{Prefix: base, Namespace: "*"}, &api.JobListOptions{Fields: &api.JobListFields{Meta: true}})
		wantDiff(t, "with meta, in all namespaces", []string{"-a -a", "-a/1 -a/1", "-b -b", "-c -c"}, got)
		got, next := ids(&api.QueryOptions{Prefix: base, PerPage: 3}, nil)
		wantDiff(t, "first page", []string{"-a", "-a/1", "-b"}, got)
		got, next = ids(&api.QueryOptions{Prefix: base, PerPage: 3, NextToken: next}, nil)
		wantDiff(t, "second page", []string{"-c"}, got)
		wantDiff(t, "token after the last page", "", next)

		id := base + "-a/1" // a slash needs no care in a path
		if got := on.Job(t, id); *got.ID != id || *got.NodePool != "default" || *got.Namespace != "default" || *got.Region != "global" || got.Datacenters[0] != "*" {
			t.Errorf("read %s as %+v", id, got)
		}
		if list, _, err := on.Nomad.NodePools().List(nil); err != nil || !slices.ContainsFunc(list, func(p *api.NodePool) bool { return p.Name == "all" }) {
			t.Errorf("node pools %v, %v", list, err)
		}
		if list, _, err := on.Nomad.Namespaces().List(nil); err != nil || list[0].Name != "default" {
			t.Errorf("namespaces %v, %v", list, err)
		}
		if leader, err := on.Nomad.Status().Leader(); err != nil || leader == "" {
			t.Errorf("leader %q, %v", leader, err)
		}
		if self, err := on.Nomad.Agent().Self(); err != nil || self.Config["Region"] != "global" {
			t.Errorf("agent %v, %v", self, err)
		}
	})
}

// The index of a list of nodes stays while jobs come, so that it says whether a list that
// was kept is still right. It grows when one runs, and no node has changed then.
func TestContractIndexOfNodes(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		list := func() (index uint64, nodes map[string]uint64) {
			nodes = map[string]uint64{}
			list, meta, err := on.Nomad.Nodes().List(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				nodes[n.ID] = n.ModifyIndex
			}
			if page, short, err := on.Nomad.Nodes().List(&api.QueryOptions{PerPage: 1}); err != nil || short.LastIndex == 0 || len(page) > 1 {
				t.Fatalf("a page of %d nodes with %+v, %v", len(page), short, err)
			}
			return meta.LastIndex, nodes
		}
		stays := func(what string, run func(), want func(before, after uint64) bool) {
			t.Helper()
			for range 20 { // an agent that has just started still changes its node
				before, nodes := list()
				run()
				after, then := list()
				if want(before, after) && maps.Equal(nodes, then) {
					return
				}
			}
			t.Error(what)
		}
		stays("the index changes with each job", func() { on.Register(t, on.job(t, nowhere)) }, func(before, after uint64) bool { return after == before })
		stays("the index stays when a job runs, or a node changes", func() {
			j := on.job(t)
			on.Register(t, j)
			on.ended(t, *j.ID)
		}, func(before, after uint64) bool { return after > before })
	})
}

func TestContractBlockingQuery(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		j := on.job(t, nowhere)
		on.Register(t, j)
		on.evaluated(t, *j.ID)
		_, meta, err := on.Nomad.Jobs().Info(*j.ID, nil)
		if err != nil || meta.LastIndex == 0 || !meta.KnownLeader {
			t.Fatalf("read with %+v, %v", meta, err)
		}
		began := time.Now()
		if _, _, err := on.Nomad.Jobs().Info(*j.ID, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 300 * time.Millisecond}); err != nil || time.Since(began) < 300*time.Millisecond {
			t.Errorf("nothing happened, and it answered after %v, %v", time.Since(began), err)
		}
		answered := make(chan *api.Job, 1)
		go func() {
			job, _, err := on.Nomad.Jobs().Info(*j.ID, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 5 * time.Minute})
			if err != nil {
				t.Error(err)
			}
			answered <- job
		}()
		on.Deregister(t, *j.ID, false)
		if job := <-answered; job == nil || !*job.Stop {
			t.Errorf("answered with %+v, want the stopped job", job)
		}
	})
}

// stream collects the lines of an event stream, without heartbeats, until it has what
// done waits for, however long that takes. A stream that ends, or that has nothing but
// heartbeats to say, is begun again: on a busy machine Nomad drops events while a
// stream begins with them, which ends it without a word (seen on 1.8.0), and keeps the
// last 100 changes, so a new one tells all of it again. Client.Follow begins again, too.
func (on cluster) stream(t *testing.T, query string, done func([]api.Events) bool, opened ...func()) []api.Events {
	t.Helper()
	for begun := 1; ; begun++ {
		all, ok := on.streamOnce(t, query, done, opened...)
		if ok {
			return all
		}
		if begun == 20 {
			t.Fatalf("the stream ended, or said nothing new, %d times; at last it said %v", begun, told(t, all))
		}
		opened = nil
	}
}

// streamOnce is stream until the stream ends or says nothing new; ok is false then.
func (on cluster) streamOnce(t *testing.T, query string, done func([]api.Events) bool, opened ...func()) (all []api.Events, ok bool) {
	t.Helper()
	const quiet, silence = 3, 2 * time.Minute // heartbeats in a row; a stream without one is dead
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := time.AfterFunc(silence, cancel)
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, on.Config.Address+"/v1/event/stream?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for n, heartbeats := 0, 0; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Logf("the stream ended: %v", err)
			return all, false
		}
		watch.Reset(silence)
		if n == 0 {
			if !bytes.Equal(line, []byte("{}\n")) {
				t.Errorf("the stream opens with %s, want a heartbeat", line)
			}
			for _, f := range opened {
				f()
			}
		}
		var batch api.Events
		if err := json.Unmarshal(line, &batch); err != nil {
			t.Fatalf("line %s: %v", line, err)
		}
		if len(batch.Events) == 0 {
			if heartbeats++; heartbeats > quiet {
				return all, false
			}
			continue
		}
		heartbeats = 0
		if all = append(all, batch); done(all) {
			return all, true
		}
	}
}

// told says what events tell: topic, type and statuses.
func told(t *testing.T, batches []api.Events) (list []string) {
	t.Helper()
	for _, b := range batches {
		for _, e := range b.Events {
			if e.Index != b.Index {
				t.Errorf("event %+v in the batch of index %d", e, b.Index)
			}
			status := ""
			switch e.Topic {
			case api.TopicJob:
				j, err := e.Job()
				if err != nil {
					t.Fatal(err)
				}
				status = *j.Status
				if e.Payload["Deleted"] == true {
					status += " deleted"
				}
			case api.TopicEvaluation:
				eval, err := e.Evaluation()
				if err != nil {
					t.Fatal(err)
				}
				status = eval.TriggeredBy + " " + eval.Status
				wantDiff(t, "filter keys of an evaluation", []string{eval.JobID, ""}, e.FilterKeys)
			case api.TopicAllocation:
				a, err := e.Allocation()
				if err != nil {
					t.Fatal(err)
				}
				status = a.DesiredStatus + " " + a.ClientStatus
				wantDiff(t, "filter keys of an allocation", []string{a.JobID, ""}, e.FilterKeys)
			}
			list = append(list, fmt.Sprintf("%s %s: %s", e.Topic, e.Type, status))
		}
	}
	return list
}

func TestContractEventStream(t *testing.T) {
	about := func(id string) string {
		q := url.Values{"topic": {"Job:" + id, "Evaluation:" + id, "Allocation:" + id}}
		return q.Encode()
	}
	ends := func(with string) func([]api.Events) bool {
		return func(all []api.Events) bool { return slices.Contains(told(t, all), with) }
	}
	// Clients report what they have when they do: some steps are left out.
	optional := []string{"Allocation AllocationUpdated: run pending", "Allocation AllocationUpdated: run running", "Allocation AllocationUpdated: stop running"}
	inOrder := func(t *testing.T, want, got []string) {
		t.Helper()
		without := func(list []string) []string {
			return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(optional, s) })
		}
		wantDiff(t, "events", without(want), without(got))
	}
	contract(t, func(t *testing.T, on cluster) {
		placed := []string{
			"Job JobRegistered: pending", "Evaluation JobRegistered: job-register pending",
			"Evaluation PlanResult: job-register pending", "Allocation PlanResult: run pending", "Job PlanResult: running",
			"Evaluation EvaluationUpdated: job-register complete",
		}
		t.Run("of a job that runs", func(t *testing.T) {
			j := on.job(t)
			reg := on.Register(t, j)
			all := on.stream(t, about(*j.ID), ends("Job AllocationUpdated: dead"))
			inOrder(t, append(slices.Clone(placed), "Allocation AllocationUpdated: run complete", "Job AllocationUpdated: dead"), told(t, all))
			if all[0].Index != reg.JobModifyIndex {
				t.Errorf("the first event has index %d, want %d", all[0].Index, reg.JobModifyIndex)
			}
			for _, batch := range all[1:] { // resume at each
				rest := on.stream(t, fmt.Sprintf("%s&index=%d", about(*j.ID), batch.Index), ends("Job AllocationUpdated: dead"))
				if rest[0].Index != batch.Index {
					t.Errorf("resumed at %d, it begins with %d", batch.Index, rest[0].Index)
				}
			}
		})
		t.Run("of a job that is stopped while it runs", func(t *testing.T) {
			j := on.job(t, env("WAIT", "1"))
			on.Register(t, j)
			on.reaches(t, *j.ID, "running")
			on.Deregister(t, *j.ID, false)
			inOrder(t, append(slices.Clone(placed),
				"Job JobDeregistered: running", "Evaluation JobDeregistered: job-deregister pending",
				"Evaluation PlanResult: job-deregister pending", "Allocation PlanResult: stop running", "Job PlanResult: pending",
				"Evaluation EvaluationUpdated: job-deregister complete", "Job EvaluationUpdated: dead",
				"Allocation AllocationUpdated: stop complete",
			), told(t, on.stream(t, about(*j.ID), ends("Allocation AllocationUpdated: stop complete"))))
		})
		t.Run("of a job that waits and is purged", func(t *testing.T) {
			j := on.job(t, nowhere)
			on.Register(t, j)
			on.evaluated(t, *j.ID)
			on.Deregister(t, *j.ID, true)
			purged := "Job JobDeregistered: pending deleted"
			if on.before(t, "1.11.3") { // the index of the job's last change tells, too: Client.Follow
				purged = "Job JobDeregistered: pending"
			}
			inOrder(t, []string{
				"Job JobRegistered: pending", "Evaluation JobRegistered: job-register pending",
				"Evaluation EvaluationUpdated: queued-allocs blocked",
				"Evaluation EvaluationUpdated: job-register complete",
				purged, "Evaluation JobDeregistered: job-deregister pending",
				"Evaluation EvaluationUpdated: queued-allocs canceled", "Evaluation EvaluationUpdated: job-deregister complete",
			}, told(t, on.stream(t, about(*j.ID), ends("Evaluation EvaluationUpdated: job-deregister complete"))))
		})
		t.Run("from an index that is to come", func(t *testing.T) {
			j := on.job(t, nowhere)
			all := on.stream(t, about(*j.ID)+"&index=1000000000", func(all []api.Events) bool { return true }, func() { on.Register(t, j) })
			wantDiff(t, "first event", "Job JobRegistered: pending", told(t, all)[0])
		})
		t.Run("by topic", func(t *testing.T) {
			j := on.job(t, nowhere)
			on.Register(t, j)
			all := on.stream(t, "topic=Job:"+*j.ID, func(all []api.Events) bool { return true })
			wantDiff(t, "events", []string{"Job JobRegistered: pending"}, told(t, all))
		})
	})
}

// Jobs that wait for room get it when something ends, the most important first.
func TestContractQueue(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		total := int(on.Node(t).NodeResources.Memory.MemoryMB)
		most := func(j *api.Job) { // of the node: two of them have no room
			task(j).Resources = &api.Resources{CPU: new(50), MemoryMB: new(total * 6 / 10)}
		}
		first := on.job(t, most, env("WAIT", "1"))
		on.Register(t, first)
		on.reaches(t, *first.ID, "running")
		waiting := map[string]*api.Job{}
		for _, p := range []int{30, 70, 50} {
			j := on.job(t, most, func(j *api.Job) { j.Priority = &p }, env("WAIT", "1"))
			waiting[fmt.Sprint(p)] = j
			on.Register(t, j)
			if evals := on.evaluated(t, *j.ID); evals[0].FailedTGAllocs["g"].DimensionExhausted["memory"] != 1 {
				t.Errorf("evaluation %+v, want memory exhausted", evals[0])
			}
		}
		last := first
		for _, p := range []string{"70", "50", "30"} {
			on.Deregister(t, *last.ID, false)
			last = waiting[p]
			on.reaches(t, *last.ID, "running")
			evals := on.evaluated(t, *last.ID)
			if e := evals[1]; e.TriggeredBy != "queued-allocs" || e.Status != "complete" || e.StatusDescription != "" {
				t.Errorf("the blocked evaluation became %+v", e)
			}
			delete(waiting, p)
			for _, id := range slices.Sorted(maps.Keys(waiting)) {
				if s := *on.Job(t, *waiting[id].ID).Status; s != "pending" {
					t.Errorf("job of priority %s is %s while that of %s has the node", id, s, p)
				}
			}
		}
	})
}

// The public keys of workload identities are served without a token; a key that was
// replaced is still listed.
func TestContractKeys(t *testing.T) {
	contract(t, func(t *testing.T, on cluster) {
		list := func() (keys []map[string]string) {
			t.Helper()
			wait(t, "a key", func() (any, bool) {
				var found struct{ Keys []map[string]string }
				meta, err := on.Nomad.Raw().Query("/.well-known/jwks.json", &found, nil)
				if err != nil || found.Keys == nil || meta.LastIndex == 0 || !meta.KnownLeader {
					t.Fatalf("answered %+v, %+v, %v", found, meta, err)
				}
				keys = found.Keys
				return keys, len(keys) > 0
			})
			return keys
		}
		ids := func(keys []map[string]string) (ids []string) {
			for _, key := range keys {
				ids = append(ids, key["kid"])
			}
			slices.Sort(ids)
			return ids
		}
		before := list()
		for _, key := range before {
			modulus, err := base64.RawURLEncoding.DecodeString(key["n"])
			if err != nil || len(modulus) != 256 || len(key["kid"]) != 36 {
				t.Errorf("key %v, want an ID and 256 bytes", key)
			}
			delete(key, "n")
			wantDiff(t, "key", map[string]string{"use": "sig", "kty": "RSA", "kid": key["kid"], "alg": "RS256", "e": "AQAB"}, key)
		}
		added, _, err := on.Nomad.Keyring().Rotate(nil, nil)
		if err != nil || added.State != api.RootKeyStateActive {
			t.Fatalf("rotated to %+v, %v", added, err)
		}
		want := append(ids(before), added.KeyID)
		slices.Sort(want)
		wantDiff(t, "keys", want, ids(list()))
		_, err = on.Nomad.Raw().Query("/.well-known/jwks.json", new(any), &api.QueryOptions{Region: "nowhere"})
		wantStatus(t, err, 500, "No path to region")
	})
}
