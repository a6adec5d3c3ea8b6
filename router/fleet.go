package router

import "time"

// A Fleet is the nodes of Nomad, and which rules they could serve, at one time.
// Its JSON form is a contract, and so is that of its parts.
type Fleet struct {
	At      *time.Time    `json:"at"`      // when Nomad was asked; nil: it never answered, and all below is empty
	Problem *FleetProblem `json:"problem"` // why this is not newer; nil: Nomad answered
	Reading *FleetReading `json:"reading"` // of what is newer and not in this; nil: nothing is being read
	Nodes   []Node        `json:"nodes"`   // by region, pool and name
	More    int           `json:"more"`    // nodes that are left out because there are too many
	Groups  []NodeGroup   `json:"groups"`  // nodes of one region, platform, class and pool
	Rules   []RuleFleet   `json:"rules"`   // rules with a placement, in file order
}

// A FleetProblem says why the nodes of Nomad could not be read.
type FleetProblem struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"` // one line
}

// A FleetReading says how far the reading of Nomad's nodes is.
type FleetReading struct {
	Read  int `json:"read"`  // nodes that are known
	Nodes int `json:"nodes"` // all of them; 0: Nomad has not listed them yet
}

// A Node is a node of Nomad.
type Node struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Region     string       `json:"region,omitempty"` // of Nomad; "": that of Switchyard's Nomad client
	Pool       string       `json:"pool"`
	Datacenter string       `json:"datacenter"`
	Class      string       `json:"class"`   // "": none
	OS         string       `json:"os"`      // linux, darwin, windows: Nomad's kernel.name
	Arch       string       `json:"arch"`    // amd64, arm64: Nomad's cpu.arch
	State      string       `json:"state"`   // ready; or why nothing is placed on it: down, draining, ineligible, …
	Group      int          `json:"group"`   // index into Fleet.Groups
	Drivers    []string     `json:"drivers"` // names of the healthy ones, sorted
	Devices    []NodeDevice `json:"devices"`
	Total      NodeSize     `json:"total"`   // available to allocations
	Used       NodeSize     `json:"used"`    // of that, taken by allocations
	Running    int          `json:"running"` // allocations
}

// A NodeDevice is one model of device on a node.
type NodeDevice struct {
	Name  string `json:"name"`  // vendor/type/model
	Total int    `json:"total"` // healthy ones
	Used  int    `json:"used"`
}

// A NodeSize is an amount of the resources that allocations share.
type NodeSize struct {
	CPU      int `json:"cpu"`       // MHz
	Cores    int `json:"cores"`     // that can be reserved, or are reserved
	MemoryMB int `json:"memory_mb"` // MiB
	DiskMB   int `json:"disk_mb"`
}

// A NodeGroup is nodes of one region, platform, class and pool.
type NodeGroup struct {
	Region string   `json:"region,omitempty"` // as of Node
	OS     string   `json:"os"`
	Arch   string   `json:"arch"`
	Class  string   `json:"class"`
	Pool   string   `json:"pool"`
	Nodes  int      `json:"nodes"`
	Ready  int      `json:"ready"` // how many of them are in service
	Total  NodeSize `json:"total"` // of those in service
	Used   NodeSize `json:"used"`  // likewise
}

// A RuleFleet says which nodes could serve the simplest job of a rule, by its
// constraints, drivers, devices, host volumes and sizes. Nomad also considers other
// things, such as ports and storage plugins, and may refuse a node for them.
type RuleFleet struct {
	Rule    string   `json:"rule"`
	RunsOn  []string `json:"runs_on"` // the labels of that job
	Problem string   `json:"problem"` // why this is not known, and all counts are 0; "": it is known
	NodeCounts
	Cells []FleetCell `json:"cells"` // one for each of Fleet.Groups; empty with a problem
}

// NodeCounts counts nodes by whether they could serve a job. Each is counted once.
type NodeCounts struct {
	Now   int `json:"now"`   // have room for it
	Idle  int `json:"idle"`  // suit it, but are too full now
	Away  int `json:"away"`  // suit it, full or not, but are out of service
	Never int `json:"never"` // do not suit it
}

// A FleetCell says how many nodes of a group suit a rule.
type FleetCell struct {
	NodeCounts
	Why []FleetReason `json:"why"` // why nodes do not suit it now, most nodes first, at most three
}

// A FleetReason says why nodes do not suit a rule.
type FleetReason struct {
	Text  string `json:"text"` // such as "lacks ${attr.cpu.arch} = arm64 (label arm64)"
	Nodes int    `json:"nodes"`
}
