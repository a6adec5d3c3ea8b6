package rules

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// The types of this file are the form of a rules file, for people and editors:
// the JSON Schema and the tables of README.md are generated from them, their tags
// and comments, and from placementFields, which has the fields of a placement.
// The loader reads the YAML itself, because it reports where each fault is; a
// test compares the keys of the two.
//
// Tags: yaml is the key, required that it must be there, open that the value
// may come from an expression; min, max, enum and pattern bound it, and example
// is YAML.

// A rules file of Switchyard: which runner jobspec serves which GitHub job, and what the job's labels mean to Nomad.
type fileForm struct {
	// the version of this file format
	Version int `yaml:"version" required:"yes" min:"1" max:"1" example:"1"`
	// jobs for which it is false belong to someone else and are ignored; `"self-hosted" in labels` when left out
	Scope conditionForm `yaml:"scope" example:"hasAny(\"self-hosted\", \"nomad\")"`
	// how one label holds several
	Compound compoundForm `yaml:"compound" example:"{ prefix: 'yard=', separator: '/' }"`
	// the vocabulary: what each label means, once, for every rule; a name that ends with `*` stands for all labels with that prefix
	Labels map[string]labelForm `yaml:"labels" example:"{ linux: {}, gpu: { devices: [nvidia/gpu] } }"`
	// a placement for every job, and the most a job can ask for
	Defaults defaultsForm `yaml:"defaults" example:"{ node_pool: ci, resources: { cpu: 2000, memory: 4GiB } }"`
	// what happens to a run with a job that stays unroutable; nothing when left out
	Unroutable unroutableForm `yaml:"unroutable" example:"{ after: 10m, action: cancel }"`
	// what is written on the commit of a job that waits or gets no runner; nothing when left out
	Feedback feedbackForm `yaml:"feedback" example:"{ kind: check_run, after: 1m }"`
	// what an hour of what runners reserve costs, for `switchyard usage`; nothing when left out
	Prices pricesForm `yaml:"prices" example:"{ currency: EUR, cpu_hour: 0.04, gib_hour: 0.005 }"`
	// the rules: the first one, in file order, whose condition holds takes the job
	Rules []ruleForm `yaml:"rules" min:"1" example:"[{ name: linux, if: has(\"linux\"), jobspec: docker-linux }]"`
	// examples of jobs and the decisions they must get; a file of tests has only these
	Tests []testForm `yaml:"tests" example:"[{ name: a Linux job, labels: [self-hosted, linux], expect: { rule: linux } }]"`
}

// A compound label: with the prefix `yard=` and the separator `/`, the one label `yard=1234/linux/cpu=8` reads as `self-hosted`, `linux`, `cpu=8`. Its first part, the run's ID, is not a label: it makes the whole label unique to the run.
type compoundForm struct {
	// what such a label begins with
	Prefix string `yaml:"prefix" required:"yes" example:"yard="`
	// what stands between the parts of such a label
	Separator string `yaml:"separator" required:"yes" example:"/"`
}

// What a label means: a placement that is merged over that of the rule. `{}` makes the label known and means nothing.
type labelForm struct {
	// the typed, bounded value in a label such as `cpu=8`; for a name that ends with `*`
	Param paramForm `yaml:"param" example:"{ name: cpu, type: int, min: 1, max: 32 }"`
	// how urgent a job with it is among those that wait under a limit with `order: priority`; of the rule's and those of the job's labels the highest counts
	Urgency int `yaml:"urgency" open:"yes" min:"0" max:"100" example:"10"`
	//lint:ignore U1000 it is read by reflection
	placementForm
}

// A param: the value in a label such as `cpu=8`.
type paramForm struct {
	// expressions say `param.NAME`
	Name string `yaml:"name" required:"yes" pattern:"^[a-z][a-z0-9_]{0,31}$" example:"cpu"`
	// what the text is read as: a whole number, a size in MiB, or a text
	Type string `yaml:"type" required:"yes" enum:"int size string"`
	// the minimum of an int (`1`) or a size (`1GiB`)
	Min boundForm `yaml:"min" example:"1"`
	// the maximum of an int or a size
	Max boundForm `yaml:"max" example:"32"`
	// the texts that a string may be, in any case
	OneOf []string `yaml:"one_of" min:"1" example:"[tokyo-a, tokyo-b]"`
	// a regular expression that the whole, lower-case text of a string matches
	Pattern string `yaml:"pattern" example:"'[a-z0-9.-]{1,40}'"`
}

// Defaults: the placement of every job, unless its rule or its labels say otherwise.
type defaultsForm struct {
	//lint:ignore U1000 it is read by reflection
	placementForm
	// the most that a job can ask for
	Max maxForm `yaml:"max" example:"{ cpu: 64000, cores: 32, memory: 128GiB }"`
	// how long a job may run before its runner is stopped: from 1m to 120h, which is GitHub's own limit
	TimeLimit durationForm `yaml:"time_limit" example:"24h"`
}

// A rule: a condition, and what follows when it holds. It has one of `jobspec`, `dispatch` and `deny`.
type ruleForm struct {
	// what decisions and messages call it; unique in all files
	Name string `yaml:"name" required:"yes" example:"linux"`
	// when it holds the rule takes the job; always, when left out
	If conditionForm `yaml:"if" example:"has(\"linux\") and not repo.fork"`
	// the job gets no runner, for this reason
	Deny string `yaml:"deny" example:"public repositories get no self-hosted runner"`
	// the name of the runner jobspec that serves the job
	Jobspec string `yaml:"jobspec" example:"docker-linux"`
	// the existing parameterized Nomad job, which runs unchanged
	Dispatch dispatchForm `yaml:"dispatch" example:"github_runner"`
	//lint:ignore U1000 it is read by reflection
	placementForm
	// the most a job of this rule can ask for; each size replaces that of `defaults`
	Max maxForm `yaml:"max" example:"{ cores: 8, memory: 32GiB }"`
	// how many of its jobs may run at once
	Limit limitForm `yaml:"limit" example:"{ running: 10, per: owner }"`
	// how urgent its jobs are among those that wait under a limit with `order: priority`; 0 when left out
	Urgency int `yaml:"urgency" open:"yes" min:"0" max:"100" example:"'${{ job.branch == \"main\" ? 10 : 0 }}'"`
	// how long a job of this rule may run before its runner is stopped, in place of that of `defaults`: from 1m to 120h, which is GitHub's own limit
	TimeLimit durationForm `yaml:"time_limit" example:"6h"`
	// when a job of this rule that failed is run again, because Nomad took its runner away
	Rerun rerunForm `yaml:"rerun" example:"{ when: [node_lost, preempted, drained] }"`
	// what replaces the rule's own settings while Nomad cannot place the runner; at most 10, in the order of `after`
	Fallback []fallbackForm `yaml:"fallback" min:"1" example:"[{ after: 5m, node_pool: on-demand }]"`
	// which Actions variable is set while the rule cannot serve its jobs, so that new ones run elsewhere; needs the permission Variables (write)
	Overflow overflowForm `yaml:"overflow" example:"{ after: 10m, variable: LINUX_RUNNER, to: '\"ubuntu-latest\"', back: '[\"self-hosted\",\"linux\"]' }"`
	// how many runners are kept that are prepared and wait for a job; one entry, or a list of up to 20
	Warm warmForm `yaml:"warm" list:"yes" example:"{ idle: 2, max: 6, when: Mon-Fri 07:00-19:00 Asia/Tokyo }"`
}

// A dispatch: an existing parameterized Nomad job. Short: its ID.
type dispatchForm struct {
	_ shortForm `example:"github_runner"`
	// its ID
	Job string `yaml:"job" required:"yes" example:"github_runner"`
	// meta under the job's own names, besides those of Switchyard's keys that it declares
	Meta map[string]string `yaml:"meta" open:"yes" empty:"yes" pattern:"^[A-Za-z_][A-Za-z0-9_.-]*$" example:"{ REPO_URL: '${{ repo.url }}' }"`
}

// An unroutable: what happens to the run of a job that no rule takes or that cannot be placed, when that does not change.
type unroutableForm struct {
	// how long the job must have been unroutable: from 1s to 24h, after which GitHub itself gives up on it
	After durationForm `yaml:"after" required:"yes" example:"10m"`
	// `cancel` cancels the job's whole run on GitHub once none of its jobs is running or can still run; needs the permission Actions (write)
	Action string `yaml:"action" required:"yes" enum:"cancel" example:"cancel"`
}

// A feedback: why a job waits or gets no runner, shown on its commit. It follows the reason and ends when the job runs.
type feedbackForm struct {
	// a check run, which needs an App with the permission Checks (write), or a commit status, which needs Commit statuses (write)
	Kind string `yaml:"kind" required:"yes" enum:"check_run commit_status" example:"check_run"`
	// how long a job waits before it is written: from 1s to 24h; 30s when left out
	After durationForm `yaml:"after" example:"1m"`
}

// Prices: what an hour of each resource that a runner reserves costs. Each price is that of the node class, else that of the node pool, else the one for all nodes, else 0.
type pricesForm struct {
	// a word for people, such as `EUR`
	Currency string `yaml:"currency" required:"yes" pattern:"^\\p{L}{1,16}$" example:"EUR"`
	//lint:ignore U1000 it is read by reflection
	priceForm
	// prices of nodes whose class a constraint of the placement names: `'${node.class} = large'`
	NodeClasses map[string]priceForm `yaml:"node_classes" example:"{ large: { cpu_hour: 0.06 } }"`
	// prices of nodes in a pool that the placement names
	NodePools map[string]priceForm `yaml:"node_pools" example:"{ gpu: { device_hour: 1.50 } }"`
}

// A price of some nodes: amounts with at most 6 digits after the point.
type priceForm struct {
	// of a reserved core, or of 1000 MHz
	CPUHour moneyForm `yaml:"cpu_hour" example:"0.04"`
	// of 1 GiB of memory
	GiBHour moneyForm `yaml:"gib_hour" example:"0.005"`
	// of a device, such as a GPU
	DeviceHour moneyForm `yaml:"device_hour" example:"1.50"`
}

// A limit: how many jobs of a rule may run at once.
type limitForm struct {
	// the most jobs at once
	Running int `yaml:"running" required:"yes" min:"1" max:"2147483647" example:"10"`
	// what is counted together: all jobs of the rule, those of one owner, those of one repository, or those with the same labels of the vocabulary; rule when left out
	Per string `yaml:"per" enum:"rule owner repo label"`
	// whose turn it is when a place is free: `fair`, the oldest waiting job of the repository with the fewest places; `priority`, the most urgent, and of equally urgent ones likewise; fair when left out
	Order string `yaml:"order" enum:"fair priority"`
}

// A rerun: a job whose runner was taken away, and that GitHub calls failed, is run again when its run has completed. It needs the permission Actions (write).
type rerunForm struct {
	// what became of the runner, as Nomad says: its node went down or lost its connection, a more important job took its place, or its node was drained
	When []string `yaml:"when" required:"yes" min:"1" enum:"node_lost preempted drained" example:"[node_lost, preempted, drained]"`
	// how often at most, of the jobs of one name in a run; 1 when left out
	Times int `yaml:"times" min:"1" max:"10" example:"2"`
}

// A fallback: what replaces a rule's own settings while Nomad cannot place the runner. A list of constraints, affinities or devices, even an empty one, replaces the rule's own list.
type fallbackForm struct {
	// how long since the job was first dispatched: `90s`, `5m`, `1h30m`; from 1s to 720h, and longer than that of the fallback before
	After durationForm `yaml:"after" required:"yes" example:"5m"`
	// a runner jobspec in place of the rule's
	Jobspec string `yaml:"jobspec" example:"docker-linux"`
	//lint:ignore U1000 it is read by reflection
	placementForm
}

// A warm: runners that have a node, are prepared, and wait for a job. GitHub knows nothing of them until a job takes them.
type warmForm struct {
	// how many wait for a job: from 1 to 1000
	Idle int `yaml:"idle" required:"yes" min:"1" max:"1000" example:"2"`
	// no more are started while the rule has so many runners, with and without a job; no bound when left out
	Max int `yaml:"max" min:"1" max:"1000" example:"6"`
	// days, hours and a time zone in which they wait; days or hours may be left out, and the zone is UTC if it is; always, when left out
	When string `yaml:"when" example:"Mon-Fri 07:00-19:00 Asia/Tokyo"`
	// the labels of the jobs that they are for; those of the plainest job that the rule takes, when left out
	Labels []string `yaml:"labels" min:"1" example:"[self-hosted, linux, gpu]"`
}

// An overflow: an Actions variable that workflows read by `runs-on: ${{ fromJSON(vars.NAME) }}` is set while the rule cannot serve its jobs.
type overflowForm struct {
	// how long a job of the rule must have waited: from 1m to 24h; a minute is enough while no node could serve the jobs, or Nomad takes no runners
	After durationForm `yaml:"after" required:"yes" example:"10m"`
	// its name, which exists on GitHub already
	Variable string `yaml:"variable" required:"yes" pattern:"^[A-Za-z_][A-Za-z0-9_]{0,99}$" example:"LINUX_RUNNER"`
	// whose variable it is; when left out, the repository's if it has one of this name, else its organization's, as for workflows
	Scope string `yaml:"scope" enum:"repository organization"`
	// its value meanwhile: JSON, a text or a list of texts
	To string `yaml:"to" required:"yes" pattern:"^\\s*[\"\\[]" example:"'\"ubuntu-latest\"'"`
	// its value otherwise, likewise
	Back string `yaml:"back" required:"yes" pattern:"^\\s*[\"\\[]" example:"'[\"self-hosted\",\"linux\"]'"`
}

// A placement: what Nomad is asked for. What is not set stays as the jobspec has it.
type placementForm struct{}

// A constraint: a node that does not satisfy it is not used. Short: `'${attr.cpu.arch} = arm64'`.
type constraintForm struct {
	_ shortForm `pattern:"^\\s*(\\$\\{|distinct_hosts)" example:"'${attr.cpu.arch} = arm64'"`
	// of the node, `${attr.NAME}`, `${meta.NAME}`, `${node.class}` and so on; of a device, `${device.attr.NAME}`, `${device.model}` and so on
	Attribute string `yaml:"attribute" empty:"yes" pattern:"^(\\$\\{|\\s*$)" example:"'${attr.cpu.arch}'"`
	// how they are compared; `=` when left out
	Operator operatorForm `yaml:"operator" example:"'='"`
	// what the attribute is compared with
	Value string `yaml:"value" open:"yes" empty:"yes" example:"arm64"`
}

// An affinity: nodes that satisfy it are preferred, or avoided.
type affinityForm struct {
	// of the node, as in a constraint
	Attribute string `yaml:"attribute" required:"yes" pattern:"^\\$\\{" example:"'${node.class}'"`
	// how they are compared, as in a constraint; `=` when left out
	Operator operatorForm `yaml:"operator" example:"'='"`
	// what the attribute is compared with
	Value string `yaml:"value" required:"yes" open:"yes" example:"spot"`
	// how much it counts; negative weights avoid such nodes, and 0 is refused
	Weight int `yaml:"weight" required:"yes" open:"yes" min:"-100" max:"100" example:"50"`
}

// A device: what the runner task needs besides CPU and memory. Short: `nvidia/gpu`, one of them.
type deviceForm struct {
	_ shortForm `example:"nvidia/gpu"`
	// type, vendor/type or vendor/type/model
	Name string `yaml:"name" required:"yes" open:"yes" example:"nvidia/gpu"`
	// how many; 1 when left out
	Count int `yaml:"count" open:"yes" min:"1" max:"128" example:"2"`
	// conditions on the device
	Constraints []constraintForm `yaml:"constraints" example:"['${device.attr.memory} >= 16GiB']"`
}

// Resources: the sizes of the runner task. A Nomad task has `cpu` or `cores`, not both.
type resourcesForm struct{}

// A max: the most a job can ask for. A job that asks for more gets no runner.
type maxForm struct{}

// A task: what is merged into the runner task of the jobspec, by name.
type taskForm struct{}

// A runner: how it registers on GitHub.
type runnerForm struct{}

// Debug: what becomes of the runner of a job that failed.
type debugForm struct{}

// A test: a job, and what must become of it.
type testForm struct {
	// what must be true, in a sentence; unique in the file
	Name string `yaml:"name" required:"yes" example:"a GPU job goes to a Linux node"`
	// the job's `runs-on`
	Labels []string `yaml:"labels" required:"yes" empty:"yes" example:"[self-hosted, linux, gpu]"`
	// the repository; a private one when it says nothing else
	Repo testRepoForm `yaml:"repo" example:"acme/web"`
	// the job
	Job testJobForm `yaml:"job" example:"{ branch: main }"`
	// the workflow run; not looked up when left out
	Run testRunForm `yaml:"run" example:"{ event: pull_request, fork: true }"`
	// parts of the decision, at least one
	Expect expectForm `yaml:"expect" required:"yes" example:"{ rule: linux, devices: [nvidia/gpu] }"`
}

// The repository of a test's job. Short: `owner/name`.
type testRepoForm struct {
	_ shortForm `pattern:"^[^/\\s]+/[^/\\s]+$" example:"acme/web"`
	// that of its GitHub; github.com when left out
	Host string `yaml:"host" pattern:"^[a-z0-9.-]+(:[0-9]+)?$" example:"github.example.com"`
	// organization or user
	Owner string `yaml:"owner" empty:"yes" example:"acme"`
	// without the owner
	Name string `yaml:"name" empty:"yes" example:"web"`
	// `owner/name`, in place of both
	FullName string `yaml:"full_name" example:"acme/web"`
	// true when left out
	Private bool `yaml:"private"`
	// private when left out, or public by `private: false`
	Visibility string `yaml:"visibility" enum:"private internal public"`
	// whether the repository itself is a fork
	Fork bool `yaml:"fork"`
}

// The job of a test, besides its labels.
type testJobForm struct {
	// the job's name in the run
	Name string `yaml:"name" empty:"yes" example:"build (ubuntu, 1.26)"`
	// the workflow's name
	Workflow string `yaml:"workflow" empty:"yes" example:"CI"`
	// the head branch
	Branch string `yaml:"branch" empty:"yes" example:"main"`
	// the run attempt; 1 when left out
	Attempt int `yaml:"attempt" min:"1" max:"2147483647" example:"1"`
	// login of whoever caused it
	Sender string `yaml:"sender" empty:"yes" example:"octocat"`
}

// The workflow run of a test's job.
type testRunForm struct {
	// what started the run
	Event string `yaml:"event" empty:"yes" example:"pull_request"`
	// whether the commit comes from another repository
	Fork bool `yaml:"fork"`
	// login of whoever started the run first
	Actor string `yaml:"actor" empty:"yes" example:"octocat"`
}

// What a test expects of the decision, written out.
type expectForm struct {
	// what becomes of the job; when left out, what follows from the rule, or routed for any part of a placement
	Outcome string `yaml:"outcome" enum:"routed ignored denied unroutable undecided"`
	// the rule that takes or denies the job
	Rule string `yaml:"rule" empty:"yes" example:"linux"`
	// a text that the reason contains
	Reason string `yaml:"reason" example:"unknown label"`
	// the labels that the rules see
	Labels listForm[string] `yaml:"labels" example:"[linux]"`
	//lint:ignore U1000 it is read by reflection
	expectPlacementForm
	// the limit that the job counts for
	Limit expectLimitForm `yaml:"limit" example:"{ running: 10 }"`
	// how urgent the job is
	Urgency int `yaml:"urgency" min:"0" max:"100" example:"10"`
	// how long the job may run; `0s` for no limit of its own
	TimeLimit durationForm `yaml:"time_limit" example:"6h"`
	// when the job is run again
	Rerun expectRerunForm `yaml:"rerun" example:"{ when: [node_lost], times: 1 }"`
	// fallbacks that there are among others
	Fallback []expectFallbackForm `yaml:"fallback" example:"[{ after: 5m, node_pool: on-demand }]"`
}

// A placement that a test expects, written as in a rule. An empty text or 0 is none; a device without a count stands for any number.
type expectPlacementForm struct{}

// Sizes that a test expects; 0 is none.
type expectResourcesForm struct{}

// How a test expects the runner to register.
type expectRunnerForm struct{}

// What a test expects of the runner of a job that failed.
type expectDebugForm struct{}

// The limit that a test expects.
type expectLimitForm struct {
	// how many jobs at once
	Running int `yaml:"running" min:"0" max:"2147483647" example:"10"`
	// what is counted by itself
	Per string `yaml:"per" empty:"yes" example:"owner"`
	// what the job is counted under
	Key string `yaml:"key" empty:"yes" example:"linux|acme"`
	// whose turn it is, `fair` or `priority`
	Order string `yaml:"order" empty:"yes" example:"priority"`
}

// The rerun that a test expects.
type expectRerunForm struct {
	// why it is run again
	When listForm[string] `yaml:"when" example:"[node_lost]"`
	// how often; 0: never
	Times int `yaml:"times" min:"0" max:"10" example:"1"`
}

// A fallback that a test expects.
type expectFallbackForm struct {
	// the `after` of the fallback that is meant
	After durationForm `yaml:"after" required:"yes" example:"5m"`
	// why it is left out for this job
	Reason string `yaml:"reason" empty:"yes" example:"exceeds the maximum"`
	//lint:ignore U1000 it is read by reflection
	expectPlacementForm
}

// A list that a test expects: what it contains, or a mapping that says more.
type listForm[T any] struct {
	// these, among others
	Contains []T `yaml:"contains" min:"1"`
	// these and no others; `[]` for none
	Exactly []T `yaml:"exactly"`
	// none of these
	Not []T `yaml:"not" min:"1"`
}

// Single values that are more than a Go type says, and the mark of a mapping
// that can be a text for short.
type (
	conditionForm string // an expression that is true or false
	operatorForm  string // a key of operators
	mhzForm       string // what parseMHz reads
	sizeForm      string // what ParseSize reads
	boundForm     string // a whole number or a size
	durationForm  string // what time.ParseDuration reads
	moneyForm     string // an amount with at most 6 digits after the point
	shortForm     struct{}
)

// formsOfTable are the forms whose fields are those of placementFields.
var formsOfTable = map[reflect.Type]func() []formField{
	reflect.TypeFor[placementForm]():       func() []formField { return tableFields(placementFields, "placementForm", inSection) },
	reflect.TypeFor[resourcesForm]():       func() []formField { return tableFields(at("resources").fields, "resourcesForm", inSection) },
	reflect.TypeFor[taskForm]():            func() []formField { return tableFields(at("task").fields, "taskForm", inSection) },
	reflect.TypeFor[runnerForm]():          func() []formField { return tableFields(at("runner").fields, "runnerForm", inSection) },
	reflect.TypeFor[maxForm]():             func() []formField { return tableFields(sizes, "maxForm", inMax) },
	reflect.TypeFor[expectPlacementForm](): func() []formField { return tableFields(placementFields, "expectPlacementForm", inExpect) },
	reflect.TypeFor[expectResourcesForm](): func() []formField { return tableFields(sizes, "expectResourcesForm", inExpect) },
	reflect.TypeFor[debugForm]():           func() []formField { return tableFields(at("debug").fields, "debugForm", inSection) },
	reflect.TypeFor[expectDebugForm]():     func() []formField { return tableFields(at("debug").fields, "expectDebugForm", inExpect) },
	reflect.TypeFor[expectRunnerForm]():    func() []formField { return tableFields(at("runner").fields, "expectRunnerForm", inExpect) },
}

// Where a field of the table stands.
const (
	inSection = iota
	inMax
	inExpect
)

// tableFields are fields of the table as fields of a form.
func tableFields(table []*field, of string, where int) (fields []formField) {
	for _, f := range table {
		if f.doc == "" || f.target && where != inExpect {
			continue
		}
		t, tag := tableValue(f, where)
		example := f.example
		if where == inMax {
			example = f.maxExample
		}
		if example != "" {
			tag += fmt.Sprintf(" example:%q", example)
		}
		fields = append(fields, formField{StructField: reflect.StructField{Name: f.key, Type: t, Tag: reflect.StructTag(tag)}, of: of, key: f.key, doc: f.doc})
	}
	return fields
}

// tableValue is the type and the tag of a field of the table.
func tableValue(f *field, where int) (reflect.Type, string) {
	open := ""
	if where == inSection {
		open = `open:"yes"`
	}
	bounds := fmt.Sprintf(`%s min:"%d" max:"%d"`, open, f.least, f.top)
	switch {
	case f.fields != nil && where == inExpect:
		return map[string]reflect.Type{"resources": reflect.TypeFor[expectResourcesForm](), "task": reflect.TypeFor[taskForm](), "runner": reflect.TypeFor[expectRunnerForm](), "debug": reflect.TypeFor[expectDebugForm]()}[f.key], ""
	case f.fields != nil:
		return map[string]reflect.Type{"resources": reflect.TypeFor[resourcesForm](), "task": reflect.TypeFor[taskForm](), "runner": reflect.TypeFor[runnerForm](), "debug": reflect.TypeFor[debugForm]()}[f.key], ""
	case f.list != nil:
		t := map[string][2]reflect.Type{
			"constraints": {reflect.TypeFor[[]constraintForm](), reflect.TypeFor[listForm[constraintForm]]()},
			"affinities":  {reflect.TypeFor[[]affinityForm](), reflect.TypeFor[listForm[affinityForm]]()},
			"devices":     {reflect.TypeFor[[]deviceForm](), reflect.TypeFor[listForm[deviceForm]]()},
			"datacenters": {reflect.TypeFor[[]string](), reflect.TypeFor[listForm[string]]()},
			"env":         {reflect.TypeFor[map[string]string](), nil},
			"config":      {reflect.TypeFor[map[string]any](), nil},
		}[f.key]
		if where == inExpect {
			return t[1], ""
		}
		return t[0], map[string]string{
			"datacenters": `open:"yes" min:"1"`, "env": `open:"yes" empty:"yes" pattern:"^[A-Za-z_][A-Za-z0-9_]*$"`, "config": `open:"yes"`,
		}[f.key]
	case f.kind == aMHz:
		return reflect.TypeFor[mhzForm](), open
	case f.kind == aMiB:
		return reflect.TypeFor[sizeForm](), open
	case f.kind == aWhole && where == inExpect:
		return reflect.TypeFor[int](), fmt.Sprintf(`min:"0" max:"%d"`, f.top)
	case f.kind == aWhole:
		return reflect.TypeFor[int](), bounds
	case where == inExpect:
		return reflect.TypeFor[string](), `empty:"yes"`
	case slices.Equal(f.words, []string{"false", "true"}):
		return reflect.TypeFor[bool](), open
	case f.words != nil:
		return reflect.TypeFor[string](), open + fmt.Sprintf(" enum:%q", strings.Join(f.words, " "))
	}
	return reflect.TypeFor[string](), open
}

// A formField is a field of a form.
type formField struct {
	reflect.StructField
	of  string // the type that declares it
	key string
	doc string // "": its comment
}

// comment is what the form says of the field.
func (f formField) comment(comments map[string]string) string {
	return cmp.Or(f.doc, comments[f.of+"."+f.Name])
}

// fieldsOf returns the fields of a form, and of the placement within it.
func fieldsOf(t reflect.Type) (fields []formField) {
	if of := formsOfTable[t]; of != nil {
		return of()
	}
	for f := range t.Fields() {
		if f.Anonymous {
			fields = append(fields, fieldsOf(f.Type)...)
		} else {
			fields = append(fields, formField{StructField: f, of: formName(t) + "Form", key: f.Tag.Get("yaml")})
		}
	}
	return fields
}
