package router

import "time"

// A UsageBy is what usage is counted by.
type UsageBy string

// What usage is counted by. A job counts for each of its labels.
const (
	ByRepo      UsageBy = "repo"
	ByOwner     UsageBy = "owner"
	ByRule      UsageBy = "rule"
	ByLabel     UsageBy = "label"
	ByNodeClass UsageBy = "node_class"
	ByWorkflow  UsageBy = "workflow"
)

// UsageBys are all of them.
var UsageBys = []UsageBy{ByRepo, ByOwner, ByRule, ByLabel, ByNodeClass, ByWorkflow}

// A UsageFilter selects jobs that ended, and runners that ended without a job.
type UsageFilter struct {
	By     UsageBy // required
	Within Scope

	From, Until time.Time // ended from From on and before Until; required
}

// A Used is a job that ended, or a runner that ended without a job, as far as usage
// depends on it. The times are those at which we heard of it.
type Used struct {
	Unused  bool   // it is a runner that had a node and no job; else a job
	Group   string // what it counts for; "": nothing is known, or see Asked for ByLabel and ByNodeClass
	EndedAt time.Time

	Queued  time.Duration // of a job: until a runner took it, or until it ended without one
	Started bool          // a runner took the job, and we heard when
	Held    time.Duration // how long the runner had the job; of an unused one, how long it had a node

	// Reserved: the runner was one of ours, for which Asked was reserved.
	Reserved bool

	// Asked is what the job asks for; nil: not read, as neither Reserved nor By needs it. It
	// must not be changed. Jobs of equal fit have the same, mostly.
	Asked *Asked
}

// An Asked is what the runner of a job reserves on its node.
type Asked struct {
	Labels    []string // of the job as the rules see them: in lower case, each once, compound ones expanded
	NodeClass string   // that its constraints name; "": none
	NodePool  string   // "": the jobspec's own
	MilliCPU  int64    // 1000: a reserved core, or 1000 MHz
	MemoryMB  int64    // MiB
	Devices   int64
	Own       bool // the runner brings its own registration, and any name on GitHub
	Unsized   bool // CPU, memory or both are the jobspec's own, which is not known here
}

// AskedBy returns what the runner of a job reserves by its decision.
func AskedBy(j Job) *Asked {
	if j.Decision == nil {
		return &Asked{Unsized: true, Labels: SeenLabels(j.Labels)}
	}
	return AskedOf(j.Placement(j.Decision), j.Decision.Labels)
}

// AskedOf returns what the runner of a job with a placement, and with these labels, reserves.
func AskedOf(p Placement, labels []string) *Asked {
	a := &Asked{Labels: labels}
	a.Own = p.Runner.Registration == "own"
	a.NodePool, a.MemoryMB, a.MilliCPU = p.NodePool, int64(p.Resources.MemoryMB), int64(p.Resources.CPU)
	if p.Resources.Cores > 0 {
		a.MilliCPU = 1000 * int64(p.Resources.Cores)
	}
	for _, d := range p.Devices {
		a.Devices += int64(d.Count)
	}
	a.NodeClass = nodeClass(p)
	a.Unsized = a.MilliCPU == 0 || a.MemoryMB == 0
	return a
}

// A NodeDemand is what runners that want a node or have one ask for together: those of equal
// region, node pool, class and cause.
type NodeDemand struct {
	Region    string // of Nomad; "": that of Switchyard's client
	NodePool  string // "": the jobspec's own
	NodeClass string // that a constraint names; "": none
	Cause     Cause  // why they have no node; CauseStarting: they have one

	Runners  int
	Cores    int64            // reserved
	CPU      int64            // MHz
	MemoryMB int64            // MiB
	Devices  map[string]int64 // by the name that the rules give them; nil: none
}

// NodeDemandOf returns what the runner of a job asks for by its decision, without a Cause. What is
// the jobspec's own is not known here, and is 0.
func NodeDemandOf(j Job) NodeDemand {
	if j.Decision == nil {
		return NodeDemand{Runners: 1}
	}
	p := j.Placement(j.Decision)
	d := NodeDemand{
		NodePool: p.NodePool, NodeClass: nodeClass(p), Runners: 1,
		Cores: int64(p.Resources.Cores), CPU: int64(p.Resources.CPU), MemoryMB: int64(p.Resources.MemoryMB),
	}
	for _, device := range p.Devices {
		d.addDevices(device.Name, int64(device.Count))
	}
	return d
}

// Add adds n times what other asks for.
func (d *NodeDemand) Add(other NodeDemand, n int) {
	d.Runners += n * other.Runners
	d.Cores += int64(n) * other.Cores
	d.CPU += int64(n) * other.CPU
	d.MemoryMB += int64(n) * other.MemoryMB
	for name, count := range other.Devices {
		d.addDevices(name, int64(n)*count)
	}
}

func (d *NodeDemand) addDevices(name string, n int64) {
	if d.Devices == nil {
		d.Devices = map[string]int64{}
	}
	d.Devices[name] += n
}

// nodeClass returns the node class that the constraints name; "": none.
func nodeClass(p Placement) (class string) {
	for _, c := range p.Constraints {
		if c.Attribute == "${node.class}" && c.Operator == "=" {
			class = c.Value
		}
	}
	return class
}
